// Times the native backend on the full nnU-Net (features 32 64 128 256 320 320, two convolutions a stage)
// with random weights: per step and per patch. Usage: native_bench [fp32|bf16] [runs] [patch] [threads]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>

#include "isoline/backends/native/native_backend.h"
#include "isoline/base/buffer.h"
#include "isoline/base/resources.h"

using namespace isoline;

namespace {

struct Builder {
  NetworkGraph graph;
  std::mt19937 random{1};

  std::vector<float> values(size_t n, float scale) {
    std::uniform_real_distribution<float> uniform(-scale, scale);
    std::vector<float> v(n);
    for (float& x : v) x = uniform(random);
    return v;
  }
  ValueId value(int channels, int downscale) {
    graph.values.push_back({channels, {downscale, downscale, downscale}});
    return ValueId(graph.values.size()) - 1;
  }
  ValueId conv(ValueId in, int out, int kernel, int stride) {
    const ValueDesc from = graph.values[size_t(in)];
    ConvOp op;
    op.in = in;
    op.out = value(out, from.downscale[0] * stride);
    op.kernel = {kernel, kernel, kernel};
    op.stride = {stride, stride, stride};
    const int taps = kernel * kernel * kernel;
    op.weight =
        values(size_t(out) * size_t(from.channels * taps), std::sqrt(3.0f / float(from.channels * taps)));
    op.bias = values(size_t(out), 0.1f);
    graph.ops.push_back(op);
    return op.out;
  }
  ValueId block(ValueId in, int out, int stride) {
    const ValueId c = conv(in, out, 3, stride);
    InstanceNormOp norm;
    norm.in = c;
    norm.out = value(out, graph.values[size_t(c)].downscale[0]);
    norm.gamma.assign(size_t(out), 1.0f);
    norm.beta.assign(size_t(out), 0.0f);
    graph.ops.push_back(norm);
    LeakyReluOp relu{norm.out, value(out, graph.values[size_t(c)].downscale[0]), 0.01f};
    graph.ops.push_back(relu);
    return relu.out;
  }
  ValueId up(ValueId in, int out) {
    const ValueDesc from = graph.values[size_t(in)];
    ConvTransposeOp op;
    op.in = in;
    op.out = value(out, from.downscale[0] / 2);
    op.weight = values(size_t(from.channels) * size_t(out) * 8, std::sqrt(3.0f / float(from.channels)));
    op.bias = values(size_t(out), 0.1f);
    graph.ops.push_back(op);
    return op.out;
  }
};

NetworkGraph full_network() {
  const std::vector<int> features{32, 64, 128, 256, 320, 320};
  Builder b;
  ValueId v = b.value(1, 1);
  std::vector<ValueId> skips;
  for (size_t s = 0; s < features.size(); ++s) {
    v = b.block(b.block(v, features[s], s ? 2 : 1), features[s], 1);
    skips.push_back(v);
  }
  for (size_t s = features.size() - 1; s-- > 0;) {
    const ValueId up = b.up(v, features[s]);
    const ConcatOp join{up, skips[s], b.value(2 * features[s], 1 << s)};
    b.graph.ops.push_back(join);
    v = b.block(b.block(join.out, features[s], 1), features[s], 1);
  }
  b.graph.output = b.conv(v, 4, 1, 1);
  return std::move(b.graph);
}

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  using Clock = std::chrono::steady_clock;
  SessionOptions options;
  options.precision = argc > 1 && !std::strcmp(argv[1], "bf16") ? Precision::kBFloat16 : Precision::kFloat32;
  const int runs = argc > 2 ? std::max(1, std::atoi(argv[2])) : 5;
  const int64_t side = argc > 3 ? std::atoi(argv[3]) : 128;
  options.patch = {side, side, side};
  options.threads = argc > 4 ? std::atoi(argv[4]) : 0;

  const NetworkGraph graph = full_network();
  const Clock::time_point before = Clock::now();
  auto session = make_native_backend()->create(graph, options);
  if (!session.ok()) {
    std::fprintf(stderr, "%s\n", session.error().to_string().c_str());
    return 1;
  }
  const double create_s = std::chrono::duration<double>(Clock::now() - before).count();
  Buffer<float> in(size_t(voxels(options.patch))), out(size_t(4 * voxels(options.patch)));
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  for (float& x : in) x = normal(random);

  std::vector<double> total_ms;
  std::vector<std::vector<double>> step_ms;
  std::vector<NativeStepTime> steps;
  for (int r = 0; r <= runs; ++r) {  // the first is a warm-up
    const Clock::time_point begin = Clock::now();
    if (const Status s = (*session)->run(in.data(), out.data()); !s.ok()) return 1;
    const double ms = std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
    steps = native_step_times(**session);
    step_ms.resize(steps.size());
    if (r == 0) continue;
    total_ms.push_back(ms);
    for (size_t i = 0; i < steps.size(); ++i) step_ms[i].push_back(steps[i].duration_ms);
  }
  int64_t macs = 0;
  for (size_t i = 0; i < steps.size(); ++i) {
    const double ms = median(step_ms[i]);
    macs += steps[i].macs;
    std::printf("%9.2f ms %8.1f GFLOP/s  %s\n", ms, 2e-6 * double(steps[i].macs) / ms, steps[i].name.c_str());
  }
  const NativeMemory memory = native_memory(**session);
  std::printf("%s\n", (*session)->description().c_str());
  std::printf("create %.2f s; patch median %.1f ms, min %.1f ms, %.1f GFLOP/s direct-equivalent\n", create_s,
              median(total_ms), *std::min_element(total_ms.begin(), total_ms.end()),
              2e-6 * double(macs) / median(total_ms));
  std::printf("activations %.0f MB, weights %.0f MB, scratch %.0f MB, peak resident %.0f MB\n",
              double(memory.activation_bytes) / 1e6, double(memory.weight_bytes) / 1e6,
              double(memory.scratch_bytes) / 1e6, double(peak_rss_bytes()) / 1e6);
  return 0;
}
