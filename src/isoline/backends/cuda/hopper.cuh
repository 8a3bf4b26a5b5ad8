// What the convolutions on Hopper's own instructions share: barriers in shared memory, bulk copies, registers
// handed from some warpgroups to others, and the order of work. Only for code of sm_90a.
#pragma once

#include "isoline/backends/cuda/conv_args.h"
#include "isoline/backends/cuda/fragments.cuh"

namespace isoline::cuda {

// Whether a block of one per processor has the registers that its producers and 256 others ask for: more than
// it began with does not fail, it waits for ever.
constexpr bool registers_suffice(int producers, int of_producer, int of_other) {
  const int threads = producers + 256, at_start = 65536 / threads / 8 * 8;
  return producers * of_producer + 256 * of_other <= threads * at_start;
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// Accumulators of wgmma, c[i] and those after it, as operands of asm.
#define ISOLINE_C4(i) "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3])
#define ISOLINE_C16(i) ISOLINE_C4(i), ISOLINE_C4(i + 4), ISOLINE_C4(i + 8), ISOLINE_C4(i + 12)

__device__ __forceinline__ void barrier_init(uint64_t* barrier, int count) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count) : "memory");
}
__device__ __forceinline__ void arrive(uint64_t* barrier) {
  asm volatile(
      "{\n .reg .b64 state;\n mbarrier.arrive.shared.b64 state, [%0];\n}" ::"r"(shared_address(barrier))
      : "memory");
}
__device__ __forceinline__ void expect_bytes(uint64_t* barrier, uint32_t bytes) {
  asm volatile("{\n .reg .b64 state;\n mbarrier.arrive.expect_tx.shared.b64 state, [%0], %1;\n}" ::"r"(
                   shared_address(barrier)),
               "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void wait(uint64_t* barrier, uint32_t phase) {
  asm volatile(
      "{\n .reg .pred done;\n again:\n mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n @done bra "
      "over;\n bra "
      "again;\n over:\n}" ::"r"(shared_address(barrier)),
      "r"(phase)
      : "memory");
}
__device__ __forceinline__ void copy_bulk(void* to, const void* from, uint32_t bytes, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
          shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(barrier))
      : "memory");
}
template <int kRegisters>
__device__ __forceinline__ void fewer_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void more_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

__device__ __forceinline__ uint4 load_once(const void* from) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
}

template <int kLeft>
__device__ __forceinline__ void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
}

// Accumulators may be read or written again from here on (the compiler does not see that products were on
// their way).
template <int kValues>
__device__ __forceinline__ void pin(float (&acc)[kValues]) {
#pragma unroll
  for (int i = 0; i < kValues; ++i) asm volatile("" : "+f"(acc[i])::"memory");
}
template <int kProducts, int kValues>
__device__ __forceinline__ void pin(float (&acc)[kProducts][kValues]) {
#pragma unroll
  for (int i = 0; i < kProducts; ++i) pin(acc[i]);
}

// A box of outputs for one tile of output channels and one part of the input channels.
struct Item {
  int sample, split, n_tile, box, z, y, x;
  bool valid;
};

__device__ __forceinline__ Item item_at(const ConvArgs& p, int index, int box_z, int box_y, int box_x) {
  Item item;
  item.valid = index < p.items;
  item.box = index % p.tiles;
  int rest = index / p.tiles;
  item.n_tile = rest % p.n_tiles;
  rest /= p.n_tiles;
  item.split = rest % p.splits;
  item.sample = rest / p.splits;
  item.x = item.box % p.tiles_x * box_x;
  rest = item.box / p.tiles_x;
  item.y = rest % p.tiles_y * box_y;
  item.z = rest / p.tiles_y * box_z;
  return item;
}

// Where a ring stands.
struct Turn {
  int slot = 0;
  uint32_t phase = 0;
  __device__ __forceinline__ void advance(int by, int slots) {
    slot += by;
    if (slot >= slots) slot -= slots, phase ^= 1;
  }
};

#endif

}  // namespace isoline::cuda
