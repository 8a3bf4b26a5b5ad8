#include "isoline/network/build_network.h"

#include <cstdint>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "isoline/model/printable.h"

namespace isoline {
namespace {

constexpr int64_t kMaxParameters = int64_t(1) << 30;

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + "]";
}

class Builder {
 public:
  Builder(const ArchitectureSpec& spec, const Weights& weights) : spec_(spec), weights_(weights) {
    graph_.spatial_dims = spec.spatial_dims;
  }

  Result<NetworkGraph> run(int in_channels, int heads) {
    graph_.values.push_back({in_channels, {1, 1, 1}});
    ValueId x = 0;
    const bool residual = spec_.kind == ArchitectureKind::kResidualEncoderUNet;
    if (residual) {
      const int stem = spec_.stem_channels ? spec_.stem_channels : spec_.features[0];
      ISOLINE_ASSIGN(x, conv_block("encoder.stem.convs.0", x, stem, spec_.kernel_sizes[0], ones(), true));
    }
    const size_t stages = spec_.features.size();
    std::vector<ValueId> skips;
    for (size_t s = 0; s < stages; ++s) {
      const std::string stage = "encoder.stages." + std::to_string(s);
      for (int b = 0; b < spec_.blocks_per_stage[s]; ++b) {
        const std::vector<int> stride = b == 0 ? spec_.strides[s] : ones();
        if (residual) {
          ISOLINE_ASSIGN(x, residual_block(stage + ".blocks." + std::to_string(b), x, spec_.features[s],
                                           spec_.kernel_sizes[s], stride));
        } else {
          ISOLINE_ASSIGN(x, conv_block(stage + ".0.convs." + std::to_string(b), x, spec_.features[s],
                                       spec_.kernel_sizes[s], stride, true));
        }
      }
      skips.push_back(x);
    }
    for (size_t d = 0; d + 1 < stages; ++d) {  // lowest resolution first
      const size_t level = stages - 2 - d;     // of the skip it joins
      const std::string n = std::to_string(d);
      ISOLINE_ASSIGN(const ValueId up, conv_transpose("decoder.transpconvs." + n, x, spec_.features[level],
                                                      spec_.strides[level + 1]));
      x = add_value(2 * spec_.features[level], value(up).downscale);
      graph_.ops.push_back(ConcatOp{up, skips[level], x});
      for (int c = 0; c < spec_.decoder_convs_per_stage[d]; ++c) {
        ISOLINE_ASSIGN(x, conv_block("decoder.stages." + n + ".convs." + std::to_string(c), x,
                                     spec_.features[level], spec_.kernel_sizes[level], ones(), true));
      }
    }
    const std::string head = "decoder.seg_layers." + std::to_string(stages - 2);
    ISOLINE_ASSIGN(graph_.output, conv(head, x, heads, ones(), ones(), true));
    ISOLINE_RETURN_IF_ERROR(check_nothing_left(stages));
    ISOLINE_RETURN_IF_ERROR(validate(graph_));
    return std::move(graph_);
  }

 private:
  std::vector<int> ones() const { return std::vector<int>(size_t(spec_.spatial_dims), 1); }
  // 2-D lists become [1, y, x].
  Vec3<int> to_3d(const std::vector<int>& v) const {
    return v.size() == 3 ? Vec3<int>{v[0], v[1], v[2]} : Vec3<int>{1, v[0], v[1]};
  }
  const ValueDesc& value(ValueId id) const { return graph_.values[size_t(id)]; }
  ValueId add_value(int channels, const Vec3<int>& downscale) {
    graph_.values.push_back({channels, downscale});
    return ValueId(graph_.values.size() - 1);
  }

  Result<std::vector<float>> tensor(const std::string& name, const std::vector<int64_t>& shape) {
    const auto it = weights_.tensors.find(name);
    if (it == weights_.tensors.end())
      return Error{ErrorCode::kCorrupt, "the checkpoint lacks this tensor", name,
                   "plans.json and the checkpoint must come from the same training"};
    if (it->second.shape != shape)
      return Error{
          ErrorCode::kCorrupt,
          "the tensor has shape " + shape_text(it->second.shape) + ", plans.json says " + shape_text(shape),
          name, "plans.json and the checkpoint must come from the same training"};
    parameters_ += it->second.elements();
    if (parameters_ > kMaxParameters)
      return Error{ErrorCode::kResourceExhausted,
                   "the network has more than " + std::to_string(kMaxParameters) + " parameters", name, ""};
    used_.insert(name);
    ISOLINE_RETURN_IF_ERROR(claim(it->second, name));
    return it->second.to_float();
  }
  // Each byte of the file may serve one tensor only, so that a small file cannot describe a huge network.
  Status claim(const TensorView& view, const std::string& name) {
    constexpr int kItemBytes[] = {4, 2, 2, 8};
    const auto begin = reinterpret_cast<uintptr_t>(view.data);
    const uintptr_t end = begin + uintptr_t(view.elements()) * uintptr_t(kItemBytes[int(view.type)]);
    const auto next = claimed_.lower_bound(begin);
    if ((next != claimed_.end() && next->first < end) ||
        (next != claimed_.begin() && std::prev(next)->second > begin))
      return Error{ErrorCode::kCorrupt, "the tensor shares memory with another", name, ""};
    claimed_.emplace(begin, end);
    return {};
  }
  std::vector<int64_t> weight_shape(int64_t first, int64_t second, const std::vector<int>& spatial) const {
    std::vector<int64_t> shape{first, second};
    shape.insert(shape.end(), spatial.begin(), spatial.end());
    return shape;
  }

  Result<ValueId> conv(const std::string& name, ValueId in, int out_channels, const std::vector<int>& kernel,
                       const std::vector<int>& stride, bool bias) {
    ConvOp op;
    op.in = in;
    op.kernel = to_3d(kernel);
    op.stride = to_3d(stride);
    ISOLINE_ASSIGN(op.weight,
                   tensor(name + ".weight", weight_shape(out_channels, value(in).channels, kernel)));
    if (bias) {
      ISOLINE_ASSIGN(op.bias, tensor(name + ".bias", {out_channels}));
    }
    Vec3<int> downscale = value(in).downscale;
    for (size_t a = 0; a < 3; ++a) downscale[a] *= op.stride[a];
    op.out = add_value(out_channels, downscale);
    const ValueId out = op.out;
    graph_.ops.push_back(std::move(op));
    return out;
  }

  Result<ValueId> conv_transpose(const std::string& name, ValueId in, int out_channels,
                                 const std::vector<int>& stride) {
    ConvTransposeOp op;
    op.in = in;
    op.stride = to_3d(stride);
    ISOLINE_ASSIGN(op.weight,
                   tensor(name + ".weight", weight_shape(value(in).channels, out_channels, stride)));
    if (spec_.conv_bias) {
      ISOLINE_ASSIGN(op.bias, tensor(name + ".bias", {out_channels}));
    }
    Vec3<int> downscale = value(in).downscale;
    for (size_t a = 0; a < 3; ++a) downscale[a] /= op.stride[a];
    op.out = add_value(out_channels, downscale);
    const ValueId out = op.out;
    graph_.ops.push_back(std::move(op));
    return out;
  }

  Result<ValueId> norm(const std::string& name, ValueId in) {
    if (spec_.norm == NormOp::kNone) return in;
    const int channels = value(in).channels;
    InstanceNormOp op;
    op.in = in;
    op.eps = float(spec_.norm_eps);
    if (spec_.norm_affine) {
      ISOLINE_ASSIGN(op.gamma, tensor(name + ".weight", {channels}));
      ISOLINE_ASSIGN(op.beta, tensor(name + ".bias", {channels}));
    } else {
      op.gamma.assign(size_t(channels), 1.0f);
      op.beta.assign(size_t(channels), 0.0f);
    }
    op.out = add_value(channels, value(in).downscale);
    const ValueId out = op.out;
    graph_.ops.push_back(std::move(op));
    return out;
  }

  ValueId nonlinearity(ValueId in) {
    LeakyReluOp op;
    op.in = in;
    op.slope = spec_.nonlinearity == Nonlinearity::kRelu ? 0.0f : float(spec_.negative_slope);
    op.out = add_value(value(in).channels, value(in).downscale);
    graph_.ops.push_back(op);
    return op.out;
  }

  // ConvDropoutNormReLU: convolution, normalization and, if `activate`, the nonlinearity.
  Result<ValueId> conv_block(const std::string& name, ValueId in, int out_channels,
                             const std::vector<int>& kernel, const std::vector<int>& stride, bool activate) {
    ISOLINE_ASSIGN(ValueId x, conv(name + ".conv", in, out_channels, kernel, stride, spec_.conv_bias));
    ISOLINE_ASSIGN(x, norm(name + ".norm", x));
    return activate ? nonlinearity(x) : x;
  }

  // BasicBlockD: conv1 (strided), conv2 without nonlinearity; the skip is pooled if strided, then projected
  // by a 1x1 convolution without bias if the number of channels changes.
  Result<ValueId> residual_block(const std::string& name, ValueId in, int out_channels,
                                 const std::vector<int>& kernel, const std::vector<int>& stride) {
    ISOLINE_ASSIGN(ValueId x, conv_block(name + ".conv1", in, out_channels, kernel, stride, true));
    ISOLINE_ASSIGN(x, conv_block(name + ".conv2", x, out_channels, kernel, ones(), false));
    ValueId skip = in;
    const bool strided = stride != ones();
    if (strided) {
      AvgPoolOp op;
      op.in = in;
      op.stride = to_3d(stride);
      op.out = skip = add_value(value(in).channels, value(x).downscale);
      graph_.ops.push_back(op);
    }
    if (value(in).channels != out_channels) {
      const std::string projection = name + (strided ? ".skip.1" : ".skip.0");
      ISOLINE_ASSIGN(skip, conv(projection + ".conv", skip, out_channels, ones(), ones(), false));
      ISOLINE_ASSIGN(skip, norm(projection + ".norm", skip));
    }
    const ValueId sum = add_value(out_channels, value(x).downscale);
    graph_.ops.push_back(AddOp{x, skip, sum});
    return nonlinearity(sum);
  }

  // A tensor nobody asked for means that the checkpoint holds another network than plans.json describes.
  Status check_nothing_left(size_t stages) const {
    for (const auto& [name, view] : weights_.tensors) {
      if (used_.count(name) || name.starts_with("decoder.encoder.") ||
          name.find(".all_modules.") != std::string::npos)
        continue;
      bool unused_head = false;
      for (size_t s = 0; s + 2 < stages; ++s)
        unused_head |= name.starts_with("decoder.seg_layers." + std::to_string(s) + ".");
      if (!unused_head)
        return Error{ErrorCode::kCorrupt, "the network that plans.json describes has no such tensor",
                     printable(name), "plans.json and the checkpoint must come from the same training"};
    }
    return {};
  }

  const ArchitectureSpec& spec_;
  const Weights& weights_;
  NetworkGraph graph_;
  std::set<std::string> used_;
  std::map<uintptr_t, uintptr_t> claimed_;  // begin -> end of the bytes of used tensors
  int64_t parameters_ = 0;
};

Status check(const ArchitectureSpec& spec, int in_channels, int heads) {
  const auto bad = [](const char* what) {
    return Error{ErrorCode::kInvalidArgument, std::string("the architecture has an inconsistent ") + what, "",
                 ""};
  };
  const size_t stages = spec.features.size(), dims = size_t(spec.spatial_dims);
  if (dims != 2 && dims != 3) return bad("spatial_dims");
  if (in_channels < 1 || in_channels > 1 << 20 || heads < 1 || heads > 1 << 20)
    return bad("number of channels");
  if (stages < 2 || stages > 16 || spec.kernel_sizes.size() != stages || spec.strides.size() != stages ||
      spec.blocks_per_stage.size() != stages || spec.decoder_convs_per_stage.size() != stages - 1)
    return bad("number of stages");
  int64_t downscale[3] = {1, 1, 1};
  for (size_t s = 0; s < stages; ++s) {
    if (spec.features[s] < 1 || spec.features[s] > 1 << 20) return bad("number of features");
    if (spec.blocks_per_stage[s] < 1) return bad("number of blocks");
    if (spec.kernel_sizes[s].size() != dims || spec.strides[s].size() != dims)
      return bad("number of dimensions");
    for (size_t a = 0; a < dims; ++a) {
      if (spec.kernel_sizes[s][a] < 1 || spec.kernel_sizes[s][a] % 2 == 0) return bad("kernel size");
      if (spec.strides[s][a] < 1 || (s == 0 && spec.strides[s][a] != 1)) return bad("stride");
      downscale[a] *= spec.strides[s][a];
      if (downscale[a] > 1 << 20) return bad("stride");
    }
  }
  for (int n : spec.decoder_convs_per_stage)
    if (n < 1) return bad("number of decoder convolutions");
  if (spec.stem_channels < 0 || spec.stem_channels > 1 << 20) return bad("number of stem channels");
  return {};
}

}  // namespace

Result<NetworkGraph> build_network(const ArchitectureSpec& spec, int in_channels, int heads,
                                   const Weights& weights) {
  ISOLINE_RETURN_IF_ERROR(check(spec, in_channels, heads));
  return Builder(spec, weights).run(in_channels, heads);
}

}  // namespace isoline
