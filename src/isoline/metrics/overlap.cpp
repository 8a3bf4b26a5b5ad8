#include "isoline/metrics/overlap.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>

namespace isoline {
namespace {

constexpr int64_t kGrain = int64_t{1} << 18;

// Calls visit(reference, prediction, count) for runs of voxels with the same pair of labels. Label maps are
// mostly runs, so whole words of four voxels are compared first.
template <class Visit>
void for_each_run(const uint16_t* a, const uint16_t* b, int64_t n, Visit&& visit) {
  int64_t i = 0;
  while (i < n) {
    const uint16_t la = a[i], lb = b[i];
    const int64_t start = i++;
    const uint64_t wa = uint64_t(la) * 0x0001000100010001u, wb = uint64_t(lb) * 0x0001000100010001u;
    const auto equal_words = [&](int64_t at) {
      uint64_t x[4], y[4];
      std::memcpy(x, a + at, sizeof x);
      std::memcpy(y, b + at, sizeof y);
      uint64_t difference = 0;
      for (int k = 0; k < 4; ++k) difference |= (x[k] ^ wa) | (y[k] ^ wb);
      return difference == 0;
    };
    while (i + 16 <= n && equal_words(i)) i += 16;
    while (i < n && a[i] == la && b[i] == lb) ++i;
    visit(la, lb, i - start);
  }
}

Error invalid(const std::string& what) {
  return Error{ErrorCode::kInvalidArgument, what, "", ""};
}

}  // namespace

Status check_region(const LabelSet& region) {
  if (region.labels.empty()) return invalid("region \"" + region.name + "\" has no labels");
  for (int label : region.labels)
    if (label < 0 || label > 65535)
      return invalid("region \"" + region.name + "\" has label " + std::to_string(label) +
                     ", not in 0..65535");
  return {};
}

double OverlapCounts::dice(BothEmpty both_empty) const {
  const uint64_t both = reference_voxels() + predicted_voxels();
  if (both == 0) return both_empty == BothEmpty::kOne ? 1.0 : std::numeric_limits<double>::quiet_NaN();
  return double(2 * true_positive) / double(both);
}

double OverlapCounts::iou(BothEmpty both_empty) const {
  const uint64_t either = true_positive + false_positive + false_negative;
  if (either == 0) return both_empty == BothEmpty::kOne ? 1.0 : std::numeric_limits<double>::quiet_NaN();
  return double(true_positive) / double(either);
}

Result<std::vector<OverlapCounts>> count_overlaps(const LabelMap& reference, const LabelMap& prediction,
                                                  std::span<const LabelSet> regions,
                                                  std::optional<int> ignore_label, ThreadPool& pool) {
  if (reference.shape != prediction.shape)
    return invalid("the reference has shape " + to_string(reference.shape) + ", the prediction " +
                   to_string(prediction.shape));
  // Labels that some region (or the ignore label) names get a class of their own; class 0 is all others.
  std::vector<uint32_t> class_of(65536, 0);
  uint32_t classes = 1;
  const auto add = [&](int label) {
    if (class_of[size_t(label)] == 0) class_of[size_t(label)] = classes++;
  };
  for (const LabelSet& region : regions) {
    ISOLINE_RETURN_IF_ERROR(check_region(region));
    for (int label : region.labels) add(label);
  }
  if (ignore_label && *ignore_label >= 0 && *ignore_label <= 65535) add(*ignore_label);
  if (classes > 4096) return invalid("more than 4095 different labels are asked for");

  // joint[r * classes + p]: voxels of reference class r and predicted class p.
  std::vector<uint64_t> joint(size_t(classes) * classes);
  std::mutex mutex;
  const int64_t n = voxels(reference.shape);
  // Few large pieces where the table is large: each thread adds its own table at the end of a piece.
  const int64_t grain = std::max<int64_t>(kGrain, int64_t(joint.size()) * 4);
  pool.for_each(n, grain, [&](int64_t begin, int64_t end) {
    std::vector<uint64_t> mine(joint.size());
    for_each_run(reference.data.data() + begin, prediction.data.data() + begin, end - begin,
                 [&](uint16_t r, uint16_t p, int64_t count) {
                   mine[size_t(class_of[r]) * classes + class_of[p]] += uint64_t(count);
                 });
    const std::lock_guard lock(mutex);
    for (size_t i = 0; i < joint.size(); ++i) joint[i] += mine[i];
  });

  const uint32_t ignored = ignore_label && *ignore_label >= 0 && *ignore_label <= 65535
                               ? class_of[size_t(*ignore_label)]
                               : std::numeric_limits<uint32_t>::max();
  std::vector<OverlapCounts> out;
  for (const LabelSet& region : regions) {
    std::vector<bool> inside(classes, false);
    for (int label : region.labels) inside[class_of[size_t(label)]] = true;
    OverlapCounts c;
    for (uint32_t r = 0; r < classes; ++r) {
      if (r == ignored) continue;
      for (uint32_t p = 0; p < classes; ++p) {
        const uint64_t count = joint[size_t(r) * classes + p];
        (inside[r] ? (inside[p] ? c.true_positive : c.false_negative)
                   : (inside[p] ? c.false_positive : c.true_negative)) += count;
      }
    }
    out.push_back(c);
  }
  return out;
}

std::vector<int> labels_present(const LabelMap& labels, ThreadPool& pool) {
  std::vector<bool> present(65536, false);
  std::mutex mutex;
  pool.for_each(voxels(labels.shape), kGrain, [&](int64_t begin, int64_t end) {
    std::vector<bool> mine(65536, false);
    const uint16_t* p = labels.data.data() + begin;
    for_each_run(p, p, end - begin, [&](uint16_t label, uint16_t, int64_t) { mine[label] = true; });
    const std::lock_guard lock(mutex);
    for (size_t i = 0; i < mine.size(); ++i)
      if (mine[i]) present[i] = true;
  });
  std::vector<int> out;
  for (size_t i = 0; i < present.size(); ++i)
    if (present[i]) out.push_back(int(i));
  return out;
}

double volume_mm3(uint64_t voxel_count, const Geometry& g) {
  return double(voxel_count) * g.spacing_mm[0] * g.spacing_mm[1] * g.spacing_mm[2];
}

OverlapMeans mean_overlaps(std::span<const std::vector<OverlapCounts>> cases,
                           const std::vector<bool>& is_background) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  OverlapMeans means;
  const size_t regions = cases.empty() ? 0 : cases[0].size();
  double sum_nan = 0, sum_one = 0;
  int foreground = 0;
  for (size_t r = 0; r < regions; ++r) {
    double defined = 0, all = 0;
    int count = 0;
    for (const auto& c : cases) {
      const double d = c[r].dice(BothEmpty::kNan);
      if (!std::isnan(d)) {
        defined += d;
        ++count;
      }
      all += c[r].dice(BothEmpty::kOne);
    }
    means.dice_nan.push_back(count > 0 ? defined / count : kNan);
    means.dice_one.push_back(all / double(cases.size()));
    if (r < is_background.size() && is_background[r]) continue;
    sum_nan += means.dice_nan.back();
    sum_one += means.dice_one.back();
    ++foreground;
  }
  means.foreground_dice_nan = foreground > 0 ? sum_nan / foreground : kNan;
  means.foreground_dice_one = foreground > 0 ? sum_one / foreground : kNan;
  return means;
}

}  // namespace isoline
