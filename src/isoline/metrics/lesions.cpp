#include "isoline/metrics/lesions.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "isoline/metrics/label_scan.h"
#include "isoline/volume/components.h"

namespace isoline {
namespace {

Error invalid(const std::string& what) {
  return Error{ErrorCode::kInvalidArgument, what, "", ""};
}

std::string short_number(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", v);
  return text;
}

// Voxels that two sorted lists of runs share, reported run by run.
template <class Visit>
void for_each_overlap(std::span<const Components::Run> a, std::span<const Components::Run> b, Visit&& visit) {
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    const int32_t begin = std::max(a[i].x_begin, b[j].x_begin), end = std::min(a[i].x_end, b[j].x_end);
    if (begin < end) visit(a[i].component, b[j].component, uint64_t(end - begin));
    a[i].x_end < b[j].x_end ? ++i : ++j;
  }
}

// Size and place of every component; `covered_voxels` is left to the caller.
std::vector<Lesion> list_lesions(const Components& c, const Geometry& geometry) {
  std::vector<Lesion> lesions(static_cast<size_t>(c.size()));
  size_t next = 0;  // components are numbered by their first run
  for (int64_t z = 0; z < c.shape[0]; ++z)
    for (int64_t y = 0; y < c.shape[1]; ++y)
      for (const Components::Run& run : c.row(z, y))
        if (size_t(run.component) == next) lesions[next++].first_voxel = {z, y, run.x_begin};
  for (size_t i = 0; i < lesions.size(); ++i) {
    lesions[i].voxels = uint64_t(c.voxels[i]);
    lesions[i].volume_mm3 = volume_mm3(lesions[i].voxels, geometry);
  }
  return lesions;
}

}  // namespace

Status LesionCriterion::validate() const {
  ISOLINE_RETURN_IF_ERROR(check_region(region));
  if (!(min_volume_mm3 >= 0) || !std::isfinite(min_volume_mm3))
    return invalid("the smallest lesion volume must be 0 mm3 or more");
  if (!(min_covered_fraction >= 0 && min_covered_fraction <= 1))
    return invalid("the covered fraction of a found lesion must be in 0..1");
  return {};
}

std::string LesionCriterion::definition() const {
  return "A lesion is a 26-connected component of " + region.name +
         (min_volume_mm3 > 0 ? " of at least " + short_number(min_volume_mm3) + " mm3" : "") +
         "; found: predicted lesions cover " +
         (min_covered_fraction > 0 ? "at least " + short_number(min_covered_fraction * 100) + " % of it"
                                   : std::string("at least one voxel of it")) +
         "; false positive: a predicted lesion that touches no reference voxel of the region.";
}

int LesionDetection::found() const {
  return int(std::count_if(reference.begin(), reference.end(), [](const Lesion& l) { return l.found; }));
}

std::vector<bool> LesionDetection::found_flags() const {
  std::vector<bool> flags;
  for (const Lesion& l : reference) flags.push_back(l.found);
  return flags;
}

Result<LesionDetection> detect_lesions(const LabelMap& reference, const LabelMap& prediction,
                                       const LesionCriterion& criterion, std::optional<int> ignore_label) {
  if (reference.shape != prediction.shape)
    return invalid("the reference has shape " + to_string(reference.shape) + ", the prediction " +
                   to_string(prediction.shape));
  ISOLINE_RETURN_IF_ERROR(criterion.validate());
  std::vector<uint8_t> wanted(65536, 0);
  for (int label : criterion.region.labels) wanted[size_t(label)] = 1;
  const int ignored = ignore_label.value_or(-1);
  const auto components = [&](const LabelMap& map) {
    return connected_components(map.shape, [&](int64_t z, int64_t y, uint8_t* inside) {
      const uint16_t* row = &map.at(z, y, 0);
      if (!wanted[0] && metrics::all_are(row, map.shape[2], 0)) return false;
      const uint16_t* reference_row = &reference.at(z, y, 0);
      uint8_t any = 0;
      for (int64_t x = 0; x < map.shape[2]; ++x)
        any |= inside[x] = wanted[row[x]] & uint8_t(reference_row[x] != ignored);
      return any != 0;
    });
  };
  const Components r = components(reference), p = components(prediction);
  std::vector<Lesion> lesions = list_lesions(r, reference.geometry);
  std::vector<Lesion> predicted = list_lesions(p, reference.geometry);
  const auto counts = [&](const Lesion& l) { return l.volume_mm3 >= criterion.min_volume_mm3; };
  for (int64_t z = 0; z < reference.shape[0]; ++z)
    for (int64_t y = 0; y < reference.shape[1]; ++y)
      for_each_overlap(r.row(z, y), p.row(z, y),
                       [&](int32_t in_reference, int32_t in_prediction, uint64_t n) {
                         Lesion& other = predicted[size_t(in_prediction)];
                         other.covered_voxels += n;
                         if (counts(other)) lesions[size_t(in_reference)].covered_voxels += n;
                       });
  LesionDetection out;
  for (Lesion& l : lesions) {
    if (!counts(l)) continue;
    l.found =
        l.covered_voxels > 0 && double(l.covered_voxels) >= criterion.min_covered_fraction * double(l.voxels);
    out.reference.push_back(l);
  }
  for (const Lesion& l : predicted) {
    if (!counts(l)) continue;
    ++out.predicted;
    if (l.covered_voxels == 0) out.false_positives.push_back(l);
  }
  return out;
}

Result<LesionFlips> lesion_flips(const std::vector<bool>& found_a, const std::vector<bool>& found_b) {
  if (found_a.size() != found_b.size())
    return invalid("lesions of different references: " + std::to_string(found_a.size()) + " and " +
                   std::to_string(found_b.size()));
  LesionFlips flips;
  for (size_t i = 0; i < found_a.size(); ++i) {
    flips.lost += found_a[i] && !found_b[i];
    flips.gained += !found_a[i] && found_b[i];
  }
  return flips;
}

}  // namespace isoline
