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

}  // namespace isoline
