#include "isoline/metrics/corner_surface.h"

#include <algorithm>

#include "isoline/metrics/label_scan.h"
#include "isoline/metrics/surfel_area.h"

namespace isoline::metrics {
namespace {

// The bits of n voxels (at most 64) of a row. Label maps are mostly runs, so blocks of one label are decided
// at once.
uint64_t read_word(const uint16_t* labels, const uint16_t* reference, int64_t n, const RegionView& region) {
  uint64_t word = 0;
  for (int64_t x = 0; x < n; x += 16) {
    const int64_t stop = std::min(n, x + 16);
    if (all_are(labels + x, stop - x, labels[x])) {
      if (region.wanted[labels[x]]) word |= ((uint64_t{1} << (stop - x)) - 1) << x;
      continue;
    }
    for (int64_t i = x; i < stop; ++i) word |= uint64_t(region.wanted[labels[i]]) << i;
  }
  if (region.ignored >= 0 && word)
    for (int64_t x = 0; x < n; ++x)
      if (reference[x] == region.ignored) word &= ~(uint64_t{1} << x);
  return word;
}

}  // namespace

CornerSurface::CornerSurface(const RegionView& region, const Box3& box, bool planar, ThreadPool& pool)
    : voxels_(box.shape()),
      corners_{planar ? 1 : voxels_[0] + 1, voxels_[1] + 1, voxels_[2] + 1},
      planar_(planar),
      words_((corners_[2] + 63) / 64),
      inside_(size_t(voxels_[0] * voxels_[1] * words_)),
      border_(size_t(corners_[0] * corners_[1] * words_)),
      no_row_(size_t(words_), 0),
      row_any_(size_t(corners_[0] * corners_[1]), 0) {
  read_rows(region, box, pool);
  find_borders(pool);
  empty_ = std::find(row_any_.begin(), row_any_.end(), 1) == row_any_.end();
}

void CornerSurface::read_rows(const RegionView& region, const Box3& box, ThreadPool& pool) {
  const int64_t ny = voxels_[1], nx = voxels_[2];
  pool.for_each(voxels_[0] * ny, 64, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t z = box.lo[0] + row / ny, y = box.lo[1] + row % ny;
      const uint16_t* labels = &region.map->at(z, y, box.lo[2]);
      const uint16_t* reference = &region.reference->at(z, y, box.lo[2]);
      for (int64_t w = 0; w < words_; ++w) {
        const int64_t n = std::clamp<int64_t>(nx - w * 64, 0, 64);
        inside_[size_t(row * words_ + w)] = n ? read_word(labels + w * 64, reference + w * 64, n, region) : 0;
      }
    }
  });
}

const uint64_t* CornerSurface::inside(int64_t z, int64_t y) const {
  if (planar_) z = 0;
  if (z < 0 || y < 0 || z >= voxels_[0] || y >= voxels_[1]) return no_row_.data();
  return inside_.data() + (z * voxels_[1] + y) * words_;
}

void CornerSurface::find_borders(ThreadPool& pool) {
  const int64_t ny = corners_[1];
  pool.for_each(corners_[0] * ny, 64, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t z = row / ny, y = row % ny;
      const uint64_t* rows[4] = {inside(z - 1, y - 1), inside(z - 1, y), inside(z, y - 1), inside(z, y)};
      uint64_t* out = border_.data() + row * words_;
      uint64_t any_before = 0, all_before = 0, any_border = 0;
      for (int64_t w = 0; w < words_; ++w) {
        const uint64_t any = rows[0][w] | rows[1][w] | rows[2][w] | rows[3][w];
        const uint64_t all = rows[0][w] & rows[1][w] & rows[2][w] & rows[3][w];
        // Voxels x - 1 stand one bit higher, under corner x.
        const uint64_t any_shifted = any << 1 | any_before >> 63, all_shifted = all << 1 | all_before >> 63;
        out[w] = (any | any_shifted) & ~(all & all_shifted);
        any_border |= out[w];
        any_before = any;
        all_before = all;
      }
      row_any_[size_t(row)] = any_border != 0;
    }
  });
}

uint32_t CornerSurface::code(int64_t z, int64_t y, int64_t x) const {
  uint32_t code = 0;
  for (int dz = 0; dz < 2; ++dz)
    for (int dy = 0; dy < 2; ++dy) {
      const uint64_t* row = inside(z - 1 + dz, y - 1 + dy);
      for (int dx = 0; dx < 2; ++dx) {
        const int64_t at = x - 1 + dx;
        if (at >= 0 && (row[at / 64] >> (at % 64) & 1)) code |= corner_bit(dz, dy, dx);
      }
    }
  return code;
}

}  // namespace isoline::metrics
