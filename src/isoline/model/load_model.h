// The one entry to models on disk.
#pragma once

#include <string>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/model/model_spec.h"
#include "isoline/model/weights.h"

namespace isoline {

struct LoadOptions {
  // "0", "1", ... or "all", in the order their predictions are to be averaged. Empty: every fold_<number>
  // that holds the checkpoint, in the order of their names (never fold_all), as
  // nnUNetPredictor.auto_detect_available_folds.
  std::vector<std::string> folds;
  std::string checkpoint_name = "checkpoint_final.pth";
};

struct LoadedModel {
  ModelSpec spec;
  std::vector<Weights> folds;         // one per spec.folds; empty for ONNX bundles
  std::vector<std::string> warnings;  // one sentence each; for the user to see
};

// `path`: an official nnU-Net results folder (plans.json, dataset.json, fold_*/<checkpoint>), an ONNX bundle
// (a folder with isoline.json), or the .onnx file of such a bundle. Trainer, configuration and mirror axes
// come from the first fold's checkpoint. No weight is converted; see read_checkpoint for ownership and
// errors. Source: predict_from_raw_data.py (initialize_from_trained_model_folder).
Result<LoadedModel> load_model(const std::string& path, const LoadOptions& options = {});

}  // namespace isoline
