#include <malloc.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "isoline/io/nifti.h"
#include "isoline/io/png.h"
#include "isoline/jobs/runner.h"
#include "isoline/pipeline/case_json.h"
#include "isoline/pipeline/open_segmenter.h"
#include "isoline/render/overlay.h"

namespace isoline::jobs {
namespace {

using Json = nlohmann::ordered_json;

// The first channel, which is what the picture shows.
Image first_channel(Image image) {
  if (image.channels == 1) return image;
  const size_t n = size_t(voxels(image.shape));
  image.data = std::visit(
      [&](const auto& all) -> Intensities {
        std::remove_cvref_t<decltype(all)> one(n);
        std::copy_n(all.begin(), n, one.begin());
        return one;
      },
      image.data);
  image.channels = 1;
  return image;
}

// CT has its usual window; of anything else the middle 98 % of a sample of the voxels are shown.
OverlayOptions window_of(const ModelSpec& spec, const Image& image) {
  OverlayOptions options;
  if (!spec.channels.empty() && spec.channels[0].normalization == Normalization::kCt) return options;
  std::vector<double> sample;
  std::visit(
      [&](const auto& all) {
        const size_t stride = std::max<size_t>(1, all.size() / 100000);
        for (size_t i = 0; i < all.size(); i += stride)
          if (std::isfinite(double(all[i]))) sample.push_back(double(all[i]));
      },
      image.data);
  if (sample.empty()) return options;
  std::sort(sample.begin(), sample.end());
  options.window_low = sample[sample.size() / 100];
  options.window_high = sample[sample.size() - 1 - sample.size() / 100];
  if (!(options.window_high > options.window_low)) options.window_high = options.window_low + 1;
  return options;
}

Status draw(const ModelSpec& spec, const JobFiles& files, const ReadLimits& limits, ThreadPool& pool) {
  ISOLINE_ASSIGN(Scan scan, read_case({files.scan}, spec.reader, limits, pool));
  ISOLINE_ASSIGN(const LabelMap labels, read_labels(files.labels, spec.reader, limits, pool));
  const Image image = first_channel(std::move(scan.image));
  ISOLINE_ASSIGN(const RgbImage picture, render_overlay(image, labels, nullptr, window_of(spec, image)));
  return write_png(files.picture, picture.pixels, picture.height, picture.width, 3);
}

class SegmentRunner final : public JobRunner {
 public:
  SegmentRunner(const BackendRegistry& registry, SegmentRunnerOptions options)
      : registry_(registry), options_(std::move(options)) {}

  Result<std::string> run(const Job& job, const VolumeModel& model, const JobFiles& files,
                          const std::function<void(double)>& progress,
                          const std::atomic<bool>& cancel) override {
    try {
      return segment(job, model, files, progress, cancel);
    } catch (...) {
      segmenter_.reset();  // whatever state it is in
      throw;
    }
  }

 private:
  Status open(const Job& job, const VolumeModel& model) {
    if (segmenter_ && open_folder_ == model.folder && open_settings_ == job.settings) return {};
    segmenter_.reset();  // its memory goes before the next one's comes
    malloc_trim(0);
    SegmenterOptions o;
    o.step = job.settings.step;
    ISOLINE_ASSIGN(o.mirror_axes, parse_mirror_axes(job.settings.tta));
    o.precision = options_.precision;
    o.threads = options_.threads;
    o.max_ram_bytes = options_.max_ram_bytes;
    o.max_device_bytes = options_.max_vram_bytes;
    o.batch = options_.batch;
    o.autotune = options_.autotune;
    ISOLINE_ASSIGN(LoadedModel loaded, load_model(model.folder));
    ISOLINE_ASSIGN(OpenedSegmenter opened,
                   open_segmenter(std::move(loaded), registry_, {options_.backend, false}, o,
                                  [](const Backend&, const Error&) {}));
    segmenter_ = std::move(opened.segmenter);
    backend_ = opened.backend;
    open_folder_ = model.folder;
    open_settings_ = job.settings;
    return {};
  }

  Result<std::string> segment(const Job& job, const VolumeModel& model, const JobFiles& files,
                              const std::function<void(double)>& progress, const std::atomic<bool>& cancel) {
    ISOLINE_RETURN_IF_ERROR(open(job, model));
    CaseOptions options;
    if (options_.max_ram_bytes) options.limits.max_bytes = options_.max_ram_bytes;
    ISOLINE_ASSIGN(
        const CaseResult result,
        segment_case(
            *segmenter_, {job.id, {files.scan}, files.labels, ""}, options,
            [&](int64_t done, int64_t total) { progress(total ? double(done) / double(total) : 0); },
            &cancel));
    const Status drawn = draw(segmenter_->spec(), files, options.limits, segmenter_->pool());
    malloc_trim(0);  // a scan is hundreds of megabytes
    return report(job, result, drawn);
  }

  std::string report(const Job& job, const CaseResult& result, const Status& drawn) const {
    const ModelSpec& spec = segmenter_->spec();
    Json labels = Json::object();
    for (const Region& r : spec.labels.foreground) labels[r.name] = r.labels;
    Json json{{"version", ISOLINE_VERSION},
              {"model",
               {{"dataset", spec.dataset_name},
                {"configuration", spec.configuration},
                {"trainer", spec.trainer_name},
                {"folds", spec.folds},
                {"labels", labels}}},
              {"settings",
               {{"backend", backend_->name()},
                {"precision", to_string(options_.precision)},
                {"step", job.settings.step},
                {"tta", job.settings.tta},
                {"mirrors", segmenter_->mirrors()},
                {"threads", segmenter_->pool().threads()}}},
              {"ran_on", segmenter_->session_description()}};
    json.update(to_json(result));
    json["picture"] = drawn.ok() ? Json(true) : Json(false);
    if (!drawn.ok()) json["no_picture_because"] = drawn.error().message;
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
  }

  const BackendRegistry& registry_;
  const SegmentRunnerOptions options_;
  std::unique_ptr<Segmenter> segmenter_;
  const Backend* backend_ = nullptr;
  std::string open_folder_;
  JobSettings open_settings_;
};

}  // namespace

std::unique_ptr<JobRunner> make_segment_runner(const BackendRegistry& registry,
                                               SegmentRunnerOptions options) {
  return std::make_unique<SegmentRunner>(registry, std::move(options));
}

}  // namespace isoline::jobs
