// Times the cuda backend on the full nnU-Net (bench/full_network.h): per step, per forward on the device and
// per forward from host to host. Usage: cuda_bench [fp16|bf16|tf32|fp32] [runs] [patch] [batch]
// [fold|pass|naive] [off|same-bits|all] The last line is JSON. fold: normalise while the next convolution
// reads (default); pass: as passes over memory.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "full_network.h"
#include "isoline/backends/cuda/session.h"
#include "isoline/base/buffer.h"

using namespace isoline;

int main(int argc, char** argv) {
  using Clock = std::chrono::steady_clock;
  const auto text = [&](int i, const char* otherwise) { return argc > i ? argv[i] : otherwise; };
  SessionOptions options;
  const std::string precision = text(1, "fp16"), mode = text(5, "fold");
  if (const auto known = parse_precision(precision); known.ok()) {
    options.precision = *known;
  } else {
    return std::fprintf(stderr, "%s\n", known.error().to_string().c_str()), 1;
  }
  const auto autotune = parse_autotune(text(6, "same-bits"));
  if (!autotune.ok()) return std::fprintf(stderr, "%s\n", autotune.error().to_string().c_str()), 1;
  options.autotune = *autotune;
  const int runs = std::max(1, std::atoi(text(2, "20")));
  const int64_t side = std::atoi(text(3, "128"));
  options.patch = {side, side, side};
  options.batch = std::max(1, std::atoi(text(4, "1")));
  const NetworkGraph graph = bench::full_network();
  const auto fail = [](const Error& e) { return std::fprintf(stderr, "%s\n", e.to_string().c_str()), 1; };

  if (const Status s = make_cuda_backend()->supports(graph, options); !s.ok()) return fail(s.error());
  const auto& device = *cuda::device_info();
  cuda::CudaTuning tuning;
  tuning.fold_into_convolutions = mode == "fold";
  tuning.naive_convolutions = mode == "naive";
  const Clock::time_point before = Clock::now();
  auto session = cuda::CudaSession::create(graph, options, device, tuning);
  if (!session.ok()) return fail(session.error());
  const double create_s = std::chrono::duration<double>(Clock::now() - before).count();

  Buffer<float> in(size_t(options.batch * voxels(options.patch))),
      out(size_t(4 * options.batch * voxels(options.patch))), again(out.size());
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  for (float& x : in) x = normal(random);
  std::vector<double> host_ms;
  for (int r = 0; r <= runs; ++r) {
    const Clock::time_point begin = Clock::now();
    if (const Status s = (*session)->run(in.data(), r % 2 ? again.data() : out.data()); !s.ok())
      return fail(s.error());
    if (r) host_ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - begin).count());
  }
  const bool same = !std::memcmp(out.data(), again.data(), out.byte_size());
  std::sort(host_ms.begin(), host_ms.end());
  const auto steps = (*session)->step_times(std::min(runs, 10));
  if (!steps.ok()) return fail(steps.error());
  const auto graph_ms = (*session)->graph_ms(runs);
  if (!graph_ms.ok()) return fail(graph_ms.error());
  double sum_ms = 0;
  int64_t macs = 0;
  for (const CudaStepTime& s : *steps) {
    sum_ms += s.duration_ms;
    macs += s.macs;
    std::printf("%9.4f ms %8.1f TFLOP/s  %s\n", s.duration_ms, 2e-9 * double(s.macs) / s.duration_ms,
                s.name.c_str());
  }
  const CudaMemory& m = (*session)->memory();
  std::printf(
      "{\"device\": \"%s\", \"driver_cuda\": \"%s\", \"precision\": \"%s\", \"mode\": \"%s\", \"patch\": "
      "%lld, \"batch\": %d, "
      "\"autotune\": \"%s\", \"tuning\": \"%s\", \"runs\": %d, \"create_s\": %.3f, \"graph_ms\": %.4f, "
      "\"host_to_host_ms\": %.4f, \"steps_sum_ms\": "
      "%.4f, "
      "\"tflops\": %.1f, \"activation_bytes\": %llu, \"weight_bytes\": %llu, \"scratch_bytes\": %llu, "
      "\"transfer_bytes\": %llu, \"two_runs_identical\": %s}\n",
      device.name.c_str(), device.driver.c_str(), precision.c_str(), mode.c_str(),
      static_cast<long long>(side), options.batch, to_string(options.autotune),
      (*session)->tuning().text().c_str(), runs, create_s, *graph_ms, host_ms[host_ms.size() / 2], sum_ms,
      2e-9 * double(macs) / *graph_ms, static_cast<unsigned long long>(m.activation_bytes),
      static_cast<unsigned long long>(m.weight_bytes), static_cast<unsigned long long>(m.scratch_bytes),
      static_cast<unsigned long long>(m.transfer_bytes), same ? "true" : "false");
  return same ? 0 : 1;
}
