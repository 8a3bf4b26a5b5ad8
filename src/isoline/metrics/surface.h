// Surface distances of two label maps: surface Dice at a tolerance, HD95, average distances, surface areas.
//
// Definition: google-deepmind/surface-distance. Surface elements sit on the grid of voxel corners. The eight
// voxels around a corner form an 8-bit code; a corner whose code is neither 0 nor 255 carries the
// marching-cubes contour through its cell (surfel_area.h), whose area weights it. The distance of an element
// is the Euclidean distance, in mm, from its corner to the nearest corner that carries an element of the
// other surface. Outside the volume nothing is inside, so a mask that touches the border has a surface there.
//
// A map of one slice (shape[0] == 1) is judged in the plane, as DeepMind judges 2-D arrays: contour lengths
// in mm take the place of areas in mm2, and spacing_mm[0] plays no part.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "isoline/base/parallel.h"
#include "isoline/base/result.h"
#include "isoline/metrics/overlap.h"
#include "isoline/volume/volume.h"

namespace isoline {

// A region and the distances up to which its surfaces count as the same.
struct SurfaceRegion {
  LabelSet region;
  std::vector<double> tolerances_mm;  // each finite and >= 0; may be empty (no surface Dice then)
};

// The surfaces of one region in one case. "reference" figures: from the reference's surface to the
// prediction's.
struct SurfaceMetrics {
  bool planar = false;            // one slice: the areas below are lengths in mm
  double reference_area_mm2 = 0;  // 0: the region is empty there
  double predicted_area_mm2 = 0;
  std::vector<double> tolerances_mm;         // as asked for
  std::vector<double> reference_within_mm2;  // per tolerance: area whose distance is <= the tolerance
  std::vector<double> predicted_within_mm2;
  // Area-weighted mean and 95th percentile of the distances: the smallest distance at which the area so far
  // reaches 95 % of the whole. NaN: that surface is empty; infinite: the other one is.
  double reference_mean_mm = 0, predicted_mean_mm = 0;
  double reference_p95_mm = 0, predicted_p95_mm = 0;

  bool reference_empty() const { return reference_area_mm2 == 0; }
  bool predicted_empty() const { return predicted_area_mm2 == 0; }
  // (reference_within + predicted_within) / (reference_area + predicted_area) at tolerances_mm[t].
  // One surface empty: 0. Both: by convention NaN (DeepMind) or 1 (KiTS).
  double surface_dice(size_t t, BothEmpty both_empty) const;
  // The larger of both 95th percentiles. One surface empty: infinite. Both: NaN, or 0 where both empty means
  // full agreement. (DeepMind returns infinite there.)
  double hd95_mm(BothEmpty both_empty) const;
  // Mean of reference_mean_mm and predicted_mean_mm; empty surfaces as for hd95_mm().
  double average_distance_mm(BothEmpty both_empty) const;
};

// All regions of one case. Voxels whose reference label is `ignore_label` are outside of every region in both
// maps. Spacing is the reference's; compare geometries first (volume/same_grid.h).
// Work is done in the bounding box of both masks, region by region. Memory: 5 bits per corner of that box,
// per thread one strip of distances (at most 64 bytes x shape[0] x shape[1]), and 32 bytes per different pair
// of distance and pattern: next to nothing for segmentations, up to 32 bytes an element for noise far from
// everything. kInvalidArgument: shapes differ, a region is impossible (overlap.h) or a tolerance is negative
// or NaN, or the spacing is not positive; kUnsupported: an axis longer than 32766 voxels. Threads: uses
// `pool`; results do not depend on their number.
Result<std::vector<SurfaceMetrics>> surface_metrics(const LabelMap& reference, const LabelMap& prediction,
                                                    std::span<const SurfaceRegion> regions,
                                                    std::optional<int> ignore_label, ThreadPool& pool);

}  // namespace isoline
