// The cuda backend: networks on NVIDIA GPUs (compute capability 8.0 and newer) with kernels of its own, in
// fp32, tf32, bf16 and fp16 (sums and statistics in fp32). Results do not depend on timing: two runs are
// bit-identical.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "isoline/engine/backend.h"

namespace isoline {

// Runs on the first GPU that CUDA lists; CUDA_VISIBLE_DEVICES chooses another. available() is false without
// one, and device_description() says why.
std::unique_ptr<Backend> make_cuda_backend();

// For benchmarks and tests; `session` must come from this backend.
struct CudaStepTime {
  std::string name;
  double duration_ms = 0;
  int64_t macs = 0, bytes = 0;  // of the whole batch; bytes: the least it must move
};
struct CudaMemory {
  uint64_t activation_bytes = 0, weight_bytes = 0, scratch_bytes = 0, transfer_bytes = 0;
  uint64_t total() const { return activation_bytes + weight_bytes + scratch_bytes + transfer_bytes; }
};
// Runs the steps one by one, outside the graph, `runs` times after a warm-up: median of each. Does not touch
// results.
Result<std::vector<CudaStepTime>> cuda_step_times(Session& session, int runs);
// Median time of the whole graph on the device: kernels only, no copies.
Result<double> cuda_graph_ms(Session& session, int runs);
CudaMemory cuda_memory(const Session& session);

}  // namespace isoline
