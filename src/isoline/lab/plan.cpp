#include "isoline/lab/plan.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "isoline/io/nifti.h"
#include "isoline/lab/fingerprint.h"
#include "isoline/metrics/presets.h"
#include "isoline/model/load_model.h"
#include "isoline/stats/noninferiority.h"
#include "isoline/volume/same_grid.h"

namespace isoline::lab {
namespace {

namespace fs = std::filesystem;

// Regions in order of precedence: the experiment's own, its preset's, the model's.
Result<EvaluationOptions> evaluation_options(const Experiment& e, const ModelSpec& model) {
  EvaluationOptions out;
  out.ignore_label = model.labels.ignore_label;
  std::vector<std::optional<double>> tolerances;
  if (!e.preset.empty()) {
    ISOLINE_ASSIGN(const EvaluationPreset preset, find_evaluation_preset(e.preset));
    out.regions = preset.regions;
    tolerances.assign(preset.tolerances_mm.begin(), preset.tolerances_mm.end());
  } else if (!e.regions.empty()) {
    for (const RegionChoice& r : e.regions) {
      out.regions.push_back({r.name, r.labels});
      tolerances.push_back(r.tolerance_mm);
    }
  } else {
    for (const Region& r : model.labels.foreground) out.regions.push_back({r.name, r.labels});
  }
  tolerances.resize(out.regions.size());
  size_t known = 0;
  for (auto& t : tolerances) {
    if (!t) t = e.surface_tolerance_mm;
    known += t.has_value();
  }
  if (known && known < tolerances.size())
    return Error{ErrorCode::kInvalidArgument, "some regions have a tolerance_mm and some have none", e.file,
                 "Give every region one, or quality.surface_tolerance_mm for all."};
  out.surface = known > 0;
  if (known)
    for (const auto& t : tolerances) out.tolerances_mm.push_back(*t);
  if (!e.lesion_region.empty()) {
    const auto region = std::find_if(out.regions.begin(), out.regions.end(),
                                     [&](const LabelSet& r) { return r.name == e.lesion_region; });
    if (region == out.regions.end())
      return Error{ErrorCode::kInvalidArgument, "quality.lesions names no region: '" + e.lesion_region + "'",
                   e.file, ""};
    LesionCriterion criterion;
    criterion.region = *region;
    criterion.min_volume_mm3 = e.lesion_min_mm3;
    out.lesions.push_back(criterion);
  }
  ISOLINE_RETURN_IF_ERROR(out.validate());
  for (const Endpoint& endpoint : e.endpoints) {
    std::string names;
    bool found = false;
    for (const LabelSet& r : out.regions) {
      names += (names.empty() ? "" : ", ") + r.name;
      found = found || r.name == endpoint.region;
    }
    if (!found)
      return Error{ErrorCode::kInvalidArgument,
                   "an endpoint names region '" + endpoint.region + "', which does not exist", e.file,
                   "There are: " + names + "."};
    if (endpoint.metric == "surface_dice" && !out.surface)
      return Error{ErrorCode::kInvalidArgument,
                   "an endpoint asks for surface_dice, but there is no tolerance in mm", e.file,
                   "Set quality.surface_tolerance_mm, quality.region.tolerance_mm or a preset."};
  }
  return out;
}

Result<std::vector<PlannedCase>> pair_cases(const Experiment& e, const ModelSpec& model) {
  for (const std::string& folder : {e.images, e.references}) {
    std::error_code ec;
    if (!fs::is_directory(folder, ec)) return Error{ErrorCode::kNotFound, "no such folder", folder, ""};
  }
  ISOLINE_ASSIGN(const std::vector<CaseFiles> found,
                 cases_from_input({e.images}, int(model.channels.size()), model.file_ending, "", ""));
  std::set<std::string> wanted(e.only.begin(), e.only.end());
  std::vector<PlannedCase> out;
  for (const CaseFiles& files : found) {
    if (!e.only.empty() && !wanted.erase(files.id)) continue;
    PlannedCase c{files, (fs::path(e.references) / (files.id + model.file_ending)).string(), ""};
    c.files.output.clear();
    std::error_code ec;
    if (!fs::exists(c.reference, ec))
      return Error{ErrorCode::kNotFound, "case '" + files.id + "' has no reference", c.reference,
                   "Add it, or list the cases to use in cases.only."};
    out.push_back(std::move(c));
  }
  if (!wanted.empty())
    return Error{ErrorCode::kNotFound,
                 "cases.only names '" + *wanted.begin() + "', for which there is no scan", e.images, ""};
  if (out.empty()) return Error{ErrorCode::kNotFound, "no case is left to run", e.images, ""};
  std::sort(out.begin(), out.end(),
            [](const PlannedCase& a, const PlannedCase& b) { return a.files.id < b.files.id; });
  return out;
}

// Reads scan and reference as a run would, so that hours later nothing is found to be unreadable.
Status check_case(PlannedCase& c, ReaderKind reader, ThreadPool& pool) {
  ISOLINE_ASSIGN(const Scan scan, read_case(c.files.images, reader, {}, pool));
  ISOLINE_ASSIGN(const LabelMap reference, read_labels(c.reference, reader, {}, pool));
  ISOLINE_RETURN_IF_ERROR(same_grid(scan.image, reference, c.files.images[0], c.reference));
  std::string list;
  for (const std::string& image : c.files.images) {
    ISOLINE_ASSIGN(const std::string sha, sha256_of_file(image));
    list += sha + "\n";
  }
  ISOLINE_ASSIGN(const std::string sha, sha256_of_file(c.reference));
  c.sha256 = sha256_of_text(list + sha + "\n");
  return {};
}

std::string registered_part(const Plan& plan) {
  using Json = nlohmann::json;  // keys sorted: the same text for the same content
  const Experiment& e = plan.experiment;
  Json json;
  json["experiment"] = e.id;
  json["baseline"] = e.baseline;
  json["baseline_values"] = plan.setting(e.baseline).values();
  for (const Endpoint& p : e.endpoints) json["endpoints"][p.metric + "/" + p.region]["delta"] = p.delta;
  for (size_t r = 0; r < plan.evaluation.regions.size(); ++r) {
    Json& region = json["regions"][plan.evaluation.regions[r].name];
    region["labels"] = plan.evaluation.regions[r].labels;
    if (const auto t = plan.evaluation.tolerance_mm(r)) region["tolerance_mm"] = *t;
  }
  json["rule"] =
      "preserved: one-sided 95 % lower bound of the mean paired difference above -delta for every endpoint, "
      "with at least " +
      std::to_string(kMinimumCases) + " cases; bound: " + bound_method();
  for (const PlannedCase& c : plan.cases) json["cases"].push_back(c.files.id);
  json["cases_sha256"] = plan.cases_sha256;
  json["model_sha256"] = plan.model_sha256;
  return json.dump(1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

const Setting& Plan::setting(const std::string& name) const {
  return *std::find_if(experiment.settings.begin(), experiment.settings.end(),
                       [&](const Setting& s) { return s.name == name; });
}

Result<Plan> make_plan(Experiment experiment, ThreadPool& pool, const PlanProgress& progress) {
  Plan plan;
  plan.experiment = std::move(experiment);
  const Experiment& e = plan.experiment;
  std::set<std::string> folds;
  std::optional<ModelSpec> spec;
  std::set<std::vector<std::string>> looked_up;
  for (const Setting& s : e.settings) {
    if (!s.not_run.empty() || (!looked_up.insert(s.folds).second && s.name != e.baseline)) continue;
    ISOLINE_ASSIGN(const LoadedModel model, load_model(e.model, {s.folds, e.checkpoint}));
    folds.insert(model.spec.folds.begin(), model.spec.folds.end());
    if (!spec || s.name == e.baseline) spec = model.spec;
  }
  plan.model_name = spec->dataset_name + " " + spec->configuration;
  plan.reader = spec->reader;
  plan.file_ending = spec->file_ending;
  ISOLINE_ASSIGN(plan.model_sha256, sha256_of_model(*spec, {folds.begin(), folds.end()}));
  ISOLINE_ASSIGN(plan.evaluation, evaluation_options(e, *spec));
  ISOLINE_ASSIGN(plan.cases, pair_cases(e, *spec));
  std::string list;
  for (size_t i = 0; i < plan.cases.size(); ++i) {
    ISOLINE_RETURN_IF_ERROR(check_case(plan.cases[i], plan.reader, pool));
    list += plan.cases[i].sha256 + "  " + plan.cases[i].files.id + "\n";
    if (progress) progress(int64_t(i) + 1, int64_t(plan.cases.size()));
  }
  plan.cases_sha256 = sha256_of_text(list);
  plan.registered = registered_part(plan);
  return plan;
}

}  // namespace isoline::lab
