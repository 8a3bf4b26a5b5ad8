// Convolution 3x3x3 with stride 1 or 2 on Hopper's tensor cores (wgmma, sm_90a only; fp16 or bf16 in, float32
// accumulation), the other way round than conv_wgmma.cu: the 64 rows of a product are output channels, its
// columns 256 (stride 2: 128) voxels. Both factors come from shared memory through descriptors: an
// instruction runs 128 clocks and reads 10 KiB, so that neither shared memory nor issuing is the limit, and
// nothing waits for registers.
//
// Blocks are persistent, one per processor. Inputs arrive in planes (planes.cuh). Two warpgroups multiply,
// each its half of a box along z, so that one is a few planes behind and still multiplies while the other
// stores its results; the later one also fetches weights, which arrive in slabs of nine taps (one chunk of 16
// channels, one kz), in the order in which they are needed. A product's columns are kY rows of 8 voxels,
// wherever they begin.
#include <algorithm>

#include "isoline/backends/cuda/planes.cuh"

namespace isoline::cuda {
namespace {

constexpr int kMaxStages = 12, kSlabs = 6;
constexpr int kSlabBytes = 9 * 64 * 32;

// A product of 256 columns needs more registers than a kernel of four warpgroups begins with.
template <int kStride>
struct Tile : PlaneShape<kStride, 8, kStride == 1 ? 32 : 16, kStride == 1 ? 128 : 256> {
  static constexpr int kColumns = Tile::kX * Tile::kY;  // of a product
  static constexpr int kProducerRegisters = kStride == 1 ? 152 : 128;
  static constexpr int kConsumerRegisters = kStride == 1 ? 176 : 128;
  static_assert(registers_suffice(Tile::kProducers, kProducerRegisters, kConsumerRegisters));
  static constexpr int kRows = 64;                // output channels
  static constexpr int kZ = 2;                    // outputs of a box along z, one of each warpgroup
  static constexpr int kOwn = 3;                  // planes that a warpgroup needs
  static constexpr int kOthers = kStride;         // and those of the other one alone
  static constexpr int kPlanes = kOwn + kOthers;  // of a box
};

struct Barriers {
  uint64_t copied[kMaxStages], full[kMaxStages], empty[kMaxStages], weights_full[kSlabs],
      weights_empty[kSlabs];
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// c (+)= weights (64 rows x 16) * inputs (16 x columns); add: 0 or 1.
#define ISOLINE_WGMMA128(type)                                                           \
  asm volatile(                                                                          \
      "{\n .reg .pred add;\n setp.ne.b32 add, %66, 0;\n"                                 \
      " wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type                      \
      " {"                                                                               \
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, " \
      "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, " \
      "%34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, " \
      "%50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"             \
      "}, %64, %65, add, 1, 1, 0, 0;\n}"                                                 \
      : ISOLINE_C16(0), ISOLINE_C16(16), ISOLINE_C16(32), ISOLINE_C16(48)                \
      : "l"(weights), "l"(inputs), "r"(add))
#define ISOLINE_WGMMA256(type)                                                                               \
  asm volatile(                                                                                              \
      "{\n .reg .pred add;\n setp.ne.b32 add, %130, 0;\n"                                                    \
      " wgmma.mma_async.sync.aligned.m64n256k16.f32." type "." type                                          \
      " {"                                                                                                   \
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, "                     \
      "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, "                     \
      "%34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, "                     \
      "%50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, "                     \
      "%66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, "                     \
      "%82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, "                     \
      "%98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "                   \
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, "                 \
      "%126, %127"                                                                                           \
      "}, %128, %129, add, 1, 1, 0, 0;\n}"                                                                   \
      : ISOLINE_C16(0), ISOLINE_C16(16), ISOLINE_C16(32), ISOLINE_C16(48), ISOLINE_C16(64), ISOLINE_C16(80), \
        ISOLINE_C16(96), ISOLINE_C16(112)                                                                    \
      : "l"(weights), "l"(inputs), "r"(add))
template <typename T>
__device__ __forceinline__ void multiply(float (&c)[64], uint64_t weights, uint64_t inputs, int add) {
  if constexpr (std::is_same_v<T, __half>) {
    ISOLINE_WGMMA128("f16");
  } else {
    ISOLINE_WGMMA128("bf16");
  }
}
template <typename T>
__device__ __forceinline__ void multiply(float (&c)[128], uint64_t weights, uint64_t inputs, int add) {
  if constexpr (std::is_same_v<T, __half>) {
    ISOLINE_WGMMA256("f16");
  } else {
    ISOLINE_WGMMA256("bf16");
  }
}
#undef ISOLINE_WGMMA256
#undef ISOLINE_WGMMA128

// Of a warp's 8 x 8 matrix of 16-bit values.
__device__ __forceinline__ uint32_t transposed(uint32_t v) {
  uint32_t t;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(t) : "r"(v));
  return t;
}

template <typename Shape>
__device__ __forceinline__ Item item_of(const ConvArgs& p, int index) {
  return item_at(p, index, Shape::kZ, Shape::kY, Shape::kX);
}

// Which plane comes when: the planes of a box for its first channels, for the next ones, the next box.
template <typename Shape>
struct Planes {
  int index, group = 0, plane = 0;
  Item item;
  Turn turn;
  __device__ __forceinline__ explicit Planes(const ConvArgs& p)
      : index(blockIdx.x), item(item_of<Shape>(p, index)) {}
  __device__ __forceinline__ bool left(const ConvArgs& p) const { return index < p.items; }
  __device__ __forceinline__ int channel() const { return group * Shape::kChannels; }
  __device__ __forceinline__ int z() const { return item.z * Shape::kStride + plane - 1; }
  // 0: within these channels; 1: to the next channels; 2: to the next item.
  __device__ __forceinline__ int advance(const ConvArgs& p) {
    turn.advance(1, p.stages);
    if (++plane < Shape::kPlanes) return 0;
    plane = 0;
    if (++group * Shape::kChunks < p.chunks) return 1;
    group = 0;
    index += gridDim.x;
    if (left(p)) item = item_of<Shape>(p, index);
    return 2;
  }
};

// One thread, which does nothing else, so that a plane comes as soon as there is room.
template <typename Shape>
__device__ __forceinline__ void copy_planes(const ConvArgs& p, const CUtensorMap& map, char* stages,
                                            Barriers& barriers) {
  Planes<Shape> next(p);
  while (next.left(p)) {
    wait(&barriers.empty[next.turn.slot], next.turn.phase ^ 1);
    uint64_t* const copied = &barriers.copied[next.turn.slot];
    expect_bytes(copied, Shape::kCopiedBytes);
#pragma unroll
    for (int odd = 0; odd < Shape::kTiles; ++odd) {
      copy_tile(stages + next.turn.slot * Shape::kStageBytes + odd * Shape::kTileBytes, map, next.channel(),
                next.item.x * Shape::kStride - 1 + odd, next.item.y * Shape::kStride - 1, next.z(),
                next.item.sample, copied);
    }
    next.advance(p);
  }
}

// Which slab a block needs when: one after the other, item after item.
template <typename Shape>
struct Slabs {
  int index, slab = 0;  // of the item
  Turn turn;
  __device__ __forceinline__ Slabs() : index(blockIdx.x) {}
  // One thread. The slot must have become empty.
  __device__ __forceinline__ void fetch(const ConvArgs& p, char* weights, Barriers& barriers) {
    if (index >= p.items) return;
    expect_bytes(&barriers.weights_full[turn.slot], kSlabBytes);
    copy_bulk(weights + turn.slot * kSlabBytes,
              static_cast<const char*>(p.packed) +
                  (int64_t(item_of<Shape>(p, index).n_tile) * p.chunks * 3 + slab) * kSlabBytes,
              kSlabBytes, &barriers.weights_full[turn.slot]);
    advance(p);
  }
  __device__ __forceinline__ void advance(const ConvArgs& p) {
    turn.advance(1, kSlabs);
    if (++slab == p.chunks * 3) slab = 0, index += gridDim.x;
  }
};

template <typename T, typename Shape>
__device__ __forceinline__ void store_results(const ConvArgs& p, const Item& item,
                                              const float (&acc)[Shape::kColumns / 2], int warpgroup) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5 & 3, quad = lane & 3, row = lane >> 2;
  const int tile = item.n_tile * Shape::kRows + warp * 16;
  // This lane's rows are channels `own` and own + 2 of the warp's 16 (voxels 2 * quad and one more); once it
  // is transposed, its column is voxel `row`, and rows 2 * quad, one more, and both eight further are
  // channels from 4 * quad on.
  const int own = tile + row / 2 * 4 + row % 2, channel = tile + quad * 4;
  float bias[2] = {0, 0};
  if (p.bias) {
#pragma unroll
    for (int r = 0; r < 2; ++r) bias[r] = own + 2 * r < p.out_c ? __ldg(p.bias + own + 2 * r) : 0;
  }
  const int z = item.z + warpgroup;
  const bool inside[2] = {item.x + 2 * quad < p.out_x, item.x + 2 * quad + 1 < p.out_x};
  const bool stores = item.x + row < p.out_x && channel < p.out_c;
  const int64_t line = int64_t(p.out_x) * p.out_pitch;
  float2 sum[2] = {};
  if (z < p.out_z) {
    T* to = static_cast<T*>(p.out) + ((int64_t(item.sample) * p.out_z + z) * p.out_y + item.y) * line +
            int64_t(item.x + row) * p.out_pitch + channel;
#pragma unroll
    for (int y = 0; y < Shape::kY; ++y, to += line) {
      if (item.y + y >= p.out_y) continue;  // so does the whole warp
      uint2 two;
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float a = acc[4 * y + 2 * r] + bias[r], b = acc[4 * y + 2 * r + 1] + bias[r];
        if (inside[0]) sum[r].x += a, sum[r].y = fmaf(a, a, sum[r].y);
        if (inside[1]) sum[r].x += b, sum[r].y = fmaf(b, b, sum[r].y);
        (r ? two.y : two.x) = transposed(pack2<T>(a, b));
      }
      if (stores) *reinterpret_cast<uint2*>(to) = two;
    }
  }
  if (!p.partial) return;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
#pragma unroll
    for (int d = 1; d < 4; d *= 2) {
      sum[r].x += __shfl_xor_sync(~0u, sum[r].x, d);
      sum[r].y += __shfl_xor_sync(~0u, sum[r].y, d);
    }
  }
  float2* const partial = reinterpret_cast<float2*>(p.partial) +
                          (int64_t(item.sample) * (2 * p.tiles) + 2 * item.box + warpgroup) * p.out_c;
  if (quad < 2 && own + 2 * quad < p.out_c) partial[own + 2 * quad] = quad ? sum[1] : sum[0];
}

template <typename T, typename Shape>
__device__ __forceinline__ void multiply_items(const ConvArgs& p, const char* stages, char* weights,
                                               Barriers& barriers) {
  constexpr int kVoxelUnits = Shape::kVoxelUnits, kLineUnits = Shape::kLineUnits;
  // The same value in all lanes, and the compiler knows.
  const int warpgroup = __shfl_sync(~0u, int(threadIdx.x - Shape::kProducers) >> 7, 0);
  const bool fetches = threadIdx.x == Shape::kProducers + 128;  // weights
  const Descriptor inputs = swizzled_matrix(stages, Shape::kStride * kLineUnits * 16);
  const Descriptor factors = plain_matrix(weights, 1024, 128);
  Slabs<Shape> coming;
  if (fetches) {
    for (int i = 0; i < kSlabs; ++i) coming.fetch(p, weights, barriers);
  }
  Turn turn, slab;
  for (int index = blockIdx.x; index < p.items; index += gridDim.x) {
    const Item item = item_of<Shape>(p, index);
    float acc[Shape::kColumns / 2];
    // What the products on their way read last.
    int held = -1, held_slab = -1;
    bool held_alone = false;  // the other warpgroup does not need the plane
    uint32_t held_phase = 0;
    const auto release = [&] {
      if (held >= 0) {
        arrive(&barriers.empty[held]);
        if (held_alone) arrive(&barriers.empty[held]);
        held = -1;
      }
      if (held_slab < 0) return;
      arrive(&barriers.weights_empty[held_slab]);
      if (fetches) {
        wait(&barriers.weights_empty[held_slab], held_phase);
        coming.fetch(p, weights, barriers);
      }
      held_slab = -1;
    };
#pragma unroll 1
    for (int first = 0; first < p.chunks; first += Shape::kChunks) {
      if (warpgroup == 1) turn.advance(Shape::kOthers, p.stages);
#pragma unroll
      for (int own = 0; own < Shape::kOwn; ++own) {
        wait(&barriers.full[turn.slot], turn.phase);
        const int from = turn.slot * (Shape::kStageBytes / 16);
#pragma unroll
        for (int chunk = 0; chunk < Shape::kChunks; ++chunk) {
          if (chunk > 0 && first + chunk >= p.chunks) continue;
          wait(&barriers.weights_full[slab.slot], slab.phase);
          const int by = slab.slot * (kSlabBytes >> 4);
          asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
          for (int k = 0; k < 9; ++k) {
            const int ky = k / 3, kx = k % 3;
            const int x = Shape::kStride == 1 ? kx * kVoxelUnits
                          : kx == 1           ? Shape::kTileBytes / 16
                                              : kx / 2 * kVoxelUnits;
            multiply<T>(acc, factors.plus(by + k * 128), inputs.plus(from + ky * kLineUnits + x + chunk * 2),
                        own > 0 || k > 0 || chunk > 0 || first > 0);
          }
          asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
          wait_products<1>();
          release();
          held_slab = slab.slot, held_phase = slab.phase;
          slab.advance(1, kSlabs);
        }
        held = turn.slot;
        held_alone = warpgroup == 0 ? own < Shape::kOthers : own >= Shape::kOwn - Shape::kOthers;
        turn.advance(1, p.stages);
      }
      if (warpgroup == 0) turn.advance(Shape::kOthers, p.stages);
      // In a short ring the next plane cannot come before the last one went.
      if (p.stages < Shape::kOthers + 2) {
        wait_products<0>();
        release();
      }
    }
    wait_products<0>();
    release();
    pin(acc);
    store_results<T, Shape>(p, item, acc, warpgroup);
  }
}

#endif

template <typename T, typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, 1)
    conv_channels_kernel(const __grid_constant__ ConvArgs p, const __grid_constant__ CUtensorMap map) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) char shared[];
  char* const weights = shared + p.stages * Shape::kStageBytes;
  Barriers& barriers = *reinterpret_cast<Barriers*>(weights + kSlabs * kSlabBytes);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kMaxStages; ++i) {
      barrier_init(&barriers.copied[i], 1);
      barrier_init(&barriers.full[i], Shape::kTransformers);
      barrier_init(&barriers.empty[i], 256);
    }
    for (int i = 0; i < kSlabs; ++i) {
      barrier_init(&barriers.weights_full[i], 1);
      barrier_init(&barriers.weights_empty[i], 256);
    }
    asm volatile("fence.mbarrier_init.release.cluster;\n fence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncthreads();
  if (threadIdx.x < Shape::kProducers) {
    fewer_registers<Shape::kProducerRegisters>();
    if (threadIdx.x < Shape::kTransformers) {
      transform_planes<T, Shape, Planes<Shape>>(p, shared, barriers);
    } else if (threadIdx.x == Shape::kTransformers) {
      copy_planes<Shape>(p, map, shared, barriers);
    }
  } else {
    more_registers<Shape::kConsumerRegisters>();
    multiply_items<T, Shape>(p, shared, weights, barriers);
  }
#endif
}

}  // namespace

void plan_channels(ConvPlan& plan, const DeviceLimits& limits, const ConvChoice& choice, bool* fits) {
  ConvArgs& a = plan.args;
  *fits = false;
  if (limits.capability != 90 || a.kz != 3 || a.ky != 3 || a.kx != 3) return;
  if (a.sz != a.sy || a.sy != a.sx || !planes_fit_a_map(a)) return;
  a.chunks = ceil_div(a.in_c, 16);
  constexpr size_t kFixed = kSlabs * kSlabBytes + sizeof(Barriers);
  int64_t covered = 0;  // outputs
  const auto plan_for = [&](auto shape) {
    using Shape = decltype(shape);
    a.n_tiles = ceil_div(a.out_c, Shape::kRows);
    a.tiles_x = ceil_div(a.out_x, Shape::kX);
    a.tiles_y = ceil_div(a.out_y, Shape::kY);
    a.tiles = a.tiles_x * a.tiles_y * ceil_div(a.out_z, Shape::kZ);
    a.stages = stages_that_fit<Shape>(kFixed, limits, kMaxStages);
    plan.shared_bytes = kFixed + size_t(a.stages) * Shape::kStageBytes;
    plan.threads = Shape::kThreads;
    covered = int64_t(a.tiles) * a.n_tiles * Shape::kX * Shape::kY * Shape::kZ * Shape::kRows;
  };
  a.sz == 1 ? plan_for(Tile<1>{}) : plan_for(Tile<2>{});
  const int64_t items = int64_t(a.tiles) * a.n_tiles * a.n;
  if (items > (1 << 30) || a.stages < 2) return;
  a.items = int(items);
  a.splits = 1;
  a.chunks_per_split = a.chunks;
  a.out_tiles = a.n_tiles * 2;
  plan.grid = dim3(unsigned(std::min(a.items, limits.processors)));
  plan.blocks = 2 * a.tiles;
  plan.layout = WeightLayout::kChannels;
  // Clocks: products of two warpgroups, nine tenths of the time.
  plan.clocks = double(ceil_div(a.items, limits.processors)) * a.chunks * 2 * 9 * 128 * 3 / .9;
  // Few boxes, or boxes that are mostly empty, are the other kernels'.
  const double wanted = double(a.out_z) * a.out_y * a.out_x * ceil_div(a.out_c, 32) * 32;
  if (choice.kind == ConvKernelKind::kRule &&
      (items * 2 < limits.processors || double(covered) > 1.5 * wanted)) {
    return;
  }
  *fits = true;
}

cudaError_t launch_channels(const ConvPlan& plan, DataType type, cudaStream_t stream) {
  const auto launch_for = [&](auto shape) {
    using Shape = decltype(shape);
    return launch_planes<Shape>(type == DataType::kFloat16 ? conv_channels_kernel<__half, Shape>
                                                           : conv_channels_kernel<__nv_bfloat16, Shape>,
                                plan, type, stream);
  };
  return plan.args.sz == 1 ? launch_for(Tile<1>{}) : launch_for(Tile<2>{});
}

}  // namespace isoline::cuda
