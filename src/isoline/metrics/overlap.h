// Overlap of two label maps: counts, Dice and intersection over union, per region.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "isoline/base/parallel.h"
#include "isoline/base/result.h"
#include "isoline/volume/volume.h"

namespace isoline {

// A region to be judged: the voxels that carry any of these labels. Regions may overlap (KiTS23: kidney and
// masses {1, 2, 3}, masses {2, 3}, tumour {2}).
struct LabelSet {
  std::string name;
  std::vector<int> labels;  // 0..65535, at least one
};

// kInvalidArgument, naming the region: no label, or one outside 0..65535.
Status check_region(const LabelSet& region);

// What the two conventions differ in is the region that is empty in both maps.
enum class BothEmpty {
  kNan,  // nnU-Net: undefined, left out of means (nanmean)
  kOne,  // KiTS23: full agreement
};

// Voxels of one region in one case. "Positive" is what the prediction says.
struct OverlapCounts {
  uint64_t true_positive = 0, false_positive = 0, false_negative = 0, true_negative = 0;

  uint64_t reference_voxels() const { return true_positive + false_negative; }
  uint64_t predicted_voxels() const { return true_positive + false_positive; }
  // 2|P n R| / (|P| + |R|). One map empty: 0. Both empty: by convention NaN or 1.
  double dice(BothEmpty both_empty) const;
  // |P n R| / |P u R|, empty maps as for dice().
  double iou(BothEmpty both_empty) const;
};

// One pass over both maps for all regions. Voxels whose reference label is `ignore_label` count nowhere.
// kInvalidArgument: shapes differ, a region without labels or with an impossible one. Threads: uses `pool`.
Result<std::vector<OverlapCounts>> count_overlaps(const LabelMap& reference, const LabelMap& prediction,
                                                  std::span<const LabelSet> regions,
                                                  std::optional<int> ignore_label, ThreadPool& pool);

// Labels that occur, ascending.
std::vector<int> labels_present(const LabelMap& labels, ThreadPool& pool);

// Voxels times their size. (A 2-D image's third spacing is nnU-Net's 999-fold: no volume means anything
// there.)
double volume_mm3(uint64_t voxel_count, const Geometry& geometry);

// Means over cases by both conventions.
struct OverlapMeans {
  std::vector<double> dice_nan,
      dice_one;                    // per region: nanmean over cases (NaN if none is defined); plain mean
  double foreground_dice_nan = 0;  // nnU-Net's foreground_mean: mean of the regions' nanmeans, NaN if any is
  double foreground_dice_one = 0;  // mean of the regions' means
};
// cases[i][r]: region r of case i; all cases have the same regions. Regions that are the background alone,
// {0}, do not count in the foreground means; `is_background[r]` says which (may be empty: none). No case: NaN
// everywhere.
OverlapMeans mean_overlaps(std::span<const std::vector<OverlapCounts>> cases,
                           const std::vector<bool>& is_background);

}  // namespace isoline
