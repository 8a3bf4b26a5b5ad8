#include "isoline/backends/cuda/ceilings.h"

#include "isoline/backends/cuda/products.cuh"

namespace isoline::cuda {
namespace {

constexpr int kCopyThreads = 256, kCopyWords = int(kCopyBlockBytes) / 16 / kCopyThreads;

__global__ void __launch_bounds__(kCopyThreads) copy_kernel(const uint4* __restrict__ from, uint4* __restrict__ to) {
  const int64_t first = int64_t(blockIdx.x) * kCopyThreads * kCopyWords + threadIdx.x;
  uint4 words[kCopyWords];
#pragma unroll
  for (int i = 0; i < kCopyWords; ++i) words[i] = __ldcs(from + first + i * kCopyThreads);
#pragma unroll
  for (int i = 0; i < kCopyWords; ++i) __stcs(to + first + i * kCopyThreads, words[i]);
}

constexpr int kThreads = 256;  // of a block; kProductThreads / kThreads blocks a processor
constexpr int kChains = 8;     // of products that do not wait for each other
constexpr int kFmaRounds = 8192, kMmaRounds = 8192;

constexpr double kTileFlops = 2.0 * 16 * 8 * 16;  // of multiply_tile(); half as many for TF32

template <typename T>
__global__ void __launch_bounds__(kThreads) mma_kernel(float* sums) {
  const uint32_t me = blockIdx.x * kThreads + threadIdx.x;
  uint32_t a[2][4], b[kChains][2];
  float c[kChains][4] = {};
#pragma unroll
  for (int i = 0; i < 8; ++i) a[i / 4][i % 4] = some_values<T>(me * 64 + i);
#pragma unroll
  for (int i = 0; i < kChains * 2; ++i) b[i / 2][i % 2] = some_values<T>(me * 64 + 8 + i);
#pragma unroll 1
  for (int round = 0; round < kMmaRounds; ++round) {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
#pragma unroll
      for (int i = 0; i < kChains; ++i) multiply_tile<T>(c[i], a[k], b[i][0], b[i][1]);
    }
  }
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kChains * 4; ++i) sum += c[i / 4][i % 4];
  sums[me] = sum;
}

__global__ void __launch_bounds__(kThreads) fma_kernel(float* sums) {
  const uint32_t me = blockIdx.x * kThreads + threadIdx.x;
  // Operands that neighbouring instructions share, as in a matrix product. With three others each time an
  // H100 came to 39 TFLOP/s only, of the 67 in its data sheet.
  float a[2], b[2], c[2 * kChains];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    a[i] = 0.75f * some_value(me * 64 + i);  // below 1: sums stay finite
    b[i] = some_value(me * 64 + 2 + i);
  }
#pragma unroll
  for (int i = 0; i < 2 * kChains; ++i) c[i] = some_value(me * 64 + 4 + i);
#pragma unroll 1
  for (int round = 0; round < kFmaRounds; ++round) {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
#pragma unroll
      for (int i = 0; i < 2 * kChains; ++i) c[i] = __fmaf_rn(c[i], a[k], b[k]);
    }
  }
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 2 * kChains; ++i) sum += c[i];
  sums[me] = sum;
}

}  // namespace

cudaError_t copy_memory(const void* from, void* to, int64_t bytes, cudaStream_t stream) {
  if (bytes <= 0 || bytes % kCopyBlockBytes) return cudaErrorInvalidValue;
  copy_kernel<<<unsigned(bytes / kCopyBlockBytes), kCopyThreads, 0, stream>>>(static_cast<const uint4*>(from),
                                                                            static_cast<uint4*>(to));
  return cudaGetLastError();
}

cudaError_t multiply(DataType type, const DeviceInfo& device, float* sums, Products* products, cudaStream_t stream) {
  const unsigned blocks = unsigned(device.processors) * (kProductThreads / kThreads);
  const double warps = double(blocks) * kThreads / 32;
  if (type == DataType::kFloat32) {
    *products = {double(blocks) * kThreads * kFmaRounds * 4 * kChains * 2, "fused multiply-adds of float32"};
    fma_kernel<<<blocks, kThreads, 0, stream>>>(sums);
    return cudaGetLastError();
  }
  if (type == DataType::kTensorFloat32) {
    *products = {warps * kMmaRounds * 2 * kChains * kTileFlops / 2, "mma.sync m16n8k8 of TF32"};
    mma_kernel<float><<<blocks, kThreads, 0, stream>>>(sums);
    return cudaGetLastError();
  }
#ifdef ISOLINE_CUDA_WGMMA
  if (device.major == 9) return multiply_wgmma(type, device, sums, products, stream);
#endif
  const bool half = type == DataType::kFloat16;
  *products = {warps * kMmaRounds * 2 * kChains * kTileFlops,
               half ? "mma.sync m16n8k16 of fp16" : "mma.sync m16n8k16 of bf16"};
  if (half)
    mma_kernel<__half><<<blocks, kThreads, 0, stream>>>(sums);
  else
    mma_kernel<__nv_bfloat16><<<blocks, kThreads, 0, stream>>>(sums);
  return cudaGetLastError();
}

}  // namespace isoline::cuda
