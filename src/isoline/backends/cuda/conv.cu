// conv(): checks, choice of kernel and box, and the second pass of convolutions whose input channels are
// split.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <type_traits>

#include "isoline/backends/cuda/conv_args.h"

namespace isoline::cuda {
namespace {

// Adds the parts in order, then bias, statistics, rounding. 128 threads: 32 voxels x 32 channels.
template <typename T>
__global__ void __launch_bounds__(128) finish_kernel(const __grid_constant__ ConvArgs p) {
  __shared__ float2 sums[4][32];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int64_t voxels = int64_t(p.out_z) * p.out_y * p.out_x;
  const int64_t voxel = int64_t(blockIdx.x) * kFinishVoxels + (threadIdx.x >> 2);
  const int channel = blockIdx.y * 32 + (threadIdx.x & 3) * 8;
  const int sample = blockIdx.z;
  float v[8] = {}, squares[8] = {};
  if (voxel < voxels && channel < p.out_c) {
    const float4* from = reinterpret_cast<const float4*>(
        p.workspace + (int64_t(sample) * voxels + voxel) * (p.out_tiles * 32) + channel);
    const int64_t part = int64_t(p.n) * voxels * (p.out_tiles * 8);
#pragma unroll 4
    for (int split = 0; split < p.splits; ++split, from += part) {
      const float4 a = __ldcg(from), b = __ldcg(from + 1);
      v[0] += a.x, v[1] += a.y, v[2] += a.z, v[3] += a.w;
      v[4] += b.x, v[5] += b.y, v[6] += b.z, v[7] += b.w;
    }
    alignas(16) T values[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (p.bias) v[i] += __ldg(p.bias + channel + i);
      squares[i] = v[i] * v[i];
      if constexpr (std::is_same_v<T, float>) {
        values[i] = v[i];
      } else if constexpr (std::is_same_v<T, __half>) {
        values[i] = __float2half_rn(v[i]);
      } else {
        values[i] = __float2bfloat16_rn(v[i]);
      }
    }
    uint4* const to = reinterpret_cast<uint4*>(static_cast<T*>(p.out) +
                                               (int64_t(sample) * voxels + voxel) * p.out_pitch + channel);
#pragma unroll
    for (int i = 0; i < int(sizeof(T)) / 2; ++i) to[i] = reinterpret_cast<const uint4*>(values)[i];
  }
  if (!p.partial) return;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
#pragma unroll
    for (int d = 4; d < 32; d *= 2) {
      v[i] += __shfl_xor_sync(~0u, v[i], d);
      squares[i] += __shfl_xor_sync(~0u, squares[i], d);
    }
    if (lane < 4) sums[warp][lane * 8 + i] = make_float2(v[i], squares[i]);
  }
  __syncthreads();
  const int of = blockIdx.y * 32 + threadIdx.x;
  if (threadIdx.x < 32 && of < p.out_c) {
    float2 total = make_float2(0, 0);
    for (int w = 0; w < 4; ++w) total.x += sums[w][threadIdx.x].x, total.y += sums[w][threadIdx.x].y;
    reinterpret_cast<float2*>(p.partial)[(int64_t(sample) * gridDim.x + blockIdx.x) * p.out_c + of] = total;
  }
}

cudaError_t device_limits(DeviceLimits* limits) {
  int device = 0, block = 0, processor = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&limits->processors, cudaDevAttrMultiProcessorCount, device);
  }
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&block, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&processor, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device);
  }
  int major = 0, minor = 0;
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  }
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  }
  limits->capability = 10 * major + minor;
  limits->shared_per_block = size_t(block);
  limits->shared_per_processor = size_t(processor);
  return error;
}

bool well_formed(const Tensor& t) {
  return t.n > 0 && t.z > 0 && t.y > 0 && t.x > 0 && t.c > 0 && t.c % 8 == 0 && t.pitch >= t.c &&
         t.pitch % 8 == 0 && t.voxels() < (int64_t(1) << 31);
}

cudaError_t make_plan(const Tensor& in, bool planar, const Tensor& out, const ConvShape& shape,
                      ConvPlan* plan) {
  if ((!planar && !well_formed(in)) || !well_formed(out) || in.n != out.n || in.type != out.type) {
    return cudaErrorInvalidValue;
  }
  const int from[3] = {in.z, in.y, in.x}, to[3] = {out.z, out.y, out.x};
  for (int i = 0; i < 3; ++i) {
    const int k = shape.kernel[i], s = shape.stride[i];
    if (k < 1 || k > 7 || k % 2 == 0 || s < 1 || s > 2 || to[i] != (from[i] - 1) / s + 1)
      return cudaErrorInvalidValue;
  }
  DeviceLimits limits;
  const cudaError_t error = device_limits(&limits);
  if (error != cudaSuccess) return error;
  plan->type = out.type;
  ConvArgs& a = plan->args;
  a = ConvArgs{};
  a.n = in.n;
  a.in_z = in.z, a.in_y = in.y, a.in_x = in.x, a.in_c = in.c, a.in_pitch = in.pitch;
  a.out_z = out.z, a.out_y = out.y, a.out_x = out.x, a.out_c = out.c, a.out_pitch = out.pitch;
  a.kz = shape.kernel[0], a.ky = shape.kernel[1], a.kx = shape.kernel[2];
  a.sz = shape.stride[0], a.sy = shape.stride[1], a.sx = shape.stride[2];
  bool fits = false;
  const ConvKernelKind kind = shape.choice.kind;
  if (planar) {
    plan_planar(*plan, limits, &fits);
  } else if (in.type == DataType::kFloat32) {
    if (kind == ConvKernelKind::kRule || kind == ConvKernelKind::kFp32) plan_fp32(*plan, limits, &fits);
  } else {
#ifdef ISOLINE_CUDA_WGMMA
    if (in.type != DataType::kTensorFloat32) {
      if (kind == ConvKernelKind::kRule || kind == ConvKernelKind::kWgmma) {
        plan_wgmma(*plan, limits, shape.choice, &fits);
      }
      const auto consider = [&](ConvKernelKind of, auto plan_other) {
        if (kind != ConvKernelKind::kRule && kind != of) return;
        ConvPlan other = *plan;
        bool other_fits = false;
        plan_other(other, limits, shape.choice, &other_fits);
        if (other_fits && (!fits || other.clocks < plan->clocks)) *plan = other, fits = true;
      };
      consider(ConvKernelKind::kChannels, plan_channels);
      consider(ConvKernelKind::kMarch, plan_march);
    }
#endif
    if (!fits && (kind == ConvKernelKind::kRule || kind == ConvKernelKind::kMma)) {
      plan->layout = WeightLayout::kMma;
      plan_mma(*plan, limits, shape.choice, &fits);
    }
  }
  if (!fits || plan->grid.y > 65535 || plan->grid.z > 65535) return cudaErrorNotSupported;
  if (a.splits > 1) {
    plan->blocks = int((out.voxels() + kFinishVoxels - 1) / kFinishVoxels);
    plan->workspace_bytes =
        size_t(a.splits) * size_t(a.n) * size_t(out.voxels()) * size_t(a.out_tiles) * 32 * 4;
  }
  return cudaSuccess;
}

cudaError_t make_planar_plan(const PlanarInput& in, const Tensor& out, const ConvShape& shape,
                             ConvPlan* plan) {
  for (const int stride : shape.stride) {
    if (stride != 1) return cudaErrorNotSupported;
  }
  if (out.type == DataType::kFloat32 || out.type == DataType::kTensorFloat32 || in.channels < 1 ||
      in.channels > 4 || shape.kernel[2] > 3) {
    return cudaErrorNotSupported;
  }
  Tensor tensor = out;
  tensor.c = tensor.pitch = in.channels;
  return make_plan(tensor, true, out, shape, plan);
}

}  // namespace

cudaError_t conv_planar_needs(const PlanarInput& in, const Tensor& out, const ConvShape& shape,
                              ConvNeeds* needs) {
  ConvPlan plan;
  const cudaError_t error = make_planar_plan(in, out, shape, &plan);
  if (error != cudaSuccess) return error;
  needs->blocks = plan.blocks;
  needs->workspace_bytes = 0;
  return cudaSuccess;
}

cudaError_t conv_planar(const PlanarInput& in, const Tensor& out, const ConvShape& shape,
                        const ConvWeights& weights, const Statistics& statistics, cudaStream_t stream) {
  ConvPlan plan;
  const cudaError_t error = make_planar_plan(in, out, shape, &plan);
  if (error != cudaSuccess) return error;
  if (!in.data || !out.data || !weights.packed || (statistics.partial && statistics.blocks != plan.blocks)) {
    return cudaErrorInvalidValue;
  }
  plan.args.in = in.data;
  plan.args.out = out.data;
  plan.args.packed = weights.packed;
  plan.args.bias = weights.bias;
  plan.args.partial = statistics.partial;
  return launch_planar(plan, out.type, stream);
}

cudaError_t conv_needs(const Tensor& in, const Tensor& out, const ConvShape& shape, ConvNeeds* needs) {
  ConvPlan plan;
  const cudaError_t error = make_plan(in, false, out, shape, &plan);
  if (error != cudaSuccess) return error;
  needs->blocks = plan.blocks;
  needs->workspace_bytes = plan.workspace_bytes;
  needs->layout = plan.layout;
  return cudaSuccess;
}

std::vector<ConvChoice> conv_candidates(const Tensor& in, const Tensor& out, const ConvShape& shape,
                                        bool same_bits) {
  ConvShape tried = shape;
  tried.choice = {};
  ConvPlan plan;
  if (make_plan(in, false, out, tried, &plan) != cudaSuccess) return {};
  if (in.type == DataType::kFloat32) return {{ConvKernelKind::kFp32}};
  const bool hopper = plan.layout != WeightLayout::kMma, marches = plan.layout == WeightLayout::kMarch;
  const bool planes = marches || plan.layout == WeightLayout::kChannels;  // planes.cuh
  const int tile = plan.args.m_warps, splits = plan.args.splits;
  DeviceLimits limits;
  if (device_limits(&limits) != cudaSuccess) return {};
  const int64_t most = 8 * int64_t(limits.processors);
  std::vector<ConvChoice> found;
  const auto add = [&](const ConvChoice& choice) {
    ConvPlan possible;
    tried.choice = choice;
    if (std::find(found.begin(), found.end(), choice) != found.end()) return;
    if (make_plan(in, false, out, tried, &possible) != cudaSuccess) return;
    // What comes out as another candidate is none.
    if (choice.kind == ConvKernelKind::kMma &&
        (possible.args.stages != choice.stages || possible.args.splits != choice.splits)) {
      return;
    }
    // Parts are for convolutions with few boxes; elsewhere they would only take memory.
    if (choice.splits > std::max(1, splits) &&
        int64_t(possible.grid.x) * possible.grid.y * possible.grid.z > most)
      return;
    found.push_back(choice);
  };
  if (hopper) {
    if (planes) {
      add({marches ? ConvKernelKind::kMarch : ConvKernelKind::kChannels});
      if (same_bits) return found;
    }
    ConvChoice choice{ConvKernelKind::kWgmma};
    choice.producers = planes ? 2 : plan.threads / 128 - 2;
    add(choice);
    choice.producers = 3 - choice.producers;
    add(choice);
    if (same_bits) return found;
  } else {
    add({ConvKernelKind::kMma, tile, plan.args.n_warps, plan.args.stages, splits});
  }
  if (!same_bits) {
    add({ConvKernelKind::kChannels});
    add({ConvKernelKind::kMarch});
  }
  // Products are added up in one order whatever the tile; statistics are added up by box, unless the parts of
  // a split convolution are added up first.
  std::vector<int> parts{splits};
  if (!same_bits) parts = {1, 2, 4, 8, 16, hopper ? 1 : splits};
  for (const int k : parts) {
    for (const int m : {4, 2, 1}) {
      if (same_bits && splits == 1 && m != tile) continue;
      for (const int n : {1, 2, 4}) {
        if (n > 1 && n > ceil_div(out.c, 32)) continue;
        for (const int stages : {2, 1}) add({ConvKernelKind::kMma, m, n, stages, k});
      }
    }
  }
  return found;
}

cudaError_t conv(const Tensor& in, const LoadTransform& load, const Tensor& out, const ConvShape& shape,
                 const ConvWeights& weights, const Statistics& statistics, void* workspace,
                 cudaStream_t stream) {
  ConvPlan plan;
  cudaError_t error = make_plan(in, false, out, shape, &plan);
  if (error != cudaSuccess) return error;
  if (!in.data || !out.data || !weights.packed || (plan.workspace_bytes > 0 && !workspace) ||
      (statistics.partial && statistics.blocks != plan.blocks)) {
    return cudaErrorInvalidValue;
  }
  if (load.first < 0 || load.first % 8 || load.first >= in.c) return cudaErrorInvalidValue;
  ConvArgs& a = plan.args;
  a.in = in.data;
  a.out = out.data;
  a.packed = weights.packed;
  a.bias = weights.bias;
  a.scale_shift = load.scale_shift;
  a.slope = load.slope;
  a.transform_first = load.first;
  a.partial = statistics.partial;
  a.workspace = static_cast<float*>(workspace);
  if (in.type == DataType::kFloat32) {
    error = launch_fp32(plan, stream);
#ifdef ISOLINE_CUDA_WGMMA
  } else if (plan.layout == WeightLayout::kMarch) {
    error = launch_march(plan, in.type, stream);
  } else if (plan.layout == WeightLayout::kChannels) {
    error = launch_channels(plan, in.type, stream);
  } else if (plan.layout != WeightLayout::kMma) {
    error = launch_wgmma(plan, in.type, stream);
#endif
  } else {
    error = launch_mma(plan, stream);
  }
  if (error != cudaSuccess || a.splits == 1) return error;
  const dim3 grid(unsigned(plan.blocks), unsigned(a.out_tiles), unsigned(a.n));
  if (in.type == DataType::kFloat32 || in.type == DataType::kTensorFloat32) {
    finish_kernel<float><<<grid, 128, 0, stream>>>(a);
  } else if (in.type == DataType::kFloat16) {
    finish_kernel<__half><<<grid, 128, 0, stream>>>(a);
  } else {
    finish_kernel<__nv_bfloat16><<<grid, 128, 0, stream>>>(a);
  }
  return cudaGetLastError();
}

}  // namespace isoline::cuda
