// Times the native backend on the full nnU-Net (features 32 64 128 256 320 320, two convolutions a stage)
// with random weights: per step and per patch. Usage: native_bench [fp32|bf16] [runs] [patch] [threads]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "full_network.h"
#include "isoline/backends/native/native_backend.h"
#include "isoline/base/buffer.h"
#include "isoline/base/resources.h"

using namespace isoline;

namespace {

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

  const NetworkGraph graph = bench::full_network();
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
