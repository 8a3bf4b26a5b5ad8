// One contract for all backends: random small networks against the reference backend, in every precision.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "isoline/backends/registry/registry.h"
#include "isoline/base/buffer.h"

namespace isoline {
namespace {

// Builds graphs operation by operation, with random weights scaled to keep values near one.
class Builder {
 public:
  Builder(int spatial_dims, int channels, uint32_t seed) : rng_(seed) {
    graph.spatial_dims = spatial_dims;
    graph.values.push_back({channels, {1, 1, 1}});
  }
  NetworkGraph graph;

  ValueId conv(ValueId in, int out_channels, Vec3<int> kernel, Vec3<int> stride, bool bias) {
    ConvOp op{in, add(out_channels, scaled(in, stride)), kernel, stride, {}, {}};
    const int fan = channels(in) * kernel[0] * kernel[1] * kernel[2];
    op.weight = random(size_t(out_channels * fan), float(std::sqrt(2.0 / fan)));
    if (bias) op.bias = random(size_t(out_channels), 0.1f);
    graph.ops.push_back(op);
    return op.out;
  }
  ValueId norm_relu(ValueId in, float slope) {
    InstanceNormOp n{in, add(channels(in), graph.values[size_t(in)].downscale), 1e-5f,
                     random(size_t(channels(in)), 0.3f), random(size_t(channels(in)), 0.2f)};
    for (float& g : n.gamma) g += 1;
    graph.ops.push_back(n);
    return relu(n.out, slope);
  }
  ValueId relu(ValueId in, float slope) {
    LeakyReluOp r{in, add(channels(in), graph.values[size_t(in)].downscale), slope};
    graph.ops.push_back(r);
    return r.out;
  }
  ValueId up(ValueId in, int out_channels, Vec3<int> stride, bool bias) {
    Vec3<int> d = graph.values[size_t(in)].downscale;
    for (size_t a = 0; a < 3; ++a) d[a] /= stride[a];
    ConvTransposeOp op{in, add(out_channels, d), stride, {}, {}};
    op.weight = random(size_t(channels(in) * out_channels * stride[0] * stride[1] * stride[2]),
                       float(std::sqrt(1.0 / channels(in))));
    if (bias) op.bias = random(size_t(out_channels), 0.1f);
    graph.ops.push_back(op);
    return op.out;
  }
  ValueId concat(ValueId a, ValueId b) {
    ConcatOp op{a, b, add(channels(a) + channels(b), graph.values[size_t(a)].downscale)};
    graph.ops.push_back(op);
    return op.out;
  }
  ValueId sum(ValueId a, ValueId b) {
    AddOp op{a, b, add(channels(a), graph.values[size_t(a)].downscale)};
    graph.ops.push_back(op);
    return op.out;
  }
  ValueId pool(ValueId in, Vec3<int> stride) {
    AvgPoolOp op{in, add(channels(in), scaled(in, stride)), stride};
    graph.ops.push_back(op);
    return op.out;
  }

 private:
  int channels(ValueId v) const { return graph.values[size_t(v)].channels; }
  Vec3<int> scaled(ValueId v, Vec3<int> by) const {
    Vec3<int> d = graph.values[size_t(v)].downscale;
    for (size_t a = 0; a < 3; ++a) d[a] *= by[a];
    return d;
  }
  ValueId add(int channels, Vec3<int> downscale) {
    graph.values.push_back({channels, downscale});
    return ValueId(graph.values.size()) - 1;
  }
  std::vector<float> random(size_t n, float scale) {
    std::normal_distribution<float> d(0, scale);
    std::vector<float> v(n);
    for (float& x : v) x = d(rng_);
    return v;
  }
  std::mt19937 rng_;
};

struct Network {
  std::string name;
  NetworkGraph graph;
  Shape3 patch;
};

// Shapes of U-Nets nnU-Net plans, small: plain and residual, 2-D and 3-D, odd channels, anisotropic kernels
// and strides.
Network plain(const std::string& name, int dims, std::vector<int> f, Vec3<int> k, Vec3<int> s, Shape3 patch,
              bool bias, float slope, bool norm) {
  Builder b(dims, 2, 11);
  const Vec3<int> one{1, 1, 1};
  auto block = [&](ValueId v, int c, Vec3<int> stride) {
    v = b.conv(v, c, k, stride, bias);
    return norm ? b.norm_relu(v, slope) : b.relu(v, slope);
  };
  std::vector<ValueId> skips;
  ValueId v = 0;
  for (size_t i = 0; i < f.size(); ++i) {
    v = block(v, f[i], i ? s : one);
    v = block(v, f[i], one);
    skips.push_back(v);
  }
  for (size_t i = f.size() - 1; i-- > 0;) {
    v = b.concat(b.up(v, f[i], s, bias), skips[i]);
    v = block(v, f[i], one);
    v = block(v, f[i], one);
  }
  b.graph.output = b.conv(v, 3, one, one, true);
  return {name, b.graph, patch};
}

Network residual(int dims, Vec3<int> k, Vec3<int> s, Shape3 patch) {
  Builder b(dims, 1, 13);
  const Vec3<int> one{1, 1, 1};
  ValueId v = b.norm_relu(b.conv(0, 8, k, one, true), 0.01f);
  ValueId skip_value = 0;
  for (int stage = 0; stage < 2; ++stage) {
    const int c = stage ? 20 : 8;
    const Vec3<int> stride = stage ? s : one;
    ValueId main = b.norm_relu(b.conv(v, c, k, stride, true), 0.01f);
    main = b.conv(main, c, k, one, true);
    ValueId skip = v;
    if (stage) skip = b.conv(b.pool(v, s), c, one, one, false);
    v = b.relu(b.sum(main, skip), 0.01f);
    if (!stage) skip_value = v;
  }
  v = b.concat(b.up(v, 8, s, true), skip_value);
  v = b.norm_relu(b.conv(v, 8, k, one, true), 0.01f);
  b.graph.output = b.conv(v, 4, one, one, true);
  return {"residual" + std::to_string(dims) + "d", b.graph, patch};
}

std::vector<Network> networks() {
  return {
      plain("plain3d", 3, {8, 16, 32}, {3, 3, 3}, {2, 2, 2}, {16, 16, 24}, true, 0.01f, true),
      plain("plain3d_odd_channels", 3, {5, 13, 27}, {3, 3, 3}, {2, 2, 2}, {8, 12, 20}, false, 0.01f, true),
      plain("plain3d_anisotropic", 3, {8, 24}, {1, 3, 3}, {1, 2, 2}, {6, 20, 28}, true, 0.0f, true),
      plain("plain3d_large_kernel", 3, {6, 12}, {3, 5, 7}, {2, 2, 2}, {8, 12, 16}, true, 0.01f, true),
      plain("plain3d_no_norm", 3, {8, 16}, {3, 3, 3}, {2, 2, 2}, {12, 12, 12}, true, 0.2f, false),
      plain("plain3d_wide", 3, {32, 64}, {3, 3, 3}, {2, 2, 2}, {10, 14, 18}, true, 0.01f, true),
      plain("plain2d", 2, {8, 16, 32}, {1, 3, 3}, {1, 2, 2}, {1, 40, 56}, true, 0.01f, true),
      residual(3, {3, 3, 3}, {2, 2, 2}, {12, 16, 20}),
      residual(2, {1, 3, 3}, {1, 2, 2}, {1, 36, 28})};
}

struct Error2 {
  double relative_rms, max_abs;
};
Error2 compare(const Buffer<float>& got, const Buffer<float>& want) {
  double d2 = 0, w2 = 0, top = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double d = double(got[i]) - double(want[i]);
    if (std::isnan(d)) return {NAN, NAN};
    d2 += d * d;
    w2 += double(want[i]) * double(want[i]);
    top = std::max(top, std::abs(d));
  }
  return {std::sqrt(d2 / w2), top};
}

TEST(BackendContract, EveryBackendMatchesTheReference) {
  const BackendRegistry registry = builtin_backends();
  const Backend* reference = *registry.find("reference");
  int compared = 0;
  for (const Network& net : networks()) {
    ASSERT_TRUE(validate(net.graph).ok()) << net.name << ": " << validate(net.graph).error().to_string();
    const auto in_size = size_t(net.graph.input_channels() * voxels(net.patch));
    const auto out_size = size_t(net.graph.output_channels() * voxels(net.patch));
    Buffer<float> in(in_size), want(out_size), got(out_size);
    std::mt19937 rng(5);
    std::normal_distribution<float> normal;
    // Smooth structure with some noise, as scans have it. (On white noise a bf16 Winograd transform loses
    // more.)
    for (size_t i = 0; i < in.size(); ++i) {
      const auto x = double(i % size_t(net.patch[2])),
                 y = double(i / size_t(net.patch[2]) % size_t(net.patch[1]));
      in[i] = float(std::sin(0.4 * x) + std::cos(0.3 * y + 0.1 * x)) + 0.1f * normal(rng);
    }
    auto truth = reference->create(net.graph, {net.patch, 1, Precision::kFloat32, 2});
    ASSERT_TRUE(truth.ok()) << truth.error().to_string();
    ASSERT_TRUE((*truth)->run(in.data(), want.data()).ok());
    for (const Backend* backend : registry.all()) {
      if (backend == reference || !backend->available()) continue;
      for (const Precision precision :
           {Precision::kFloat32, Precision::kTensorFloat32, Precision::kBFloat16, Precision::kFloat16}) {
        const SessionOptions options{net.patch, 1, precision, 2};
        if (const Status s = backend->supports(net.graph, options); !s.ok()) {
          EXPECT_NE(precision, Precision::kFloat32) << backend->name() << ": " << s.error().to_string();
          EXPECT_EQ(s.error().code, ErrorCode::kUnsupported);
          if (precision == Precision::kTensorFloat32) {
            EXPECT_NE(s.error().message.find(backend->name()), std::string::npos) << s.error().message;
          }
          continue;
        }
        auto session = backend->create(net.graph, options);
        ASSERT_TRUE(session.ok()) << session.error().to_string();
        for (int round = 0; round < 2; ++round) {  // the second run must not depend on the first
          std::fill(got.begin(), got.end(), NAN);  // every value must be written
          ASSERT_TRUE((*session)->run(in.data(), got.data()).ok());
          const Error2 e = compare(got, want);
          // bf16 keeps 8 bits, fp16 11: its error is an eighth of the other's, with the same margin. TF32
          // rounds what is multiplied like fp16, but nothing that is stored.
          const double bound = precision == Precision::kFloat32         ? 2e-5
                               : precision == Precision::kBFloat16      ? 6e-2
                               : precision == Precision::kTensorFloat32 ? 5e-3
                                                                        : 7.5e-3;
          EXPECT_LT(e.relative_rms, bound) << net.name << " on " << (*session)->description();
          EXPECT_FALSE(std::isnan(e.relative_rms)) << net.name << " on " << (*session)->description();
        }
        ++compared;
      }
    }
  }
  EXPECT_GT(compared, 0) << "no backend to compare";
}

TEST(BackendContract, LayerTimesCoverTheNetworkOrAreRefusedByName) {
  const BackendRegistry registry = builtin_backends();
  int timed = 0;
  for (const Network& net : networks())
    for (const Backend* backend : registry.all()) {
      if (!backend->available()) continue;
      const int batch = 2;
      auto session = backend->create(net.graph, {net.patch, batch, Precision::kFloat32, 2});
      ASSERT_TRUE(session.ok()) << session.error().to_string();
      const auto layers = (*session)->layer_times(2);
      if (!layers.ok()) {
        EXPECT_EQ(layers.error().code, ErrorCode::kUnsupported);
        EXPECT_NE(layers.error().message.find(backend->name()), std::string::npos) << layers.error().message;
        continue;
      }
      uint64_t macs = 0, bytes = 0;
      for (const LayerTime& l : *layers) {
        EXPECT_FALSE(l.name.empty());
        EXPECT_GE(l.duration_ms, 0);
        EXPECT_TRUE(std::isfinite(l.duration_ms));
        EXPECT_GT(l.bytes, 0u) << l.name;
        macs += l.macs;
        bytes += l.bytes;
      }
      EXPECT_EQ(macs, uint64_t(batch * net.graph.macs(net.patch))) << net.name << " on " << backend->name();
      const int64_t in_and_out =
          batch * voxels(net.patch) * 4 * (net.graph.input_channels() + net.graph.output_channels());
      EXPECT_GE(bytes, uint64_t(in_and_out)) << net.name << " on " << backend->name();
      ++timed;
    }
  EXPECT_GT(timed, 0) << "no backend times its layers";
}

TEST(BackendContract, BatchesAreIndependent) {
  const BackendRegistry registry = builtin_backends();
  const Network net = networks()[0];
  const auto in_size = size_t(net.graph.input_channels() * voxels(net.patch));
  const auto out_size = size_t(net.graph.output_channels() * voxels(net.patch));
  std::mt19937 rng(6);
  std::normal_distribution<float> normal;
  Buffer<float> in(2 * in_size);
  for (float& v : in) v = normal(rng);
  for (const Backend* backend : registry.all()) {
    if (!backend->available()) continue;
    auto two = backend->create(net.graph, {net.patch, 2, Precision::kFloat32, 2});
    auto one = backend->create(net.graph, {net.patch, 1, Precision::kFloat32, 2});
    ASSERT_TRUE(two.ok() && one.ok());
    Buffer<float> both(2 * out_size), single(out_size);
    ASSERT_TRUE((*two)->run(in.data(), both.data()).ok());
    for (size_t b = 0; b < 2; ++b) {
      ASSERT_TRUE((*one)->run(in.data() + b * in_size, single.data()).ok());
      for (size_t i = 0; i < out_size; ++i)
        ASSERT_NEAR(both[b * out_size + i], single[i], 1e-4f) << backend->name();
    }
  }
}

TEST(BackendRegistry, AnUnknownNameListsWhatThereIs) {
  const BackendRegistry registry = builtin_backends();
  const auto missing = registry.find("abacus");
  ASSERT_FALSE(missing.ok());
  EXPECT_NE(missing.error().message.find("reference"), std::string::npos);
}

}  // namespace
}  // namespace isoline
