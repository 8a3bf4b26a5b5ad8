// Convolution on tensor cores (mma.m16n8k16 of fp16 or bf16, mma.m16n8k8 of TF32; float32 accumulation), sm_80
// and later.
//
// A block computes a box of output voxels for 32 * n_warps output channels. Per chunk of 32 bytes of input
// channels (16 of 2 bytes, 8 of float32: a fragment's bytes lie the same way) it
// copies the box with its halo into shared memory once (cp.async, zeros outside the volume), applies the load
// transform there, and runs every kernel tap from there while the next chunk travels. A warp holds 8
// fragments of 16 voxels x 32 channels. The 16 rows of a fragment lie along y and z, fragments follow one
// another along x: a fragment of inputs at column xi serves all taps kx with xi = x * sx + kx from registers,
// so shared memory is read once per (kz, ky) and not per kx. Shared memory holds 16-byte units [half of the
// chunk][z][x][y]: eight rows of a fragment are 128 consecutive bytes whatever the tap, so ldmatrix has no
// bank conflicts (with stride 2, even y precede odd y for the same reason). Weights come through L1/L2 in
// fragment order (pack.cpp), one step ahead.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <type_traits>

#include "isoline/backends/cuda/conv_launch.cuh"
#include "isoline/backends/cuda/fragments.cuh"

namespace isoline::cuda {
namespace {

constexpr int kColumns = 8;  // fragments of a warp along x
constexpr int kBatch = 4;    // 16-byte units that a thread copies or transforms at a time

// Channels of a 16-byte unit; a chunk has two units.
template <typename T>
constexpr int kUnit = 16 / int(sizeof(T));
template <typename T>
constexpr bool kTensorFloat = std::is_same_v<T, float>;

// Predicated, not branched around: a branch would make every copy wait for the one before.
__device__ __forceinline__ void copy16_if(bool wanted, uint32_t to, const void* from) {
  asm volatile(
      "{\n .reg .pred p;\n setp.ne.s32 p, %2, 0;\n @p cp.async.cg.shared.global [%0], [%1], 16;\n}" ::"r"(to),
      "l"(from), "r"(int(wanted))
      : "memory");
}

__device__ __forceinline__ uint32_t tf32(float v) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(v));
  return bits;
}

// Accumulators begin with the bias (with 0 in parts of a split convolution).
template <int kCount>
__device__ __forceinline__ void start_with_bias(const ConvArgs& p, int out_tile, float (&acc)[kCount][4][4]) {
  const int channel = out_tile * 32 + (threadIdx.x & 3) * 8;
  const bool wanted = p.bias && p.splits == 1 && channel < p.out_c;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const float2 bias =
        wanted ? __ldg(reinterpret_cast<const float2*>(p.bias + channel + 2 * j)) : make_float2(0, 0);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      acc[i][j][0] = acc[i][j][2] = bias.x;
      acc[i][j][1] = acc[i][j][3] = bias.y;
    }
  }
}

// What a warp does with its finished accumulators: statistics, rounding, stores; all warps of the block call
// it.
template <typename T, int kCount>
__device__ __forceinline__ void store_tile(const ConvArgs& p, const float (&acc)[kCount][4][4],
                                           void* shared, int sample, int split, int box_z, int box_y,
                                           int box_x, int warp_z, int warp_y, int warp_x, int out_tile) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  // Eight consecutive channels a lane; see pack.cpp.
  const int channel = out_tile * 32 + (lane & 3) * 8;
  const bool mine = channel < p.out_c;
  const int64_t out_voxels = int64_t(p.out_z) * p.out_y * p.out_x;
  float sum[8] = {}, squares[8] = {};
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = (lane >> 2) + r * 8, dz = row / p.fy, dy = row - dz * p.fy;
    const int z = box_z + warp_z + dz, y = box_y + warp_y + dy, x = box_x + warp_x;
    const int64_t voxel = (int64_t(z) * p.out_y + y) * p.out_x + x;
    const int columns = mine && z < p.out_z && y < p.out_y ? p.out_x - x : 0;
    if (p.splits > 1) {
      const int pitch = p.out_tiles * 32;
      float* to = p.workspace + ((int64_t(split) * p.n + sample) * out_voxels + voxel) * pitch + channel;
#pragma unroll
      for (int i = 0; i < kCount; ++i, to += pitch) {
        if (i >= columns) continue;
        const float(&v)[4][4] = acc[i];
        reinterpret_cast<float4*>(to)[0] =
            make_float4(v[0][2 * r], v[0][2 * r + 1], v[1][2 * r], v[1][2 * r + 1]);
        reinterpret_cast<float4*>(to)[1] =
            make_float4(v[2][2 * r], v[2][2 * r + 1], v[3][2 * r], v[3][2 * r + 1]);
      }
      continue;
    }
    T* to = static_cast<T*>(p.out) + (int64_t(sample) * out_voxels + voxel) * p.out_pitch + channel;
#pragma unroll
    for (int i = 0; i < kCount; ++i, to += p.out_pitch) {
      if (i >= columns) continue;
      uint32_t packed[2 * sizeof(T)];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float a = acc[i][j][2 * r], b = acc[i][j][2 * r + 1];
        sum[2 * j] += a;
        sum[2 * j + 1] += b;
        squares[2 * j] = fmaf(a, a, squares[2 * j]);
        squares[2 * j + 1] = fmaf(b, b, squares[2 * j + 1]);
        if constexpr (kTensorFloat<T>) {
          packed[2 * j] = __float_as_uint(a);
          packed[2 * j + 1] = __float_as_uint(b);
        } else {
          packed[j] = pack2<T>(a, b);
        }
      }
#pragma unroll
      for (int j = 0; j < int(sizeof(packed)) / 4; j += 4) {
        reinterpret_cast<uint4*>(to)[j / 4] =
            make_uint4(packed[j], packed[j + 1], packed[j + 2], packed[j + 3]);
      }
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

// kTaps: taps along x done from one set of fragments (3 for kernels of width 3, else 1 at a time); kStride
// along x.
template <typename T, int kTaps, int kStride>
__global__ void __launch_bounds__(128, 2) conv_mma_kernel(const __grid_constant__ ConvArgs p) {
  extern __shared__ uint4 shared[];
  float2* const affine =
      reinterpret_cast<float2*>(shared + p.stages * 2 * p.plane);  // of every input channel
  int2* const table = reinterpret_cast<int2*>(affine + p.chunks * (2 * kUnit<T>));
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int threads = blockDim.x;
  const int sample = blockIdx.z / p.splits, split = blockIdx.z - sample * p.splits;
  int rest = blockIdx.x;
  const int box_x = rest % p.tiles_x * p.box_x;
  rest /= p.tiles_x;
  const int box_y = rest % p.tiles_y * p.box_y;
  const int box_z = rest / p.tiles_y * p.box_z;

  // Where each voxel of the halo'd box comes from (-1: outside) and goes to. What lies outside stays 0 for
  // good.
  const int voxels = p.zh * p.yh * p.xh, stride = threads >> 1;
  const int padded = ceil_div(voxels, kBatch * stride) * kBatch * stride;
  {
    const int z0 = box_z * p.sz - p.kz / 2, y0 = box_y * p.sy - p.ky / 2, x0 = box_x * kStride - p.kx / 2;
    for (int v = threadIdx.x; v < padded; v += threads) {
      const int row = __umulhi(v, p.xh_magic), x = v - row * p.xh;
      const int z = __umulhi(row, p.yh_magic), y = row - z * p.yh;
      const int iz = z0 + z, iy = y0 + y, ix = x0 + x;
      const bool inside = v < voxels && unsigned(iz) < unsigned(p.in_z) && unsigned(iy) < unsigned(p.in_y) &&
                          unsigned(ix) < unsigned(p.in_x);
      const int y_at = p.sy == 1 ? y : (y & 1) * p.y_even + (y >> 1);
      const int to = (z * p.xh + x) * p.y_pitch + y_at;
      table[v] = make_int2(inside ? (iz * p.in_y + iy) * p.in_x + ix : -1, to);
      if (!inside && v < voxels) {
        for (int i = 0; i < p.stages * 2; ++i) shared[i * p.plane + to] = make_uint4(0, 0, 0, 0);
      }
    }
  }
  if (p.scale_shift) {
    const int count = p.in_c - p.transform_first;
    const float2* const from = reinterpret_cast<const float2*>(p.scale_shift) + int64_t(sample) * count;
    for (int c = threadIdx.x; c < count; c += threads) affine[p.transform_first + c] = __ldg(from + c);
  }
  __syncthreads();

  const int half = threadIdx.x & 1;
  const T* const in =
      static_cast<const T*>(p.in) + int64_t(sample) * p.in_z * p.in_y * p.in_x * p.in_pitch +
      half * kUnit<T>;
  const int2* const entries = table + (threadIdx.x >> 1);
  auto fetch = [&](int chunk, int stage) {
    const bool channels = (chunk * 2 + half) * kUnit<T> < p.in_c;
    const T* const from = in + chunk * (2 * kUnit<T>);
    uint4* const at = shared + (stage * 2 + half) * p.plane;
    const uint32_t to = shared_address(at);
    if (channels) {
      for (int v = 0; v < padded; v += kBatch * stride) {
        int2 entry[kBatch];
#pragma unroll
        for (int i = 0; i < kBatch; ++i) entry[i] = entries[v + i * stride];
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
          copy16_if(entry[i].x >= 0, to + entry[i].y * 16, from + int64_t(entry[i].x) * p.in_pitch);
        }
      }
    } else {
      for (int v = 0; v < padded; v += stride) {
        if (entries[v].x >= 0) at[entries[v].y] = make_uint4(0, 0, 0, 0);
      }
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  };
  // Load transform of a batch of the units that this thread copied itself (so that its own wait is enough
  // before it). What mma would cut off is rounded here.
  auto transform = [&](int chunk, int stage, int v) {
    const int channel = (chunk * 2 + half) * kUnit<T>;
    if (channel >= p.in_c) return;
    const bool as_is = !p.scale_shift || channel < p.transform_first;
    if (!kTensorFloat<T> && as_is) return;
    uint4* const at = shared + (stage * 2 + half) * p.plane;
    const float4* const channels = reinterpret_cast<const float4*>(affine + channel);
    int2 entry[kBatch];
    uint4 value[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) entry[i] = entries[v + i * stride];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      if (entry[i].x >= 0) value[i] = at[entry[i].y];
    }
    uint32_t* const words = reinterpret_cast<uint32_t*>(value);
    if constexpr (kTensorFloat<T>) {
      const float4 ones = make_float4(1, 0, 1, 0);
      const float4 ab[2] = {as_is ? ones : channels[0], as_is ? ones : channels[1]};
      const float slope = as_is ? 1 : p.slope;
#pragma unroll
      for (int i = 0; i < kBatch * 4; ++i) {
        const float scale = i % 2 ? ab[i % 4 / 2].z : ab[i % 4 / 2].x,
                    shift = i % 2 ? ab[i % 4 / 2].w : ab[i % 4 / 2].y;
        words[i] = tf32(leaky(fmaf(__uint_as_float(words[i]), scale, shift), slope));
      }
    } else {
      const Pair<T> slope = Pair<T>::both(p.slope);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float4 ab = channels[i];
#pragma unroll
        for (int j = 0; j < kBatch * 4; j += 4) {
          const float2 f = unpack<T>(words[i + j]);
          words[i + j] = slope.leaky(pack2<T>(fmaf(f.x, ab.x, ab.y), fmaf(f.y, ab.z, ab.w)));
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      if (entry[i].x >= 0) at[entry[i].y] = value[i];
    }
  };

  const int n_warp = warp % p.n_warps, m_warp = warp / p.n_warps;
  const int out_tile = blockIdx.y * p.n_warps + n_warp;
  const bool busy = out_tile < p.out_tiles;
  const int fz = 16 / p.fy;
  const int warp_x = m_warp % p.mx * kColumns, warp_y = m_warp / p.mx % p.my * p.fy,
            warp_z = m_warp / (p.mx * p.my) * fz;
  const int column = p.y_pitch * 16;  // bytes from one x to the next
  uint32_t lane_offset;
  {
    const int row = lane & 15, dz = row / p.fy, dy = row - dz * p.fy;
    lane_offset = uint32_t(
        (((warp_z + dz) * p.sz * p.xh + warp_x * kStride) * p.y_pitch + warp_y + dy + (lane >> 4) * p.plane) *
        16);
  }
  const int first = split * p.chunks_per_split, last = min(first + p.chunks_per_split, p.chunks);
  const uint4* weights =
      static_cast<const uint4*>(p.packed) +
      (int64_t(min(out_tile, p.out_tiles - 1)) * p.chunks + first) * (p.kz * p.ky * p.kx) * 64 + lane;

  float acc[kColumns][4][4];
  start_with_bias(p, out_tile, acc);

  // A step is one (kz, ky) of a chunk (and one kx where taps come one at a time). Weights of the next step
  // travel during a step, in the other one of two sets of registers.
  const int steps = p.kz * p.ky * (p.kx / kTaps), total = steps * (last - first);
  uint4 even[kTaps * 2], odd[kTaps * 2];
#pragma unroll
  for (int i = 0; i < kTaps * 2; ++i) even[i] = __ldg(weights + i * 32);
  int chunk = first, stage = 0, at_step = 0, kz = 0, ky = 0, kx = 0;
  uint32_t base = 0;
  // The load transform comes in one go: in portions between the steps it was slower (registers, serial
  // latencies).
  auto step = [&](const uint4(&b)[kTaps * 2], uint4(&next)[kTaps * 2]) {
    if (at_step == 0) {
      asm volatile("cp.async.wait_group 0;" ::: "memory");
      if (kTensorFloat<T> || p.scale_shift) {
        for (int v = 0; v < padded; v += kBatch * stride) transform(chunk, stage, v);
      }
      __syncthreads();  // the chunk is there; everybody is done with the one before
      if (p.stages == 2 && chunk + 1 < last) fetch(chunk + 1, stage ^ 1);
      base = shared_address(shared + stage * 2 * p.plane) + lane_offset;
    }
    weights += kTaps * 64;
#pragma unroll
    for (int i = 0; i < kTaps * 2; ++i) next[i] = __ldg(weights + i * 32);
    if (busy) {
      const int y_at = p.sy == 1 ? ky : (ky & 1) * p.y_even + (ky >> 1);
      const uint32_t at = base + ((kz * p.xh + kx) * p.y_pitch + y_at) * 16;
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
            multiply_tile<T>(acc[x][2 * j], a[(xi / kStep) & 1], w.x, w.y);
            multiply_tile<T>(acc[x][2 * j + 1], a[(xi / kStep) & 1], w.z, w.w);
          }
        }
      }
    }
    if (kTaps == 3 || ++kx == p.kx) {
      kx = 0;
      if (++ky == p.ky) ky = 0, ++kz;
    }
    if (++at_step == steps) {
      at_step = kz = 0;
      ++chunk;
      if (p.stages == 2) {
        stage ^= 1;
      } else if (chunk < last) {
        __syncthreads();
        fetch(chunk, 0);
      }
    }
  };
  fetch(first, 0);
  for (int s = 0; s < total; s += 2) {
    step(even, odd);
    if (s + 1 < total) step(odd, even);
  }

  store_tile<T>(p, acc, shared, sample, split, box_z, box_y, box_x, warp_z, warp_y, warp_x, out_tile);
}

// First convolution: planar float32 input of few channels, stride 1, kx <= 3. The reduction runs over lines
// (channel, kz, ky) of four taps (the fourth, and those beyond kx, with weight 0): a lane's pair of taps is
// one 32-bit load of two neighbours along x from shared memory, which holds the box twice, the second time
// one voxel further, so that the pair is aligned at odd x too.
// A warp holds fewer fragments than above: what matters here are many warps in flight.
constexpr int kPlanarColumns = 4, kPlanarWarps = 8;

// k3: kernel 3 along z and y, whose divisions are by constants.
template <typename T, bool k3>
__global__ void __launch_bounds__(32 * kPlanarWarps, 2) conv_planar_kernel(const __grid_constant__ ConvArgs p) {
  extern __shared__ uint4 shared[];
  T* const values = reinterpret_cast<T*>(shared);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int sample = blockIdx.z;
  int rest = blockIdx.x;
  const int box_x = rest % p.tiles_x * p.box_x;
  rest /= p.tiles_x;
  const int box_y = rest % p.tiles_y * p.box_y;
  const int box_z = rest / p.tiles_y * p.box_z;
  const int z0 = box_z - p.kz / 2, y0 = box_y - p.ky / 2, x0 = box_x - p.kx / 2;
  const int64_t voxels = int64_t(p.in_z) * p.in_y * p.in_x;
  const float* const in = static_cast<const float*>(p.in) + sample * p.in_c * voxels;
  const int count = p.in_c * p.zh * p.yh * p.x_pitch;  // of one copy
  constexpr int kThreads = 32 * kPlanarWarps;
  for (int e0 = threadIdx.x; e0 < count; e0 += kBatch * kThreads) {
    float value[kBatch];  // all on their way before the first is used
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int e = e0 + i * kThreads;
      const int line = __umulhi(e, p.xh_magic);
      const int x = e - line * p.x_pitch, ix = x0 + x;
      const int plane = __umulhi(line, p.yh_magic), iy = y0 + line - plane * p.yh;
      const int c = plane / p.zh, iz = z0 + plane - c * p.zh;
      const bool inside = e < count && x < p.xh && unsigned(iz) < unsigned(p.in_z) &&
                          unsigned(iy) < unsigned(p.in_y) && unsigned(ix) < unsigned(p.in_x);
      value[i] = inside ? __ldg(in + c * voxels + (int64_t(iz) * p.in_y + iy) * p.in_x + ix) : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int e = e0 + i * kThreads;
      if (e >= count) break;
      T rounded;
      if constexpr (std::is_same_v<T, __half>) {
        rounded = __float2half_rn(value[i]);
      } else {
        rounded = __float2bfloat16_rn(value[i]);
      }
      values[e] = rounded;
      values[count + (e > 0 ? e - 1 : count - 1)] = rounded;
    }
  }
  __syncthreads();

  const int out_tile = blockIdx.y, fz = 16 / p.fy;
  const int warp_x = warp % p.mx * kPlanarColumns, warp_y = warp / p.mx % p.my * p.fy,
            warp_z = warp / (p.mx * p.my) * fz;
  const int row = lane >> 2, q = lane & 3;
  // Rows g and g + 8 of a fragment, first word of the pair.
  const int low = ((warp_z + row / p.fy) * p.yh + warp_y + row % p.fy) * p.x_pitch + warp_x + 2 * (q & 1);
  const int high =
      ((warp_z + (row + 8) / p.fy) * p.yh + warp_y + (row + 8) % p.fy) * p.x_pitch + warp_x + 2 * (q & 1);
  const int kz = k3 ? 3 : p.kz, ky = k3 ? 3 : p.ky, lines = p.in_c * kz * ky;
  const auto line_offset = [&](int line) {
    if (line >= lines) return 0;  // weight 0
    const int plane = line / ky, c = plane / kz;
    return ((c * p.zh + plane - c * kz) * p.yh + line - plane * ky) * p.x_pitch;
  };
  const auto pair = [&](int at, int x) {
    return *reinterpret_cast<const uint32_t*>(values + (x & 1 ? count + at + x - 1 : at + x));
  };
  float acc[kPlanarColumns][4][4];
  start_with_bias(p, out_tile, acc);
  const uint4* const weights = static_cast<const uint4*>(p.packed) + int64_t(out_tile) * p.chunks * 64 + lane;
  for (int step = 0; step < p.chunks; ++step) {
    const uint4 b0 = __ldg(weights + step * 64), b1 = __ldg(weights + step * 64 + 32);
    const int near = line_offset(step * 4 + (q >> 1)), far = line_offset(step * 4 + 2 + (q >> 1));
#pragma unroll
    for (int i = 0; i < kPlanarColumns; ++i) {
      const uint32_t a[4] = {pair(near + low, i), pair(near + high, i), pair(far + low, i),
                             pair(far + high, i)};
      multiply_tile<T>(acc[i][0], a, b0.x, b0.y);
      multiply_tile<T>(acc[i][1], a, b0.z, b0.w);
      multiply_tile<T>(acc[i][2], a, b1.x, b1.y);
      multiply_tile<T>(acc[i][3], a, b1.z, b1.w);
    }
  }
  store_tile<T>(p, acc, shared, sample, 0, box_z, box_y, box_x, warp_z, warp_y, warp_x, out_tile);
}

template <typename T>
ConvKernel kernel_for(const ConvArgs& a) {
  if (a.kx == 3) return a.sx == 1 ? conv_mma_kernel<T, 3, 1> : conv_mma_kernel<T, 3, 2>;
  return a.sx == 1 ? conv_mma_kernel<T, 1, 1> : conv_mma_kernel<T, 1, 2>;
}

}  // namespace

void plan_mma(ConvPlan& plan, const DeviceLimits& limits, const ConvChoice& choice, bool* fits) {
  ConvArgs& a = plan.args;
  const bool chosen = choice.kind == ConvKernelKind::kMma;
  const int chunk = plan.type == DataType::kTensorFloat32 ? 2 * kUnit<float> : 2 * kUnit<__half>;
  a.chunks = ceil_div(a.in_c, chunk);
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
    a.y_pitch = a.yh + (6 - a.yh % 4) % 4;    // 2 modulo 4: copies of neighbours along x hit other banks
    a.plane = (a.zh * a.xh * a.y_pitch) | 1;  // and so do the two halves of a voxel
    plan.shared_bytes = size_t(a.stages) * 2 * size_t(a.plane) * 16 + size_t(a.chunks) * chunk * 8 +
                        size_t(ceil_div(a.zh * a.yh * a.xh, kBatch * 16 * m_warps * n_warps) * kBatch * 16 *
                               m_warps * n_warps) *
                            8;
    plan.shared_bytes = std::max(plan.shared_bytes, size_t(1024));
    plan.threads = 32 * m_warps * n_warps;
    return plan.shared_bytes <= limits.shared_per_block;
  };
  // Warps over output channels share inputs, warps over space share weights. Strided convolutions read large
  // halos: there rather few voxels and many channels.
  int n_warps = a.out_tiles == 1 ? 1 : 2;
  if (a.sy * a.sx > 1 && a.out_tiles % 4 == 0) n_warps = 4;
  int m_warps = 4 / n_warps;
  if (a.fy == 4) m_warps = 1;
  *fits = false;
  if (chosen) {
    const auto power = [](int v) { return v == 1 || v == 2 || v == 4; };
    const int m = choice.m_warps, n = choice.n_warps;
    if (!power(m) || !power(n) || m * n > 4 || choice.stages < 1 || choice.stages > 2 || choice.splits < 1 ||
        choice.splits > a.chunks || !shape(m, n, choice.stages)) {
      return;
    }
    *fits = true;
  }
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
  // Too few blocks for the device: parts of the input channels go to different blocks; a second pass adds
  // them up.
  const int groups = ceil_div(a.out_tiles, a.n_warps);
  const int64_t running = int64_t(a.tiles) * groups * a.n, wanted = 2 * int64_t(limits.processors);
  a.splits = 1;
  if (running * 2 <= wanted) a.splits = int(std::min<int64_t>(a.chunks, wanted / running));
  if (chosen) a.splits = choice.splits;
  a.chunks_per_split = ceil_div(a.chunks, a.splits);
  a.splits = ceil_div(a.chunks, a.chunks_per_split);
  plan.grid = dim3(unsigned(a.tiles), unsigned(groups), unsigned(a.n * a.splits));
  plan.blocks = a.tiles;
}

cudaError_t launch_mma(const ConvPlan& plan, cudaStream_t stream) {
  const ConvKernel kernel = plan.type == DataType::kTensorFloat32 ? kernel_for<float>(plan.args)
                            : plan.type == DataType::kFloat16     ? kernel_for<__half>(plan.args)
                                                                  : kernel_for<__nv_bfloat16>(plan.args);
  return launch_conv(kernel, plan, stream);
}

void plan_planar(ConvPlan& plan, const DeviceLimits& limits, bool* fits) {
  ConvArgs& a = plan.args;
  a.chunks = ceil_div(a.in_c * a.kz * a.ky, 4);
  a.out_tiles = ceil_div(a.out_c, 32);
  a.fy = a.out_z == 1 ? 16 : 8;
  a.m_warps = kPlanarWarps;
  a.n_warps = 1;
  a.mx = a.out_z == 1 ? 4 : 2;
  a.my = a.out_z == 1 ? 2 : 1;
  a.box_z = 16 / a.fy * (kPlanarWarps / (a.mx * a.my));
  a.box_y = a.fy * a.my;
  a.box_x = kPlanarColumns * a.mx;
  a.zh = a.box_z - 1 + a.kz;
  a.yh = a.box_y - 1 + a.ky;
  a.xh = a.box_x - 1 + a.kx;
  a.x_pitch = a.box_x + 4;
  a.yh_magic = magic(a.yh);
  a.xh_magic = magic(a.x_pitch);
  a.tiles_x = ceil_div(a.out_x, a.box_x);
  a.tiles_y = ceil_div(a.out_y, a.box_y);
  a.tiles = a.tiles_x * a.tiles_y * ceil_div(a.out_z, a.box_z);
  a.splits = 1;
  plan.shared_bytes = std::max(size_t(a.in_c * a.zh * a.yh * a.x_pitch) * 4, size_t(kPlanarWarps) * 32 * 8);
  *fits = plan.shared_bytes <= limits.shared_per_block && a.in_c * a.zh * a.yh * a.x_pitch < 65536;
  plan.threads = 32 * kPlanarWarps;
  plan.grid = dim3(unsigned(a.tiles), unsigned(a.out_tiles), unsigned(a.n));
  plan.blocks = a.tiles;
}

cudaError_t launch_planar(const ConvPlan& plan, DataType type, cudaStream_t stream) {
  const bool k3 = plan.args.kz == 3 && plan.args.ky == 3;
  const ConvKernel kernel =
      type == DataType::kFloat16
          ? (k3 ? conv_planar_kernel<__half, true> : conv_planar_kernel<__half, false>)
          : (k3 ? conv_planar_kernel<__nv_bfloat16, true> : conv_planar_kernel<__nv_bfloat16, false>);
  return launch_conv(kernel, plan, stream);
}

}  // namespace isoline::cuda
