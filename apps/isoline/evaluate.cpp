#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <set>

#include "cli.h"
#include "evaluate_output.h"
#include "isoline/base/progress.h"
#include "isoline/io/nifti.h"
#include "isoline/metrics/evaluate_case.h"
#include "isoline/metrics/presets.h"
#include "isoline/model/load_model.h"
#include "isoline/volume/same_grid.h"

namespace isoline::cli {
namespace {

namespace fs = std::filesystem;

struct Options {
  Output output;
  std::string prediction, reference, model, regions, preset, tolerances;
  std::vector<std::string> lesions;
  double min_lesion_mm3 = 0, min_covered = 0;
  bool surface = false, ignore_origin = false;
  int ignore_label = -1, threads = 0;
};

struct Pair {
  std::string id, prediction, reference;
};

bool is_nifti(const std::string& name) {
  return name.ends_with(".nii.gz") || name.ends_with(".nii");
}
std::string case_id(const std::string& path) {
  std::string name = fs::path(path).filename().string();
  for (const std::string ending : {".nii.gz", ".nii"})
    if (name.ends_with(ending)) return name.substr(0, name.size() - ending.size());
  return name;
}

// Every reference must have a prediction of the same name; nothing is quietly left out.
Result<std::vector<Pair>> find_pairs(const Options& o) {
  std::error_code ec;
  const bool folders = fs::is_directory(o.reference, ec);
  if (folders != fs::is_directory(o.prediction, ec))
    return Error{ErrorCode::kInvalidArgument, "give two files or two folders", "-p, -r", ""};
  if (!folders) return std::vector<Pair>{{case_id(o.reference), o.prediction, o.reference}};
  std::vector<Pair> pairs;
  for (fs::directory_iterator it(o.reference, ec), end; !ec && it != end; it.increment(ec)) {
    const std::string name = it->path().filename().string();
    if (!is_nifti(name)) continue;
    const std::string prediction = (fs::path(o.prediction) / name).string();
    if (!fs::exists(prediction))
      return Error{ErrorCode::kNotFound, "this reference has no prediction in " + o.prediction,
                   it->path().string(), "Segment the case or remove the reference."};
    pairs.push_back({case_id(name), prediction, it->path().string()});
  }
  if (ec) return Error{ErrorCode::kIo, "cannot list the folder: " + ec.message(), o.reference, ""};
  if (pairs.empty()) return Error{ErrorCode::kNotFound, "no .nii or .nii.gz file here", o.reference, ""};
  std::sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) { return a.id < b.id; });
  return pairs;
}

// "kidney=1,2,3;tumour=2" -> regions.
Result<std::vector<LabelSet>> parse_regions(const std::string& text) {
  std::vector<LabelSet> out;
  size_t at = 0;
  while (at <= text.size()) {
    const size_t end = std::min(text.find(';', at), text.size());
    const std::string part = text.substr(at, end - at);
    at = end + 1;
    if (part.empty()) continue;
    const size_t eq = part.find('=');
    LabelSet region{part.substr(0, eq), {}};
    for (const std::string& label :
         eq == std::string::npos ? std::vector<std::string>{} : split_commas(part.substr(eq + 1))) {
      char* stop = nullptr;
      const long value = std::strtol(label.c_str(), &stop, 10);
      if (*stop || value < 0 || value > 65535)
        region.labels.clear();
      else
        region.labels.push_back(int(value));
    }
    if (region.name.empty() || region.labels.empty())
      return Error{ErrorCode::kInvalidArgument, "'" + part + "' is no region", "--regions",
                   "Write name=label,label;name=label."};
    out.push_back(std::move(region));
  }
  return out;
}

// "1" or "1,2,0.5" -> millimetres.
Result<std::vector<double>> parse_tolerances(const std::string& text) {
  std::vector<double> out;
  for (const std::string& part : split_commas(text)) {
    char* stop = nullptr;
    out.push_back(std::strtod(part.c_str(), &stop));
    if (*stop || !std::isfinite(out.back()) || out.back() < 0)
      return Error{ErrorCode::kInvalidArgument, "'" + part + "' is no distance in mm", "--tolerance-mm",
                   "Give one number of 0 or more for all regions, or one each: 1.0 or 1.03,1.13,1.15."};
  }
  return out;
}

// The region that --lesions names: one of those evaluated, or a label.
Result<LabelSet> find_region(const std::string& name, const std::vector<LabelSet>& regions) {
  std::string known;
  for (const LabelSet& r : regions) {
    if (r.name == name) return r;
    known += (known.empty() ? "" : ", ") + r.name;
  }
  return Error{ErrorCode::kInvalidArgument, "'" + name + "' is no region of this evaluation", "--lesions",
               "Regions: " + known + "."};
}

// Where labels and regions come from, and how the files are read.
struct Setup {
  Evaluation evaluation;
  ReaderKind reader = ReaderKind::kSimpleItk;
};

// Every label that occurs in a reference.
Result<std::vector<LabelSet>> regions_of_references(const Options& o, const std::vector<Pair>& pairs,
                                                    const Setup& setup, ThreadPool& pool) {
  std::set<int> present;
  for (const Pair& p : pairs) {
    if (interrupted()) return Error{ErrorCode::kCancelled, "interrupted", "", ""};
    ISOLINE_ASSIGN(const LabelMap reference, read_labels(p.reference, setup.reader, {}, pool));
    for (int l : labels_present(reference, pool))
      if (l && l != setup.evaluation.options.ignore_label) present.insert(l);
  }
  if (present.empty())
    return Error{ErrorCode::kInvalidArgument, "the references hold background only", o.reference,
                 "Name regions with --regions, --preset or a model with -m."};
  std::vector<LabelSet> regions;
  for (int l : present) regions.push_back({std::to_string(l), {l}});
  return regions;
}

// Regions: of --preset or --regions, else of the model, else of the references.
Result<Setup> set_up(const Options& o, const std::vector<Pair>& pairs, ThreadPool& pool) {
  Setup setup;
  EvaluationOptions& e = setup.evaluation.options;
  if (o.ignore_label >= 0) e.ignore_label = o.ignore_label;
  e.surface = o.surface || !o.preset.empty() || !o.tolerances.empty();
  if (!o.preset.empty()) {
    ISOLINE_ASSIGN(EvaluationPreset preset, find_evaluation_preset(o.preset));
    e.regions = std::move(preset.regions);
    e.tolerances_mm = std::move(preset.tolerances_mm);
    setup.evaluation.preset = preset.name;
    setup.evaluation.preset_source = preset.source;
  }
  if (!o.regions.empty()) {
    ISOLINE_ASSIGN(e.regions, parse_regions(o.regions));
  }
  if (!o.tolerances.empty()) {
    ISOLINE_ASSIGN(e.tolerances_mm, parse_tolerances(o.tolerances));
  }
  if (!o.model.empty()) {
    ISOLINE_ASSIGN(const LoadedModel model, load_model(o.model, {}));
    setup.reader = model.spec.reader;
    if (!e.ignore_label) e.ignore_label = model.spec.labels.ignore_label;
    if (e.regions.empty())
      for (const Region& r : model.spec.labels.foreground) e.regions.push_back({r.name, r.labels});
  }
  if (e.regions.empty()) {
    ISOLINE_ASSIGN(e.regions, regions_of_references(o, pairs, setup, pool));
  }
  for (const std::string& name : o.lesions) {
    ISOLINE_ASSIGN(LabelSet region, find_region(name, e.regions));
    e.lesions.push_back({std::move(region), o.min_lesion_mm3, o.min_covered});
  }
  ISOLINE_RETURN_IF_ERROR(e.validate());
  return setup;
}

Result<CaseMetrics> evaluate_pair(const Pair& p, const Setup& setup, const GridTolerance& grid,
                                  ThreadPool& pool) {
  ISOLINE_ASSIGN(const LabelMap reference, read_labels(p.reference, setup.reader, {}, pool));
  ISOLINE_ASSIGN(const LabelMap prediction, read_labels(p.prediction, setup.reader, {}, pool));
  ISOLINE_RETURN_IF_ERROR(same_grid(reference, prediction, p.reference, p.prediction, grid));
  auto metrics = evaluate_case(reference, prediction, setup.evaluation.options, pool);
  if (!metrics.ok()) return metrics.error().in(p.prediction);
  return metrics;
}

Status evaluate(const Options& o) {
  ThreadPool pool(o.threads);
  ISOLINE_ASSIGN(const std::vector<Pair> pairs, find_pairs(o));
  ISOLINE_ASSIGN(Setup setup, set_up(o, pairs, pool));
  GridTolerance grid;
  grid.origin_and_direction = !o.ignore_origin;
  Evaluation& evaluation = setup.evaluation;
  {
    Progress bar("evaluate", int64_t(pairs.size()), o.output.progress() && pairs.size() > 1);
    for (const Pair& p : pairs) {
      if (interrupted()) return Error{ErrorCode::kCancelled, "interrupted", "", ""};
      ISOLINE_ASSIGN(CaseMetrics metrics, evaluate_pair(p, setup, grid, pool));
      evaluation.case_ids.push_back(p.id);
      evaluation.cases.push_back(std::move(metrics));
      bar.advance();
    }
  }
  if (o.output.json)
    print(to_json(evaluation));
  else if (!o.output.quiet)
    print_table(evaluation);
  return {};
}

}  // namespace

Action add_evaluate(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("-p,--prediction", o->prediction, "Predicted labels: a file or a folder")->required();
  app.add_option("-r,--reference", o->reference, "Reference labels: a file or a folder with the same names")
      ->required();
  app.add_option("-m,--model", o->model, "Take regions, reader and ignore label from this model");
  CLI::Option* regions = app.add_option("--regions", o->regions, "Regions as name=label,label;name=label");
  app.add_option("--preset", o->preset,
                 "kits23: regions and tolerances of that challenge, with surface distances")
      ->excludes(regions);
  app.add_flag("--surface", o->surface, "Surface distances too: HD95 and average distance");
  app.add_option("--tolerance-mm", o->tolerances,
                 "Surface Dice at this tolerance, or at one per region (1,2,0.5); implies --surface");
  app.add_option("--lesions", o->lesions,
                 "Count the lesions of this region, found and false; may be repeated");
  app.add_option("--min-lesion-mm3", o->min_lesion_mm3, "Smaller components are no lesions")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--min-covered", o->min_covered,
                 "Fraction of a lesion that must be covered to count as found; default any voxel")
      ->check(CLI::Range(0.0, 1.0));
  app.add_flag("--ignore-origin", o->ignore_origin, "Compare shape and spacing of the files only");
  app.add_option("--ignore-label", o->ignore_label, "Reference label that counts nowhere")
      ->check(CLI::Range(0, 65535));
  app.add_option("--threads", o->threads, "Default: one per core")->check(CLI::Range(0, 1024));
  add_output_options(app, o->output);
  return [o]() -> Status { return evaluate(*o); };
}

}  // namespace isoline::cli
