// Transposed convolution with kernel == stride on tensor cores (mma.m16n8k16, sm_80 and later) without shared
// memory. The order of a sum's terms is free as long as inputs and weights agree on it, so it is chosen such
// that 16 consecutive bytes of a voxel are a lane's part of a fragment, and 16 bytes of weights its part of
// another (pack_fragments() in transpose.cu): a warp reads its inputs once, straight from memory, keeps all
// their channels in registers, and goes through the columns (tap, 32 output channels), whose weights come
// through L1. A lane's results are eight consecutive channels of a voxel.
#include <algorithm>

#include "isoline/backends/cuda/elements.cuh"
#include "isoline/backends/cuda/fragments.cuh"
#include "isoline/backends/cuda/transpose_args.cuh"

namespace isoline::cuda {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32;
constexpr int kWantedBlocks = 528;  // columns go to different blocks where there are fewer blocks of rows

template <class T>
__device__ __forceinline__ void pack8(const float (&e)[8], uint32_t (&to)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) to[i] = pack2<T>(e[2 * i], e[2 * i + 1]);
}

// A warp has 16 voxels: with 32 there were fewer warps in flight, and stores waited. kGroups: at least the groups of
// 32 input channels.
template <class T, int kGroups>
__global__ void __launch_bounds__(kThreads, kGroups < 4 ? 4 : kGroups < 8 ? 3 : 2)
    fragment_kernel(const __grid_constant__ TransposeArgs a, int columns_per_block) {
  const int lane = threadIdx.x & 31, row = lane >> 2, q = lane & 3, n = blockIdx.z;
  const unsigned voxels = unsigned(voxels_of(a.in));  // below 2^31
  const unsigned first = (blockIdx.x * kWarps + (threadIdx.x >> 5)) * 16 + row;
  const int groups = (a.in.c + 31) / 32;
  const T* const in = static_cast<const T*>(a.in.data) + n * voxels_of(a.in) * a.in.pitch;

  // Eight channels of voxels first and first + 8: two steps of 16 channels.
  uint4 raw[kGroups][2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const unsigned v = first + r * 8;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const int channel = g * 32 + q * 8;
      raw[g][r] = v < voxels && channel < a.in.c
                      ? __ldg(reinterpret_cast<const uint4*>(in + int64_t(v) * a.in.pitch + channel))
                      : make_uint4(0, 0, 0, 0);
    }
  }
  if (a.load.scale_shift) {
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const int channel = g * 32 + q * 8;
      if (channel >= a.in.c) continue;
      const Affine8 affine(a.load, int64_t(n) * a.in.c + channel);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        uint32_t words[4] = {raw[g][r].x, raw[g][r].y, raw[g][r].z, raw[g][r].w};
        float e[8];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float2 f = unpack<T>(words[i]);
          e[2 * i] = f.x, e[2 * i + 1] = f.y;
        }
        affine.apply(e);
        pack8<T>(e, words);
        raw[g][r] = make_uint4(words[0], words[1], words[2], words[3]);
      }
    }
  }

  int to[2];  // first output voxel; -1: no such voxel
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const unsigned v = first + r * 8;
    to[r] = v < voxels ? int(out_voxel(a, v)) : -1;
  }
  T* const out = static_cast<T*>(a.out.data) + n * voxels_of(a.out) * a.out.pitch;
  const int out_tiles = (a.out.c + 31) / 32, columns = a.sz * a.sy * a.sx * out_tiles;
  const int begin = blockIdx.y * columns_per_block, end = min(begin + columns_per_block, columns);
  int out_tile = begin % out_tiles, kx = begin / out_tiles % a.sx, ky = begin / out_tiles / a.sx % a.sy;
  int offset = int(tap_offset(a, begin / out_tiles));
  const uint4* weights = static_cast<const uint4*>(a.weights) + int64_t(begin) * groups * 128 + lane;
#pragma unroll 1
  for (int column = begin; column < end; ++column) {
    float acc[4][4];
    const int channel = out_tile * 32 + q * 8;
    const bool mine = channel < a.out.c;
#pragma unroll
    for (int f = 0; f < 4; ++f) {
      float2 bias = make_float2(0, 0);
      if (a.bias && mine) bias = __ldg(reinterpret_cast<const float2*>(a.bias + channel + 2 * f));
      acc[f][0] = acc[f][2] = bias.x;
      acc[f][1] = acc[f][3] = bias.y;
    }
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      if (g >= groups) continue;
      uint4 b[4];
#pragma unroll
      for (int f = 0; f < 4; ++f) b[f] = __ldg(weights + (g * 4 + f) * 32);
      const uint4 low = raw[g][0], high = raw[g][1];
      const uint32_t near[4] = {low.x, high.x, low.y, high.y}, far[4] = {low.z, high.z, low.w, high.w};
#pragma unroll
      for (int f = 0; f < 4; ++f) multiply_tile<T>(acc[f], near, b[f].x, b[f].y);
#pragma unroll
      for (int f = 0; f < 4; ++f) multiply_tile<T>(acc[f], far, b[f].z, b[f].w);
    }
    weights += groups * 128;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (to[r] < 0 || !mine) continue;
      float e[8];
#pragma unroll
      for (int f = 0; f < 4; ++f) e[2 * f] = acc[f][2 * r], e[2 * f + 1] = acc[f][2 * r + 1];
      uint32_t words[4];
      pack8<T>(e, words);
      *reinterpret_cast<uint4*>(out + int64_t(to[r] + offset) * a.out.pitch + channel) =
          make_uint4(words[0], words[1], words[2], words[3]);
    }
    if (++out_tile < out_tiles) continue;
    out_tile = 0;
    ++offset;
    if (++kx < a.sx) continue;
    kx = 0;
    offset += a.out.x - a.sx;
    if (++ky < a.sy) continue;
    ky = 0;
    offset += (a.out.y - a.sy) * a.out.x;
  }
}

template <class T, int kGroups>
cudaError_t launch(const TransposeArgs& a, cudaStream_t stream) {
  constexpr int kRows = kWarps * 16;
  const int64_t row_blocks = (a.in.voxels() + kRows - 1) / kRows, running = row_blocks * a.in.n;
  const int columns = a.sz * a.sy * a.sx * ((a.out.c + 31) / 32);
  const int parts = int(std::clamp<int64_t>((kWantedBlocks + running - 1) / running, 1, columns));
  const int per_block = (columns + parts - 1) / parts;
  const dim3 grid(unsigned(row_blocks), unsigned((columns + per_block - 1) / per_block), unsigned(a.in.n));
  fragment_kernel<T, kGroups><<<grid, kThreads, 0, stream>>>(a, per_block);
  return cudaGetLastError();
}

template <class T>
cudaError_t launch_for(const TransposeArgs& a, cudaStream_t stream) {
  const int groups = (a.in.c + 31) / 32;
  if (groups <= 1) return launch<T, 1>(a, stream);
  if (groups <= 2) return launch<T, 2>(a, stream);
  if (groups <= 4) return launch<T, 4>(a, stream);
  if (groups <= 8) return launch<T, 8>(a, stream);
  return launch<T, kMostFragmentChannels / 32>(a, stream);
}

}  // namespace

cudaError_t launch_transpose_fragments(const TransposeArgs& args, cudaStream_t stream) {
  return args.in.type == DataType::kFloat16 ? launch_for<__half>(args, stream)
                                            : launch_for<__nv_bfloat16>(args, stream);
}

}  // namespace isoline::cuda
