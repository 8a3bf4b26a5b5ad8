// CornerSurface: where on the grid of voxel corners a mask has surface elements, one bit a corner.
// Internal to metrics; see surface.h for the definition.
#pragma once

#include <cstdint>
#include <vector>

#include "isoline/base/buffer.h"
#include "isoline/base/parallel.h"
#include "isoline/base/shape.h"
#include "isoline/volume/volume.h"

namespace isoline::metrics {

// Says which voxels of a label map belong to a region.
struct RegionView {
  const LabelMap* map = nullptr;
  const LabelMap* reference = nullptr;  // its `ignored` voxels are outside
  const uint8_t* wanted = nullptr;      // by label, 65536 entries: 1 inside, 0 outside
  int ignored = -1;                     // -1: none
};

class CornerSurface {
 public:
  // The mask within `box`; it must be empty elsewhere. Corner (z, y, x) lies before voxel (z, y, x) of the
  // box, on all axes, so there is one corner more than voxels per axis. planar: the box is one slice that
  // goes on along z for ever, and there is one plane of corners.
  CornerSurface(const RegionView& region, const Box3& box, bool planar, ThreadPool& pool);

  const Shape3& corners() const { return corners_; }
  int64_t words() const { return words_; }  // 64-bit words a row
  // Bit x % 64 of word x / 64: corner x of the row carries a surface element.
  const uint64_t* border(int64_t z, int64_t y) const {
    return border_.data() + (z * corners_[1] + y) * words_;
  }
  bool row_has_surface(int64_t z, int64_t y) const { return row_any_[size_t(z * corners_[1] + y)]; }
  bool empty() const { return empty_; }
  // The 8-bit pattern of the voxels around a corner (surfel_area.h).
  uint32_t code(int64_t z, int64_t y, int64_t x) const;

 private:
  void read_rows(const RegionView& region, const Box3& box, ThreadPool& pool);
  void find_borders(ThreadPool& pool);
  // Row of voxel bits; rows outside of the box are empty.
  const uint64_t* inside(int64_t z, int64_t y) const;

  Shape3 voxels_, corners_;
  bool planar_;
  int64_t words_;
  Buffer<uint64_t> inside_, border_;
  std::vector<uint64_t> no_row_;
  std::vector<uint8_t> row_any_;
  bool empty_ = true;
};

}  // namespace isoline::metrics
