// Inputs of Hopper's convolutions as planes (one z, with halo along y and x, 32 channels) in shared memory:
// the tensor memory accelerator copies them there, swizzled, with zeros outside the volume; some warps apply
// the load transform in place; products read them through descriptors. A tap (ky, kx) is an offset of whole
// voxels: swizzling goes by the address, not by the place in a matrix.
#pragma once

#include <cuda.h>

#include <algorithm>

#include "isoline/backends/cuda/conv_launch.cuh"
#include "isoline/backends/cuda/hopper.cuh"

namespace isoline::cuda {

// A tile: a plane, or with stride 2 its even or its odd voxels along x (a product's rows or columns must lie
// one after the other). kX x kY: outputs of a plane. Of the producers, the block's first threads, one copies,
// in the last warp; the other warps transform. 256 threads more multiply.
template <int kStride_, int kX_, int kY_, int kProducers_>
struct PlaneShape {
  static constexpr int kStride = kStride_, kX = kX_, kY = kY_;
  static constexpr int kProducers = kProducers_, kTransformers = kProducers - 32, kThreads = kProducers + 256;
  static constexpr int kChannels = 32, kChunks = kChannels / 16;
  static constexpr int kLines = kStride * (kY - 1) + 3, kLine = kStride == 1 ? kX + 2 : kX + 1;
  static constexpr int kVoxels = kLines * kLine, kVoxelBytes = kChannels * 2;
  static_assert(kVoxelBytes == 64);                // the kind of swizzling goes with it
  static constexpr int kRepeat = 8 * kVoxelBytes;  // of the pattern of swizzling: where tiles begin
  static constexpr int kTileBytes = (kVoxels * kVoxelBytes + kRepeat - 1) / kRepeat * kRepeat;
  static constexpr int kTiles = kStride, kStageBytes = kTiles * kTileBytes;
  static constexpr int kCopiedBytes = kTiles * kVoxels * kVoxelBytes;
  // For descriptors, which count 16 bytes.
  static constexpr int kVoxelUnits = kVoxelBytes / 16, kLineUnits = kLine * kVoxelUnits;
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

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

__device__ __forceinline__ void copy_tile(void* to, const CUtensorMap& map, int channel, int x, int y, int z,
                                          int sample, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, "
      "%4, %5, %6}], [%7];" ::"r"(shared_address(to)),
      "l"(&map), "r"(channel), "r"(x), "r"(y), "r"(z), "r"(sample), "r"(shared_address(barrier))
      : "memory");
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

// Planes says which plane comes when:
//   item, turn; left(p); channel(), z() of the plane;
//   advance(p): 0: to another plane of the same channels; 1: to other channels; 2: to the next item.
// Each thread has eight of the channels, and every so manieth voxel.
template <typename T, typename Shape, typename Planes, typename Barriers>
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
  Planes place(p);
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

#endif

// The driver's own function: nothing else here links to the driver.
using EncodeTiled = decltype(&cuTensorMapEncodeTiled);
inline EncodeTiled encode_tiled() {
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
bool encode_planes(const ConvArgs& a, DataType type, CUtensorMap* map) {
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
inline bool planes_fit_a_map(const ConvArgs& a) {  // its strides
  return int64_t(a.in_y) * a.in_x * a.in_z * a.in_pitch * 2 < int64_t{1} << 40;
}

// Of planes in shared memory, beside `fixed` bytes of other things.
template <typename Shape>
int stages_that_fit(size_t fixed, const DeviceLimits& limits, int most) {
  if (fixed > limits.shared_per_block) return 0;
  return std::min(most, int((limits.shared_per_block - fixed) / Shape::kStageBytes));
}

template <typename Shape>
cudaError_t launch_planes(void (*kernel)(ConvArgs, CUtensorMap), const ConvPlan& plan, DataType type,
                          cudaStream_t stream) {
  CUtensorMap map;
  if (!encode_planes<Shape>(plan.args, type, &map)) return cudaErrorNotSupported;
  return launch_conv(kernel, plan, stream, map);
}

}  // namespace isoline::cuda
