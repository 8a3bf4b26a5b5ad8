#include "isoline/network/graph.h"

#include <numeric>

namespace isoline {
namespace {

int64_t product(const Vec3<int>& v) {
  return int64_t(v[0]) * v[1] * v[2];
}

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;

const char* op_name(const Op& op) {
  constexpr const char* kNames[] = {"convolution", "transposed convolution", "instance norm",  "leaky ReLU",
                                    "add",         "concatenation",          "average pooling"};
  return kNames[op.index()];
}

int64_t op_parameters(const Op& op) {
  return std::visit(
      Overloaded{[](const ConvOp& o) { return int64_t(o.weight.size() + o.bias.size()); },
                 [](const ConvTransposeOp& o) { return int64_t(o.weight.size() + o.bias.size()); },
                 [](const InstanceNormOp& o) { return int64_t(o.gamma.size() + o.beta.size()); },
                 [](const auto&) { return int64_t(0); }},
      op);
}

}  // namespace

Vec3<int> NetworkGraph::patch_divisor() const {
  Vec3<int> out{1, 1, 1};
  for (const ValueDesc& v : values)
    for (size_t a = 0; a < 3; ++a) out[a] = std::lcm(out[a], v.downscale[a]);
  return out;
}

int64_t NetworkGraph::macs(const Shape3& patch) const {
  int64_t total = 0;
  const auto voxels_of = [&](ValueId id) {
    const Vec3<int>& d = values[size_t(id)].downscale;
    return (patch[0] / d[0]) * (patch[1] / d[1]) * (patch[2] / d[2]);
  };
  for (const Op& op : ops) {
    if (const auto* conv = std::get_if<ConvOp>(&op))
      total += voxels_of(conv->out) * int64_t(conv->weight.size());
    // Every input voxel meets every weight once, as kernel and stride are equal.
    if (const auto* up = std::get_if<ConvTransposeOp>(&op))
      total += voxels_of(up->in) * int64_t(up->weight.size());
  }
  return total;
}

int64_t NetworkGraph::parameters() const {
  int64_t total = 0;
  for (const Op& op : ops) total += op_parameters(op);
  return total;
}

Status validate(const NetworkGraph& graph) {
  const size_t n = graph.values.size();
  const auto bad = [](const std::string& where, const std::string& what) {
    return Error{ErrorCode::kInvalidArgument, what, where, ""};
  };
  if (graph.spatial_dims != 2 && graph.spatial_dims != 3)
    return bad("graph", "spatial_dims is neither 2 nor 3");
  if (n == 0) return bad("graph", "there is no input value");
  for (size_t i = 0; i < n; ++i) {
    const ValueDesc& v = graph.values[i];
    if (v.channels < 1 || v.downscale[0] < 1 || v.downscale[1] < 1 || v.downscale[2] < 1)
      return bad("value " + std::to_string(i), "has no channels or no extent");
  }
  if (graph.values[0].downscale != Vec3<int>{1, 1, 1})
    return bad("value 0", "the input is not at full resolution");
  std::vector<bool> written(n, false);
  written[0] = true;
  const auto readable = [&](ValueId id) { return id >= 0 && size_t(id) < n && written[size_t(id)]; };
  const auto desc = [&](ValueId id) -> const ValueDesc& { return graph.values[size_t(id)]; };
  const auto positive = [](const Vec3<int>& v) { return v[0] > 0 && v[1] > 0 && v[2] > 0; };
  // fine * stride == coarse, without overflow
  const auto scaled = [](const Vec3<int>& fine, const Vec3<int>& stride, const Vec3<int>& coarse) {
    for (size_t a = 0; a < 3; ++a)
      if (int64_t(fine[a]) * stride[a] != coarse[a]) return false;
    return true;
  };

  for (size_t i = 0; i < graph.ops.size(); ++i) {
    const Op& op = graph.ops[i];
    const std::string where = "op " + std::to_string(i) + " (" + op_name(op) + ")";
    ValueId out = 0;
    bool inputs_ok = true;
    std::visit(
        [&](const auto& o) {
          out = o.out;
          if constexpr (requires { o.in; })
            inputs_ok = readable(o.in);
          else
            inputs_ok = readable(o.a) && readable(o.b);
        },
        op);
    if (!inputs_ok) return bad(where, "reads a value that does not exist or is not written yet");
    if (out < 0 || size_t(out) >= n) return bad(where, "writes a value that does not exist");
    if (written[size_t(out)]) return bad(where, "writes value " + std::to_string(out) + " a second time");
    const ValueDesc& to = desc(out);
    const char* wrong = std::visit(
        Overloaded{[&](const ConvOp& o) -> const char* {
                     const ValueDesc& from = desc(o.in);
                     if (!positive(o.kernel) || !positive(o.stride)) return "has a kernel or stride below 1";
                     for (int k : o.kernel)
                       if (k % 2 == 0) return "has an even kernel size";
                     if (graph.spatial_dims == 2 && (o.kernel[0] != 1 || o.stride[0] != 1))
                       return "reaches along z in 2-D";
                     if (!scaled(from.downscale, o.stride, to.downscale))
                       return "output resolution does not fit the stride";
                     if (int64_t(o.weight.size()) != int64_t(to.channels) * from.channels * product(o.kernel))
                       return "has the wrong number of weights";
                     if (!o.bias.empty() && o.bias.size() != size_t(to.channels))
                       return "has the wrong number of biases";
                     return nullptr;
                   },
                   [&](const ConvTransposeOp& o) -> const char* {
                     const ValueDesc& from = desc(o.in);
                     if (!positive(o.stride)) return "has a stride below 1";
                     if (graph.spatial_dims == 2 && o.stride[0] != 1) return "reaches along z in 2-D";
                     if (!scaled(to.downscale, o.stride, from.downscale))
                       return "output resolution does not fit the stride";
                     if (int64_t(o.weight.size()) != int64_t(to.channels) * from.channels * product(o.stride))
                       return "has the wrong number of weights";
                     if (!o.bias.empty() && o.bias.size() != size_t(to.channels))
                       return "has the wrong number of biases";
                     return nullptr;
                   },
                   [&](const InstanceNormOp& o) -> const char* {
                     const ValueDesc& from = desc(o.in);
                     if (from.channels != to.channels || from.downscale != to.downscale)
                       return "changes shape";
                     if (!(o.eps >= 0)) return "has a negative eps";
                     if (o.gamma.size() != size_t(to.channels) || o.beta.size() != size_t(to.channels))
                       return "has the wrong number of weights";
                     return nullptr;
                   },
                   [&](const LeakyReluOp& o) -> const char* {
                     const ValueDesc& from = desc(o.in);
                     return from.channels != to.channels || from.downscale != to.downscale ? "changes shape"
                                                                                           : nullptr;
                   },
                   [&](const AddOp& o) -> const char* {
                     for (ValueId in : {o.a, o.b})
                       if (desc(in).channels != to.channels || desc(in).downscale != to.downscale)
                         return "adds values of different shapes";
                     return nullptr;
                   },
                   [&](const ConcatOp& o) -> const char* {
                     if (desc(o.a).downscale != to.downscale || desc(o.b).downscale != to.downscale)
                       return "joins values of different resolutions";
                     if (int64_t(desc(o.a).channels) + desc(o.b).channels != to.channels)
                       return "has the wrong number of output channels";
                     return nullptr;
                   },
                   [&](const AvgPoolOp& o) -> const char* {
                     const ValueDesc& from = desc(o.in);
                     if (!positive(o.stride)) return "has a stride below 1";
                     if (from.channels != to.channels) return "changes the number of channels";
                     if (!scaled(from.downscale, o.stride, to.downscale))
                       return "output resolution does not fit the stride";
                     return nullptr;
                   }},
        op);
    if (wrong) return bad(where, wrong);
    written[size_t(out)] = true;
  }
  for (size_t i = 0; i < n; ++i)
    if (!written[i]) return bad("value " + std::to_string(i), "is never written");
  if (graph.output < 0 || size_t(graph.output) >= n) return bad("graph", "the output value does not exist");
  if (graph.values[size_t(graph.output)].downscale != Vec3<int>{1, 1, 1})
    return bad("graph", "the output is not at full resolution");
  return {};
}

}  // namespace isoline
