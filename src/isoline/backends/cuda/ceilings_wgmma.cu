// Hopper's tensor cores at their best: wgmma with inputs from registers and shared memory, as the
// convolutions use it, two warpgroups a processor that wait for nothing else.
#include "isoline/backends/cuda/ceilings.h"

#include "isoline/backends/cuda/hopper.cuh"
#include "isoline/backends/cuda/products.cuh"

namespace isoline::cuda {
namespace {

constexpr int kThreads = 256, kRounds = 8192;
constexpr int kN = 128, kK = 16;                // of a product 64 x kK by kK x kN, per warpgroup
constexpr int kOperands = 4;                    // different ones, in turn
constexpr int kOperandBytes = kN * kK * 2;      // in shared memory: core matrices of 8 x 16 bytes, two along k

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// Without swizzle: address, distance of core matrices along k and along n, in units of 16 bytes.
__device__ __forceinline__ uint64_t descriptor(const void* operand) {
  const auto units = [](uint32_t bytes) { return uint64_t((bytes & 0x3ffff) >> 4); };
  return units(shared_address(operand)) | units(128) << 16 | units(256) << 32;
}

#define ISOLINE_WGMMA128(type)                                                                                  \
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type                                     \
               " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                       \
               "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "               \
               "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "               \
               "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "              \
               "{%64, %65, %66, %67}, %68, 1, 1, 1, 0;"                                                         \
               : ISOLINE_C16(0), ISOLINE_C16(16), ISOLINE_C16(32), ISOLINE_C16(48)                              \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
template <typename T>
__device__ __forceinline__ void multiply(float (&c)[kN / 2], const uint32_t (&a)[4], uint64_t b) {
  if constexpr (std::is_same_v<T, __half>) {
    ISOLINE_WGMMA128("f16");
  } else {
    ISOLINE_WGMMA128("bf16");
  }
}
#undef ISOLINE_WGMMA128

template <typename T>
__device__ __forceinline__ void run(float* sums) {
  __shared__ __align__(128) uint32_t operands[kOperands][kOperandBytes / 4];
  const uint32_t me = blockIdx.x * kThreads + threadIdx.x;
  for (int i = threadIdx.x; i < kOperands * kOperandBytes / 4; i += kThreads)
    operands[i / (kOperandBytes / 4)][i % (kOperandBytes / 4)] = some_values<T>(i);
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncthreads();
  uint32_t a[kOperands][4];
  float c[kN / 2] = {};
#pragma unroll
  for (int i = 0; i < kOperands * 4; ++i) a[i / 4][i % 4] = some_values<T>(me * 64 + i);
  const uint64_t b = descriptor(operands);
#pragma unroll 1
  for (int round = 0; round < kRounds; ++round) {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int i = 0; i < kOperands; ++i) multiply<T>(c, a[i], b + uint64_t(i * (kOperandBytes >> 4)));
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
  }
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kN / 2; ++i) {
    asm volatile("" : "+f"(c[i])::"memory");
    sum += c[i];
  }
  sums[me] = sum;
}

#endif

template <typename T>
__global__ void __launch_bounds__(kThreads, 1) wgmma_kernel(float* sums) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  run<T>(sums);
#else
  sums[blockIdx.x * kThreads + threadIdx.x] = 0;
#endif
}

}  // namespace

cudaError_t multiply_wgmma(DataType type, const DeviceInfo& device, float* sums, Products* products,
                           cudaStream_t stream) {
  const bool half = type == DataType::kFloat16;
  const double warpgroups = double(device.processors) * kThreads / 128;
  *products = {warpgroups * kRounds * kOperands * 2.0 * 64 * kN * kK,
               half ? "wgmma m64n128k16 of fp16" : "wgmma m64n128k16 of bf16"};
  if (half)
    wgmma_kernel<__half><<<unsigned(device.processors), kThreads, 0, stream>>>(sums);
  else
    wgmma_kernel<__nv_bfloat16><<<unsigned(device.processors), kThreads, 0, stream>>>(sums);
  return cudaGetLastError();
}

}  // namespace isoline::cuda
