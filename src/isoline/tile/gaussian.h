// The Gaussian importance map of a tile.
#pragma once

#include "isoline/base/buffer.h"
#include "isoline/base/half.h"
#include "isoline/base/shape.h"

namespace isoline {

// [z, y, x] of `patch`, in binary16: a delta at patch/2 filtered with sigma = patch/8 per axis (scipy
// gaussian_filter, truncate 4, zero outside), scaled to a maximum of 10; zeros become the smallest nonzero
// value. spatial_dims 2 filters y and x only. Source: nnunetv2 sliding_window_prediction.compute_gaussian.
Buffer<half_t> gaussian_weights(const Shape3& patch, int spatial_dims);

}  // namespace isoline
