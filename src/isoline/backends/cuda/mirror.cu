#include "isoline/backends/cuda/mirror.h"

namespace isoline::cuda {
namespace {

struct Flip {
  int z, y, x;  // extents
  bool along_z, along_y, along_x;
};

// A block takes one row [c, z, y]; its threads run along x, forwards or backwards, in whole cache lines either way.
__device__ __forceinline__ int64_t mirrored_row(int64_t row, const Flip& f) {
  const int64_t y = row % f.y, cz = row / f.y, z = cz % f.z;
  const int64_t to_z = f.along_z ? f.z - 1 - z : z, to_y = f.along_y ? f.y - 1 - y : y;
  return (cz - z + to_z) * f.y + to_y;
}

__global__ void mirror_kernel(const float* __restrict__ in, Flip f, float* __restrict__ out) {
  const int64_t row = int64_t(blockIdx.x) * blockDim.y + threadIdx.y, from = mirrored_row(row, f) * f.x;
  for (int x = threadIdx.x; x < f.x; x += blockDim.x) out[row * f.x + x] = in[from + (f.along_x ? f.x - 1 - x : x)];
}

__global__ void add_mirrored_kernel(const float* __restrict__ part, Flip f, bool first, float divisor,
                                    float* __restrict__ sum) {
  const int64_t row = int64_t(blockIdx.x) * blockDim.y + threadIdx.y, from = mirrored_row(row, f) * f.x;
  for (int x = threadIdx.x; x < f.x; x += blockDim.x) {
    const float v = part[from + (f.along_x ? f.x - 1 - x : x)];
    float total = first ? v : __fadd_rn(sum[row * f.x + x], v);
    if (divisor != 1) total = __fdiv_rn(total, divisor);
    sum[row * f.x + x] = total;
  }
}

Flip flip_of(const Shape3& shape, const Vec3<bool>& axes) {
  return {int(shape[0]), int(shape[1]), int(shape[2]), axes[0], axes[1], axes[2]};
}

// Rows are blocks; short rows share one where they divide evenly.
void row_grid(int channels, const Shape3& shape, dim3* grid, dim3* block) {
  const int64_t rows = channels * shape[0] * shape[1];
  const int per_block = rows % 4 == 0 ? 4 : rows % 2 == 0 ? 2 : 1;
  *block = dim3(shape[2] > 64 ? 128 : shape[2] > 32 ? 64 : 32, unsigned(per_block));
  *grid = dim3(unsigned(rows / per_block));
}

}  // namespace

cudaError_t mirror(const float* in, int channels, const Shape3& shape, const Vec3<bool>& axes, float* out,
                   cudaStream_t stream) {
  dim3 grid, block;
  row_grid(channels, shape, &grid, &block);
  mirror_kernel<<<grid, block, 0, stream>>>(in, flip_of(shape, axes), out);
  return cudaGetLastError();
}

cudaError_t add_mirrored(const float* part, int channels, const Shape3& shape, const Vec3<bool>& axes, bool first,
                         float divisor, float* sum, cudaStream_t stream) {
  dim3 grid, block;
  row_grid(channels, shape, &grid, &block);
  add_mirrored_kernel<<<grid, block, 0, stream>>>(part, flip_of(shape, axes), first, divisor, sum);
  return cudaGetLastError();
}

}  // namespace isoline::cuda
