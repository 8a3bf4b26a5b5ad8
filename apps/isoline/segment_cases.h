// The loop over cases that `segment` and `predict` share: progress, per-case errors, table and JSON.
#pragma once

#include <string>
#include <vector>

#include "cli.h"
#include "isoline/backends/registry/registry.h"
#include "isoline/pipeline/segment_case.h"

namespace isoline::cli {

struct RunSettings {
  std::string model_folder, backend = "auto", checkpoint = "checkpoint_final.pth", precision = "fp32";
  std::vector<std::string> folds;  // empty: all there are
  double step = 0.5;
  std::string tta = "all";  // all | none | comma-separated axes
  int threads = 0;
  uint64_t max_ram_bytes = 0;
  uint64_t max_vram_bytes = 0;
  int batch = 0;
  std::string autotune = "same-bits";
  bool cpu_only = false;  // `auto` passes over GPUs
  bool save_probabilities = false;
  bool save_properties = false;      // also nnU-Net's CASE.pkl, beside the probabilities
  bool continue_prediction = false;  // skip cases whose output exists
  std::string postprocessing_file;
  std::string profile_file;  // not empty: times by stage and layer, and a Chrome trace there
  // Read the next case and write the last one while one is segmented: auto (where a GPU does that) | on |
  // off.
  std::string overlap = "auto";
};

// Loads the model, picks the backend and opens a Segmenter; prints warnings to standard error unless quiet.
struct OpenedModel {
  std::unique_ptr<BackendRegistry> registry;
  std::unique_ptr<Segmenter> segmenter;
  const Backend* backend = nullptr;
  double load_s = 0;
};
Result<OpenedModel> open_model(const RunSettings& settings, const Output& output);

// As isoline::parse_precision(); the error names the option.
Result<Precision> parse_precision(const std::string& text);

// Runs all cases. A failing case is reported and the others go on; the first error is returned at the end.
Status run_cases(OpenedModel& model, const std::vector<CaseFiles>& cases, const RunSettings& settings,
                 const Output& output);

}  // namespace isoline::cli
