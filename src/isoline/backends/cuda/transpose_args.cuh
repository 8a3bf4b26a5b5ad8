// What the kernels of the transposed convolution get as their one argument. Internal to transpose*.cu.
#pragma once

#include "isoline/backends/cuda/elementwise.h"

namespace isoline::cuda {

struct TransposeArgs {
  Tensor in, out;
  LoadTransform load;
  const void* weights;
  const float* bias;
  int sz, sy, sx;
};

// First voxel of the output that input voxel v turns into; tap_offset() leads to the others. 32-bit:
// divisions are slow.
__device__ inline int64_t out_voxel(const TransposeArgs& a, unsigned v) {
  const unsigned x = v % unsigned(a.in.x), yz = v / unsigned(a.in.x);
  const unsigned y = yz % unsigned(a.in.y), z = yz / unsigned(a.in.y);
  return (int64_t(z) * a.sz * a.out.y + y * a.sy) * a.out.x + x * a.sx;
}
__device__ inline int64_t tap_offset(const TransposeArgs& a, int tap) {
  const int kx = tap % a.sx, ky = tap / a.sx % a.sy, kz = tap / a.sx / a.sy;
  return (int64_t(kz) * a.out.y + ky) * a.out.x + kx;
}

// For fp16 and bf16 and at most kMostFragmentChannels of input.
constexpr int kMostFragmentChannels = 384;
cudaError_t launch_transpose_fragments(const TransposeArgs& args, cudaStream_t stream);

}  // namespace isoline::cuda
