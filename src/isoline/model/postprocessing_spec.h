// postprocessing.pkl: what nnU-Net's determine_postprocessing found worth doing to label maps.
#pragma once

#include <string>
#include <vector>

#include "isoline/base/result.h"

namespace isoline {

// One remove_all_but_largest_component_from_segmentation call: of the voxels whose label is in `labels`, all
// but the largest connected component get `background_label`.
struct KeepLargestComponent {
  std::vector<int> labels;  // sorted, unique; the union of the labels and regions the call names
  int background_label = 0;
};

// To be applied in this order.
struct PostprocessingSpec {
  std::vector<KeepLargestComponent> steps;
};

// Reads the pickle with the restricted unpickler: (list of functions, list of keyword arguments). Functions
// are names only; any other than the one above is kUnsupported with its name, as is an unknown argument.
// Source: nnunetv2 postprocessing/remove_connected_components.py (determine_postprocessing,
// apply_postprocessing).
Result<PostprocessingSpec> load_postprocessing(const std::string& path);

}  // namespace isoline
