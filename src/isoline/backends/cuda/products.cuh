// What the kernels of ceilings.h have in common: operands that are neither 0 nor all alike.
#pragma once

#include <cstdint>

#include "isoline/backends/cuda/fragments.cuh"

namespace isoline::cuda {

// From -1 to 1, by position.
__device__ __forceinline__ float some_value(uint32_t position) {
  uint32_t v = position * 2654435761u;
  v = (v ^ (v >> 15)) * 2246822519u;
  return float(int32_t(v ^ (v >> 13))) * 0x1p-31f;
}

template <typename T>
__device__ __forceinline__ uint32_t some_values(uint32_t position) {
  if constexpr (std::is_same_v<T, float>) {
    return __float_as_uint(some_value(position)) & ~0x1fffu;  // TF32
  } else {
    return pack2<T>(some_value(2 * position), some_value(2 * position + 1));
  }
}

}  // namespace isoline::cuda
