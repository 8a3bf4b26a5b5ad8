// Eight channels at a time: 16-byte accesses for 2-byte types, two of them for float32; arithmetic is
// float32.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "isoline/backends/cuda/kernels.h"

namespace isoline::cuda {

__device__ inline float to_float(float v) {
  return v;
}
__device__ inline float to_float(__half v) {
  return __half2float(v);
}
__device__ inline float to_float(__nv_bfloat16 v) {
  return __bfloat162float(v);
}
template <class T>
__device__ T from_float(float v);
template <>
__device__ inline float from_float<float>(float v) {
  return v;
}
template <>
__device__ inline __half from_float<__half>(float v) {
  return __float2half_rn(v);  // beyond 65504: infinity, which the end of the network reports
}
template <>
__device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float v) {
  return __float2bfloat16_rn(v);
}

template <class T>
struct alignas(16) Eight {
  T v[8];
};

template <class T>
__device__ inline Eight<T> load_raw8(const T* p) {
  Eight<T> e;
  constexpr int kWords = sizeof(e) / 16;
#pragma unroll
  for (int i = 0; i < kWords; ++i) reinterpret_cast<uint4*>(&e)[i] = reinterpret_cast<const uint4*>(p)[i];
  return e;
}
template <class T>
__device__ inline void load8(const T* p, float (&v)[8]) {
  const Eight<T> e = load_raw8(p);
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] = to_float(e.v[i]);
}
template <class T>
__device__ inline void store8(T* p, const float (&v)[8]) {
  Eight<T> e;
#pragma unroll
  for (int i = 0; i < 8; ++i) e.v[i] = from_float<T>(v[i]);
  constexpr int kWords = sizeof(e) / 16;
#pragma unroll
  for (int i = 0; i < kWords; ++i) reinterpret_cast<uint4*>(p)[i] = reinterpret_cast<const uint4*>(&e)[i];
}

__device__ inline float leaky(float v, float slope) {
  return v > 0 ? v : slope * v;  // NaN and infinity pass, also with slope 0
}

__device__ inline int64_t voxels_of(const Tensor& t) {
  return int64_t(t.z) * t.y * t.x;
}

// Scale and shift of eight channels, in registers.
struct Affine8 {
  float scale[8], shift[8], slope;
  bool identity;
  __device__ Affine8(const LoadTransform& load, int64_t first) {
    identity = load.scale_shift == nullptr;
    slope = load.slope;
    if (identity) return;
    const float4* p = reinterpret_cast<const float4*>(load.scale_shift + 2 * first);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float4 q = p[i];
      scale[2 * i] = q.x;
      shift[2 * i] = q.y;
      scale[2 * i + 1] = q.z;
      shift[2 * i + 1] = q.w;
    }
  }
  __device__ void apply(float (&v)[8]) const {
    if (identity) return;
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = leaky(v[i] * scale[i] + shift[i], slope);
  }
};

// Calls f(T{}) with the C++ type of `type`.
template <class F>
cudaError_t with_type(DataType type, F&& f) {
  switch (type) {
    case DataType::kFloat32:
    case DataType::kTensorFloat32:
      f(float{});
      break;
    case DataType::kFloat16:
      f(__half{});
      break;
    case DataType::kBFloat16:
      f(__nv_bfloat16{});
      break;
  }
  return cudaGetLastError();
}

}  // namespace isoline::cuda
