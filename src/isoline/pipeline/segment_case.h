// From files to files: one case through the whole pipeline.
#pragma once

#include <chrono>
#include <optional>

#include "isoline/io/nifti.h"
#include "isoline/model/load_model.h"
#include "isoline/model/postprocessing_spec.h"
#include "isoline/pipeline/cases.h"
#include "isoline/pipeline/segmenter.h"

namespace isoline {

// When a part of a case ran, from its first line to its last.
struct Period {
  std::chrono::steady_clock::time_point begin, end;
  double seconds() const { return std::chrono::duration<double>(end - begin).count(); }
};

struct CaseResult {
  Segmentation segmentation;  // labels and probabilities are freed once written
  Shape3 shape{0, 0, 0};      // of the scan, file order
  Vec3<double> spacing_mm{1, 1, 1};
  std::vector<std::string> warnings;
  std::vector<int64_t> label_voxels;  // by label
  Period read, segment, write;        // the parts below, without postprocessing
  std::optional<Period> postprocess;  // before writing, if asked for; counts as export
  double total_s = 0;                 // their sum: read to written, wall, without waiting between them
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

// The three parts of segment_case(), for whoever wants to read the next case and write the last one while a
// device works on this one. Each takes what the one before it returned. read_scan() and finish_case() touch
// no Segmenter: they may run on threads of their own, with pools of their own.
struct CaseScan {
  Scan scan;
  LabelMap previous;  // labels of the stage before; empty unless a cascade
  Period read;
  // Of voxels and labels, as long as the scan is held.
  uint64_t byte_size() const;
};
Result<CaseScan> read_scan(const ModelSpec& spec, const CaseFiles& files, const ReadLimits& limits,
                           ThreadPool& pool);

struct SegmentedCase {
  CaseResult result;
  NiftiSource source;
  // Most that is held until finish_case() returns.
  uint64_t byte_size() const;
};
// Consumes the scan; its memory is freed once preprocessed.
Result<SegmentedCase> segment_scan(Segmenter& segmenter, CaseScan scan, const ProgressFunction& progress = {},
                                   const std::atomic<bool>* cancel = nullptr);

// Postprocesses and writes.
Result<CaseResult> finish_case(const ModelSpec& spec, SegmentedCase done, const CaseFiles& files,
                               const CaseOptions& options, ThreadPool& pool);

}  // namespace isoline
