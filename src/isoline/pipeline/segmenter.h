// Segmenter: a frozen model, loaded once, applied to any number of scans.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "isoline/base/parallel.h"
#include "isoline/base/result.h"
#include "isoline/engine/backend.h"
#include "isoline/engine/scan_runner.h"
#include "isoline/model/load_model.h"
#include "isoline/preprocess/preprocess.h"
#include "isoline/tile/accumulator.h"
#include "isoline/volume/volume.h"

namespace isoline {

struct SegmenterOptions {
  double step = 0.5;  // largest move of the sliding window, as a fraction of the patch
  // Axes to mirror along (test-time augmentation); unset: those the model was trained with; empty: none.
  std::optional<std::vector<int>> mirror_axes;
  Precision precision = Precision::kFloat32;
  int threads = 0;  // 0: one per available core
  bool with_probabilities = false;
  uint64_t max_ram_bytes =
      0;  // 0: no limit; else segment() refuses, before starting, what its estimate says exceeds it
  uint64_t max_device_bytes = 0;  // of a GPU's memory; 0: what is free. Scans that do not fit come in slabs
  int batch = 0;                  // windows at a time on a GPU; 0: chosen
  Autotune autotune = Autotune::kSameBits;
  bool scan_on_device = true;  // whole scans where the backend can; false: only the network
};

// Wall time of each stage, in seconds. `network` includes cutting tiles and adding them up.
struct StageTimes {
  double read_s = 0, preprocess_s = 0, network_s = 0, export_s = 0, write_s = 0;
};

struct Segmentation {
  LabelMap labels;              // on the scan's grid, in file order
  Buffer<float> probabilities;  // [heads, z, y, x]; empty unless asked for
  StageTimes times;             // read_s and write_s are the caller's to fill
  int64_t windows = 0;          // tiles
  int64_t forwards = 0;         // tiles * mirrors * folds
  std::vector<float>
      forward_ms;  // wall time of each forward pass, in order; transfers to and from a GPU included
  Shape3 network_shape{0, 0, 0};
  CropRecord crop;
  int64_t evaluated_voxels = 0;  // host export only
  // When what ran, since segment() began: preprocess, network (with the exports inside it where the host
  // decides labels), forward passes and exports. A device's own are by its clock.
  std::vector<RunSpan> spans;
  // Where the scan lived on a device; else not set. Its spans are above.
  std::optional<ScanReport> device;
};

// Called after every forward pass, from the thread that called segment().
using ProgressFunction = std::function<void(int64_t done, int64_t total)>;

// Not thread-safe; one scan at a time. Sessions are compiled at the first scan and kept.
class Segmenter {
 public:
  // `backend` must outlive the segmenter.
  static Result<Segmenter> create(LoadedModel model, const Backend& backend, const SegmenterOptions& options);

  // The whole way from intensities to labels. Consumes the image: its memory is freed once preprocessed.
  // previous_stage: labels on the scan's grid, for cascades only. `cancel`, if given, is looked at after
  // every forward; then the result is kCancelled.
  Result<Segmentation> segment(Image image, const LabelMap* previous_stage = nullptr,
                               const ProgressFunction& progress = {},
                               const std::atomic<bool>* cancel = nullptr);

  // The stages, for tests and measurements.
  Result<Prepared> preprocess(const Image& image, const LabelMap* previous_stage);
  // Runs tiles over `prepared`, giving finished logits (folds averaged) to `sink`; slabs ascend.
  Status run_network(const Prepared& prepared, const LogitSink& sink, const ProgressFunction& progress = {},
                     const std::atomic<bool>* cancel = nullptr);

  // The steps of the first fold's network, one after the other, at the batch of the last scan; see
  // Session::layer_times(). kInvalidArgument before the first scan, kUnsupported where the backend does not
  // time its steps.
  Result<std::vector<LayerTime>> layer_times(int runs);

  const ModelSpec& spec() const;
  ThreadPool& pool();
  // What executes, after the first run; e.g. "openvino 2026.1 CPU, bf16, 2 threads".
  std::string session_description() const;
  // The mirror sets in use, identity included.
  int64_t mirrors() const;
  // Estimated peak memory of one scan, in bytes: arrays, activations (an upper bound by liveness) and
  // weights.
  uint64_t estimate_bytes(const Image& image) const;

  Segmenter(Segmenter&&) noexcept;
  Segmenter& operator=(Segmenter&&) noexcept;
  ~Segmenter();

 private:
  struct Impl;
  explicit Segmenter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace isoline
