// Sliding-window positions and the padding that makes them fit.
// Source: nnunetv2 inference/sliding_window_prediction.py and predict_from_raw_data.py; acvl_utils
// pad_nd_image.
#pragma once

#include <vector>

#include "isoline/base/result.h"
#include "isoline/base/shape.h"

namespace isoline {

struct TilePlan {
  int spatial_dims = 3;  // 2: every slice is its own row of tiles, patch[0] = 1
  Shape3 patch{0, 0, 0};
  Shape3 shape{0, 0, 0};             // the prepared array
  Shape3 padded{0, 0, 0};            // at least the patch on every padded axis
  Index3 pad_below{0, 0, 0};         // zeros before the data (after normalisation); the odd one goes above
  Vec3<std::vector<int64_t>> steps;  // tile origins per axis, ascending, in padded coordinates

  int64_t tiles() const { return int64_t(steps[0].size() * steps[1].size() * steps[2].size()); }
  int64_t tiles_per_row() const {
    return int64_t(steps[1].size() * steps[2].size());
  }  // tiles sharing an origin on axis 0
  // Origin of tile i; axis 0 varies slowest, as in the reference. The order matters: sums are rounded to
  // fp16.
  Index3 origin(int64_t i) const {
    const int64_t nx = int64_t(steps[2].size()), ny = int64_t(steps[1].size());
    return {steps[0][size_t(i / (nx * ny))], steps[1][size_t(i / nx % ny)], steps[2][size_t(i % nx)]};
  }
};

// patch_size has 2 or 3 entries; step in (0, 1], the largest move as a fraction of the patch.
Result<TilePlan> plan_tiles(const Shape3& shape, const std::vector<int>& patch_size, double step);

// The axis subsets to mirror along, identity first, then itertools.combinations order. `axes` count within
// the network's spatial axes (0 = z in 3-D, 0 = y in 2-D); the result is in [z, y, x] flags.
std::vector<Vec3<bool>> mirror_sets(const std::vector<int>& axes, int spatial_dims);

// Copies the tile at `origin` (padded coordinates) out of data [c, z, y, x] to tile [c, pz, py, px], zero
// outside the data, mirrored along the flagged axes.
void extract_tile(const TilePlan& plan, const float* data, int64_t channels, const Index3& origin,
                  const Vec3<bool>& mirror, float* tile);

}  // namespace isoline
