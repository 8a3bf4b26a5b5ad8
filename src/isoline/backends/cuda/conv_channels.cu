// Convolution 3x3x3 with stride 1 or 2 on Hopper's tensor cores (wgmma, sm_90a only; fp16 or bf16 in, float32
// accumulation), the other way round than conv_wgmma.cu: the 64 rows of a product are output channels, its
// columns 256 (stride 2: 128) voxels. Both factors come from shared memory through descriptors: an
// instruction runs 128 clocks and reads 10 KiB, so that neither shared memory nor issuing is the limit, and
// nothing waits for registers.
//
// Blocks are persistent, one per processor. The tensor memory accelerator copies inputs, a plane (one z, with
// halo along y and x) of 32 channels at a time, into a ring in shared memory, with zeros outside the
// volume. Some warpgroups apply the load transform there. Two more multiply, each its half of a box along z,
// so that one is a few planes behind and still multiplies while the other stores its results; the later one
// also fetches weights. A product's columns are kY rows of 8 voxels, wherever they begin: a tap (ky, kx) is
// an offset of whole voxels (swizzling goes by the address, not by the place in a matrix). With stride 2 even
// and odd voxels of a row lie in tiles of their own, for the same reason.
//
// kPair: 32 output channels. Rows are the channels of two outputs that follow one another along z; a plane
// between them is a factor of both, the outer ones of one only (three quarters of the products count). All
// weights stay in shared memory, as one tall matrix of blocks of 32 rows: for each (chunk of 16 channels, ky,
// kx) 0, kz = 2, 1, 0, and a last block of zeros; two blocks that follow one another are what a plane needs.
// Otherwise: 64 output channels of one output; weights arrive in slabs of nine taps (one chunk, one kz), in
// the order in which they are needed.
#include <cuda.h>

#include <algorithm>

#include "isoline/backends/cuda/conv_launch.cuh"
#include "isoline/backends/cuda/hopper.cuh"

namespace isoline::cuda {
namespace {

constexpr int kMaxStages = 12, kSlabs = 6;
constexpr int kSlabBytes = 9 * 64 * 32;
constexpr int kBlockRows = 32;              // kPair: of the matrix of weights
constexpr int kSumsBytes = 2 * 2 * 64 * 8;  // [warpgroup][in turn][row]

template <bool kPair_, int kStride_>
struct Tile {
  static constexpr bool kPair = kPair_;
  static constexpr int kStride = kStride_, kX = 8, kY = kStride == 1 ? 32 : 16;
  static constexpr int kChannels = 32, kChunks = kChannels / 16;  // of a plane
  static constexpr int kColumns = kX * kY;                        // of a product
  // A product of 256 columns needs more registers than a kernel of four warpgroups begins with.
  static constexpr int kProducers = kStride == 1 ? 128 : 256, kThreads = kProducers + 256;
  static constexpr int kProducerRegisters = kStride == 1 ? 152 : 128;
  static constexpr int kConsumerRegisters = kStride == 1 ? 176 : 128;
  static constexpr int kTransformers = kProducers - 32;  // and a warp of which a thread copies
  static constexpr int kRows = kPair ? 32 : 64;          // output channels
  static constexpr int kZ = kPair ? 4 : 2;               // outputs of a box along z
  static constexpr int kOwn = kPair ? 4 : 3;             // planes that a warpgroup needs
  static constexpr int kOthers = kPair ? 2 : kStride;    // and those of the other one alone
  static constexpr int kPlanes = kOwn + kOthers;         // of a box
  // Of a tile: a plane, or with stride 2 its even or its odd voxels along x.
  static constexpr int kLines = kStride * (kY - 1) + 3, kLine = kStride == 1 ? kX + 2 : kX + 1;
  static constexpr int kVoxels = kLines * kLine, kVoxelBytes = kChannels * 2;
  static_assert(kVoxelBytes == 64);                // the kind of swizzling goes with it
  static constexpr int kRepeat = 8 * kVoxelBytes;  // of the pattern of swizzling: where tiles begin
  static constexpr int kTileBytes = (kVoxels * kVoxelBytes + kRepeat - 1) / kRepeat * kRepeat;
  static constexpr int kTiles = kStride, kStageBytes = kTiles * kTileBytes;
  static constexpr int kCopiedBytes = kTiles * kVoxels * kVoxelBytes;
};

struct Barriers {
  uint64_t copied[kMaxStages], full[kMaxStages], empty[kMaxStages], weights_full[kSlabs],
      weights_empty[kSlabs];
};

__host__ __device__ int pair_weight_bytes(int chunks) {
  return (chunks * 9 * 4 + 1) * kBlockRows * 32;
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// c (+)= weights (64 rows x 16) * inputs (16 x columns); add: 0 or 1.
#define ISOLINE_C4(i) "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3])
#define ISOLINE_C16(i) ISOLINE_C4(i), ISOLINE_C4(i + 4), ISOLINE_C4(i + 8), ISOLINE_C4(i + 12)
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
#undef ISOLINE_C16
#undef ISOLINE_C4

// Of a matrix in shared memory; the lower half moves with it, by 16 bytes a step.
struct Descriptor {
  uint32_t at, rest;
  __device__ __forceinline__ uint64_t plus(int units) const {
    return uint64_t(rest) << 32 | (at + uint32_t(units));
  }
};
// Cores of 8 x 16 bytes; how far apart they are along the 16 channels and along the other side.
__device__ __forceinline__ Descriptor plain_matrix(const void* shared, int deep_bytes, int wide_bytes) {
  return {uint32_t(deep_bytes >> 4) << 16 | shared_address(shared) >> 4, uint32_t(wide_bytes >> 4)};
}
// Rows of 64 bytes, swizzled; how far apart eight rows are from the next eight.
__device__ __forceinline__ Descriptor swizzled_matrix(const void* shared, int eight_bytes) {
  constexpr uint32_t kMode = 2;
  return {1u << 16 | shared_address(shared) >> 4, kMode << 30 | uint32_t(eight_bytes >> 4)};
}

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

__device__ __forceinline__ void copy_tile(void* to, const CUtensorMap& map, int channel, int x, int y, int z,
                                          int sample, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, "
      "%4, %5, %6}], [%7];" ::"r"(shared_address(to)),
      "l"(&map), "r"(channel), "r"(x), "r"(y), "r"(z), "r"(sample), "r"(shared_address(barrier))
      : "memory");
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
                                            char* weights, Barriers& barriers) {
  if (Shape::kPair) {
    const int bytes = pair_weight_bytes(p.chunks);
    expect_bytes(&barriers.weights_full[0], uint32_t(bytes));
    for (int at = 0; at < bytes; at += 16384) {
      copy_bulk(weights + at, static_cast<const char*>(p.packed) + at, uint32_t(min(16384, bytes - at)),
                &barriers.weights_full[0]);
    }
  }
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

__device__ __forceinline__ uint4 load_shared(uint32_t from) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(from)
               : "memory");
  return v;
}
__device__ __forceinline__ void store_shared(uint32_t to, const uint4& v, uint32_t wanted) {
  asm volatile(
      "{\n .reg .pred wanted;\n setp.ne.u32 wanted, %5, 0;\n @wanted st.shared.v4.u32 [%0], {%1, %2, %3, "
      "%4};\n}" ::"r"(to),
      "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w), "r"(wanted)
      : "memory");
}

// Each thread has eight of the channels, and every so manieth voxel.
template <typename T, typename Shape>
__device__ __forceinline__ void transform_planes(const ConvArgs& p, const char* stages, Barriers& barriers) {
  constexpr int kEights = Shape::kChannels / 8, kEach = Shape::kTransformers / kEights;
  constexpr int kBetween = Shape::kTileBytes / Shape::kVoxelBytes;  // voxels from one tile to the next
  constexpr int kAll = (Shape::kTiles - 1) * kBetween + Shape::kVoxels, kUnits = (kAll + kEach - 1) / kEach;
  static_assert(kUnits <= 16 && kEach % 8 == 0);  // registers; swizzling
  const int eight = threadIdx.x % kEights, first = threadIdx.x / kEights;
  // Units of 16 bytes are swizzled by the voxel's place in the pattern, which is the same for all of a
  // thread's.
  const uint32_t of_thread = first * Shape::kVoxelBytes + (eight ^ (first >> 1 & 3)) * 16;
  const Pair<T> slope = Pair<T>::both(p.slope);
  Planes<Shape> place(p);
  float4 affine[4] = {};
  bool transformed = false, any_transformed = false;  // this thread's channels; any of the warp's
  uint32_t inside_xy = 0;                             // which units are within the volume along y and x
  int moved = 2;
  while (place.left(p)) {
    if (moved == 2) {
      inside_xy = 0;
#pragma unroll
      for (int i = 0; i < kUnits; ++i) {
        const int v = first + i * kEach, tile = Shape::kTiles == 1 ? 0 : v / kBetween,
                  at = v - tile * kBetween;
        const int y = place.item.y * Shape::kStride + at / Shape::kLine - 1;
        const int x = place.item.x * Shape::kStride + at % Shape::kLine * Shape::kStride + tile - 1;
        const bool is_inside = v < kAll && at < Shape::kVoxels && unsigned(y) < unsigned(p.in_y) &&
                               unsigned(x) < unsigned(p.in_x);
        inside_xy |= uint32_t(is_inside) << i;
      }
    }
    if (moved > 0) {
      const int channel = place.channel() + eight * 8;
      transformed = channel < p.in_c && p.scale_shift && channel >= p.transform_first;
      if (transformed) {
        const float4* const from = reinterpret_cast<const float4*>(
            p.scale_shift +
            (int64_t(place.item.sample) * (p.in_c - p.transform_first) + channel - p.transform_first) * 2);
#pragma unroll
        for (int i = 0; i < 4; ++i) affine[i] = __ldg(from + i);
      }
      any_transformed = __any_sync(~0u, transformed);
    }
    wait(&barriers.copied[place.turn.slot], place.turn.phase);
    if (any_transformed) {
      const uint32_t at = shared_address(stages) + place.turn.slot * Shape::kStageBytes + of_thread;
      const uint32_t inside = transformed && unsigned(place.z()) < unsigned(p.in_z) ? inside_xy : 0;
      // All reads come first: one at a time, the latency of each would count. Beyond the last voxel there are
      // others'.
      uint4 value[kUnits];
#pragma unroll
      for (int i = 0; i < kUnits; ++i) {
        const bool exists = (i + 1) * kEach <= kAll || first + i * kEach < kAll;
        value[i] = load_shared(at + (exists ? i * kEach * Shape::kVoxelBytes : 0));
      }
      __syncwarp();  // or the compiler moves reads back between the writes
#pragma unroll
      for (int i = 0; i < kUnits; ++i) {
        const auto transform = [&](uint32_t two, const float4& by) {
          const float2 f = unpack<T>(two);
          return slope.leaky(pack2<T>(fmaf(f.x, by.x, by.y), fmaf(f.y, by.z, by.w)));
        };
        const uint4 now = make_uint4(transform(value[i].x, affine[0]), transform(value[i].y, affine[1]),
                                     transform(value[i].z, affine[2]), transform(value[i].w, affine[3]));
        // Padding stays 0.
        store_shared(at + i * kEach * Shape::kVoxelBytes, now, inside >> i & 1);
      }
      // Products read through another path than these writes.
      asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    }
    arrive(&barriers.full[place.turn.slot]);
    moved = place.advance(p);
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
                                              const float (&acc)[Shape::kColumns / 2], float2* sums,
                                              int warpgroup) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5 & 3, quad = lane & 3, row = lane >> 2;
  const int tile = item.n_tile * Shape::kRows + (Shape::kPair ? warp & 1 : warp) * 16;
  // This lane's rows are channels `own` and own + 2 of the warp's 16 (voxels 2 * quad and one more); once it
  // is transposed, its column is voxel `row`, and rows 2 * quad, one more, and both eight further are
  // channels from 4 * quad on.
  const int own = tile + row / 2 * 4 + row % 2, channel = tile + quad * 4;
  float bias[2] = {0, 0};
  if (p.bias) {
#pragma unroll
    for (int r = 0; r < 2; ++r) bias[r] = own + 2 * r < p.out_c ? __ldg(p.bias + own + 2 * r) : 0;
  }
  const int z = item.z + warpgroup * (Shape::kZ / 2) + (Shape::kPair ? warp >> 1 : 0);
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
  if constexpr (!Shape::kPair) {
    if (quad < 2 && own + 2 * quad < p.out_c) partial[own + 2 * quad] = quad ? sum[1] : sum[0];
  } else {
    if (quad < 2) sums[warp * 16 + own - tile + 2 * quad] = quad ? sum[1] : sum[0];
    asm volatile("bar.sync %0, 128;" ::"r"(1 + warpgroup) : "memory");
    const int thread = threadIdx.x & 127;
    if (thread < 32 && thread < p.out_c) {
      partial[thread] =
          make_float2(sums[thread].x + sums[thread + 32].x, sums[thread].y + sums[thread + 32].y);
    }
  }
}

template <typename T, typename Shape>
__device__ __forceinline__ void multiply_items(const ConvArgs& p, const char* stages, char* weights,
                                               float2* sums, Barriers& barriers) {
  constexpr int kVoxelUnits = Shape::kVoxelBytes / 16, kLineUnits = Shape::kLine * kVoxelUnits;
  // The same value in all lanes, and the compiler knows.
  const int warpgroup = __shfl_sync(~0u, int(threadIdx.x - Shape::kProducers) >> 7, 0);
  const bool fetches = threadIdx.x == Shape::kProducers + 128;  // weights
  const Descriptor inputs = swizzled_matrix(stages, Shape::kStride * kLineUnits * 16);
  const Descriptor factors =
      plain_matrix(weights, Shape::kPair ? pair_weight_bytes(p.chunks) / 2 : 1024, 128);
  Slabs<Shape> coming;
  if (Shape::kPair) {
    wait(&barriers.weights_full[0], 0);
  } else if (fetches) {
    for (int i = 0; i < kSlabs; ++i) coming.fetch(p, weights, barriers);
  }
  Turn turn, slab;
  int odd_item = 0;
  for (int index = blockIdx.x; index < p.items; index += gridDim.x, odd_item ^= 1) {
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
      if (Shape::kPair || held_slab < 0) return;
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
          if (!Shape::kPair) wait(&barriers.weights_full[slab.slot], slab.phase);
          const int by =
              Shape::kPair ? ((first + chunk) * 36 + 3 - own) * kBlockRows : slab.slot * (kSlabBytes >> 4);
          asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
          for (int k = 0; k < 9; ++k) {
            const int ky = k / 3, kx = k % 3;
            const int x = Shape::kStride == 1 ? kx * kVoxelUnits
                          : kx == 1           ? Shape::kTileBytes / 16
                                              : kx / 2 * kVoxelUnits;
            multiply<T>(acc, factors.plus(by + k * (Shape::kPair ? 4 * kBlockRows : 128)),
                        inputs.plus(from + ky * kLineUnits + x + chunk * 2),
                        own > 0 || k > 0 || chunk > 0 || first > 0);
          }
          asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
          wait_products<1>();
          release();
          held_slab = slab.slot, held_phase = slab.phase;
          if (!Shape::kPair) slab.advance(1, kSlabs);
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
    // Registers hold the sums from here on (the compiler does not see that products were on their way).
#pragma unroll
    for (int i = 0; i < Shape::kColumns / 2; ++i) asm volatile("" : "+f"(acc[i])::"memory");
    store_results<T, Shape>(p, item, acc, sums + (warpgroup * 2 + odd_item) * 64, warpgroup);
  }
}

#endif

template <typename T, typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, 1)
    conv_channels_kernel(const __grid_constant__ ConvArgs p, const __grid_constant__ CUtensorMap map) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) char shared[];
  char* const weights = shared + p.stages * Shape::kStageBytes;
  float2* const sums =
      reinterpret_cast<float2*>(weights + (Shape::kPair ? pair_weight_bytes(p.chunks) : kSlabs * kSlabBytes));
  Barriers& barriers = *reinterpret_cast<Barriers*>(reinterpret_cast<char*>(sums) + kSumsBytes);
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
      transform_planes<T, Shape>(p, shared, barriers);
    } else if (threadIdx.x == Shape::kTransformers) {
      copy_planes<Shape>(p, map, shared, weights, barriers);
    }
  } else {
    more_registers<Shape::kConsumerRegisters>();
    multiply_items<T, Shape>(p, shared, weights, sums, barriers);
  }
#endif
}

// Calls f with the Tile of these.
template <typename F>
auto with_tile(bool pair, int stride, F&& f) {
  if (stride == 2) return f(Tile<false, 2>{});
  return pair ? f(Tile<true, 1>{}) : f(Tile<false, 1>{});
}

// The driver's own function: nothing else here links to the driver.
using EncodeTiled = decltype(&cuTensorMapEncodeTiled);
EncodeTiled encode_tiled() {
  static const EncodeTiled function = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result;
    const cudaError_t error =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result);
    return error == cudaSuccess && result == cudaDriverEntryPointSuccess
               ? reinterpret_cast<EncodeTiled>(found)
               : nullptr;
  }();
  return function;
}

// Inputs as the accelerator sees them: [sample][z][y][x][channel], boxes of a tile.
template <typename Shape>
bool encode(const ConvArgs& a, DataType type, CUtensorMap* map) {
  const EncodeTiled function = encode_tiled();
  if (!function) return false;
  const cuuint64_t voxel = cuuint64_t(a.in_pitch) * 2;
  const cuuint64_t sizes[5] = {cuuint64_t(a.in_c), cuuint64_t(a.in_x), cuuint64_t(a.in_y), cuuint64_t(a.in_z),
                               cuuint64_t(a.n)};
  const cuuint64_t strides[4] = {voxel, voxel * sizes[1], voxel * sizes[1] * sizes[2],
                                 voxel * sizes[1] * sizes[2] * sizes[3]};
  const cuuint32_t box[5] = {cuuint32_t(Shape::kChannels),
                             cuuint32_t(Shape::kStride * (Shape::kLine - 1) + 1), cuuint32_t(Shape::kLines),
                             1, 1};
  const cuuint32_t steps[5] = {1, cuuint32_t(Shape::kStride), 1, 1, 1};
  return function(
             map,
             type == DataType::kFloat16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
             5, const_cast<void*>(a.in), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_64B,
             a.in_c <= Shape::kChannels ? CU_TENSOR_MAP_L2_PROMOTION_L2_64B
                                        : CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

}  // namespace

void plan_channels(ConvPlan& plan, const DeviceLimits& limits, const ConvChoice& choice, bool* fits) {
  ConvArgs& a = plan.args;
  *fits = false;
  if (limits.capability != 90 || a.kz != 3 || a.ky != 3 || a.kx != 3) return;
  if (a.sz != a.sy || a.sy != a.sx) return;
  if (int64_t(a.in_y) * a.in_x * a.in_z * a.in_pitch * 2 >= int64_t{1} << 40)
    return;  // a tensor map's strides
  const bool pair = a.out_c <= 32;
  a.chunks = ceil_div(a.in_c, 16);
  if (pair && (a.sz != 1 || a.chunks > 4)) return;
  a.n_tiles = ceil_div(a.out_c, pair ? 32 : 64);
  const size_t fixed =
      size_t(pair ? pair_weight_bytes(a.chunks) : kSlabs * kSlabBytes) + kSumsBytes + sizeof(Barriers);
  int64_t covered = 0;  // outputs
  with_tile(pair, a.sz, [&](auto shape) {
    using Shape = decltype(shape);
    a.tiles_x = ceil_div(a.out_x, Shape::kX);
    a.tiles_y = ceil_div(a.out_y, Shape::kY);
    a.tiles = a.tiles_x * a.tiles_y * ceil_div(a.out_z, Shape::kZ);
    a.stages = 0;
    while (a.stages < kMaxStages &&
           fixed + size_t(a.stages + 1) * Shape::kStageBytes <= limits.shared_per_block) {
      ++a.stages;
    }
    plan.shared_bytes = fixed + size_t(a.stages) * Shape::kStageBytes;
    plan.threads = Shape::kThreads;
    covered = int64_t(a.tiles) * a.n_tiles * Shape::kX * Shape::kY * Shape::kZ * Shape::kRows;
  });
  const int64_t items = int64_t(a.tiles) * a.n_tiles * a.n;
  if (items > (1 << 30) || a.stages < 2) return;
  a.items = int(items);
  a.splits = 1;
  a.chunks_per_split = a.chunks;
  a.out_tiles = a.n_tiles * (pair ? 1 : 2);
  plan.grid = dim3(unsigned(std::min(a.items, limits.processors)));
  plan.blocks = 2 * a.tiles;
  plan.layout = pair ? WeightLayout::kChannels32 : WeightLayout::kChannels64;
  // Clocks: products of two warpgroups, nine tenths of the time.
  plan.clocks = double(ceil_div(a.items, limits.processors)) * a.chunks * 2 * 9 * 128 * (pair ? 4 : 3) / .9;
  // Few boxes, or boxes that are mostly empty, are the other kernels'.
  const double wanted = double(a.out_z) * a.out_y * a.out_x * ceil_div(a.out_c, 32) * 32;
  if (choice.kind == ConvKernelKind::kRule &&
      (items * 2 < limits.processors || double(covered) > 1.5 * wanted)) {
    return;
  }
  *fits = true;
}

cudaError_t launch_channels(const ConvPlan& plan, DataType type, cudaStream_t stream) {
  const bool pair = plan.layout == WeightLayout::kChannels32;
  return with_tile(pair, plan.args.sz, [&](auto shape) {
    using Shape = decltype(shape);
    CUtensorMap map;
    if (!encode<Shape>(plan.args, type, &map)) return cudaErrorNotSupported;
    const auto kernel = type == DataType::kFloat16 ? conv_channels_kernel<__half, Shape>
                                                   : conv_channels_kernel<__nv_bfloat16, Shape>;
    const cudaError_t error =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, int(plan.shared_bytes));
    if (error != cudaSuccess) return error;
    kernel<<<plan.grid, plan.threads, plan.shared_bytes, stream>>>(plan.args, map);
    return cudaGetLastError();
  });
}

}  // namespace isoline::cuda
