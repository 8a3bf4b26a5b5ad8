// Convolution 3x3x3 with stride 1 on Hopper's tensor cores (wgmma, sm_90a only; fp16 or bf16 in, float32
// accumulation).
//
// Blocks are persistent, one per processor: two warpgroups of producers (or one) fetch boxes of inputs with
// their halo, 16 channels at a time, apply the load transform in registers and write them into a ring in
// shared memory; two more multiply. A warpgroup's accumulators are `columns` of 64 voxels x kN channels; the
// 64 rows of a column are eight runs of eight neighbours along x, two per warp, and columns follow one
// another along y and z. Inputs come from registers (ldmatrix), so one fragment serves all taps (kz, ky) that
// need it; weights come from shared memory through descriptors. Reading either from shared memory once per
// product would be the bottleneck.
//
// kN = 32: up to 64 input channels. All weights stay in shared memory, each warpgroup works on a box of its
// own, so that one stores its results while the other one multiplies.
// kN = 64: both work on halves of one box and share weights, which arrive in slabs of nine taps (one kx).
#include <algorithm>

#include "isoline/backends/cuda/conv_launch.cuh"
#include "isoline/backends/cuda/fragments.cuh"
#include "isoline/backends/cuda/hopper.cuh"

namespace isoline::cuda {
namespace {

constexpr int kSide = 8, kHalo = kSide + 2;  // of a box, along each axis
constexpr int kVoxels = kHalo * kHalo * kHalo;
constexpr int kPlane = kVoxels + 4;  // 16-byte units of eight channels; 4 modulo 8: no bank conflicts
constexpr int kStageBytes = 2 * kPlane * 16;
constexpr int kMaxStages = 6, kSlabs = 6;

template <int kN>
struct Tile {
  static constexpr bool kShared = kN == 64;           // the box and the weights, by both warpgroups
  static constexpr int kColumnsY = kN == 64 ? 2 : 4;  // columns of a warpgroup along y; two along z
  static constexpr int kColumns = 2 * kColumnsY;
  static constexpr int kFragments = kN == 64 ? 4 : 3;  // of a group: what is loaded and multiplied at a time
  static constexpr int kParts = (kColumnsY + 2) / kFragments;  // groups of one (kx, z)
  static constexpr int kGroups = 4 * kParts;                   // groups of one kx; even
  static constexpr int kSlabBytes = 9 * kN * 32;
  static constexpr int kSumsBytes = 2 * 2 * 4 * kN * 8;  // [warpgroup][in turn][warp][channel]
};

// kWarpgroups fetch, two more multiply. Fewer of them have more inputs on their way each; with more, some are
// waiting while others transform.
template <int kN, int kWarpgroups>
struct Producers {
  static constexpr int kThreads = 128 * kWarpgroups, kAll = kThreads + 256;
  // Together what all have at the start: 3 * 168 or 4 * 128.
  static constexpr int kRegisters = kWarpgroups == 1 ? 104 : 64;
  static constexpr int kConsumerRegisters = kWarpgroups == 1 ? 200 : 192;
  static constexpr int kLoaders = kThreads - (Tile<kN>::kShared ? 32 : 0);  // threads that fetch inputs
  // Units of a thread at a time.
  static constexpr int kBatch = kWarpgroups == 1 ? (Tile<kN>::kShared ? 11 : 8) : (Tile<kN>::kShared ? 3 : 4);
};

struct Barriers {
  uint64_t full[kMaxStages], empty[kMaxStages], weights_full[kSlabs], weights_empty[kSlabs];
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// c += a * b of 64 x 16 inputs (registers of the warpgroup) and 16 x kN weights (shared memory).
#define ISOLINE_WGMMA32(type)                                                              \
  asm volatile("wgmma.mma_async.sync.aligned.m64n32k16.f32." type "." type                 \
               " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, " \
               "{%16, %17, %18, %19}, %20, 1, 1, 1, 0;"                                    \
               : ISOLINE_C16(0)                                                            \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
#define ISOLINE_WGMMA64(type)                                                                      \
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type                         \
               " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "          \
               "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, " \
               "{%32, %33, %34, %35}, %36, 1, 1, 1, 0;"                                            \
               : ISOLINE_C16(0), ISOLINE_C16(16)                                                   \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
template <typename T, int kN>
__device__ __forceinline__ void multiply(float (&c)[kN / 2], const uint32_t (&a)[4], uint64_t b) {
  constexpr bool kHalf = std::is_same_v<T, __half>;
  if constexpr (kN == 32 && kHalf) {
    ISOLINE_WGMMA32("f16");
  } else if constexpr (kN == 32) {
    ISOLINE_WGMMA32("bf16");
  } else if constexpr (kHalf) {
    ISOLINE_WGMMA64("f16");
  } else {
    ISOLINE_WGMMA64("bf16");
  }
}
#undef ISOLINE_WGMMA64
#undef ISOLINE_WGMMA32

__device__ __forceinline__ Item item_of(const ConvArgs& p, int index) {
  return item_at(p, index, kSide, kSide, kSide);
}

template <typename T, int kN, int kWarpgroups>
__device__ __forceinline__ void fetch_inputs(const ConvArgs& p, uint4* stages, Barriers& barriers) {
  using Shape = Tile<kN>;
  using Threads = Producers<kN, kWarpgroups>;
  constexpr int kBatch = Threads::kBatch, kStride = Threads::kLoaders / 2;
  const int half = threadIdx.x & 1, first = threadIdx.x >> 1;
  const Pair<T> slope = Pair<T>::both(p.slope);
  Turn turn;
  const int rounds = Shape::kShared ? p.items : ceil_div(p.items, 2);
  for (int round = blockIdx.x; round < rounds; round += gridDim.x) {
    int begin = 0, end = p.chunks;
    if (Shape::kShared) {
      begin = item_of(p, round).split * p.chunks_per_split;
      end = min(begin + p.chunks_per_split, p.chunks);
    }
    for (int chunk = begin; chunk < end; ++chunk) {
#pragma unroll 1
      for (int which = 0; which < (Shape::kShared ? 1 : 2); ++which) {
        // Each time anew: held in registers, two of them would leave too few.
        const Item item = item_of(p, Shape::kShared ? round : 2 * round + which);
        const int channel = chunk * 16 + half * 8;
        const bool wanted = item.valid && channel < p.in_c;
        const T* const in = static_cast<const T*>(p.in) +
                            int64_t(item.sample) * p.in_z * p.in_y * p.in_x * p.in_pitch + channel;
        const bool transformed = p.scale_shift && channel >= p.transform_first;
        float4 affine[4];
        if (transformed && wanted) {
          const float4* const from = reinterpret_cast<const float4*>(
              p.scale_shift +
              (int64_t(item.sample) * (p.in_c - p.transform_first) + channel - p.transform_first) * 2);
#pragma unroll
          for (int i = 0; i < 4; ++i) affine[i] = __ldg(from + i);
        }
        uint4* const to = stages + (turn.slot * 2 + half) * kPlane;
#pragma unroll 1
        for (int v0 = first; v0 < kVoxels; v0 += kBatch * kStride) {
          uint4 value[kBatch];
          uint32_t inside = 0;
#pragma unroll
          for (int i = 0; i < kBatch; ++i) {
            const int v = v0 + i * kStride;
            const int z = v / (kHalo * kHalo), y = v / kHalo - z * kHalo, x = v % kHalo;
            const int iz = item.z + z - 1, iy = item.y + y - 1, ix = item.x + x - 1;
            const bool is_inside = wanted && v < kVoxels && unsigned(iz) < unsigned(p.in_z) &&
                                   unsigned(iy) < unsigned(p.in_y) && unsigned(ix) < unsigned(p.in_x);
            value[i] = make_uint4(0, 0, 0, 0);
            if (is_inside) {
              inside |= 1u << i;
              value[i] = load_once(in + int64_t((iz * p.in_y + iy) * p.in_x + ix) * p.in_pitch);
            }
          }
          if (v0 == first) wait(&barriers.empty[turn.slot], turn.phase ^ 1);
#pragma unroll
          for (int i = 0; i < kBatch; ++i) {
            if (transformed) {
              const auto transform = [&](uint32_t v, const float4& by) {
                const float2 f = unpack<T>(v);
                const uint32_t w = slope.leaky(pack2<T>(fmaf(f.x, by.x, by.y), fmaf(f.y, by.z, by.w)));
                return inside >> i & 1 ? w : 0;
              };
              value[i] = make_uint4(transform(value[i].x, affine[0]), transform(value[i].y, affine[1]),
                                    transform(value[i].z, affine[2]), transform(value[i].w, affine[3]));
            }
            if (v0 + i * kStride < kVoxels) to[v0 + i * kStride] = value[i];
          }
        }
        arrive(&barriers.full[turn.slot]);
        turn.advance(1, p.stages);
      }
    }
  }
}

// One thread.
template <int kN>
__device__ __forceinline__ void fetch_weights(const ConvArgs& p, char* slabs, Barriers& barriers) {
  using Shape = Tile<kN>;
  const char* const packed = static_cast<const char*>(p.packed);
  if (!Shape::kShared) {
    const int count = p.chunks * 3;
    expect_bytes(&barriers.weights_full[0], uint32_t(count * Shape::kSlabBytes));
    for (int i = 0; i < count; ++i) {
      copy_bulk(slabs + i * Shape::kSlabBytes, packed + i * Shape::kSlabBytes, Shape::kSlabBytes,
                &barriers.weights_full[0]);
    }
    return;
  }
  Turn turn;
  for (int round = blockIdx.x; round < p.items; round += gridDim.x) {
    const Item item = item_of(p, round);
    const int begin = item.split * p.chunks_per_split, end = min(begin + p.chunks_per_split, p.chunks);
    const char* from = packed + (int64_t(item.n_tile) * p.chunks + begin) * 3 * Shape::kSlabBytes;
    for (int i = begin * 3; i < end * 3; ++i, from += Shape::kSlabBytes) {
      wait(&barriers.weights_empty[turn.slot], turn.phase ^ 1);
      expect_bytes(&barriers.weights_full[turn.slot], Shape::kSlabBytes);
      copy_bulk(slabs + turn.slot * Shape::kSlabBytes, from, Shape::kSlabBytes,
                &barriers.weights_full[turn.slot]);
      turn.advance(1, kSlabs);
    }
  }
}

template <typename T, int kN>
__device__ __forceinline__ void store_results(const ConvArgs& p, const Item& item, int z0, int y0,
                                              const float (&acc)[Tile<kN>::kColumns][kN / 2], float2* sums,
                                              int warpgroup) {
  using Shape = Tile<kN>;
  constexpr int kValues = kN / 4;  // channels of a lane
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5 & 3;
  const int x = item.x + (lane >> 2), channel = item.n_tile * kN + (lane & 3) * 8;
  const int64_t voxels = int64_t(p.out_z) * p.out_y * p.out_x;
  float2 sum[kValues];
#pragma unroll
  for (int j = 0; j < kValues; ++j) sum[j] = make_float2(0, 0);
#pragma unroll
  for (int column = 0; column < Shape::kColumns; ++column) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int z = z0 + column / Shape::kColumnsY, y = y0 + column % Shape::kColumnsY + r * Shape::kColumnsY;
      if (z >= p.out_z || y >= p.out_y || x >= p.out_x) continue;
      const int64_t voxel = (int64_t(z) * p.out_y + y) * p.out_x + x;
#pragma unroll
      for (int g = 0; g < kN / 32; ++g) {
        if (channel + 32 * g >= p.out_c) continue;
        const float* const v = acc[column] + g * 16 + 2 * r;
        if (p.splits > 1) {
          float4* const to = reinterpret_cast<float4*>(
              p.workspace +
              ((int64_t(item.split) * p.n + item.sample) * voxels + voxel) * (p.out_tiles * 32) + channel +
              32 * g);
          to[0] = make_float4(v[0], v[1], v[4], v[5]);
          to[1] = make_float4(v[8], v[9], v[12], v[13]);
          continue;
        }
        uint32_t packed[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const float a = v[4 * j], b = v[4 * j + 1];
          float2& s = sum[g * 8 + 2 * j];
          float2& t = sum[g * 8 + 2 * j + 1];
          s.x += a, s.y = fmaf(a, a, s.y);
          t.x += b, t.y = fmaf(b, b, t.y);
          packed[j] = pack2<T>(a, b);
        }
        *reinterpret_cast<uint4*>(static_cast<T*>(p.out) +
                                  (int64_t(item.sample) * voxels + voxel) * p.out_pitch + channel + 32 * g) =
            make_uint4(packed[0], packed[1], packed[2], packed[3]);
      }
    }
  }
  if (!p.partial || p.splits > 1) return;
  // Over the eight voxels of a row: each step halves the channels of a lane.
  int at = 0;
#pragma unroll
  for (int step = 0; step < 3; ++step) {
    const int left = kValues >> (step + 1);
    const bool upper = lane >> (2 + step) & 1;
    at += upper ? left : 0;
#pragma unroll
    for (int j = 0; j < kValues / 2; ++j) {
      if (j >= left) continue;
      const float2 a = sum[j], b = sum[j + left];
      sum[j].x = (upper ? b.x : a.x) + __shfl_xor_sync(~0u, upper ? a.x : b.x, 4 << step);
      sum[j].y = (upper ? b.y : a.y) + __shfl_xor_sync(~0u, upper ? a.y : b.y, 4 << step);
    }
  }
#pragma unroll
  for (int j = 0; j < kValues / 8; ++j) {
    const int value = at + j;
    sums[warp * kN + value / 8 * 32 + (lane & 3) * 8 + value % 8] = sum[j];
  }
  asm volatile("bar.sync %0, 128;" ::"r"(1 + warpgroup) : "memory");
  const int thread = threadIdx.x & 127, of = item.n_tile * kN + thread;
  if (thread < kN && of < p.out_c) {
    float2 total = make_float2(0, 0);
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const float2 part = sums[w * kN + thread];
      total.x += part.x, total.y += part.y;
    }
    const int64_t block = Shape::kShared ? int64_t(item.sample) * (2 * p.tiles) + 2 * item.box + warpgroup
                                         : int64_t(item.sample) * p.tiles + item.box;
    reinterpret_cast<float2*>(p.partial)[block * p.out_c + of] = total;
  }
}

template <typename T, int kN, int kWarpgroups>
__device__ __forceinline__ void multiply_items(const ConvArgs& p, const uint4* stages, const char* slabs,
                                               float2* sums, Barriers& barriers) {
  using Shape = Tile<kN>;
  constexpr int kF = Shape::kFragments, kParts = Shape::kParts, kGroups = Shape::kGroups;
  // The same value in all lanes, and the compiler knows.
  const int warpgroup = __shfl_sync(~0u, int(threadIdx.x >> 7) - kWarpgroups, 0);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5 & 3;
  // First voxel of this warp's two runs of rows, within the box.
  const int warp_z = Shape::kShared ? warpgroup * 4 + (warp >> 1) * 2 : warp * 2;
  const int warp_y = Shape::kShared ? (warp & 1) * 2 * Shape::kColumnsY : 0;
  const uint32_t lane_offset =
      uint32_t((lane >> 4) * kPlane + (warp_z * kHalo + warp_y + (lane >> 3 & 1) * Shape::kColumnsY) * kHalo +
               (lane & 7)) *
      16;
  const uint32_t stages_at = shared_address(stages);
  // Descriptor of 16 x kN weights: 8 x 8 cores of 128 bytes, eight outputs apart 128 bytes, eight inputs
  // apart kN * 16 bytes.
  const uint64_t descriptor =
      (uint64_t(128 >> 4) << 32) | uint64_t(kN) << 16 | uint64_t(shared_address(slabs) >> 4);
  Turn turn, slab;
  if (!Shape::kShared) {
    turn.advance(warpgroup, p.stages);
    wait(&barriers.weights_full[0], 0);
  }
  constexpr int kTurns = Shape::kShared ? 1 : 2;
  const int rounds = Shape::kShared ? p.items : ceil_div(p.items, 2);
  int odd_item = 0;
  for (int round = blockIdx.x; round < rounds; round += gridDim.x, odd_item ^= 1) {
    const Item item = item_of(p, Shape::kShared ? round : 2 * round + warpgroup);
    const int begin = item.split * p.chunks_per_split, end = min(begin + p.chunks_per_split, p.chunks);
    if (!item.valid) {  // the ring goes on
      for (int chunk = 0; chunk < p.chunks; ++chunk) {
        wait(&barriers.full[turn.slot], turn.phase);
        arrive(&barriers.empty[turn.slot]);
        turn.advance(kTurns, p.stages);
      }
      continue;
    }
    float acc[Shape::kColumns][kN / 2];
#pragma unroll
    for (int j = 0; j < kN / 8; ++j) {
      const int channel = item.n_tile * kN + j / 4 * 32 + (lane & 3) * 8 + j % 4 * 2;
      const bool wanted = p.bias && p.splits == 1 && channel < p.out_c;
      const float2 bias =
          wanted ? __ldg(reinterpret_cast<const float2*>(p.bias + channel)) : make_float2(0, 0);
#pragma unroll
      for (int i = 0; i < Shape::kColumns; ++i) {
        acc[i][4 * j] = acc[i][4 * j + 2] = bias.x;
        acc[i][4 * j + 1] = acc[i][4 * j + 3] = bias.y;
      }
    }
    uint32_t a[2][kF][4];
    // Group g of a kx: inputs at z = g / kParts, kF of them along y.
    const auto load_group = [&](uint32_t(&to)[kF][4], uint32_t at, int g) {
#pragma unroll
      for (int f = 0; f < kF; ++f) {
        load_fragment(to[f], at + ((g / kParts * kHalo + g % kParts * kF + f) * kHalo) * 16);
      }
    };
    wait(&barriers.full[turn.slot], turn.phase);
    uint32_t at = stages_at + turn.slot * kStageBytes + lane_offset;
    load_group(a[0], at, 0);
    for (int chunk = begin; chunk < end; ++chunk) {
#pragma unroll 1
      for (int kx = 0; kx < 3; ++kx) {
        if (Shape::kShared) wait(&barriers.weights_full[slab.slot], slab.phase);
        const uint64_t b =
            descriptor + uint64_t((Shape::kShared ? slab.slot : chunk * 3 + kx) * (Shape::kSlabBytes >> 4));
#pragma unroll
        for (int g = 0; g < kGroups; ++g) {
          asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
          for (int kz = 0; kz < 3; ++kz) {
            const int z = g / kParts - kz;
            if (z < 0 || z >= 2) continue;
#pragma unroll
            for (int f = 0; f < kF; ++f) {
#pragma unroll
              for (int ky = 0; ky < 3; ++ky) {
                const int y = g % kParts * kF + f - ky;
                if (y < 0 || y >= Shape::kColumnsY) continue;
                multiply<T, kN>(acc[z * Shape::kColumnsY + y], a[g & 1][f], b + (kz * 3 + ky) * (kN * 2));
              }
            }
          }
          asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
          if (g + 1 < kGroups) {
            wait_products<1>();
            if (Shape::kShared && g == 0 && (chunk > begin || kx > 0)) {
              arrive(&barriers.weights_empty[(slab.slot ? slab.slot : kSlabs) - 1]);
            }
            load_group(a[(g + 1) & 1], at + kx * 16, g + 1);
            continue;
          }
          if (Shape::kShared) slab.advance(1, kSlabs);
          if (kx < 2) {
            wait_products<1>();
            load_group(a[0], at + (kx + 1) * 16, 0);
            continue;
          }
          // All of this stage is in registers.
          arrive(&barriers.empty[turn.slot]);
          turn.advance(kTurns, p.stages);
          if (chunk + 1 == end) continue;
          wait(&barriers.full[turn.slot], turn.phase);
          at = stages_at + turn.slot * kStageBytes + lane_offset;
          wait_products<1>();
          load_group(a[0], at, 0);
        }
      }
    }
    wait_products<0>();
    if (Shape::kShared) arrive(&barriers.weights_empty[(slab.slot ? slab.slot : kSlabs) - 1]);
    pin(acc);
    store_results<T, kN>(p, item, item.z + warp_z, item.y + warp_y, acc,
                         sums + (warpgroup * 2 + odd_item) * 4 * kN, warpgroup);
  }
}

#endif

template <typename T, int kN, int kWarpgroups>
__global__ void __launch_bounds__(Producers<kN, kWarpgroups>::kAll, 1)
    conv_wgmma_kernel(const __grid_constant__ ConvArgs p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using Shape = Tile<kN>;
  using Threads = Producers<kN, kWarpgroups>;
  extern __shared__ __align__(128) uint4 shared[];
  char* const slabs = reinterpret_cast<char*>(shared) + p.stages * kStageBytes;
  float2* const sums =
      reinterpret_cast<float2*>(slabs + (Shape::kShared ? kSlabs : p.chunks * 3) * Shape::kSlabBytes);
  Barriers& barriers = *reinterpret_cast<Barriers*>(reinterpret_cast<char*>(sums) + Shape::kSumsBytes);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kMaxStages; ++i) {
      barrier_init(&barriers.full[i], Threads::kLoaders);
      barrier_init(&barriers.empty[i], Shape::kShared ? 256 : 128);
    }
    for (int i = 0; i < kSlabs; ++i) {
      barrier_init(&barriers.weights_full[i], 1);
      barrier_init(&barriers.weights_empty[i], 256);
    }
    asm volatile("fence.mbarrier_init.release.cluster;\n fence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncthreads();
  if (threadIdx.x < Threads::kThreads) {
    fewer_registers<Threads::kRegisters>();
    if (Shape::kShared) {
      if (threadIdx.x < Threads::kLoaders) {
        fetch_inputs<T, kN, kWarpgroups>(p, shared, barriers);
      } else if (threadIdx.x == Threads::kLoaders) {
        fetch_weights<kN>(p, slabs, barriers);
      }
    } else {
      if (threadIdx.x == 0) fetch_weights<kN>(p, slabs, barriers);
      __syncwarp();
      fetch_inputs<T, kN, kWarpgroups>(p, shared, barriers);
    }
  } else {
    more_registers<Threads::kConsumerRegisters>();
    multiply_items<T, kN, kWarpgroups>(p, shared, slabs, sums, barriers);
  }
#endif
}

}  // namespace

void plan_wgmma(ConvPlan& plan, const DeviceLimits& limits, const ConvChoice& choice, bool* fits) {
  ConvArgs& a = plan.args;
  *fits = false;
  if (limits.capability != 90) return;
  for (const int kernel : {a.kz, a.ky, a.kx}) {
    if (kernel != 3) return;
  }
  for (const int stride : {a.sz, a.sy, a.sx}) {
    if (stride != 1) return;
  }
  // Smaller ones leave too much of a box empty.
  if (std::min({a.out_z, a.out_y, a.out_x}) < kSide) return;
  a.chunks = ceil_div(a.in_c, 16);
  const bool narrow = a.out_c <= 32;
  if (narrow && a.chunks > 4) return;
  a.n_tiles = narrow ? 1 : ceil_div(a.out_c, 64);
  a.out_tiles = a.n_tiles * (narrow ? 1 : 2);
  a.tiles_x = ceil_div(a.out_x, kSide);
  a.tiles_y = ceil_div(a.out_y, kSide);
  a.tiles = a.tiles_x * a.tiles_y * ceil_div(a.out_z, kSide);
  // Too few boxes for the device: parts of the input channels go to different blocks; a second pass adds them
  // up.
  const int64_t items = int64_t(a.tiles) * a.n_tiles * a.n;
  a.splits = 1;
  if (!narrow && items * 2 <= limits.processors) {
    a.splits = int(std::min<int64_t>(a.chunks, limits.processors / items));
  }
  a.chunks_per_split = ceil_div(a.chunks, a.splits);
  a.splits = ceil_div(a.chunks, a.chunks_per_split);
  if (items * a.splits > (1 << 30)) return;
  a.items = int(items) * a.splits;
  const size_t fixed = narrow ? size_t(a.chunks) * 3 * Tile<32>::kSlabBytes + Tile<32>::kSumsBytes
                              : size_t(kSlabs) * Tile<64>::kSlabBytes + Tile<64>::kSumsBytes;
  a.stages = 0;
  while (a.stages < kMaxStages &&
         fixed + sizeof(Barriers) + size_t(a.stages + 1) * kStageBytes <= limits.shared_per_block) {
    ++a.stages;
  }
  if (a.stages < 2) return;
  plan.shared_bytes = fixed + sizeof(Barriers) + size_t(a.stages) * kStageBytes;
  const int warpgroups = choice.producers ? choice.producers : 2;
  if (warpgroups < 1 || warpgroups > 2) return;
  plan.threads = 128 * (2 + warpgroups);
  plan.grid = dim3(unsigned(std::min(narrow ? ceil_div(a.items, 2) : a.items, limits.processors)));
  plan.blocks = a.tiles * (narrow ? 1 : 2);
  plan.layout = narrow ? WeightLayout::kWgmma32 : WeightLayout::kWgmma64;
  // Clocks: products of two warpgroups, and the part of the time that they took where it was measured.
  const int rounds = ceil_div(narrow ? ceil_div(a.items, 2) : a.items, limits.processors);
  plan.clocks = double(rounds) * a.chunks_per_split * 27 * 8 * 32 / (narrow ? .45 : .65);
  *fits = true;
}

template <typename T, int kN>
ConvKernel wgmma_kernel(const ConvPlan& plan) {
  return plan.threads == Producers<kN, 1>::kAll ? conv_wgmma_kernel<T, kN, 1> : conv_wgmma_kernel<T, kN, 2>;
}

cudaError_t launch_wgmma(const ConvPlan& plan, DataType type, cudaStream_t stream) {
  const bool narrow = plan.layout == WeightLayout::kWgmma32;
  const ConvKernel kernel =
      type == DataType::kFloat16
          ? (narrow ? wgmma_kernel<__half, 32>(plan) : wgmma_kernel<__half, 64>(plan))
          : (narrow ? wgmma_kernel<__nv_bfloat16, 32>(plan) : wgmma_kernel<__nv_bfloat16, 64>(plan));
  return launch_conv(kernel, plan, stream);
}

}  // namespace isoline::cuda
