#include "isoline/backends/cuda/tuning_kernels.h"

#include "isoline/backends/cuda/elements.cuh"
#include "isoline/backends/cuda/products.cuh"

namespace isoline::cuda {
namespace {

constexpr int kThreads = 256, kBlocks = 1024;

template <class T>
__global__ void __launch_bounds__(kThreads) fill_kernel(T* data, int64_t count) {
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < count; i += int64_t(gridDim.x) * kThreads) {
    data[i] = from_float<T>(some_value(uint32_t(i)));
  }
}

__device__ __forceinline__ unsigned long long mixed(unsigned long long v) {
  v = (v ^ (v >> 33)) * 0xff51afd7ed558ccdull;
  v = (v ^ (v >> 33)) * 0xc4ceb9fe1a85ec53ull;
  return v ^ (v >> 33);
}

__global__ void __launch_bounds__(kThreads) checksum_kernel(const uint32_t* data, int64_t rows, int row_words,
                                                            int64_t pitch_words, unsigned long long* sum) {
  unsigned long long mine = 0;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < rows * row_words;
       i += int64_t(gridDim.x) * kThreads) {
    const int64_t row = i / row_words;
    mine += mixed(mixed(i + 1) ^ data[row * pitch_words + (i - row * row_words)]);
  }
  for (int d = 16; d > 0; d /= 2) mine += __shfl_xor_sync(~0u, mine, d);
  if (threadIdx.x % 32 == 0) atomicAdd(sum, mine);
}

}  // namespace

cudaError_t fill_values(void* data, DataType type, int64_t count, cudaStream_t stream) {
  return with_type(type, [&](auto t) {
    using T = decltype(t);
    fill_kernel<T><<<kBlocks, kThreads, 0, stream>>>(static_cast<T*>(data), count);
  });
}

cudaError_t add_checksum(const void* data, int64_t rows, int row_words, int64_t pitch_words,
                         unsigned long long* sum, cudaStream_t stream) {
  checksum_kernel<<<kBlocks, kThreads, 0, stream>>>(static_cast<const uint32_t*>(data), rows, row_words,
                                                    pitch_words, sum);
  return cudaGetLastError();
}

}  // namespace isoline::cuda
