// The launch that all convolutions on shared memory have in common.
#pragma once

#include <type_traits>

#include "isoline/backends/cuda/conv_args.h"

namespace isoline::cuda {

using ConvKernel = void (*)(ConvArgs);

// further: the kernel's arguments after the first.
template <typename... Further>
cudaError_t launch_conv(void (*kernel)(ConvArgs, Further...), const ConvPlan& plan, cudaStream_t stream,
                        const std::type_identity_t<Further>&... further) {
  const cudaError_t error =
      cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                           int(plan.shared_bytes));
  if (error != cudaSuccess) return error;
  kernel<<<plan.grid, plan.threads, plan.shared_bytes, stream>>>(plan.args, further...);
  return cudaGetLastError();
}

}  // namespace isoline::cuda
