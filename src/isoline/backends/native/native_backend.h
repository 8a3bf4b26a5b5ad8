// The native backend: Isoline's own x86-64 CPU engine. Convolutions of 3 run as Winograd products, instance
// normalisation and activations are applied while the next operation reads, concatenations are never copied.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "isoline/engine/backend.h"

namespace isoline {

// fp32 on AVX2 or AVX-512, bf16 on processors with AVX-512 BF16; any other request is refused by supports().
// Results do not depend on the number of threads.
std::unique_ptr<Backend> make_native_backend();

// What one step of a session did in its last run, for benchmarks.
struct NativeStepTime {
  std::string name;  // e.g. "conv 3x3x3 64->32 @128x128x128 winograd 4x4x4"
  double duration_ms = 0;
  int64_t macs = 0;  // of the operation as defined, whatever the algorithm did instead
};

struct NativeMemory {
  uint64_t activation_bytes = 0, weight_bytes = 0, scratch_bytes = 0;
};

// `session` must come from the native backend.
std::vector<NativeStepTime> native_step_times(const Session& session);
NativeMemory native_memory(const Session& session);

}  // namespace isoline
