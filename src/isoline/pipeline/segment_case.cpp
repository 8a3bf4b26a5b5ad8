#include "isoline/pipeline/segment_case.h"

#include <chrono>

#include "isoline/io/npy.h"
#include "isoline/pipeline/properties_pickle.h"
#include "isoline/postprocess/components.h"

namespace isoline {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

Result<CaseResult> segment_case(Segmenter& segmenter, const CaseFiles& files, const CaseOptions& options,
                                const ProgressFunction& progress, const std::atomic<bool>* cancel) {
  const ModelSpec& spec = segmenter.spec();
  const auto begin = Clock::now();
  CaseResult out;
  ISOLINE_ASSIGN(Scan scan, read_case(files.images, spec.reader, options.limits, segmenter.pool()));
  LabelMap previous;
  if (!files.previous_stage.empty()) {
    ISOLINE_ASSIGN(previous,
                   read_labels(files.previous_stage, spec.reader, options.limits, segmenter.pool()));
  }
  if (spec.patch_size.size() == 3 && scan.source.dimensions == 2)
    return Error{ErrorCode::kInvalidArgument, "a 2-D image cannot go through a 3-D configuration",
                 files.images[0], "Give a volume, or use the model's 2d configuration."};
  const double read_s = seconds_since(begin);
  out.shape = scan.image.shape;
  out.spacing_mm = scan.image.geometry.spacing_mm;
  out.warnings = std::move(scan.warnings);

  ISOLINE_ASSIGN(out.segmentation,
                 segmenter.segment(std::move(scan.image), files.previous_stage.empty() ? nullptr : &previous,
                                   progress, cancel));
  Segmentation& s = out.segmentation;
  s.times.read_s = read_s;

  auto from = Clock::now();
  if (options.postprocessing)
    for (const KeepLargestComponent& step : options.postprocessing->steps)
      keep_largest_component(s.labels, step.labels, uint16_t(step.background_label));
  s.times.export_s += seconds_since(from);

  from = Clock::now();
  int64_t counts[65536] = {};
  uint16_t top = 0;
  for (uint16_t l : s.labels.data) {
    ++counts[l];
    top = std::max(top, l);
  }
  out.label_voxels.assign(counts, counts + top + 1);
  if (s.probabilities.size() && !options.probabilities_path.empty()) {
    ISOLINE_RETURN_IF_ERROR(write_npz<float>(
        options.probabilities_path, "probabilities", s.probabilities.span(),
        {spec.labels.heads, s.labels.shape[0], s.labels.shape[1], s.labels.shape[2]}, segmenter.pool()));
  }
  if (!options.properties_path.empty())
    ISOLINE_RETURN_IF_ERROR(write_properties(options.properties_path, scan.source, out.spacing_mm, s.crop));
  ISOLINE_RETURN_IF_ERROR(write_labels(files.output, s.labels, scan.source, segmenter.pool()));
  s.times.write_s = seconds_since(from);
  s.labels = LabelMap{};
  s.probabilities = Buffer<float>{};
  out.total_s = seconds_since(begin);
  return out;
}

}  // namespace isoline
