#include "evaluate_output.h"

#include <cmath>
#include <cstdio>

namespace isoline::cli {
namespace {

// JSON has no NaN and no infinity.
Json number(double v) {
  return std::isfinite(v) ? Json(v) : Json(nullptr);
}

const char* state(double v) {
  return std::isnan(v) ? "undefined" : std::isinf(v) ? "infinite" : "finite";
}

Json to_json(const RegionMetrics& m) {
  Json j{{"dice_nnunet", number(m.overlap.dice(BothEmpty::kNan))},
         {"dice_kits", m.overlap.dice(BothEmpty::kOne)},
         {"reference_voxels", m.overlap.reference_voxels()},
         {"predicted_voxels", m.overlap.predicted_voxels()},
         {"reference_mm3", m.reference_mm3},
         {"predicted_mm3", m.predicted_mm3},
         {"volume_difference_mm3", m.volume_difference_mm3()},
         {"relative_volume_difference", number(m.relative_volume_difference())}};
  if (!m.surface) return j;
  const SurfaceMetrics& s = *m.surface;
  if (!s.tolerances_mm.empty()) {
    j["surface_dice_deepmind"] = number(s.surface_dice(0, BothEmpty::kNan));
    j["surface_dice_kits"] = s.surface_dice(0, BothEmpty::kOne);
    j["tolerance_mm"] = s.tolerances_mm[0];
  }
  const double hd95 = s.hd95_mm(BothEmpty::kNan);
  j["hd95_mm"] = number(hd95);
  j["hd95_state"] = state(hd95);
  j["average_surface_distance_mm"] = number(s.average_distance_mm(BothEmpty::kNan));
  const char* const unit = s.planar ? "_contour_mm" : "_surface_mm2";
  j[std::string("reference") + unit] = s.reference_area_mm2;
  j[std::string("predicted") + unit] = s.predicted_area_mm2;
  return j;
}

Json to_json(const Lesion& l, bool of_reference) {
  Json j{{"voxels", l.voxels}, {"volume_mm3", l.volume_mm3}, {"first_voxel_zyx", l.first_voxel}};
  if (of_reference) {
    j["covered_fraction"] = double(l.covered_voxels) / double(l.voxels);
    j["found"] = l.found;
  }
  return j;
}

Json to_json(const LesionDetection& d) {
  Json reference = Json::array(), false_positives = Json::array();
  for (const Lesion& l : d.reference) reference.push_back(to_json(l, true));
  for (const Lesion& l : d.false_positives) false_positives.push_back(to_json(l, false));
  return {{"reference", d.reference.size()}, {"found", d.found()},
          {"predicted", d.predicted},        {"false_positive", d.false_positives.size()},
          {"reference_lesions", reference},  {"false_positive_lesions", false_positives}};
}

Json to_json(const RegionMeans& m) {
  Json j{{"dice_nnunet", number(m.dice_nan)}, {"dice_kits", number(m.dice_one)}};
  if (m.surface_dice_nan) {
    j["surface_dice_deepmind"] = number(*m.surface_dice_nan);
    j["surface_dice_kits"] = number(*m.surface_dice_one);
  }
  if (m.hd95_median_mm) {
    j["hd95_median_mm"] = number(*m.hd95_median_mm);
    j["hd95_infinite"] = m.hd95_infinite;
    j["hd95_undefined"] = m.hd95_undefined;
  }
  j["volume_difference_mm3"] = m.volume_difference_mm3;
  return j;
}

struct LesionTotals {
  size_t reference = 0, found = 0, false_positive = 0;
};

LesionTotals total(const Evaluation& e, size_t criterion) {
  LesionTotals t;
  for (const CaseMetrics& c : e.cases) {
    t.reference += c.lesions[criterion].reference.size();
    t.found += size_t(c.lesions[criterion].found());
    t.false_positive += c.lesions[criterion].false_positives.size();
  }
  return t;
}

Json lesion_totals(const Evaluation& e) {
  Json out = Json::object();
  for (size_t i = 0; i < e.options.lesions.size(); ++i) {
    const LesionTotals t = total(e, i);
    out[e.options.lesions[i].region.name] = {
        {"reference", t.reference},
        {"found", t.found},
        {"false_positive", t.false_positive},
        {"found_fraction", t.reference ? Json(double(t.found) / double(t.reference)) : Json(nullptr)}};
  }
  return out;
}

// Means over regions of the means over cases, as nnU-Net's foreground_mean: NaN if one of them is.
Json foreground_mean(const std::vector<RegionMeans>& means) {
  RegionMeans sum;
  sum.surface_dice_nan = sum.surface_dice_one = 0.0;
  for (const RegionMeans& m : means) {
    sum.dice_nan += m.dice_nan;
    sum.dice_one += m.dice_one;
    *sum.surface_dice_nan += m.surface_dice_nan.value_or(0);
    *sum.surface_dice_one += m.surface_dice_one.value_or(0);
  }
  const auto n = double(means.size());
  Json j{{"dice_nnunet", number(sum.dice_nan / n)}, {"dice_kits", number(sum.dice_one / n)}};
  if (means[0].surface_dice_nan) {
    j["surface_dice_deepmind"] = number(*sum.surface_dice_nan / n);
    j["surface_dice_kits"] = number(*sum.surface_dice_one / n);
  }
  return j;
}

void print_line(const std::string& head, const std::vector<std::string>& cells) {
  std::printf("%-24.24s", head.c_str());
  for (const std::string& c : cells) std::printf(" %15.15s", c.c_str());
  std::printf("\n");
}

std::string cell(double v, int digits) {
  if (std::isnan(v)) return "-";
  char text[48];
  std::snprintf(text, sizeof text, "%.*f", digits, v);
  return text;
}

// A title, one line a case with one figure a region, and lines below.
template <class Figure>
void print_block(const Evaluation& e, const std::string& title, int digits, Figure&& figure) {
  std::vector<std::string> names;
  for (const LabelSet& r : e.options.regions) names.push_back(r.name);
  print_line(title, names);
  for (size_t i = 0; i < e.cases.size(); ++i) {
    std::vector<std::string> cells;
    for (const RegionMetrics& m : e.cases[i].regions) cells.push_back(cell(figure(m), digits));
    print_line(e.case_ids[i], cells);
  }
}

template <class Figure>
void print_means(const std::vector<RegionMeans>& means, const std::string& title, int digits,
                 Figure&& figure) {
  std::vector<std::string> cells;
  for (const RegionMeans& m : means) cells.push_back(cell(figure(m), digits));
  print_line(title, cells);
}

void print_surfaces(const Evaluation& e, const std::vector<RegionMeans>& means) {
  if (!e.options.tolerances_mm.empty()) {
    std::printf("\n");
    print_block(e, "surface Dice", 4,
                [](const RegionMetrics& m) { return *m.surface_dice(BothEmpty::kNan); });
    print_means(means, "mean (nanmean)", 4, [](const RegionMeans& m) { return *m.surface_dice_nan; });
    print_means(means, "mean (KiTS, empty = 1)", 4, [](const RegionMeans& m) { return *m.surface_dice_one; });
  }
  std::printf("\n");
  print_block(e, "HD95, mm", 2, [](const RegionMetrics& m) { return *m.hd95_mm(BothEmpty::kNan); });
  print_means(means, "median of the finite", 2, [](const RegionMeans& m) { return *m.hd95_median_mm; });
  print_means(means, "infinite cases", 0, [](const RegionMeans& m) { return double(m.hd95_infinite); });
}

void print_lesions(const Evaluation& e) {
  for (size_t k = 0; k < e.options.lesions.size(); ++k) {
    std::printf("\n");
    print_line("lesions: " + e.options.lesions[k].region.name, {"reference", "found", "false positive"});
    const auto line = [](const std::string& head, const LesionTotals& t) {
      print_line(head,
                 {std::to_string(t.reference), std::to_string(t.found), std::to_string(t.false_positive)});
    };
    for (size_t i = 0; i < e.cases.size(); ++i) {
      const LesionDetection& d = e.cases[i].lesions[k];
      line(e.case_ids[i], {d.reference.size(), size_t(d.found()), d.false_positives.size()});
    }
    line("all cases", total(e, k));
  }
}

}  // namespace

Json to_json(const Evaluation& e) {
  const std::vector<RegionMeans> means = mean_over_cases(e.cases);
  Json sets = Json::object(), mean = Json::object(), cases = Json::array(), definitions = Json::object();
  for (size_t r = 0; r < means.size(); ++r) {
    sets[e.options.regions[r].name] = e.options.regions[r].labels;
    mean[e.options.regions[r].name] = to_json(means[r]);
  }
  for (size_t i = 0; i < e.cases.size(); ++i) {
    Json regions = Json::object();
    for (size_t r = 0; r < means.size(); ++r)
      regions[e.options.regions[r].name] = to_json(e.cases[i].regions[r]);
    Json one{{"id", e.case_ids[i]}, {"regions", regions}};
    for (size_t k = 0; k < e.options.lesions.size(); ++k)
      one["lesions"][e.options.lesions[k].region.name] = to_json(e.cases[i].lesions[k]);
    cases.push_back(std::move(one));
  }
  for (const auto& [name, sentence] : e.options.definitions()) definitions[name] = sentence;
  Json out{{"definition", "Dice = 2|P n R| / (|P| + |R|) per region and case; mean over cases"},
           {"definitions", definitions},
           {"both_empty",
            {{"dice_nnunet", "undefined: null, left out of means"},
             {"dice_kits", "1"},
             {"surface_dice_deepmind", "undefined: null, left out of means"},
             {"surface_dice_kits", "1"}}},
           {"regions", sets}};
  if (!e.preset.empty()) out["preset"] = {{"name", e.preset}, {"source", e.preset_source}};
  out["cases"] = std::move(cases);
  out["mean"] = std::move(mean);
  out["foreground_mean"] = foreground_mean(means);
  if (!e.options.lesions.empty()) out["lesions"] = lesion_totals(e);
  return out;
}

void print_table(const Evaluation& e) {
  const std::vector<RegionMeans> means = mean_over_cases(e.cases);
  print_block(e, "Dice", 4, [](const RegionMetrics& m) { return m.overlap.dice(BothEmpty::kNan); });
  print_means(means, "mean (nnU-Net, nanmean)", 4, [](const RegionMeans& m) { return m.dice_nan; });
  print_means(means, "mean (KiTS, empty = 1)", 4, [](const RegionMeans& m) { return m.dice_one; });
  if (e.options.surface) print_surfaces(e, means);
  std::printf("\n");
  print_block(e, "volume difference, mm3", 0,
              [](const RegionMetrics& m) { return m.volume_difference_mm3(); });
  print_means(means, "mean", 0, [](const RegionMeans& m) { return m.volume_difference_mm3; });
  print_lesions(e);
  std::printf("\n");
  for (const auto& [name, sentence] : e.options.definitions())
    std::printf("%s: %s\n", name.c_str(), sentence.c_str());
}

}  // namespace isoline::cli
