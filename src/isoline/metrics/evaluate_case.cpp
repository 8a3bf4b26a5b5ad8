#include "isoline/metrics/evaluate_case.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

namespace isoline {
namespace {

std::string short_number(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%.5g", v);
  return text;
}

double mean_of_defined(const std::vector<double>& values) {
  double sum = 0;
  int count = 0;
  for (double v : values)
    if (!std::isnan(v)) {
      sum += v;
      ++count;
    }
  return count ? sum / count : std::numeric_limits<double>::quiet_NaN();
}

double median_of_finite(std::vector<double> values) {
  std::erase_if(values, [](double v) { return !std::isfinite(v); });
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
}

std::vector<SurfaceRegion> surface_regions(const EvaluationOptions& options) {
  std::vector<SurfaceRegion> out;
  for (size_t r = 0; r < options.regions.size(); ++r) {
    out.push_back({options.regions[r], {}});
    if (const auto tolerance = options.tolerance_mm(r)) out.back().tolerances_mm.push_back(*tolerance);
  }
  return out;
}

}  // namespace

Status EvaluationOptions::validate() const {
  if (regions.empty()) return Error{ErrorCode::kInvalidArgument, "no region to evaluate", "", ""};
  for (const LabelSet& r : regions) ISOLINE_RETURN_IF_ERROR(check_region(r));
  if (tolerances_mm.size() > 1 && tolerances_mm.size() != regions.size())
    return Error{ErrorCode::kInvalidArgument,
                 std::to_string(tolerances_mm.size()) + " tolerances for " + std::to_string(regions.size()) +
                     " regions",
                 "", "Give one for all regions or one each, in their order."};
  if (!tolerances_mm.empty() && !surface)
    return Error{ErrorCode::kInvalidArgument, "a tolerance without surface distances", "", ""};
  for (double t : tolerances_mm)
    if (!(t >= 0) || !std::isfinite(t))
      return Error{ErrorCode::kInvalidArgument, "a tolerance must be 0 mm or more", "", ""};
  for (const LesionCriterion& l : lesions) ISOLINE_RETURN_IF_ERROR(l.validate());
  return {};
}

std::optional<double> EvaluationOptions::tolerance_mm(size_t r) const {
  if (tolerances_mm.empty()) return std::nullopt;
  return tolerances_mm.size() == 1 ? tolerances_mm[0] : tolerances_mm[r];
}

std::vector<std::pair<std::string, std::string>> EvaluationOptions::definitions() const {
  std::vector<std::pair<std::string, std::string>> out{
      {"dice",
       "2|P n R| / (|P| + |R|) over voxels, per region and case. One map empty: 0. Both empty: undefined and "
       "left "
       "out of means (nnU-Net), or 1 (KiTS)."},
      {"volume",
       "Voxels of the region times the size of a voxel, in mm3; difference = prediction - reference."}};
  if (surface) {
    if (!tolerances_mm.empty()) {
      std::string limits;
      for (size_t r = 0; r < regions.size(); ++r)
        limits += (r ? ", " : "") + regions[r].name + " " + short_number(*tolerance_mm(r));
      out.emplace_back(
          "surface_dice",
          "Area of both surfaces that lies within the tolerance (<=) of the other surface over the area "
          "of both (google-deepmind/surface-distance: marching-cubes elements on voxel corners). "
          "Tolerance in mm: " +
              limits + ". Empty maps as for Dice.");
    }
    out.emplace_back("hd95",
                     "Larger of the two area-weighted 95th percentiles of the surface distances, in mm "
                     "(google-deepmind/surface-distance). One map empty: infinite. Both: undefined.");
    out.emplace_back("average_surface_distance",
                     "Mean of the two area-weighted mean surface distances, in mm. Empty maps as for HD95.");
  }
  for (const LesionCriterion& l : lesions) out.emplace_back("lesions", l.definition());
  return out;
}

double RegionMetrics::relative_volume_difference() const {
  if (reference_mm3 == 0)
    return predicted_mm3 == 0 ? std::numeric_limits<double>::quiet_NaN()
                              : std::numeric_limits<double>::infinity();
  return std::abs(volume_difference_mm3()) / reference_mm3;
}

std::optional<double> RegionMetrics::surface_dice(BothEmpty both_empty) const {
  if (!surface || surface->tolerances_mm.empty()) return std::nullopt;
  return surface->surface_dice(0, both_empty);
}

std::optional<double> RegionMetrics::hd95_mm(BothEmpty both_empty) const {
  if (!surface) return std::nullopt;
  return surface->hd95_mm(both_empty);
}

Result<CaseMetrics> evaluate_case(const LabelMap& reference, const LabelMap& prediction,
                                  const EvaluationOptions& options, ThreadPool& pool) {
  ISOLINE_RETURN_IF_ERROR(options.validate());
  ISOLINE_ASSIGN(const std::vector<OverlapCounts> overlaps,
                 count_overlaps(reference, prediction, options.regions, options.ignore_label, pool));
  CaseMetrics out;
  for (const OverlapCounts& c : overlaps)
    out.regions.push_back({c, volume_mm3(c.reference_voxels(), reference.geometry),
                           volume_mm3(c.predicted_voxels(), reference.geometry), std::nullopt});
  if (options.surface) {
    ISOLINE_ASSIGN(
        std::vector<SurfaceMetrics> surfaces,
        surface_metrics(reference, prediction, surface_regions(options), options.ignore_label, pool));
    for (size_t r = 0; r < surfaces.size(); ++r) out.regions[r].surface = std::move(surfaces[r]);
  }
  for (const LesionCriterion& criterion : options.lesions) {
    ISOLINE_ASSIGN(LesionDetection lesions,
                   detect_lesions(reference, prediction, criterion, options.ignore_label));
    out.lesions.push_back(std::move(lesions));
  }
  return out;
}

std::vector<RegionMeans> mean_over_cases(const std::vector<CaseMetrics>& cases) {
  std::vector<RegionMeans> out(cases.empty() ? 0 : cases[0].regions.size());
  for (size_t r = 0; r < out.size(); ++r) {
    std::vector<double> dice[2], surface_dice[2], hd95, difference;
    for (const CaseMetrics& c : cases) {
      const RegionMetrics& m = c.regions[r];
      for (BothEmpty e : {BothEmpty::kNan, BothEmpty::kOne}) {
        dice[int(e)].push_back(m.overlap.dice(e));
        if (const auto d = m.surface_dice(e)) surface_dice[int(e)].push_back(*d);
      }
      if (const auto h = m.hd95_mm(BothEmpty::kNan)) {
        out[r].hd95_infinite += std::isinf(*h);
        out[r].hd95_undefined += std::isnan(*h);
        hd95.push_back(*h);
      }
      difference.push_back(m.volume_difference_mm3());
    }
    out[r].dice_nan = mean_of_defined(dice[0]);
    out[r].dice_one = mean_of_defined(dice[1]);
    if (!surface_dice[0].empty()) {
      out[r].surface_dice_nan = mean_of_defined(surface_dice[0]);
      out[r].surface_dice_one = mean_of_defined(surface_dice[1]);
    }
    if (!hd95.empty()) out[r].hd95_median_mm = median_of_finite(hd95);
    out[r].volume_difference_mm3 = mean_of_defined(difference);
  }
  return out;
}

}  // namespace isoline
