// Everything `isoline evaluate` and the lab say about one case: overlap, volumes, surfaces and lesions.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "isoline/base/parallel.h"
#include "isoline/base/result.h"
#include "isoline/metrics/lesions.h"
#include "isoline/metrics/overlap.h"
#include "isoline/metrics/surface.h"
#include "isoline/volume/volume.h"

namespace isoline {

struct EvaluationOptions {
  std::vector<LabelSet> regions;    // at least one
  std::optional<int> ignore_label;  // reference label that counts nowhere
  bool surface = false;  // surface distances too (HD95, average distance, and surface Dice if tolerances)
  std::vector<double> tolerances_mm;  // of surface Dice: one per region, one for all, or none
  std::vector<LesionCriterion> lesions;

  Status validate() const;
  // Tolerance of region r; unset: no surface Dice.
  std::optional<double> tolerance_mm(size_t r) const;
  // (short name, one sentence) of every figure that these options produce; for outputs.
  std::vector<std::pair<std::string, std::string>> definitions() const;
};

struct RegionMetrics {
  OverlapCounts overlap;
  double reference_mm3 = 0, predicted_mm3 = 0;
  std::optional<SurfaceMetrics> surface;  // set if options.surface

  double volume_difference_mm3() const { return predicted_mm3 - reference_mm3; }
  // |difference| / reference; NaN if both are 0, infinite if only the reference is.
  double relative_volume_difference() const;
  // At the region's tolerance. Unset: surfaces or tolerance were not asked for.
  std::optional<double> surface_dice(BothEmpty both_empty) const;
  std::optional<double> hd95_mm(BothEmpty both_empty) const;
};

struct CaseMetrics {
  std::vector<RegionMetrics> regions;    // as options.regions
  std::vector<LesionDetection> lesions;  // as options.lesions
};

// Both maps on the same grid (volume/same_grid.h; here only the shapes are compared). Spacing: the
// reference's. kInvalidArgument: shapes differ or the options are impossible. Threads: uses `pool`; results
// do not depend on their number.
Result<CaseMetrics> evaluate_case(const LabelMap& reference, const LabelMap& prediction,
                                  const EvaluationOptions& options, ThreadPool& pool);

// One region over cases. Both conventions for maps that are both empty stand side by side.
struct RegionMeans {
  double dice_nan = 0, dice_one = 0;                         // mean of those defined (NaN: none); plain mean
  std::optional<double> surface_dice_nan, surface_dice_one;  // set if surface Dice was computed
  // Of HD95, which may be infinite, the median of the finite ones (NaN: none) and how many are infinite (one
  // map empty) or undefined (both).
  std::optional<double> hd95_median_mm;
  int hd95_infinite = 0, hd95_undefined = 0;
  double volume_difference_mm3 = 0;  // mean, prediction - reference
};
// All cases evaluated with the same options. No case: empty.
std::vector<RegionMeans> mean_over_cases(const std::vector<CaseMetrics>& cases);

}  // namespace isoline
