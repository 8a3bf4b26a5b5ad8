// Which files make up which case.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "isoline/base/result.h"

namespace isoline {

// One scan to segment and where its labels go.
struct CaseFiles {
  std::string id;                   // file name without channel suffix and ending
  std::vector<std::string> images;  // one per channel, in channel order
  std::string output;               // path of the label map
  std::string previous_stage;       // cascades: path of the previous stage's labels; else empty
};

// Files of `folder` ending with `file_ending`, grouped as nnU-Net does: CASE_0000<ending>, CASE_0001<ending>,
// ... (nnunetv2 create_lists_from_splitted_dataset_folder). Sorted by case. A file without the four digits is
// an error that names it. Outputs and previous-stage files are CASE<ending> in their folders.
Result<std::vector<CaseFiles>> cases_in_folder(const std::string& folder, const std::string& file_ending,
                                               const std::string& output_folder,
                                               const std::string& previous_stage_folder);

// The same, but a single-channel model may also be given plain names (scan.nii.gz): then every file is a
// case.
Result<std::vector<CaseFiles>> cases_from_input(const std::vector<std::string>& inputs, int channels,
                                                const std::string& file_ending, const std::string& output,
                                                const std::string& previous_stage);

}  // namespace isoline
