#include "isoline/backends/reference/reference_backend.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "isoline/base/parallel.h"

namespace isoline {
namespace {

struct Tensor {
  int64_t channels = 0;
  Shape3 shape{0, 0, 0};
  std::vector<float> data;  // [c, z, y, x]
  float* channel(int64_t c) { return data.data() + c * voxels(shape); }
  const float* channel(int64_t c) const { return data.data() + c * voxels(shape); }
};

class ReferenceSession : public Session {
 public:
  ReferenceSession(const NetworkGraph& graph, const SessionOptions& options)
      : graph_(graph), options_(options), pool_(options.threads) {
    last_use_.assign(graph.values.size(), -1);
    for (size_t i = 0; i < graph.ops.size(); ++i)
      std::visit([&](const auto& op) { mark(op, int(i)); }, graph.ops[i]);
    last_use_[size_t(graph.output)] = int(graph.ops.size());
  }

  Status run(const float* in, float* out) override {
    const int64_t in_size = graph_.input_channels() * voxels(options_.patch);
    const int64_t out_size = graph_.output_channels() * voxels(options_.patch);
    for (int b = 0; b < options_.batch; ++b) {
      std::vector<Tensor> values(graph_.values.size());
      for (size_t v = 0; v < values.size(); ++v) {
        values[v].channels = graph_.values[v].channels;
        for (size_t a = 0; a < 3; ++a) values[v].shape[a] = options_.patch[a] / graph_.values[v].downscale[a];
      }
      values[0].data.assign(in + b * in_size, in + (b + 1) * in_size);
      for (size_t i = 0; i < graph_.ops.size(); ++i) {
        std::visit([&](const auto& op) { execute(op, values); }, graph_.ops[i]);
        for (size_t v = 0; v < values.size(); ++v)
          if (last_use_[v] == int(i)) std::vector<float>().swap(values[v].data);
      }
      const std::vector<float>& result = values[size_t(graph_.output)].data;
      std::memcpy(out + b * out_size, result.data(), result.size() * sizeof(float));
    }
    return {};
  }

  std::string description() const override {
    return "reference CPU, fp32, " + std::to_string(pool_.threads()) + " threads";
  }

 private:
  template <class OpT>
  void mark(const OpT& op, int i) {
    if constexpr (requires { op.in; })
      last_use_[size_t(op.in)] = i;
    else
      last_use_[size_t(op.a)] = last_use_[size_t(op.b)] = i;
  }
  Tensor& prepare(std::vector<Tensor>& values, ValueId id) {
    Tensor& t = values[size_t(id)];
    t.data.resize(size_t(t.channels * voxels(t.shape)));
    return t;
  }
  void per_channel(int64_t channels, const std::function<void(int64_t)>& body) {
    pool_.for_each(channels, 1, [&](int64_t b, int64_t e) {
      for (int64_t c = b; c < e; ++c) body(c);
    });
  }

  void execute(const ConvOp& op, std::vector<Tensor>& values) {
    const Tensor& in = values[size_t(op.in)];
    Tensor& out = prepare(values, op.out);
    const Vec3<int> k = op.kernel;
    per_channel(out.channels, [&](int64_t o) {
      float* to = out.channel(o);
      for (int64_t z = 0; z < out.shape[0]; ++z)
        for (int64_t y = 0; y < out.shape[1]; ++y)
          for (int64_t x = 0; x < out.shape[2]; ++x) {
            double sum = op.bias.empty() ? 0.0 : double(op.bias[size_t(o)]);
            for (int64_t i = 0; i < in.channels; ++i) {
              const float* from = in.channel(i);
              const float* w = op.weight.data() + (o * in.channels + i) * k[0] * k[1] * k[2];
              for (int kz = 0; kz < k[0]; ++kz)
                for (int ky = 0; ky < k[1]; ++ky)
                  for (int kx = 0; kx < k[2]; ++kx) {
                    const int64_t iz = z * op.stride[0] + kz - (k[0] - 1) / 2;
                    const int64_t iy = y * op.stride[1] + ky - (k[1] - 1) / 2;
                    const int64_t ix = x * op.stride[2] + kx - (k[2] - 1) / 2;
                    if (iz < 0 || iz >= in.shape[0] || iy < 0 || iy >= in.shape[1] || ix < 0 ||
                        ix >= in.shape[2])
                      continue;
                    sum += double(w[(kz * k[1] + ky) * k[2] + kx]) *
                           double(from[(iz * in.shape[1] + iy) * in.shape[2] + ix]);
                  }
            }
            *to++ = float(sum);
          }
    });
  }

  void execute(const ConvTransposeOp& op, std::vector<Tensor>& values) {
    const Tensor& in = values[size_t(op.in)];
    Tensor& out = prepare(values, op.out);
    const Vec3<int> s = op.stride;
    per_channel(out.channels, [&](int64_t o) {
      float* to = out.channel(o);
      for (int64_t z = 0; z < out.shape[0]; ++z)
        for (int64_t y = 0; y < out.shape[1]; ++y)
          for (int64_t x = 0; x < out.shape[2]; ++x) {
            double sum = op.bias.empty() ? 0.0 : double(op.bias[size_t(o)]);
            const int64_t tap = (z % s[0] * s[1] + y % s[1]) * s[2] + x % s[2];
            const int64_t at = (z / s[0] * in.shape[1] + y / s[1]) * in.shape[2] + x / s[2];
            for (int64_t i = 0; i < in.channels; ++i)
              sum += double(op.weight[size_t((i * out.channels + o) * s[0] * s[1] * s[2] + tap)]) *
                     double(in.channel(i)[at]);
            *to++ = float(sum);
          }
    });
  }

  void execute(const InstanceNormOp& op, std::vector<Tensor>& values) {
    const Tensor& in = values[size_t(op.in)];
    Tensor& out = prepare(values, op.out);
    const int64_t n = voxels(in.shape);
    per_channel(in.channels, [&](int64_t c) {
      const float* from = in.channel(c);
      double mean = 0, variance = 0;
      for (int64_t i = 0; i < n; ++i) mean += double(from[i]);
      mean /= double(n);
      for (int64_t i = 0; i < n; ++i) variance += (double(from[i]) - mean) * (double(from[i]) - mean);
      variance /= double(n);
      const double scale = double(op.gamma[size_t(c)]) / std::sqrt(variance + double(op.eps));
      for (int64_t i = 0; i < n; ++i)
        out.channel(c)[i] = float((double(from[i]) - mean) * scale + double(op.beta[size_t(c)]));
    });
  }

  void execute(const LeakyReluOp& op, std::vector<Tensor>& values) {
    const Tensor& in = values[size_t(op.in)];
    Tensor& out = prepare(values, op.out);
    for (size_t i = 0; i < in.data.size(); ++i)
      out.data[i] = in.data[i] > 0 ? in.data[i] : op.slope * in.data[i];
  }

  void execute(const AddOp& op, std::vector<Tensor>& values) {
    Tensor& out = prepare(values, op.out);
    for (size_t i = 0; i < out.data.size(); ++i)
      out.data[i] = values[size_t(op.a)].data[i] + values[size_t(op.b)].data[i];
  }

  void execute(const ConcatOp& op, std::vector<Tensor>& values) {
    Tensor& out = prepare(values, op.out);
    const auto &a = values[size_t(op.a)].data, &b = values[size_t(op.b)].data;
    std::copy(a.begin(), a.end(), out.data.begin());
    std::copy(b.begin(), b.end(), out.data.begin() + int64_t(a.size()));
  }

  void execute(const AvgPoolOp& op, std::vector<Tensor>& values) {
    const Tensor& in = values[size_t(op.in)];
    Tensor& out = prepare(values, op.out);
    const Vec3<int> s = op.stride;
    per_channel(out.channels, [&](int64_t c) {
      float* to = out.channel(c);
      for (int64_t z = 0; z < out.shape[0]; ++z)
        for (int64_t y = 0; y < out.shape[1]; ++y)
          for (int64_t x = 0; x < out.shape[2]; ++x) {
            double sum = 0;
            for (int kz = 0; kz < s[0]; ++kz)
              for (int ky = 0; ky < s[1]; ++ky)
                for (int kx = 0; kx < s[2]; ++kx)
                  sum += double(in.channel(
                      c)[((z * s[0] + kz) * in.shape[1] + y * s[1] + ky) * in.shape[2] + x * s[2] + kx]);
            *to++ = float(sum / double(s[0] * s[1] * s[2]));
          }
    });
  }

  NetworkGraph graph_;
  SessionOptions options_;
  ThreadPool pool_;
  std::vector<int> last_use_;
};

class ReferenceBackend : public Backend {
 public:
  std::string name() const override { return "reference"; }
  std::string device_description() const override { return "CPU, plain C++, fp32"; }
  Status supports(const NetworkGraph& graph, const SessionOptions& options) const override {
    if (options.precision != Precision::kFloat32)
      return Error{ErrorCode::kUnsupported, "the reference backend runs fp32 only", "--precision",
                   "Use fp32."};
    ISOLINE_RETURN_IF_ERROR(validate(graph));
    const Vec3<int> d = graph.patch_divisor();
    for (size_t a = 0; a < 3; ++a)
      if (options.patch[a] < 1 || options.patch[a] % d[a])
        return Error{ErrorCode::kInvalidArgument, "patch " + to_string(options.patch) + " does not divide",
                     "patch_size", "Use multiples of the network's total stride."};
    return {};
  }
  Result<std::unique_ptr<Session>> create(const NetworkGraph& graph,
                                          const SessionOptions& options) const override {
    ISOLINE_RETURN_IF_ERROR(supports(graph, options));
    return std::unique_ptr<Session>(std::make_unique<ReferenceSession>(graph, options));
  }
};

}  // namespace

std::unique_ptr<Backend> make_reference_backend() {
  return std::make_unique<ReferenceBackend>();
}

}  // namespace isoline
