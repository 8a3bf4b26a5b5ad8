// What a network does without a server: batches from memory, one thread an instance, back to back. Every
// instance goes round 64 MiB of batches, since requests' data is not in the cache either. Usage: tensor_bench
// MODEL_FOLDER BATCH SECONDS THREADS INSTANCES [REPEATS] MODEL_FOLDER as `isoline serve` takes it. Prints
// JSON: samples a second and CPU seconds a sample, one entry a repeat.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <random>
#include <thread>

#include "isoline/backends/registry/registry.h"
#include "isoline/base/buffer.h"
#include "isoline/model_loader/model_loader.h"

using namespace isoline;

namespace {

double process_cpu_s() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return double(t.tv_sec) + double(t.tv_nsec) * 1e-9;
}

int fail(const Error& error) {
  std::fprintf(stderr, "tensor_bench: %s\n", error.to_string().c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  using Clock = std::chrono::steady_clock;
  if (argc < 6) {
    std::fprintf(stderr, "Usage: tensor_bench MODEL_FOLDER BATCH SECONDS THREADS INSTANCES [REPEATS]\n");
    return 2;
  }
  const std::string folder = argv[1];
  const int64_t batch = std::max(1, std::atoi(argv[2]));
  const double seconds = std::atof(argv[3]);
  const int instances = std::max(1, std::atoi(argv[5])), repeats = argc > 6 ? std::atoi(argv[6]) : 1;

  const BackendRegistry registry = builtin_backends();
  serve::ModelConfig config;
  config.max_batch_size = batch;
  config.has_max_batch_size = true;
  config.instance_group.push_back({"", "KIND_CPU", instances, {}});
  config.parameters["threads"] = argv[4];
  const auto model = make_model_factory(registry, {})({"model", 1, folder, folder, true}, config);
  if (!model.ok()) return fail(model.error());
  const TensorModelInfo& info = (*model)->info();
  if (info.inputs.size() != 1 || info.inputs[0].type != ElementType::kFloat32 || info.max_batch != batch)
    return fail(
        {ErrorCode::kUnsupported, "wants a network with one float32 input and a free batch", folder, ""});
  InputTensor input{info.inputs[0].shape, {}};
  input.shape.insert(input.shape.begin(), batch);
  size_t elements = 1;
  for (const int64_t d : input.shape) elements *= size_t(d);
  const size_t rounds = std::max<size_t>(1, (size_t{64} << 20) / (elements * sizeof(float)));
  std::vector<Buffer<float>> values;
  std::mt19937 random(1);
  for (size_t i = 0; i < rounds; ++i)
    for (float& v : values.emplace_back(elements)) v = float(random() % 4096) / 1024 - 2;

  const auto input_of = [&](size_t run) {
    return InputTensor{input.shape, std::as_bytes(values[run % rounds].span())};
  };
  std::vector<std::unique_ptr<TensorSession>> sessions;
  for (int i = 0; i < instances; ++i) {
    auto session = (*model)->create_session();
    if (!session.ok()) return fail(session.error());
    std::vector<OwnedTensor> outputs;
    for (int warm = 0; warm < 3; ++warm)
      if (const InputTensor in = input_of(0); !(*session)->run({&in, 1}, outputs).ok())
        return fail({ErrorCode::kInternal, "the network failed", folder, ""});
    sessions.push_back(std::move(*session));
  }
  std::printf("{\"batch\": %lld, \"instances\": %d, \"description\": \"%s\", \"samples_per_s\": [",
              (long long)batch, instances, info.description.c_str());
  std::string cpu;
  for (int r = 0; r < repeats; ++r) {
    std::atomic<int64_t> samples{0};
    std::atomic<bool> failed{false};
    const auto start = Clock::now();
    const double cpu_start = process_cpu_s();
    const auto end =
        start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
    std::vector<std::thread> threads;
    for (const auto& session : sessions)
      threads.emplace_back([&, s = session.get()] {
        std::vector<OwnedTensor> outputs;
        for (size_t run = 0; Clock::now() < end && !failed; ++run) {
          const InputTensor in = input_of(run);
          if (!s->run({&in, 1}, outputs).ok()) failed = true;
          samples += batch;
        }
      });
    for (std::thread& t : threads) t.join();
    if (failed) return fail({ErrorCode::kInternal, "the network failed", folder, ""});
    const double took = std::chrono::duration<double>(Clock::now() - start).count();
    std::printf("%s%.2f", r ? ", " : "", double(samples) / took);
    char text[32];
    std::snprintf(text, sizeof text, "%s%.3f", r ? ", " : "",
                  (process_cpu_s() - cpu_start) / double(samples) * 1e6);
    cpu += text;
  }
  std::printf("], \"cpu_us_per_sample\": [%s]}\n", cpu.c_str());
  return 0;
}
