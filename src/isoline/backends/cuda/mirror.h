// Test-time augmentation on the device: planar float32 tensors turned around and added up.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "isoline/base/shape.h"

namespace isoline::cuda {

// out[c, z, y, x] = in[c, z', y', x'], where a flagged axis runs backwards. in and out differ.
cudaError_t mirror(const float* in, int channels, const Shape3& shape, const Vec3<bool>& axes, float* out,
                   cudaStream_t stream);

// sum[c, p] = (first ? 0 : sum[c, p]) + part[c, mirrored p]; then divided by `divisor` (1: not at all). One
// addition and one division a value, in float32, as the CPU does them.
cudaError_t add_mirrored(const float* part, int channels, const Shape3& shape, const Vec3<bool>& axes,
                         bool first, float divisor, float* sum, cudaStream_t stream);

}  // namespace isoline::cuda
