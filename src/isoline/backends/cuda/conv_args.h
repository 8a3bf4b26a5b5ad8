// What the convolution kernels get as their one argument. Internal to conv_*.cu.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "isoline/backends/cuda/kernels.h"

namespace isoline::cuda {

struct ConvArgs {
  const void* in;
  void* out;
  const void* packed;
  const float* bias;
  const float* scale_shift;
  float* partial;
  float* workspace;  // [splits, n, voxels, 32 * out_tiles]
  float slope;
  int transform_first;  // input channels below it are read as they are
  int n;
  int in_z, in_y, in_x, in_c, in_pitch;
  int out_z, out_y, out_x, out_c, out_pitch;
  int kz, ky, kx, sz, sy, sx;
  // A warp's tile: rows of a fragment are fy voxels along y times 16 / fy along z (float32: 32 rows), 8
  // columns along x.
  int fy;
  int my, mx, m_warps,
      n_warps;              // warps (or tiles) of a block: along y, x; all over space; over output channels
  int box_z, box_y, box_x;  // outputs of a block
  int tiles_y, tiles_x, tiles;  // blocks along y, x and in all, per sample
  int zh, yh, xh;               // the inputs they read
  uint32_t yh_magic, xh_magic;  // 2^32 / d + 1
  int y_pitch, y_even;          // mma: 16-byte units of a column; where odd inputs begin when sy == 2
  int plane;                    // mma: units of one half chunk; float32: floats of one channel
  int x_pitch, chunk;           // float32
  int stages, chunks, splits, chunks_per_split, out_tiles;
  int n_tiles, items;  // wgmma: tiles of output channels; boxes x these x splits x samples
};

struct ConvPlan {
  ConvArgs args;  // without pointers
  DataType type = DataType::kFloat16;
  int threads = 0;
  dim3 grid;
  size_t shared_bytes = 0;
  int blocks = 0;
  size_t workspace_bytes = 0;
  double clocks = 0;  // wgmma: by rule of thumb, to choose between its kernels
  WeightLayout layout = WeightLayout::kMma;
};

struct DeviceLimits {
  int processors = 0;
  int capability = 0;  // 10 * major + minor
  size_t shared_per_block = 0, shared_per_processor = 0;
};

// choice: of kind kRule or of the kernel's own.
void plan_mma(ConvPlan& plan, const DeviceLimits& limits, const ConvChoice& choice, bool* fits);
void plan_wgmma(ConvPlan& plan, const DeviceLimits& limits, const ConvChoice& choice, bool* fits);
void plan_channels(ConvPlan& plan, const DeviceLimits& limits, const ConvChoice& choice, bool* fits);
void plan_march(ConvPlan& plan, const DeviceLimits& limits, const ConvChoice& choice, bool* fits);
void plan_fp32(ConvPlan& plan, const DeviceLimits& limits, bool* fits);
void plan_planar(ConvPlan& plan, const DeviceLimits& limits, bool* fits);
cudaError_t launch_mma(const ConvPlan& plan, cudaStream_t stream);
cudaError_t launch_wgmma(const ConvPlan& plan, DataType type, cudaStream_t stream);
cudaError_t launch_channels(const ConvPlan& plan, DataType type, cudaStream_t stream);
cudaError_t launch_march(const ConvPlan& plan, DataType type, cudaStream_t stream);
cudaError_t launch_planar(const ConvPlan& plan, DataType type, cudaStream_t stream);
cudaError_t launch_fp32(const ConvPlan& plan, cudaStream_t stream);

constexpr int kFinishVoxels = 32;  // of a block of the pass that adds up the parts of a split convolution

__host__ __device__ inline int ceil_div(int a, int b) {
  return (a + b - 1) / b;
}
inline uint32_t magic(int d) {
  return uint32_t((uint64_t(1) << 32) / uint32_t(d)) + 1;
}  // d > 1, numerators < 2^16

__device__ __forceinline__ float leaky(float v, float slope) {
  return v > 0 ? v : slope * v;
}

}  // namespace isoline::cuda
