#include "isoline/pipeline/segment_case.h"

#include <chrono>

#include "isoline/io/npy.h"
#include "isoline/pipeline/properties_pickle.h"
#include "isoline/postprocess/components.h"

namespace isoline {
namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

uint64_t CaseScan::byte_size() const {
  return std::visit([](const auto& b) { return uint64_t(b.byte_size()); }, scan.image.data) +
         previous.data.byte_size();
}

uint64_t SegmentedCase::byte_size() const {
  // Labels, and twice their size again while they are numbered by component or turned to the file's order.
  return result.segmentation.labels.data.byte_size() * 3 + result.segmentation.probabilities.byte_size();
}

Result<CaseScan> read_scan(const ModelSpec& spec, const CaseFiles& files, const ReadLimits& limits,
                           ThreadPool& pool) {
  CaseScan out;
  out.read.begin = Clock::now();
  ISOLINE_ASSIGN(out.scan, read_case(files.images, spec.reader, limits, pool));
  if (!files.previous_stage.empty()) {
    ISOLINE_ASSIGN(out.previous, read_labels(files.previous_stage, spec.reader, limits, pool));
  }
  if (spec.patch_size.size() == 3 && out.scan.source.dimensions == 2)
    return Error{ErrorCode::kInvalidArgument, "a 2-D image cannot go through a 3-D configuration",
                 files.images[0], "Give a volume, or use the model's 2d configuration."};
  out.read.end = Clock::now();
  return out;
}

Result<SegmentedCase> segment_scan(Segmenter& segmenter, CaseScan in, const ProgressFunction& progress,
                                   const std::atomic<bool>* cancel) {
  SegmentedCase out;
  CaseResult& r = out.result;
  r.read = in.read;
  r.segment.begin = Clock::now();
  r.shape = in.scan.image.shape;
  r.spacing_mm = in.scan.image.geometry.spacing_mm;
  r.warnings = std::move(in.scan.warnings);
  out.source = std::move(in.scan.source);
  ISOLINE_ASSIGN(r.segmentation,
                 segmenter.segment(std::move(in.scan.image),
                                   in.previous.data.empty() ? nullptr : &in.previous, progress, cancel));
  r.segmentation.times.read_s = r.read.seconds();
  r.segment.end = Clock::now();
  return out;
}

Result<CaseResult> finish_case(const ModelSpec& spec, SegmentedCase done, const CaseFiles& files,
                               const CaseOptions& options, ThreadPool& pool) {
  CaseResult out = std::move(done.result);
  Segmentation& s = out.segmentation;
  if (options.postprocessing) {
    Period p{Clock::now(), {}};
    for (const KeepLargestComponent& step : options.postprocessing->steps)
      keep_largest_component(s.labels, step.labels, uint16_t(step.background_label));
    p.end = Clock::now();
    s.times.export_s += p.seconds();
    out.postprocess = p;
  }

  out.write.begin = Clock::now();
  if (s.probabilities.size() && !options.probabilities_path.empty()) {
    ISOLINE_RETURN_IF_ERROR(
        write_npz<float>(options.probabilities_path, "probabilities", s.probabilities.span(),
                         {spec.labels.heads, s.labels.shape[0], s.labels.shape[1], s.labels.shape[2]}, pool));
  }
  if (!options.properties_path.empty())
    ISOLINE_RETURN_IF_ERROR(write_properties(options.properties_path, done.source, out.spacing_mm, s.crop));
  ISOLINE_RETURN_IF_ERROR(write_labels(files.output, s.labels, done.source, pool, &out.label_voxels));
  out.write.end = Clock::now();
  s.times.write_s = out.write.seconds();
  s.labels = LabelMap{};
  s.probabilities = Buffer<float>{};
  out.total_s = out.read.seconds() + out.segment.seconds() + out.write.seconds();
  if (out.postprocess) out.total_s += out.postprocess->seconds();
  return out;
}

Result<CaseResult> segment_case(Segmenter& segmenter, const CaseFiles& files, const CaseOptions& options,
                                const ProgressFunction& progress, const std::atomic<bool>* cancel) {
  ISOLINE_ASSIGN(CaseScan scan, read_scan(segmenter.spec(), files, options.limits, segmenter.pool()));
  ISOLINE_ASSIGN(SegmentedCase done, segment_scan(segmenter, std::move(scan), progress, cancel));
  return finish_case(segmenter.spec(), std::move(done), files, options, segmenter.pool());
}

}  // namespace isoline
