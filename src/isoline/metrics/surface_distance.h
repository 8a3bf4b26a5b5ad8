// Distances from the elements of one surface to the nearest element of another, counted.
// Internal to metrics; see surface.h for the definition.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "isoline/base/parallel.h"
#include "isoline/base/shape.h"
#include "isoline/metrics/corner_surface.h"

namespace isoline::metrics {

// Elements of one pattern at one distance.
struct DistanceCount {
  double squared_mm2 = 0;
  uint64_t code : 8, count : 56;
};

// How many elements of each pattern lie at which distance; memory follows the number of different distances.
class DistanceCounts {
 public:
  void add(double squared_mm2, uint32_t code, uint64_t count = 1);
  void add(const DistanceCounts& other);
  // Sorted by distance, then code; equal ones are one entry. Counts are whole numbers, so the order of add()
  // leaves no trace.
  const std::vector<DistanceCount>& sorted();

 private:
  void merge();
  std::vector<DistanceCount> counts_;
  size_t merge_at_ = size_t{1} << 16;
};

// Squared distance of every element of `from` to the nearest element of `to`, both on the same corners and
// `to` not empty. Exact: the squares are (dz * sz)^2 + (dy * sy)^2 + (dx * sx)^2, added in this order in
// double, of whole steps to the nearest corner, as scipy.ndimage.distance_transform_edt has them.
//
// Method: first the corners around each element, nearest first, 64 elements at a time. What finds nothing
// there goes through a separable search (Felzenszwalb & Huttenlocher 2012, lower envelopes of parabolas) in
// strips of 16 corners along x, only for those columns along z that hold such an element; along x the nearest
// element is read off the bits.
DistanceCounts surface_distances(const CornerSurface& from, const CornerSurface& to,
                                 const Vec3<double>& spacing_mm, ThreadPool& pool);

}  // namespace isoline::metrics
