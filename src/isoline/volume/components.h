// Connected components of a mask, as runs along x.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "isoline/base/shape.h"

namespace isoline {

// Components under full connectivity (26 neighbours in 3-D, 8 within one slice), numbered 0, 1, … by their
// first voxel in memory order, as scipy.ndimage.label numbers them from 1. Memory follows the mask's surface:
// 12 bytes a run and 8 a row.
struct Components {
  struct Run {
    int32_t x_begin = 0, x_end = 0;  // half-open
    int32_t component = 0;
  };
  Shape3 shape{0, 0, 0};
  std::vector<Run> runs;           // in memory order
  std::vector<int64_t> row_start;  // rows are numbered z * shape[1] + y; one entry more than rows
  std::vector<int64_t> voxels;     // per component

  int64_t size() const { return int64_t(voxels.size()); }
  std::span<const Run> row(int64_t z, int64_t y) const {
    const auto r = size_t(z * shape[1] + y);
    return {runs.data() + row_start[r], size_t(row_start[r + 1] - row_start[r])};
  }
};

// fill(z, y, inside) writes 0 or 1 for the shape[2] voxels of a row and returns true, or returns false for a
// row without a voxel. It is called once a row, in memory order, from this thread. Throws std::length_error
// beyond 2^31 - 1 runs or an axis beyond 2^31 - 1.
Components connected_components(const Shape3& shape,
                                const std::function<bool(int64_t z, int64_t y, uint8_t* inside)>& fill);

}  // namespace isoline
