// Every graph here runs on the reference backend too; the difference is held to what the arithmetic allows.
#include "isoline/backends/native/native_backend.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "isoline/backends/native/packing.h"
#include "isoline/backends/native/session.h"
#include "isoline/backends/reference/reference_backend.h"
#include "isoline/base/buffer.h"

namespace isoline {
namespace {

class Net {
 public:
  explicit Net(unsigned seed, int in_channels) : random_(seed) {
    graph_.values.push_back({in_channels, {1, 1, 1}});
  }
  ValueId conv(ValueId in, int out, Vec3<int> kernel, Vec3<int> stride = {1, 1, 1}, bool bias = true) {
    ConvOp op;
    op.in = in;
    op.kernel = kernel;
    op.stride = stride;
    op.out = add(out, graph_.values[size_t(in)].downscale, stride, false);
    const size_t taps = size_t(kernel[0] * kernel[1] * kernel[2]), inputs = size_t(channels(in));
    op.weight = values(size_t(out) * inputs * taps, 1.0f / std::sqrt(float(inputs * taps)));
    if (bias) op.bias = values(size_t(out), 0.5f);
    const ValueId id = op.out;
    graph_.ops.push_back(std::move(op));
    return graph_.output = id;
  }
  ValueId up(ValueId in, int out, Vec3<int> stride) {
    ConvTransposeOp op;
    op.in = in;
    op.stride = stride;
    op.out = add(out, graph_.values[size_t(in)].downscale, stride, true);
    op.weight = values(size_t(channels(in) * out * stride[0] * stride[1] * stride[2]),
                       1.0f / std::sqrt(float(channels(in))));
    op.bias = values(size_t(out), 0.5f);
    const ValueId id = op.out;
    graph_.ops.push_back(std::move(op));
    return graph_.output = id;
  }
  ValueId norm(ValueId in) {
    InstanceNormOp op;
    op.in = in;
    op.out = same(in);
    op.gamma = values(size_t(channels(in)), 0.3f);
    for (float& g : op.gamma) g += 1;
    op.beta = values(size_t(channels(in)), 0.3f);
    const ValueId id = op.out;
    graph_.ops.push_back(std::move(op));
    return graph_.output = id;
  }
  ValueId relu(ValueId in, float slope = 0.01f) {
    graph_.ops.push_back(LeakyReluOp{in, same(in), slope});
    return graph_.output = last();
  }
  ValueId sum(ValueId a, ValueId b) {
    graph_.ops.push_back(AddOp{a, b, same(a)});
    return graph_.output = last();
  }
  ValueId concat(ValueId a, ValueId b) {
    graph_.values.push_back({channels(a) + channels(b), graph_.values[size_t(a)].downscale});
    graph_.ops.push_back(ConcatOp{a, b, last()});
    return graph_.output = last();
  }
  ValueId pool(ValueId in, Vec3<int> stride) {
    const ValueId out = add(channels(in), graph_.values[size_t(in)].downscale, stride, false);
    graph_.ops.push_back(AvgPoolOp{in, out, stride});
    return graph_.output = out;
  }
  ValueId block(ValueId in, int out, Vec3<int> kernel, Vec3<int> stride = {1, 1, 1}) {
    return relu(norm(conv(in, out, kernel, stride)));
  }
  // Back to full resolution, where a network's output must be.
  ValueId full(ValueId in) {
    const Vec3<int> downscale = graph_.values[size_t(in)].downscale;
    return downscale == Vec3<int>{1, 1, 1} ? in : up(in, 3, downscale);
  }
  NetworkGraph& graph() { return graph_; }

 private:
  int channels(ValueId v) const { return graph_.values[size_t(v)].channels; }
  ValueId last() const { return ValueId(graph_.values.size()) - 1; }
  ValueId same(ValueId v) {
    graph_.values.push_back(graph_.values[size_t(v)]);
    return last();
  }
  ValueId add(int channels, Vec3<int> downscale, Vec3<int> stride, bool up) {
    for (size_t a = 0; a < 3; ++a) downscale[a] = up ? downscale[a] / stride[a] : downscale[a] * stride[a];
    graph_.values.push_back({channels, downscale});
    return last();
  }
  std::vector<float> values(size_t n, float scale) {
    std::normal_distribution<float> normal(0, scale);
    std::vector<float> v(n);
    for (float& x : v) x = normal(random_);
    return v;
  }
  std::mt19937 random_;
  NetworkGraph graph_;
};

bool can(Precision p) {
  Net net(1, 1);
  net.conv(0, 1, {1, 1, 1});
  SessionOptions options;
  options.patch = {1, 1, 1};
  options.precision = p;
  return make_native_backend()->supports(net.graph(), options).ok();
}

Buffer<float> input_for(const NetworkGraph& graph, const SessionOptions& options) {
  Buffer<float> in(size_t(options.batch * graph.input_channels() * voxels(options.patch)));
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  for (float& x : in) x = normal(random);
  return in;
}

Buffer<float> execute(const Backend& backend, const NetworkGraph& graph, const SessionOptions& options) {
  Buffer<float> in = input_for(graph, options);
  int64_t size = graph.output_channels();
  for (size_t a = 0; a < 3; ++a) size *= options.patch[a] / graph.values[size_t(graph.output)].downscale[a];
  Buffer<float> out = zeroed<float>(size_t(options.batch * size));
  auto session = backend.create(graph, options);
  EXPECT_TRUE(session.ok()) << session.error().to_string();
  if (!session.ok()) return out;
  EXPECT_TRUE((*session)->run(in.data(), out.data()).ok());
  Buffer<float> again = zeroed<float>(out.size());
  EXPECT_TRUE((*session)->run(in.data(), again.data()).ok());
  EXPECT_TRUE(std::equal(out.begin(), out.end(), again.begin())) << "a second run differs";
  return out;
}

// Root mean square of the difference, relative to the reference's.
double difference(const Buffer<float>& got, const Buffer<float>& want) {
  double d = 0, r = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    d += std::pow(double(got[i]) - double(want[i]), 2);
    r += std::pow(double(want[i]), 2);
  }
  return std::sqrt(d / r);
}

void check(Net& net, Shape3 patch, int batch = 1, double bf16_limit = 0.04) {
  if (!can(Precision::kFloat32)) GTEST_SKIP() << "no AVX2";
  SessionOptions options;
  options.patch = patch;
  options.batch = batch;
  options.threads = 2;
  SessionOptions reference = options;
  const Buffer<float> want = execute(*make_reference_backend(), net.graph(), reference);
  for (Precision p : {Precision::kFloat32, Precision::kBFloat16}) {
    if (!can(p)) continue;
    options.precision = p;
    const Buffer<float> got = execute(*make_native_backend(), net.graph(), options);
    EXPECT_LT(difference(got, want), p == Precision::kFloat32 ? 3e-6 : bf16_limit) << to_string(p);
  }
  // The AVX2 kernels are otherwise never run on this machine.
  options.precision = Precision::kFloat32;
  native::NativeSession avx2(net.graph(), options, *native::avx2_table());
  Buffer<float> in = input_for(net.graph(), options), got = zeroed<float>(want.size());
  ASSERT_TRUE(avx2.run(in.data(), got.data()).ok());
  EXPECT_LT(difference(got, want), 3e-6) << "AVX2";
}

bool uses(Net& net, Shape3 patch, const std::string& text) {
  SessionOptions options;
  options.patch = patch;
  options.threads = 1;
  auto session = make_native_backend()->create(net.graph(), options);
  if (!session.ok()) return false;
  for (const auto& step : native_step_times(**session))
    if (step.name.find(text) != std::string::npos) return true;
  return false;
}

TEST(Native, FiltersTransformAsWinogradSays) {
  // The middle row of taps is (0, 1, 0): along each axis a point p must give p / prod (p - q) over the
  // others.
  const double middle[3] = {0, 1, 0};
  double u[36];
  double filter[9] = {};
  for (int i = 0; i < 3; ++i) filter[3 + i] = middle[i];
  native::winograd_filter(native::kWinograd144, 1, filter, u);
  const double points[] = {0, .75, -.75, 1.5, -1.5};
  for (int y = 0; y < 5; ++y)
    for (int x = 0; x < 5; ++x) {
      double fy = 1, fx = 1;
      for (int j = 0; j < 5; ++j) {
        if (j != y) fy *= points[y] - points[j];
        if (j != x) fx *= points[x] - points[j];
      }
      EXPECT_NEAR(u[y * 6 + x], points[y] / fy * points[x] / fx, 1e-12);
    }
}

TEST(Native, Winograd444) {
  Net net(1, 16);
  net.conv(net.block(0, 48, {3, 3, 3}), 20, {3, 3, 3});
  ASSERT_TRUE(uses(net, {12, 20, 16}, "winograd 4x4x4"));
  check(net, {12, 20, 16});
}
TEST(Native, WinogradRaggedEdges) {
  Net net(2, 24);
  net.conv(net.block(0, 33, {3, 3, 3}), 5, {3, 3, 3});
  ASSERT_TRUE(uses(net, {13, 11, 17}, "winograd"));
  check(net, {13, 11, 17});
}
TEST(Native, WinogradFlatKernel) {
  Net net(3, 16);
  net.conv(net.block(0, 32, {1, 3, 3}), 32, {1, 3, 3});
  ASSERT_TRUE(uses(net, {3, 18, 21}, "winograd 1x4x4"));
  check(net, {3, 18, 21});
}
TEST(Native, WinogradStrides) {
  for (const Vec3<int> stride : {Vec3<int>{2, 2, 2}, {1, 2, 2}}) {
    Net net(3, 48);
    const int depth = stride[0] == 2 ? 3 : 1;
    net.full(net.conv(net.block(0, 70, {depth, 3, 3}, stride), 64, {depth, 3, 3}, stride));
    ASSERT_TRUE(uses(net, {12, 20, 28}, "stride 2"));
    check(net, {12, 20, 28});
  }
}
TEST(Native, WinogradSmallExtents) {
  for (const Shape3 patch :
       {Shape3{2, 2, 2}, Shape3{4, 4, 4}, Shape3{2, 5, 6}, Shape3{8, 2, 3}, Shape3{1, 1, 1}}) {
    Net net(4, 64);
    net.relu(net.conv(net.conv(0, 64, {3, 3, 3}), 32, {1, 3, 3}));
    check(net, patch);
  }
}
// Weights too large for the caches: the phases of a convolution are shared by all threads. Forced here, two
// rounds of 24 tiles; only the statistics are added up in other parts.
TEST(Native, WinogradInRounds) {
  if (!can(Precision::kFloat32)) GTEST_SKIP() << "no AVX2";
  Net net(5, 40);
  net.conv(net.block(0, 40, {3, 3, 3}), 33, {3, 3, 3});
  SessionOptions options;
  options.patch = {12, 16, 16};
  options.threads = 2;
  ASSERT_TRUE(uses(net, options.patch, "winograd 4x4x4"));
  const Buffer<float> in = input_for(net.graph(), options);
  Buffer<float> want(33 * 12 * 16 * 16), got = zeroed<float>(want.size());
  native::NativeSession plain(net.graph(), options, *native::avx2_table());
  native::NativeSession rounds(net.graph(), options, *native::avx2_table(), {0, 0, 0});
  ASSERT_TRUE(plain.run(in.data(), want.data()).ok());
  ASSERT_TRUE(rounds.run(in.data(), got.data()).ok());
  EXPECT_LT(difference(got, want), 1e-6);
}
TEST(Native, DirectKernelsAndStrides) {
  for (const Vec3<int> kernel : {Vec3<int>{1, 1, 1}, {3, 3, 3}, {5, 3, 1}, {3, 1, 3}, {1, 7, 7}})
    for (const Vec3<int> stride : {Vec3<int>{1, 1, 1}, {2, 2, 2}, {1, 2, 2}, {1, 1, 3}}) {
      Net net(6, 17);
      net.full(net.conv(net.block(0, 18, kernel, stride), 3, {1, 1, 1}));
      check(net, {6, 12, 18});
      if (HasFailure())
        FAIL() << kernel[0] << kernel[1] << kernel[2] << " stride " << stride[0] << stride[1] << stride[2];
    }
}
TEST(Native, NarrowInputs) {
  for (int channels : {1, 2, 3, 5, 8, 9}) {
    Net net(7, channels);
    net.conv(net.block(0, 40, {3, 3, 3}), 2, {1, 1, 1});
    check(net, {5, 7, 9});
    Net strided(8, channels);
    strided.full(strided.conv(strided.block(0, 10, {1, 3, 3}, {1, 2, 2}), 2, {1, 1, 1}));
    check(strided, {3, 8, 40});
  }
}
TEST(Native, UNet) {
  Net net(9, 1);
  const ValueId a = net.block(net.block(0, 16, {1, 3, 3}), 20, {3, 3, 3});
  const ValueId b = net.block(net.block(a, 40, {3, 3, 3}, {1, 2, 2}), 40, {3, 3, 3});
  const ValueId c = net.block(net.block(b, 56, {3, 3, 3}, {2, 2, 2}), 56, {3, 3, 3});
  const ValueId d = net.block(net.concat(net.up(c, 40, {2, 2, 2}), b), 40, {3, 3, 3});
  const ValueId e = net.block(net.concat(net.up(d, 20, {1, 2, 2}), a), 20, {3, 3, 3});
  net.conv(e, 4, {1, 1, 1});
  check(net, {16, 32, 24}, 2, 0.07);
}
TEST(Native, Residual) {
  Net net(10, 2);
  const ValueId stem = net.block(0, 24, {3, 3, 3});
  const ValueId right = net.norm(net.conv(net.block(stem, 40, {3, 3, 3}, {2, 2, 2}), 40, {3, 3, 3}));
  const ValueId left = net.norm(net.conv(net.pool(stem, {2, 2, 2}), 40, {1, 1, 1}, {1, 1, 1}, false));
  const ValueId joined = net.relu(net.sum(right, left));
  const ValueId again = net.relu(net.sum(net.norm(net.conv(joined, 40, {3, 3, 3})), joined));
  net.conv(net.concat(net.up(again, 24, {2, 2, 2}), stem), 3, {1, 1, 1});
  check(net, {8, 12, 10}, 1, 0.06);
}
TEST(Native, OddPatterns) {
  // Concatenations that do not end at a block, normalisation of sums and of concatenations, two readers of
  // one convolution, rectifiers on rectifiers and of slopes that cannot wait, an output that is no
  // convolution.
  Net net(11, 12);
  const ValueId a = net.conv(0, 21, {3, 3, 3}), b = net.conv(0, 11, {1, 1, 1});
  const ValueId c = net.norm(net.concat(net.relu(a, 0.2f), b));
  const ValueId d = net.relu(net.relu(net.norm(a), 0.5f), 0.1f);
  const ValueId e = net.relu(net.conv(net.concat(d, c), 32, {3, 3, 3}), 1.5f);
  const ValueId f = net.relu(net.norm(net.sum(net.concat(a, b), e)), -0.3f);
  const ValueId g = net.pool(net.concat(net.relu(f), net.concat(b, c)), {1, 2, 2});
  net.concat(net.norm(net.up(g, 9, {1, 2, 2})), net.relu(a, 0));
  check(net, {4, 8, 6});
}
TEST(Native, TwoDimensional) {
  Net net(12, 3);
  const ValueId a = net.block(0, 32, {1, 3, 3});
  const ValueId b = net.block(net.block(a, 64, {1, 3, 3}, {1, 2, 2}), 64, {1, 3, 3});
  net.conv(net.block(net.concat(net.up(b, 32, {1, 2, 2}), a), 32, {1, 3, 3}), 2, {1, 1, 1});
  check(net, {1, 62, 46});
}
TEST(Native, ThreadsDoNotChangeResults) {
  if (!can(Precision::kFloat32)) GTEST_SKIP();
  Net net(13, 1);
  const ValueId a = net.block(net.block(0, 32, {3, 3, 3}), 32, {3, 3, 3});
  const ValueId b = net.block(net.block(a, 128, {3, 3, 3}, {2, 2, 2}), 128, {3, 3, 3});
  net.conv(net.block(net.concat(net.up(b, 32, {2, 2, 2}), a), 32, {3, 3, 3}), 2, {1, 1, 1});
  SessionOptions options;
  options.patch = {20, 24, 24};
  options.threads = 1;
  const Buffer<float> one = execute(*make_native_backend(), net.graph(), options);
  options.threads = 3;
  const Buffer<float> three = execute(*make_native_backend(), net.graph(), options);
  EXPECT_TRUE(std::equal(one.begin(), one.end(), three.begin()));
}
TEST(Native, RefusesWhatItCannotRun) {
  Net net(14, 1);
  net.full(net.conv(0, 16, {3, 3, 3}, {2, 2, 2}));
  SessionOptions options;
  options.patch = {8, 8, 8};
  options.precision = Precision::kFloat16;
  EXPECT_EQ(make_native_backend()->supports(net.graph(), options).error().code, ErrorCode::kUnsupported);
  options.precision = Precision::kFloat32;
  options.patch = {8, 7, 8};
  EXPECT_FALSE(make_native_backend()->supports(net.graph(), options).ok());
  options.patch = {8, 8, 8};
  options.threads = -1;
  EXPECT_FALSE(make_native_backend()->supports(net.graph(), options).ok());
  options.threads = 1;
  options.patch = {1 << 13, 1 << 13, 1 << 13};  // terabytes
  auto session = make_native_backend()->create(net.graph(), options);
  ASSERT_FALSE(session.ok());
  EXPECT_EQ(session.error().code, ErrorCode::kResourceExhausted);
}

}  // namespace
}  // namespace isoline
