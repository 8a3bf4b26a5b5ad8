// Lesion-wise detection: connected components of a region in the reference, and whether a prediction finds
// them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/base/shape.h"
#include "isoline/metrics/overlap.h"
#include "isoline/volume/volume.h"

namespace isoline {

// What a lesion is and when it counts as found. A lesion is a connected component (26 neighbours; 8 in a map
// of one slice) of the region.
struct LesionCriterion {
  LabelSet region;
  // Components smaller than this are no lesions: such a reference component is not counted, such a predicted
  // one neither finds a lesion nor is a false positive.
  double min_volume_mm3 = 0;
  // A reference lesion is found if predicted voxels of the region cover at least this fraction of it, and at
  // least one voxel. 0: any overlapping voxel.
  double min_covered_fraction = 0;

  Status validate() const;
  // One sentence with the numbers in it, for reports.
  std::string definition() const;
};

struct Lesion {
  uint64_t voxels = 0;
  double volume_mm3 = 0;
  uint64_t covered_voxels = 0;  // of these, predicted as the region
  bool found = false;
  Index3 first_voxel{0, 0, 0};  // [z, y, x], the first in memory order: where to look
};

struct LesionDetection {
  std::vector<Lesion> reference;        // in the order of their first voxels: the same for every prediction
  std::vector<Lesion> false_positives;  // predicted lesions that touch no reference voxel of the region
  int predicted = 0;                    // predicted lesions in all

  int found() const;
  std::vector<bool> found_flags() const;
};

// Voxels whose reference label is criterion's `ignore_label` are outside of the region in both maps.
// kInvalidArgument: shapes differ or the criterion is impossible.
Result<LesionDetection> detect_lesions(const LabelMap& reference, const LabelMap& prediction,
                                       const LesionCriterion& criterion, std::optional<int> ignore_label);

struct LesionFlips {
  int lost = 0;    // found by a, missed by b
  int gained = 0;  // missed by a, found by b
};
// a and b: found flags of the same reference lesions under two settings. kInvalidArgument: different lengths.
Result<LesionFlips> lesion_flips(const std::vector<bool>& found_a, const std::vector<bool>& found_b);

}  // namespace isoline
