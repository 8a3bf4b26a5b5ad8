#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <set>

#include "cli.h"
#include "isoline/base/progress.h"
#include "isoline/io/nifti.h"
#include "isoline/metrics/overlap.h"
#include "isoline/model/load_model.h"

namespace isoline::cli {
namespace {

namespace fs = std::filesystem;

struct Options {
  Output output;
  std::string prediction, reference, model, regions;
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

Json number(double v) {
  return std::isnan(v) ? Json(nullptr) : Json(v);
}

Status evaluate(const Options& o) {
  ThreadPool pool(o.threads);
  ISOLINE_ASSIGN(const std::vector<Pair> pairs, find_pairs(o));
  ReaderKind reader = ReaderKind::kSimpleItk;
  std::vector<LabelSet> regions;
  std::optional<int> ignore;
  if (o.ignore_label >= 0) ignore = o.ignore_label;
  if (!o.regions.empty()) {
    ISOLINE_ASSIGN(regions, parse_regions(o.regions));
  }
  if (!o.model.empty()) {
    ISOLINE_ASSIGN(const LoadedModel model, load_model(o.model, {}));
    reader = model.spec.reader;
    if (!ignore) ignore = model.spec.labels.ignore_label;
    if (regions.empty())
      for (const Region& r : model.spec.labels.foreground) regions.push_back({r.name, r.labels});
  }
  if (regions.empty()) {  // every label that occurs in a reference
    std::set<int> present;
    for (const Pair& p : pairs) {
      ISOLINE_ASSIGN(const LabelMap reference, read_labels(p.reference, reader, {}, pool));
      for (int l : labels_present(reference, pool))
        if (l && l != ignore) present.insert(l);
    }
    for (int l : present) regions.push_back({std::to_string(l), {l}});
    if (regions.empty())
      return Error{ErrorCode::kInvalidArgument, "the references hold background only", o.reference,
                   "Name regions with --regions or a model with -m."};
  }
  std::vector<std::vector<OverlapCounts>> counts;
  Json cases = Json::array();
  {
    Progress bar("evaluate", int64_t(pairs.size()), o.output.progress() && pairs.size() > 1);
    for (const Pair& p : pairs) {
      if (interrupted()) return Error{ErrorCode::kCancelled, "interrupted", "", ""};
      ISOLINE_ASSIGN(const LabelMap reference, read_labels(p.reference, reader, {}, pool));
      ISOLINE_ASSIGN(const LabelMap prediction, read_labels(p.prediction, reader, {}, pool));
      for (size_t a = 0; a < 3; ++a)
        if (reference.shape[a] == prediction.shape[a] &&
            std::abs(reference.geometry.spacing_mm[a] - prediction.geometry.spacing_mm[a]) > 1e-3)
          return Error{ErrorCode::kInvalidArgument, "its spacing is not that of " + p.reference, p.prediction,
                       "Compare labels on the same grid."};
      auto overlaps = count_overlaps(reference, prediction, regions, ignore, pool);
      if (!overlaps.ok()) return overlaps.error().in(p.prediction);
      Json per_region = Json::object();
      for (size_t r = 0; r < regions.size(); ++r) {
        const OverlapCounts& c = (*overlaps)[r];
        per_region[regions[r].name] = {{"dice_nnunet", number(c.dice(BothEmpty::kNan))},
                                       {"dice_kits", c.dice(BothEmpty::kOne)},
                                       {"reference_voxels", c.reference_voxels()},
                                       {"predicted_voxels", c.predicted_voxels()}};
      }
      cases.push_back({{"id", p.id}, {"regions", per_region}});
      counts.push_back(std::move(overlaps).value());
      bar.advance();
    }
  }
  const OverlapMeans means = mean_overlaps(counts, {});
  Json mean = Json::object();
  for (size_t r = 0; r < regions.size(); ++r)
    mean[regions[r].name] = {{"dice_nnunet", number(means.dice_nan[r])},
                             {"dice_kits", number(means.dice_one[r])}};
  if (o.output.json) {
    Json sets = Json::object();
    for (const LabelSet& r : regions) sets[r.name] = r.labels;
    print({{"definition", "Dice = 2|P n R| / (|P| + |R|) per region and case; mean over cases"},
           {"both_empty", {{"dice_nnunet", "undefined: null, left out of means"}, {"dice_kits", "1"}}},
           {"regions", sets},
           {"cases", cases},
           {"mean", mean},
           {"foreground_mean",
            {{"dice_nnunet", number(means.foreground_dice_nan)},
             {"dice_kits", number(means.foreground_dice_one)}}}});
    return {};
  }
  if (o.output.quiet) return {};
  std::printf("%-24s", "case");
  for (const LabelSet& r : regions) std::printf(" %12.12s", r.name.c_str());
  std::printf("\n");
  for (size_t i = 0; i < counts.size(); ++i) {
    std::printf("%-24.24s", pairs[i].id.c_str());
    for (const OverlapCounts& c : counts[i]) std::printf(" %12.4f", c.dice(BothEmpty::kNan));
    std::printf("\n");
  }
  std::printf("%-24s", "mean (nnU-Net, nanmean)");
  for (double d : means.dice_nan) std::printf(" %12.4f", d);
  std::printf("\n%-24s", "mean (KiTS, empty = 1)");
  for (double d : means.dice_one) std::printf(" %12.4f", d);
  std::printf("\n");
  return {};
}

}  // namespace

Action add_evaluate(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("-p,--prediction", o->prediction, "Predicted labels: a file or a folder")->required();
  app.add_option("-r,--reference", o->reference, "Reference labels: a file or a folder with the same names")
      ->required();
  app.add_option("-m,--model", o->model, "Take regions, reader and ignore label from this model");
  app.add_option("--regions", o->regions, "Regions as name=label,label;name=label");
  app.add_option("--ignore-label", o->ignore_label, "Reference label that counts nowhere");
  app.add_option("--threads", o->threads, "Default: one per core")->check(CLI::Range(0, 1024));
  add_output_options(app, o->output);
  return [o]() -> Status { return evaluate(*o); };
}

}  // namespace isoline::cli
