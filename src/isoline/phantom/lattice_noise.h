// LatticeNoise: a smooth random field in millimetres, unit variance, evaluated a row of voxels at a time.
#pragma once

#include <cstdint>
#include <vector>

#include "isoline/base/shape.h"

namespace isoline::phantom_detail {

// The voxel grid in millimetres around the volume's centre.
struct Grid {
  Shape3 shape{0, 0, 0};
  Vec3<double> spacing_mm{1, 1, 1};
  double position_mm(int axis, int64_t i) const {
    return (double(i) - 0.5 * double(shape[size_t(axis)] - 1)) * spacing_mm[size_t(axis)];
  }
};

// Normal values on a lattice with `cell_mm` between points, anchored at the volume's centre, smoothed by
// cubic B-splines. The field depends on key and position only, not on the grid it is sampled on. Immutable
// after construction; row() may be called from several threads.
class LatticeNoise {
 public:
  LatticeNoise(uint64_t key, double cell_mm, const Grid& grid);

  // Scratch floats row() needs.
  size_t scratch_size() const { return size_t(size_[2]); }
  // out[x - x_begin] for x in [x_begin, x_end) of row (z, y).
  void row(int64_t z, int64_t y, int64_t x_begin, int64_t x_end, float* scratch, float* out) const;

 private:
  struct Taps {
    int32_t first;  // lattice index of the first of four taps
    float weight[4];
  };
  std::vector<Taps> taps_[3];     // one an index of each axis
  std::vector<int32_t> first_x_;  // taps_[2] as separate arrays, for vector loads
  std::vector<float> weights_x_[4];
  Vec3<int64_t> size_{0, 0, 0};  // lattice points an axis
  std::vector<float> values_;    // [z, y, x], scaled so that the field has unit variance on average
};

}  // namespace isoline::phantom_detail
