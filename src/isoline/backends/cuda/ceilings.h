// What the device reaches at best: memory copied, and products that wait for nothing. Two small kernels each
// of which does nothing else, timed where the program runs.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "isoline/backends/cuda/device.h"
#include "isoline/backends/cuda/kernels.h"
#include "isoline/engine/backend.h"

namespace isoline::cuda {

// Takes half a GiB of the device's memory for some 50 ms. Errors: memory, a device that fails.
Result<DeviceCeilings> measure_ceilings(const DeviceInfo& device, Precision precision);

// --- The kernels. Launchers as in kernels.h. ---

// `bytes`: a multiple of kCopyBlockBytes; both 16-byte aligned.
inline constexpr int64_t kCopyBlockBytes = 16384;
cudaError_t copy_memory(const void* from, void* to, int64_t bytes, cudaStream_t stream);

// What a launch of products came to.
struct Products {
  double flops = 0;
  const char* how = "";
};
// On all processors, for a few milliseconds: tensor cores with float32 sums for 16-bit types, as the
// convolutions use them on this device; fused multiply-adds for float32. sums: kProductThreads floats for
// each processor, overwritten.
inline constexpr int kProductThreads = 1024;
cudaError_t multiply(DataType type, const DeviceInfo& device, float* sums, Products* products,
                     cudaStream_t stream);
// ceilings_wgmma.cu; only in builds for Hopper and only there.
cudaError_t multiply_wgmma(DataType type, const DeviceInfo& device, float* sums, Products* products,
                           cudaStream_t stream);

}  // namespace isoline::cuda
