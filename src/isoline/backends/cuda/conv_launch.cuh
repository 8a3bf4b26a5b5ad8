// The launch that all convolutions on shared memory have in common.
#pragma once

#include "isoline/backends/cuda/conv_args.h"

namespace isoline::cuda {

using ConvKernel = void (*)(ConvArgs);

inline cudaError_t launch_conv(ConvKernel kernel, const ConvPlan& plan, cudaStream_t stream) {
  const cudaError_t error =
      cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                           int(plan.shared_bytes));
  if (error != cudaSuccess) return error;
  kernel<<<plan.grid, plan.threads, plan.shared_bytes, stream>>>(plan.args);
  return cudaGetLastError();
}

}  // namespace isoline::cuda
