// Models for whole scans in a folder of models: nnU-Net results folders and ONNX bundles.
//
//   ROOT/<model>/dataset.json, plans.json, fold_*    or isoline.json and its ONNX file
//   ROOT/<model>/<version>/...                       the highest version counts
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/model/model_spec.h"

namespace isoline::jobs {

struct VolumeModel {
  std::string name;
  int64_t version = 1;
  std::string folder;          // of the version
  ModelSpec spec;              // without weights; meaningful if there is no error
  std::optional<Error> error;  // why it cannot be used
};

// Whether a folder, or one of its version folders, looks like such a model.
bool is_volume_model(const std::string& folder);
// All of them, by name; links are not followed. Only the root itself can fail.
Result<std::vector<VolumeModel>> find_volume_models(const std::string& root);

}  // namespace isoline::jobs
