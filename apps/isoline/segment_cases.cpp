#include "segment_cases.h"

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iostream>

#include "isoline/base/progress.h"
#include "isoline/base/resources.h"

namespace isoline::cli {
namespace {

// CASE.nii.gz -> CASE<ending>.
std::string beside(const std::string& output, const std::string& new_ending) {
  std::string stem = output;
  for (const std::string ending : {".nii.gz", ".nii"})
    if (stem.size() > ending.size() &&
        stem.compare(stem.size() - ending.size(), ending.size(), ending) == 0) {
      stem.resize(stem.size() - ending.size());
      break;
    }
  return stem + new_ending;
}

Json shape_json(const Shape3& s) {
  return Json::array({s[0], s[1], s[2]});
}

Json case_json(const CaseFiles& files, const CaseResult& r) {
  const Segmentation& s = r.segmentation;
  const StageTimes& t = s.times;
  Json voxels = Json::object();
  for (size_t l = 0; l < r.label_voxels.size(); ++l)
    if (r.label_voxels[l]) voxels[std::to_string(l)] = r.label_voxels[l];
  return {{"id", files.id},
          {"images", files.images},
          {"output", files.output},
          {"shape_zyx", shape_json(r.shape)},
          {"spacing_zyx_mm", Json::array({r.spacing_mm[0], r.spacing_mm[1], r.spacing_mm[2]})},
          {"network_shape_zyx", shape_json(s.network_shape)},
          {"stages_s",
           {{"read", t.read_s},
            {"preprocess", t.preprocess_s},
            {"network", t.network_s},
            {"export", t.export_s},
            {"write", t.write_s}}},
          {"total_s", r.total_s},
          {"windows", s.windows},
          {"forwards", s.forwards},
          {"s_per_forward", s.forwards ? Json(t.network_s / double(s.forwards)) : Json(nullptr)},
          {"label_voxels", voxels},
          {"warnings", r.warnings}};
}

void print_table(const std::vector<std::pair<CaseFiles, CaseResult>>& done, const std::string& device) {
  if (done.empty()) return;
  std::printf("%-24s %8s %10s %9s %8s %7s %9s  %s\n", "case", "read s", "preproc s", "network s", "export s",
              "write s", "total s", "windows x mirrors x folds");
  for (const auto& [files, r] : done) {
    const Segmentation& s = r.segmentation;
    const StageTimes& t = s.times;
    std::printf("%-24.24s %8.2f %10.2f %9.2f %8.2f %7.2f %9.2f  %lld x %lld\n", files.id.c_str(), t.read_s,
                t.preprocess_s, t.network_s, t.export_s, t.write_s, r.total_s,
                static_cast<long long>(s.windows),
                static_cast<long long>(s.windows ? s.forwards / s.windows : 0));
  }
  std::printf("ran on %s; peak RSS %.0f MiB\n", device.c_str(), double(peak_rss_bytes()) / (1 << 20));
}

}  // namespace

Result<Precision> parse_precision(const std::string& text) {
  if (text == "fp32") return Precision::kFloat32;
  if (text == "bf16") return Precision::kBFloat16;
  if (text == "fp16") return Precision::kFloat16;
  return Error{ErrorCode::kInvalidArgument, "'" + text + "' is no precision", "--precision",
               "Use fp32, bf16 or fp16."};
}

Result<OpenedModel> open_model(const RunSettings& settings, const Output& output) {
  const auto start = std::chrono::steady_clock::now();
  OpenedModel out;
  out.registry = std::make_unique<BackendRegistry>(builtin_backends());
  SegmenterOptions options;
  ISOLINE_ASSIGN(options.precision, parse_precision(settings.precision));
  options.step = settings.step;
  options.threads = settings.threads;
  options.with_probabilities = settings.save_probabilities;
  options.max_ram_bytes = settings.max_ram_bytes;
  if (settings.tta == "none") {
    options.mirror_axes = std::vector<int>{};
  } else if (settings.tta != "all") {
    options.mirror_axes.emplace();
    for (const std::string& axis : split_commas(settings.tta)) {
      if (axis.size() != 1 || axis[0] < '0' || axis[0] > '2')
        return Error{ErrorCode::kInvalidArgument, "'" + axis + "' is no axis", "--tta",
                     "Use all, none or a list such as 0,1."};
      options.mirror_axes->push_back(axis[0] - '0');
    }
  }
  ISOLINE_ASSIGN(LoadedModel model, load_model(settings.model_folder, {settings.folds, settings.checkpoint}));
  if (!output.quiet)
    for (const std::string& w : model.warnings) std::cerr << "isoline: warning: " << w << "\n";

  // `auto` takes the first backend that supports the network; what it passes over is said.
  std::vector<const Backend*> candidates = out.registry->all();
  std::erase_if(candidates, [](const Backend* b) { return !b->available(); });
  if (settings.backend != "auto") {
    ISOLINE_ASSIGN(const Backend* named, out.registry->find(settings.backend));
    candidates = {named};
  }
  for (size_t i = 0; i < candidates.size(); ++i) {
    const bool last = i + 1 == candidates.size();
    auto segmenter = last ? Segmenter::create(std::move(model), *candidates[i], options)
                          : Segmenter::create(model, *candidates[i], options);
    if (segmenter.ok()) {
      out.segmenter = std::make_unique<Segmenter>(std::move(segmenter).value());
      out.backend = candidates[i];
      break;
    }
    if (last || segmenter.error().code != ErrorCode::kUnsupported) return segmenter.error();
    std::cerr << "isoline: backend " << candidates[i]->name()
              << " passed over: " << segmenter.error().to_string() << "\n";
  }
  out.load_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return out;
}

Status run_cases(OpenedModel& model, const std::vector<CaseFiles>& cases, const RunSettings& settings,
                 const Output& output) {
  CaseOptions options;
  if (settings.max_ram_bytes) options.limits.max_bytes = settings.max_ram_bytes;
  PostprocessingSpec postprocessing;
  if (!settings.postprocessing_file.empty()) {
    ISOLINE_ASSIGN(postprocessing, load_postprocessing(settings.postprocessing_file));
    options.postprocessing = &postprocessing;
  }
  std::error_code ec;
  for (const CaseFiles& c : cases) {
    const auto parent = std::filesystem::path(c.output).parent_path();
    if (!parent.empty()) std::filesystem::create_directories(parent, ec);
    if (ec)
      return Error{ErrorCode::kIo, "cannot make the output folder: " + ec.message(), parent.string(),
                   "Choose a folder you may write to."};
  }
  std::vector<std::pair<CaseFiles, CaseResult>> done;
  Json results = Json::array(), failures = Json::array();
  std::optional<Error> first_error;
  for (size_t i = 0; i < cases.size(); ++i) {
    const CaseFiles& c = cases[i];
    if (settings.continue_prediction && std::filesystem::exists(c.output, ec) &&
        (!settings.save_probabilities || std::filesystem::exists(beside(c.output, ".npz"), ec))) {
      results.push_back({{"id", c.id}, {"output", c.output}, {"skipped", true}});
      continue;
    }
    if (settings.save_probabilities) options.probabilities_path = beside(c.output, ".npz");
    if (settings.save_properties) options.properties_path = beside(c.output, ".pkl");
    const std::string label =
        cases.size() > 1 ? "[" + std::to_string(i + 1) + "/" + std::to_string(cases.size()) + "] " + c.id
                         : c.id;
    std::unique_ptr<Progress> bar;
    const ProgressFunction progress = [&](int64_t n, int64_t total) {
      if (!bar) bar = std::make_unique<Progress>(label, total, output.progress());
      bar->set(n);
    };
    auto result = segment_case(*model.segmenter, c, options, progress, &interrupted());
    bar.reset();
    if (result.ok()) {
      for (const std::string& w : result->warnings)
        if (!output.quiet) std::cerr << "isoline: warning: " << c.id << ": " << w << "\n";
      results.push_back(case_json(c, *result));
      done.emplace_back(c, std::move(result).value());
      continue;
    }
    const Error error = result.error().in(c.id);
    if (!first_error) first_error = error;
    failures.push_back({{"id", c.id}, {"error", to_json(result.error())}});
    if (cases.size() > 1) std::cerr << "isoline: " << error.to_string() << "\n";
    if (error.code == ErrorCode::kCancelled) break;
  }
  const ModelSpec& spec = model.segmenter->spec();
  if (output.json) {
    print({{"version", ISOLINE_VERSION},
           {"model",
            {{"folder", settings.model_folder},
             {"dataset", spec.dataset_name},
             {"configuration", spec.configuration},
             {"trainer", spec.trainer_name},
             {"folds", spec.folds},
             {"patch_size", spec.patch_size},
             {"spacing_mm", spec.spacing_mm}}},
           {"settings",
            {{"backend", model.backend->name()},
             {"precision", settings.precision},
             {"step", settings.step},
             {"mirrors", model.segmenter->mirrors()},
             {"threads", model.segmenter->pool().threads()}}},
           {"ran_on", model.segmenter->session_description()},
           {"boundary",
            "read to written, file to file; stages_s.network includes cutting and adding up windows"},
           {"load_s", model.load_s},
           {"cases", results},
           {"failures", failures},
           {"peak_rss_bytes", peak_rss_bytes()}});
  } else if (!output.quiet) {
    print_table(done, model.segmenter->session_description());
  }
  if (first_error) return *first_error;
  return {};
}

}  // namespace isoline::cli
