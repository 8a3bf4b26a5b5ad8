// Convolution on tensor cores (mma.m16n8k16, fp16 or bf16 in, float32 accumulation), sm_80 and later.
//
// A block computes a box of output voxels for 32 * n_warps output channels. Per chunk of 16 input channels it copies the
// box with its halo into shared memory once (cp.async, zeros outside the volume), applies the load transform there, and
// runs every kernel tap from there while the next chunk travels. A warp holds 8 fragments of 16 voxels x 32 channels.
// The 16 rows of a fragment lie along y and z, fragments follow one another along x: a fragment of inputs at column xi
// serves all taps kx with xi = x * sx + kx from registers, so shared memory is read once per (kz, ky) and not per kx.
// Shared memory holds 16-byte units [half of the chunk][z][x][y]: eight rows of a fragment are 128 consecutive bytes
// whatever the tap, so ldmatrix has no bank conflicts (with stride 2, even y precede odd y for the same reason).
// Weights come through L1/L2 in fragment order (pack.cpp), one step ahead.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <type_traits>

#include "isoline/backends/cuda/conv_args.h"

namespace isoline::cuda {
namespace {

constexpr int kColumns = 8;  // fragments of a warp along x

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

__device__ __forceinline__ void copy16(uint32_t to, const void* from, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

__device__ __forceinline__ void load_fragment(uint32_t (&a)[4], uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
               : "r"(from)
               : "memory");
}

template <typename T>
__device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (std::is_same_v<T, __half>) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

template <typename T>
__device__ __forceinline__ float2 unpack(uint32_t v) {
  if constexpr (std::is_same_v<T, __half>) {
    return __half22float2(reinterpret_cast<const __half2&>(v));
  } else {
    return __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(v));
  }
}

template <typename T>
__device__ __forceinline__ uint32_t pack2(float a, float b) {
  if constexpr (std::is_same_v<T, __half>) {
    const __half2 v = __floats2half2_rn(a, b);
    return reinterpret_cast<const uint32_t&>(v);
  } else {
    const __nv_bfloat162 v = __floats2bfloat162_rn(a, b);
    return reinterpret_cast<const uint32_t&>(v);
  }
}

// kTaps: taps along x done from one set of fragments (3 for kernels of width 3, else 1 at a time); kStride along x.
template <typename T, int kTaps, int kStride>
__global__ void __launch_bounds__(128, 2) conv_mma_kernel(const __grid_constant__ ConvArgs p) {
  extern __shared__ uint4 shared[];
  int2* const table = reinterpret_cast<int2*>(shared + p.stages * 2 * p.plane);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int threads = blockDim.x;
  const int sample = blockIdx.z / p.splits, split = blockIdx.z - sample * p.splits;
  int rest = blockIdx.x;
  const int box_x = rest % p.tiles_x * p.box_x;
  rest /= p.tiles_x;
  const int box_y = rest % p.tiles_y * p.box_y;
  const int box_z = rest / p.tiles_y * p.box_z;

  // Where each voxel of the halo'd box comes from (-1: outside) and goes to.
  const int voxels = p.zh * p.yh * p.xh;
  {
    const int z0 = box_z * p.sz - p.kz / 2, y0 = box_y * p.sy - p.ky / 2, x0 = box_x * kStride - p.kx / 2;
    for (int v = threadIdx.x; v < voxels; v += threads) {
      const int row = __umulhi(v, p.xh_magic), x = v - row * p.xh;
      const int z = __umulhi(row, p.yh_magic), y = row - z * p.yh;
      const int iz = z0 + z, iy = y0 + y, ix = x0 + x;
      const bool inside = unsigned(iz) < unsigned(p.in_z) && unsigned(iy) < unsigned(p.in_y) &&
                          unsigned(ix) < unsigned(p.in_x);
      const int y_at = p.sy == 1 ? y : (y & 1) * p.y_even + (y >> 1);
      table[v] = make_int2(inside ? (iz * p.in_y + iy) * p.in_x + ix : -1, (z * p.xh + x) * p.y_pitch + y_at);
    }
  }
  __syncthreads();

  const int half = threadIdx.x & 1;
  const T* const in = static_cast<const T*>(p.in) + int64_t(sample) * p.in_z * p.in_y * p.in_x * p.in_pitch + half * 8;
  auto fetch = [&](int chunk, int stage) {
    const bool channels = chunk * 16 + half * 8 < p.in_c;
    const T* const from = in + chunk * 16;
    const uint32_t to = shared_address(shared + (stage * 2 + half) * p.plane);
    for (int v = threadIdx.x >> 1; v < voxels; v += threads >> 1) {
      const int2 entry = table[v];
      const bool valid = entry.x >= 0 && channels;
      copy16(to + entry.y * 16, valid ? static_cast<const void*>(from + int64_t(entry.x) * p.in_pitch) : p.in, valid);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  };
  // Each thread transforms what it copied itself, so its own wait is enough before it.
  auto transform = [&](int chunk, int stage) {
    if (!p.scale_shift || chunk * 16 + half * 8 >= p.in_c) return;
    float4 affine[4];
    const float4* const from =
        reinterpret_cast<const float4*>(p.scale_shift + (int64_t(sample) * p.in_c + chunk * 16 + half * 8) * 2);
#pragma unroll
    for (int i = 0; i < 4; ++i) affine[i] = __ldg(from + i);
    uint4* const at = shared + (stage * 2 + half) * p.plane;
    for (int v = threadIdx.x >> 1; v < voxels; v += threads >> 1) {
      const int2 entry = table[v];
      if (entry.x < 0) continue;
      uint4 value = at[entry.y];
      uint32_t* const words = reinterpret_cast<uint32_t*>(&value);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 f = unpack<T>(words[i]);
        words[i] = pack2<T>(leaky(fmaf(f.x, affine[i].x, affine[i].y), p.slope),
                            leaky(fmaf(f.y, affine[i].z, affine[i].w), p.slope));
      }
      at[entry.y] = value;
    }
  };

  const int n_warp = warp % p.n_warps, m_warp = warp / p.n_warps;
  const int out_tile = blockIdx.y * p.n_warps + n_warp;
  const bool busy = out_tile < p.out_tiles;
  const int fz = 16 / p.fy;
  const int warp_x = m_warp % p.mx * kColumns, warp_y = m_warp / p.mx % p.my * p.fy, warp_z = m_warp / (p.mx * p.my) * fz;
  const int column = p.y_pitch * 16;  // bytes from one x to the next
  uint32_t lane_offset;
  {
    const int row = lane & 15, dz = row / p.fy, dy = row - dz * p.fy;
    lane_offset = uint32_t((((warp_z + dz) * p.sz * p.xh + warp_x * kStride) * p.y_pitch + warp_y + dy +
                            (lane >> 4) * p.plane) * 16);
  }
  const int first = split * p.chunks_per_split, last = min(first + p.chunks_per_split, p.chunks);
  const uint4* weights = static_cast<const uint4*>(p.packed) +
                         (int64_t(min(out_tile, p.out_tiles - 1)) * p.chunks + first) * (p.kz * p.ky * p.kx) * 64 + lane;

  float acc[kColumns][4][4];
#pragma unroll
  for (int i = 0; i < kColumns; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int k = 0; k < 4; ++k) acc[i][j][k] = 0;

  uint4 next[kTaps * 2];
#pragma unroll
  for (int i = 0; i < kTaps * 2; ++i) next[i] = __ldg(weights + i * 32);
  fetch(first, 0);
  for (int chunk = first; chunk < last; ++chunk) {
    const int stage = p.stages == 2 ? (chunk - first) & 1 : 0;
    asm volatile("cp.async.wait_group 0;" ::: "memory");
    transform(chunk, stage);
    __syncthreads();  // chunk is there; everybody is done with the one before
    if (p.stages == 2 && chunk + 1 < last) fetch(chunk + 1, stage ^ 1);
    if (busy) {
      const uint32_t base = shared_address(shared + stage * 2 * p.plane) + lane_offset;
      for (int kz = 0; kz < p.kz; ++kz) {
        for (int ky = 0; ky < p.ky; ++ky) {
          const int y_at = p.sy == 1 ? ky : (ky & 1) * p.y_even + (ky >> 1);
          uint32_t at = base + (kz * p.xh * p.y_pitch + y_at) * 16;
          for (int kx = 0; kx < p.kx; kx += kTaps) {
            uint4 b[kTaps * 2];
            weights += kTaps * 64;
#pragma unroll
            for (int i = 0; i < kTaps * 2; ++i) {
              b[i] = next[i];
              next[i] = __ldg(weights + i * 32);
            }
            constexpr int kLoads = kStride * (kColumns - 1) + kTaps, kStep = kTaps == 1 ? kStride : 1;
            uint32_t a[2][4];
            load_fragment(a[0], at);
#pragma unroll
            for (int xi = 0; xi < kLoads; xi += kStep) {
              if (xi + kStep < kLoads) load_fragment(a[(xi / kStep + 1) & 1], at + (xi + kStep) * column);
#pragma unroll
              for (int tap = 0; tap < kTaps; ++tap) {
                if ((xi - tap) % kStride != 0 || xi < tap || (xi - tap) / kStride >= kColumns) continue;
                const int x = (xi - tap) / kStride;
#pragma unroll
                for (int j = 0; j < 2; ++j) {
                  const uint4 w = b[tap * 2 + j];
                  multiply<T>(acc[x][2 * j], a[(xi / kStep) & 1], w.x, w.y);
                  multiply<T>(acc[x][2 * j + 1], a[(xi / kStep) & 1], w.z, w.w);
                }
              }
            }
            at += column;  // used only where taps come one at a time
          }
        }
      }
    }
    if (p.stages == 1 && chunk + 1 < last) {
      __syncthreads();
      fetch(chunk + 1, 0);
    }
  }

  // Eight consecutive channels a lane; see pack.cpp.
  const int channel = out_tile * 32 + (lane & 3) * 8;
  const bool mine = busy && channel < p.out_c;
  const int64_t out_voxels = int64_t(p.out_z) * p.out_y * p.out_x;
  float sum[8] = {}, squares[8] = {}, bias[8] = {};
  if (mine && p.bias && p.splits == 1) {
#pragma unroll
    for (int i = 0; i < 8; ++i) bias[i] = __ldg(p.bias + channel + i);
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = (lane >> 2) + r * 8, dz = row / p.fy, dy = row - dz * p.fy;
    const int z = box_z + warp_z + dz, y = box_y + warp_y + dy;
    const int64_t line = (int64_t(z) * p.out_y + y) * p.out_x;
    const bool inside = mine && z < p.out_z && y < p.out_y;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      const int x = box_x + warp_x + i;
      if (!inside || x >= p.out_x) continue;
      float v[8];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        v[2 * j] = acc[i][j][2 * r] + bias[2 * j];
        v[2 * j + 1] = acc[i][j][2 * r + 1] + bias[2 * j + 1];
      }
      if (p.splits > 1) {
        float4* const to = reinterpret_cast<float4*>(
            p.workspace + ((int64_t(split) * p.n + sample) * out_voxels + line + x) * (p.out_tiles * 32) + channel);
        to[0] = make_float4(v[0], v[1], v[2], v[3]);
        to[1] = make_float4(v[4], v[5], v[6], v[7]);
        continue;
      }
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        sum[j] += v[j];
        squares[j] = fmaf(v[j], v[j], squares[j]);
      }
      uint4 packed;
      packed.x = pack2<T>(v[0], v[1]);
      packed.y = pack2<T>(v[2], v[3]);
      packed.z = pack2<T>(v[4], v[5]);
      packed.w = pack2<T>(v[6], v[7]);
      *reinterpret_cast<uint4*>(static_cast<T*>(p.out) + (int64_t(sample) * out_voxels + line + x) * p.out_pitch +
                                channel) = packed;
    }
  }
  if (!p.partial || p.splits > 1) return;
#pragma unroll
  for (int j = 0; j < 8; ++j) {
#pragma unroll
    for (int d = 4; d < 32; d *= 2) {
      sum[j] += __shfl_xor_sync(~0u, sum[j], d);
      squares[j] += __shfl_xor_sync(~0u, squares[j], d);
    }
  }
  __syncthreads();
  float2* const sums = reinterpret_cast<float2*>(shared);  // [warp][32]
  if (lane < 4) {
#pragma unroll
    for (int j = 0; j < 8; ++j) sums[warp * 32 + lane * 8 + j] = make_float2(sum[j], squares[j]);
  }
  __syncthreads();
  const int of = blockIdx.y * p.n_warps * 32 + threadIdx.x;
  if (threadIdx.x < p.n_warps * 32 && of < p.out_c) {
    float2 total = make_float2(0, 0);
    for (int m = 0; m < p.m_warps; ++m) {
      const float2 part = sums[(m * p.n_warps + warp) * 32 + lane];
      total.x += part.x;
      total.y += part.y;
    }
    reinterpret_cast<float2*>(p.partial)[(int64_t(sample) * p.tiles + blockIdx.x) * p.out_c + of] = total;
  }
}

using Kernel = void (*)(ConvArgs);

template <typename T>
Kernel kernel_for(const ConvArgs& a) {
  if (a.kx == 3) return a.sx == 1 ? conv_mma_kernel<T, 3, 1> : conv_mma_kernel<T, 3, 2>;
  return a.sx == 1 ? conv_mma_kernel<T, 1, 1> : conv_mma_kernel<T, 1, 2>;
}

}  // namespace

void plan_mma(ConvPlan& plan, const DeviceLimits& limits, bool* fits) {
  ConvArgs& a = plan.args;
  a.chunks = ceil_div(a.in_c, 16);
  a.out_tiles = ceil_div(a.out_c, 32);
  a.fy = a.out_z == 1 ? 16 : a.out_y <= 4 && a.out_z > 2 ? 4 : 8;
  const auto shape = [&](int m_warps, int n_warps, int stages) {
    a.m_warps = m_warps;
    a.n_warps = n_warps;
    a.stages = std::min(stages, a.chunks);
    // Along z in 3-D; a square in 2-D.
    a.mx = a.out_z == 1 && m_warps >= 2 ? 2 : 1;
    a.my = a.out_z == 1 && m_warps >= 4 ? 2 : 1;
    a.box_z = 16 / a.fy * (m_warps / (a.mx * a.my));
    a.box_y = a.fy * a.my;
    a.box_x = kColumns * a.mx;
    a.zh = (a.box_z - 1) * a.sz + a.kz;
    a.yh = (a.box_y - 1) * a.sy + a.ky;
    a.xh = (a.box_x - 1) * a.sx + a.kx;
    a.y_even = ceil_div(a.yh, 2);
    a.y_pitch = a.yh + (6 - a.yh % 4) % 4;                 // 2 modulo 4: copies of neighbours along x hit other banks
    a.plane = (a.zh * a.xh * a.y_pitch) | 1;               // and so do the two halves of a voxel
    plan.shared_bytes = size_t(a.stages) * 2 * size_t(a.plane) * 16 + size_t(a.zh * a.yh * a.xh) * 8;
    plan.shared_bytes = std::max(plan.shared_bytes, size_t(1024));
    plan.threads = 32 * m_warps * n_warps;
    return plan.shared_bytes <= limits.shared_per_block;
  };
  // Warps over output channels share inputs, warps over space share weights. Strided convolutions read large halos:
  // there rather few voxels and many channels.
  int n_warps = a.out_tiles == 1 ? 1 : 2;
  if (a.sy * a.sx > 1 && a.out_tiles % 4 == 0) n_warps = 4;
  int m_warps = 4 / n_warps;
  if (a.fy == 4) m_warps = 1;
  *fits = false;
  for (int m = m_warps; m >= 1 && !*fits; m /= 2) {
    for (int stages = 2; stages >= 1 && !*fits; --stages) {
      *fits = shape(m, n_warps, stages) && 2 * (plan.shared_bytes + 1024) <= limits.shared_per_processor;
    }
  }
  if (!*fits) *fits = shape(1, n_warps, 1);
  a.yh_magic = magic(a.yh);
  a.xh_magic = magic(a.xh);
  a.tiles_x = ceil_div(a.out_x, a.box_x);
  a.tiles_y = ceil_div(a.out_y, a.box_y);
  a.tiles = a.tiles_x * a.tiles_y * ceil_div(a.out_z, a.box_z);
  // Too few blocks for the device: parts of the input channels go to different blocks; a second pass adds them up.
  const int groups = ceil_div(a.out_tiles, a.n_warps);
  const int64_t running = int64_t(a.tiles) * groups * a.n, wanted = 2 * int64_t(limits.processors);
  a.splits = 1;
  if (running * 2 <= wanted) a.splits = int(std::min<int64_t>(a.chunks, wanted / running));
  a.chunks_per_split = ceil_div(a.chunks, a.splits);
  a.splits = ceil_div(a.chunks, a.chunks_per_split);
  plan.grid = dim3(unsigned(a.tiles), unsigned(groups), unsigned(a.n * a.splits));
  plan.blocks = a.tiles;
}

cudaError_t launch_mma(const ConvPlan& plan, DataType type, cudaStream_t stream) {
  const Kernel kernel = type == DataType::kFloat16 ? kernel_for<__half>(plan.args) : kernel_for<__nv_bfloat16>(plan.args);
  cudaError_t error = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                           cudaFuncAttributeMaxDynamicSharedMemorySize, int(plan.shared_bytes));
  if (error != cudaSuccess) return error;
  kernel<<<plan.grid, plan.threads, plan.shared_bytes, stream>>>(plan.args);
  return cudaGetLastError();
}

}  // namespace isoline::cuda
