// Convolution 3x3x3 with stride 1 to at most 32 channels on Hopper's tensor cores (wgmma, sm_90a only; fp16
// or bf16 in, float32 accumulation). 32 output channels fill half a product's rows; here the rows are 64
// voxels and the columns the 32 channels of three outputs that follow one another along z: what a plane of
// inputs gives to all of them is one product (per ky, kx and 16 channels), and every product counts.
//
// Blocks are persistent, one per processor, and march along z through a column of kX x kY voxels. A plane is
// copied and transformed once (planes.cuh); all weights stay in shared memory. Two warpgroups multiply, each
// half of the voxels. After each plane one third of the accumulators is a finished output, and the other two
// move up; one warpgroup stores while the other multiplies.
#include <algorithm>

#include "isoline/backends/cuda/planes.cuh"

namespace isoline::cuda {
namespace {

constexpr int kMaxStages = 8;
constexpr int kColumns = 96;                        // of a product: [output z + 1, z, z - 1][32 channels]
constexpr int kChunkBytes = 9 * kColumns * 16 * 2;  // of weights: 16 input channels

using Shape = PlaneShape<1, 8, 32, 256>;
constexpr int kProducerRegisters = 96, kConsumerRegisters = 160;
static_assert(registers_suffice(Shape::kProducers, kProducerRegisters, kConsumerRegisters));
constexpr int kProducts = Shape::kX * Shape::kY / 64 / 2;  // that a warpgroup has, each of 8 lines

struct Barriers {
  uint64_t copied[kMaxStages], full[kMaxStages], empty[kMaxStages], weights;
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// c += inputs (64 voxels x 16) * weights (16 x 96).
#define ISOLINE_WGMMA96(type)                                                                     \
  asm volatile("wgmma.mma_async.sync.aligned.m64n96k16.f32." type "." type                        \
               " {"                                                                               \
               "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, " \
               "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, " \
               "%34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"             \
               "}, %48, %49, 1, 1, 1, 0, 0;"                                                      \
               : ISOLINE_C16(0), ISOLINE_C16(16), ISOLINE_C16(32)                                 \
               : "l"(inputs), "l"(weights))
template <typename T>
__device__ __forceinline__ void multiply(float (&c)[48], uint64_t inputs, uint64_t weights) {
  if constexpr (std::is_same_v<T, __half>) {
    ISOLINE_WGMMA96("f16");
  } else {
    ISOLINE_WGMMA96("bf16");
  }
}
#undef ISOLINE_WGMMA96

// Which planes an item needs; those outside the volume are zeros and give nothing.
__device__ __forceinline__ int first_plane(const Item& item) {
  return max(item.z - 1, 0);
}
__device__ __forceinline__ int last_plane(const ConvArgs& p, const Item& item) {
  return min(item.z + p.box_z, p.in_z - 1);
}

// Which plane comes when: of each z all channels, then the next z, then the next item.
struct Planes {
  int index, group = 0, at = 0, last = 0;
  Item item;
  Turn turn;
  __device__ __forceinline__ explicit Planes(const ConvArgs& p) : index(blockIdx.x) { begin(p); }
  __device__ __forceinline__ void begin(const ConvArgs& p) {
    item = item_at(p, index, p.box_z, Shape::kY, Shape::kX);
    at = first_plane(item), last = last_plane(p, item);
  }
  __device__ __forceinline__ bool left(const ConvArgs& p) const { return index < p.items; }
  __device__ __forceinline__ int channel() const { return group * Shape::kChannels; }
  __device__ __forceinline__ int z() const { return at; }
  __device__ __forceinline__ int advance(const ConvArgs& p) {
    turn.advance(1, p.stages);
    if (++group * Shape::kChunks < p.chunks) return 1;
    group = 0;
    if (++at <= last) return p.chunks > Shape::kChunks ? 1 : 0;
    index += gridDim.x;
    if (left(p)) begin(p);
    return 2;
  }
};

// One thread, which does nothing else, so that a plane comes as soon as there is room.
__device__ __forceinline__ void copy_planes(const ConvArgs& p, const CUtensorMap& map, char* stages,
                                            char* weights, Barriers& barriers) {
  expect_bytes(&barriers.weights, uint32_t(p.chunks * kChunkBytes));
  for (int chunk = 0; chunk < p.chunks; ++chunk) {
    copy_bulk(weights + chunk * kChunkBytes, static_cast<const char*>(p.packed) + chunk * kChunkBytes,
              kChunkBytes, &barriers.weights);
  }
  Planes next(p);
  while (next.left(p)) {
    wait(&barriers.empty[next.turn.slot], next.turn.phase ^ 1);
    uint64_t* const copied = &barriers.copied[next.turn.slot];
    expect_bytes(copied, Shape::kCopiedBytes);
    copy_tile(stages + next.turn.slot * Shape::kStageBytes, map, next.channel(), next.item.x - 1,
              next.item.y - 1, next.z(), next.item.sample, copied);
    next.advance(p);
  }
}

// What a thread stores of one z: 8 channels of kProducts x 2 voxels; and their sums over all z.
struct Outputs {
  int line, x, channel;  // the first of each, within the block's column
  float2 sum[8];
};

template <typename T>
__device__ __forceinline__ void store_plane(const ConvArgs& p, const Item& item, int z,
                                            const float (&acc)[kProducts][48], Outputs& mine) {
  const int64_t line = int64_t(p.out_x) * p.out_pitch;
  const int y = item.y + mine.line, x = item.x + mine.x;
  T* const to = static_cast<T*>(p.out) + ((int64_t(item.sample) * p.out_z + z) * p.out_y + y) * line +
                int64_t(x) * p.out_pitch + mine.channel;
  float2 sum[8] = {};
#pragma unroll
  for (int m = 0; m < kProducts; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const bool inside = x < p.out_x && y + m * 8 + half < p.out_y;
      uint32_t pairs[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float a = acc[m][32 + j * 4 + half * 2], b = acc[m][32 + j * 4 + half * 2 + 1];
        pairs[j] = pack2<T>(a, b);
        if (inside) {
          sum[2 * j].x += a, sum[2 * j].y = fmaf(a, a, sum[2 * j].y);
          sum[2 * j + 1].x += b, sum[2 * j + 1].y = fmaf(b, b, sum[2 * j + 1].y);
        }
      }
      if (inside && mine.channel < p.out_c) {
        *reinterpret_cast<uint4*>(to + (m * 8 + half) * line) =
            make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) mine.sum[i].x += sum[i].x, mine.sum[i].y += sum[i].y;
}

// The warpgroups issue the products of a plane in turn. Left alone they fall into step: products of both at
// the same time, then stores of both while nothing multiplies.
__device__ __forceinline__ void wait_for_turn(int warpgroup) {
  asm volatile("bar.sync %0, 256;" ::"r"(1 + warpgroup) : "memory");
}
__device__ __forceinline__ void give_turn(int warpgroup) {
  asm volatile("bar.arrive %0, 256;" ::"r"(1 + warpgroup) : "memory");
}

template <typename T>
__device__ __forceinline__ void multiply_items(const ConvArgs& p, const char* stages, const char* weights,
                                               Barriers& barriers) {
  // The same value in all lanes, and the compiler knows.
  const int warpgroup = __shfl_sync(~0u, int(threadIdx.x) / 128 - Shape::kProducers / 128, 0);
  const int warp = threadIdx.x >> 5 & 3, lane = threadIdx.x & 31;
  const int first_line = warpgroup * kProducts * 8;
  const Descriptor inputs =
      swizzled_matrix(stages + first_line * Shape::kLine * Shape::kVoxelBytes, Shape::kLineUnits * 16);
  const Descriptor factors = plain_matrix(weights, kColumns * 16, 128);
  Outputs mine;
  mine.line = first_line + warp * 2, mine.x = lane >> 2, mine.channel = (lane & 3) * 8;
  float bias[8];  // where the sums begin
#pragma unroll
  for (int i = 0; i < 8; ++i)
    bias[i] = p.bias && mine.channel < p.out_c ? __ldg(p.bias + mine.channel + i) : 0;
  wait(&barriers.weights, 0);
  if (warpgroup == 1) give_turn(0);
  Turn turn;
  for (int index = blockIdx.x; index < p.items; index += gridDim.x) {
    const Item item = item_at(p, index, p.box_z, Shape::kY, Shape::kX);
    const int last = last_plane(p, item), end = min(item.z + p.box_z, p.out_z);
    float acc[kProducts][48];
#pragma unroll
    for (int m = 0; m < kProducts; ++m) {
#pragma unroll
      for (int i = 0; i < 48; ++i) acc[m][i] = bias[i % 16 / 4 * 2 + i % 2];
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) mine.sum[i] = {};
#pragma unroll 1
    for (int z = first_plane(item); z <= last; ++z) {
#pragma unroll 1
      for (int first = 0; first < p.chunks; first += Shape::kChunks) {
        wait(&barriers.full[turn.slot], turn.phase);
        wait_for_turn(warpgroup);
        const int from = turn.slot * (Shape::kStageBytes / 16), by = first * (kChunkBytes / 16);
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
        for (int chunk = 0; chunk < Shape::kChunks; ++chunk) {
#pragma unroll
          for (int k = 0; k < 9; ++k) {
#pragma unroll
            for (int m = 0; m < kProducts; ++m) {
              const int at = (k / 3 + m * 8) * Shape::kLineUnits + k % 3 * Shape::kVoxelUnits + chunk * 2;
              multiply<T>(acc[m], inputs.plus(from + at),
                          factors.plus(by + (chunk * 9 + k) * (kColumns * 2)));
            }
          }
        }
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        give_turn(warpgroup ^ 1);
        wait_products<0>();
        pin(acc);
        arrive(&barriers.empty[turn.slot]);
        turn.advance(1, p.stages);
      }
      if (z > item.z) store_plane<T>(p, item, z - 1, acc, mine);
#pragma unroll
      for (int m = 0; m < kProducts; ++m) {
#pragma unroll
        for (int i = 0; i < 16; ++i) {
          acc[m][32 + i] = acc[m][16 + i], acc[m][16 + i] = acc[m][i], acc[m][i] = bias[i / 4 * 2 + i % 2];
        }
      }
      pin(acc);
    }
    if (last < end) store_plane<T>(p, item, last, acc, mine);
    if (!p.partial) continue;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
#pragma unroll
      for (int d = 4; d < 32; d *= 2) {
        mine.sum[i].x += __shfl_xor_sync(~0u, mine.sum[i].x, d);
        mine.sum[i].y += __shfl_xor_sync(~0u, mine.sum[i].y, d);
      }
    }
    if (lane < 4 && mine.channel < p.out_c) {
      float4* const partial = reinterpret_cast<float4*>(
          p.partial + ((int64_t(item.sample) * p.tiles + item.box) * 8 + warpgroup * 4 + warp) * p.out_c * 2 +
          mine.channel * 2);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        partial[i] =
            make_float4(mine.sum[2 * i].x, mine.sum[2 * i].y, mine.sum[2 * i + 1].x, mine.sum[2 * i + 1].y);
      }
    }
  }
}

#endif

template <typename T>
__global__ void __launch_bounds__(Shape::kThreads, 1)
    conv_march_kernel(const __grid_constant__ ConvArgs p, const __grid_constant__ CUtensorMap map) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) char shared[];
  char* const weights = shared + p.stages * Shape::kStageBytes;
  Barriers& barriers = *reinterpret_cast<Barriers*>(weights + p.chunks * kChunkBytes);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kMaxStages; ++i) {
      barrier_init(&barriers.copied[i], 1);
      barrier_init(&barriers.full[i], Shape::kTransformers);
      barrier_init(&barriers.empty[i], 256);
    }
    barrier_init(&barriers.weights, 1);
    asm volatile("fence.mbarrier_init.release.cluster;\n fence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncthreads();
  if (threadIdx.x < Shape::kProducers) {
    fewer_registers<kProducerRegisters>();
    if (threadIdx.x < Shape::kTransformers) {
      transform_planes<T, Shape, Planes>(p, shared, barriers);
    } else if (threadIdx.x == Shape::kTransformers) {
      copy_planes(p, map, shared, weights, barriers);
    }
  } else {
    more_registers<kConsumerRegisters>();
    multiply_items<T>(p, shared, weights, barriers);
  }
#endif
}

}  // namespace

void plan_march(ConvPlan& plan, const DeviceLimits& limits, const ConvChoice& choice, bool* fits) {
  ConvArgs& a = plan.args;
  *fits = false;
  if (limits.capability != 90 || a.kz != 3 || a.ky != 3 || a.kx != 3) return;
  if (a.sz != 1 || a.sy != 1 || a.sx != 1 || a.out_c > 32 || !planes_fit_a_map(a)) return;
  a.chunks = ceil_div(a.in_c, Shape::kChannels) * Shape::kChunks;
  const size_t fixed = size_t(a.chunks) * kChunkBytes + sizeof(Barriers);
  a.stages = stages_that_fit<Shape>(fixed, limits, kMaxStages);
  // Channels of a plane in turn, one more to be copied meanwhile.
  if (a.stages < a.chunks / Shape::kChunks + 1) return;
  plan.shared_bytes = fixed + size_t(a.stages) * Shape::kStageBytes;
  plan.threads = Shape::kThreads;
  a.tiles_x = ceil_div(a.out_x, Shape::kX);
  a.tiles_y = ceil_div(a.out_y, Shape::kY);
  const int64_t columns = int64_t(a.tiles_x) * a.tiles_y * a.n;
  // The way along z in parts, so that all processors have work; each costs two planes more and its beginning.
  double least = 0;
  for (int parts = 1; parts <= a.out_z; ++parts) {
    const int length = ceil_div(a.out_z, parts);
    if (parts > 1 && ceil_div(a.out_z, length) != parts) continue;
    if (columns * parts > (1 << 30)) break;
    const double planes = double((columns * parts + limits.processors - 1) / limits.processors) *
                          (std::min(length + 2, a.in_z) + 1);
    if (least == 0 || planes < least) least = planes, a.box_z = length;
  }
  if (least == 0) return;
  a.tiles = a.tiles_x * a.tiles_y * ceil_div(a.out_z, a.box_z);
  a.n_tiles = a.splits = a.out_tiles = 1;
  a.chunks_per_split = a.chunks;
  a.items = a.tiles * a.n;
  plan.grid = dim3(unsigned(std::min(a.items, limits.processors)));
  plan.blocks = 8 * a.tiles;
  plan.layout = WeightLayout::kMarch;
  // Products of two warpgroups, five sixths of the time.
  plan.clocks = least * a.chunks * 9 * (2 * kProducts) * (kColumns / 2) * 1.2;
  // Few columns, or columns that are mostly empty, are the other kernels'.
  const double covered = double(a.tiles_x) * Shape::kX * a.tiles_y * Shape::kY;
  if (choice.kind == ConvKernelKind::kRule &&
      (a.items * 2 < limits.processors || covered > 1.5 * a.out_x * a.out_y)) {
    return;
  }
  *fits = true;
}

cudaError_t launch_march(const ConvPlan& plan, DataType type, cudaStream_t stream) {
  return launch_planes<Shape>(
      type == DataType::kFloat16 ? conv_march_kernel<__half> : conv_march_kernel<__nv_bfloat16>, plan, type,
      stream);
}

}  // namespace isoline::cuda
