// From files to files: one case through the whole pipeline.
#pragma once

#include "isoline/io/nifti.h"
#include "isoline/model/load_model.h"
#include "isoline/model/postprocessing_spec.h"
#include "isoline/pipeline/cases.h"
#include "isoline/pipeline/segmenter.h"

namespace isoline {

struct CaseResult {
  Segmentation segmentation;  // labels and probabilities are freed once written
  Shape3 shape{0, 0, 0};      // of the scan, file order
  Vec3<double> spacing_mm{1, 1, 1};
  std::vector<std::string> warnings;
  std::vector<int64_t> label_voxels;  // by label
  double total_s = 0;                 // read to written, wall
};

struct CaseOptions {
  ReadLimits limits;
  const PostprocessingSpec* postprocessing = nullptr;  // applied before writing, if given
  std::string probabilities_path;                      // .npz; written if the segmenter keeps probabilities
  std::string
      properties_path;  // .pkl of nnU-Net's properties, which its ensembling reads; written if not empty
};

// Reads, segments and writes. Nothing is left at the output unless the whole case succeeded.
Result<CaseResult> segment_case(Segmenter& segmenter, const CaseFiles& files, const CaseOptions& options,
                                const ProgressFunction& progress = {},
                                const std::atomic<bool>* cancel = nullptr);

}  // namespace isoline
