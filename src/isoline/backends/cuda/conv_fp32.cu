// Convolution in true float32 (FFMA). A block of 128 threads computes a box of 32 rows (along y and z) of 8
// voxels along x for 32 output channels: a thread one row for 8 channels, a warp the 32 rows for 8 channels.
// Chunks of input channels go through shared memory with their halo [channel][z][y][x]; weights come through
// L1, the same for a warp.
#include <algorithm>

#include "isoline/backends/cuda/conv_launch.cuh"

namespace isoline::cuda {
namespace {

constexpr int kWidth = 8;

template <int kTaps, int kStride>
__global__ void __launch_bounds__(128, 4) conv_fp32_kernel(const __grid_constant__ ConvArgs p) {
  extern __shared__ float4 shared4[];
  float* const shared = reinterpret_cast<float*>(shared4);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int sample = blockIdx.z / p.splits, split = blockIdx.z - sample * p.splits;
  const int first = split * p.chunks_per_split * 8, last = min(first + p.chunks_per_split * 8, p.in_c);
  int rest = blockIdx.x;
  const int box_x = rest % p.tiles_x * p.box_x;
  rest /= p.tiles_x;
  const int box_y = rest % p.tiles_y * p.box_y;
  const int box_z = rest / p.tiles_y * p.box_z;
  const int z0 = box_z * p.sz - p.kz / 2, y0 = box_y * p.sy - p.ky / 2, x0 = box_x * kStride - p.kx / 2;
  const int dz = lane / p.fy, dy = lane - dz * p.fy;
  const int elements = p.zh * p.yh * p.xh * p.chunk;
  const int shift = 31 - __clz(p.chunk);
  const float* const in =
      static_cast<const float*>(p.in) + int64_t(sample) * p.in_z * p.in_y * p.in_x * p.in_pitch;
  const float4* weights = static_cast<const float4*>(p.packed) +
                          (int64_t(blockIdx.y) * p.in_c + first) * (p.kz * p.ky * p.kx) * 8 + warp * 2;
  const float* const row = shared + (dz * p.sz * p.yh + dy * p.sy) * p.x_pitch;

  float acc[kWidth][8];
#pragma unroll
  for (int i = 0; i < kWidth; ++i)
#pragma unroll
    for (int j = 0; j < 8; ++j) acc[i][j] = 0;

  for (int c0 = first; c0 < last; c0 += p.chunk) {
    __syncthreads();
    for (int e = threadIdx.x; e < elements; e += blockDim.x) {
      const int c = e & (p.chunk - 1), v = e >> shift;
      const int line = __umulhi(v, p.xh_magic), x = v - line * p.xh;
      const int z = __umulhi(line, p.yh_magic), y = line - z * p.yh;
      const int iz = z0 + z, iy = y0 + y, ix = x0 + x;
      float value = 0;
      if (unsigned(iz) < unsigned(p.in_z) && unsigned(iy) < unsigned(p.in_y) &&
          unsigned(ix) < unsigned(p.in_x)) {
        value = in[((int64_t(iz) * p.in_y + iy) * p.in_x + ix) * p.in_pitch + c0 + c];
        if (p.scale_shift && c0 + c >= p.transform_first) {
          const float2 affine = __ldg(reinterpret_cast<const float2*>(p.scale_shift) +
                                      int64_t(sample) * (p.in_c - p.transform_first) + c0 + c -
                                      p.transform_first);
          value = leaky(fmaf(value, affine.x, affine.y), p.slope);
        }
      }
      shared[c * p.plane + line * p.x_pitch + x] = value;
    }
    __syncthreads();
    for (int c = 0; c < p.chunk; ++c) {
      for (int kz = 0; kz < p.kz; ++kz) {
        for (int ky = 0; ky < p.ky; ++ky) {
          const float* const from = row + c * p.plane + (kz * p.yh + ky) * p.x_pitch;
          for (int kx = 0; kx < p.kx; kx += kTaps) {
            constexpr int kLoads = (kStride * (kWidth - 1) + kTaps + 3) / 4 * 4;
            float v[kLoads];
            if constexpr (kTaps == 3) {
#pragma unroll
              for (int i = 0; i < kLoads / 4; ++i)
                reinterpret_cast<float4*>(v)[i] = reinterpret_cast<const float4*>(from)[i];
            } else {
#pragma unroll
              for (int i = 0; i < kWidth; ++i) v[i * kStride] = from[kx + i * kStride];
            }
#pragma unroll
            for (int tap = 0; tap < kTaps; ++tap) {
              float w[8];
              reinterpret_cast<float4*>(w)[0] = __ldg(weights + tap * 8);
              reinterpret_cast<float4*>(w)[1] = __ldg(weights + tap * 8 + 1);
#pragma unroll
              for (int i = 0; i < kWidth; ++i)
#pragma unroll
                for (int j = 0; j < 8; ++j) acc[i][j] = fmaf(v[i * kStride + tap], w[j], acc[i][j]);
            }
            weights += kTaps * 8;
          }
        }
      }
    }
  }

  const int channel = blockIdx.y * 32 + warp * 8;
  if (channel >= p.out_c) return;  // the whole warp
  const int z = box_z + dz, y = box_y + dy;
  float sum[8] = {}, squares[8] = {}, bias[8] = {};
  if (p.bias && p.splits == 1) {
#pragma unroll
    for (int j = 0; j < 8; ++j) bias[j] = __ldg(p.bias + channel + j);
  }
  if (z < p.out_z && y < p.out_y) {
    const int64_t line = ((int64_t(sample) * p.out_z + z) * p.out_y + y) * p.out_x;
    const int64_t part = int64_t(split) * p.n * p.out_z * p.out_y * p.out_x;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      if (box_x + i >= p.out_x) continue;
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        acc[i][j] += bias[j];
        sum[j] += acc[i][j];
        squares[j] = fmaf(acc[i][j], acc[i][j], squares[j]);
      }
      float4* const to = reinterpret_cast<float4*>(
          p.splits > 1 ? p.workspace + (part + line + box_x + i) * (p.out_tiles * 32) + channel
                       : static_cast<float*>(p.out) + (line + box_x + i) * p.out_pitch + channel);
      to[0] = make_float4(acc[i][0], acc[i][1], acc[i][2], acc[i][3]);
      to[1] = make_float4(acc[i][4], acc[i][5], acc[i][6], acc[i][7]);
    }
  }
  if (!p.partial || p.splits > 1) return;
#pragma unroll
  for (int j = 0; j < 8; ++j) {
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
      sum[j] += __shfl_xor_sync(~0u, sum[j], d);
      squares[j] += __shfl_xor_sync(~0u, squares[j], d);
    }
    if (lane == 0) {
      reinterpret_cast<float2*>(p.partial)[(int64_t(sample) * p.tiles + blockIdx.x) * p.out_c + channel + j] =
          make_float2(sum[j], squares[j]);
    }
  }
}

}  // namespace

void plan_fp32(ConvPlan& plan, const DeviceLimits& limits, bool* fits) {
  ConvArgs& a = plan.args;
  a.out_tiles = ceil_div(a.out_c, 32);
  a.fy = a.out_z == 1 ? 32 : 8;
  a.box_z = 32 / a.fy;
  a.box_y = a.fy;
  a.box_x = kWidth;
  a.zh = (a.box_z - 1) * a.sz + a.kz;
  a.yh = (a.box_y - 1) * a.sy + a.ky;
  a.xh = (a.box_x - 1) * a.sx + a.kx;
  a.x_pitch = (a.xh + 3) / 4 * 4;
  if (a.x_pitch / 4 % 2 == 0) a.x_pitch += 4;
  a.plane = a.zh * a.yh * a.x_pitch + (a.x_pitch % 8 == 4 ? 4 : 0);
  a.yh_magic = magic(a.yh);
  a.xh_magic = magic(a.xh);
  *fits = false;
  for (a.chunk = 8; a.chunk >= 1 && !*fits; a.chunk /= 2) {
    plan.shared_bytes = size_t(a.chunk) * size_t(a.plane) * 4;
    *fits =
        plan.shared_bytes <= std::min<size_t>(limits.shared_per_block, a.chunk > 1 ? 48 << 10 : ~size_t(0));
    if (*fits) break;
  }
  a.tiles_x = ceil_div(a.out_x, a.box_x);
  a.tiles_y = ceil_div(a.out_y, a.box_y);
  a.tiles = a.tiles_x * a.tiles_y * ceil_div(a.out_z, a.box_z);
  // As in plan_mma(); here in units of 8 input channels.
  a.chunks = a.in_c / 8;
  const int64_t running = int64_t(a.tiles) * a.out_tiles * a.n, wanted = 4 * int64_t(limits.processors);
  a.splits = 1;
  if (running * 2 <= wanted) a.splits = int(std::min<int64_t>(a.chunks, wanted / running));
  a.chunks_per_split = ceil_div(a.chunks, a.splits);
  a.splits = ceil_div(a.chunks, a.chunks_per_split);
  plan.threads = 128;
  plan.grid = dim3(unsigned(a.tiles), unsigned(a.out_tiles), unsigned(a.n * a.splits));
  plan.blocks = a.tiles;
}

cudaError_t launch_fp32(const ConvPlan& plan, cudaStream_t stream) {
  const ConvArgs& a = plan.args;
  const ConvKernel kernel = a.kx == 3 ? (a.sx == 1 ? conv_fp32_kernel<3, 1> : conv_fp32_kernel<3, 2>)
                                             : (a.sx == 1 ? conv_fp32_kernel<1, 1> : conv_fp32_kernel<1, 2>);
  return launch_conv(kernel, plan, stream);
}

}  // namespace isoline::cuda
