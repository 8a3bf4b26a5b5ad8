// ScanRunner: a whole scan, from voxels to labels, on a device that has its own memory.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "isoline/base/parallel.h"
#include "isoline/base/result.h"
#include "isoline/engine/backend.h"
#include "isoline/engine/profile.h"
#include "isoline/postprocess/label_rule.h"
#include "isoline/preprocess/preprocess.h"
#include "isoline/tile/accumulator.h"
#include "isoline/tile/tile_plan.h"
#include "isoline/volume/volume.h"

namespace isoline {

struct ScanRunnerOptions {
  // Patch, precision and threads of the sessions; `batch` 0: chosen by the runner.
  SessionOptions session;
  uint64_t max_device_bytes = 0;  // 0: what the device has free
};

// What to run and where the answer goes. Everything belongs to the caller and outlives the call.
struct ScanRequest {
  // Either the scan as it was read and its plan, with a function that preprocesses on the host for plans or
  // sizes that the device cannot take; or what the preprocess room made of it.
  const Image* image = nullptr;
  const PreprocessPlan* plan = nullptr;
  std::function<Result<Prepared>()> preprocess;
  const Prepared* prepared = nullptr;

  const TilePlan* tiles = nullptr;
  std::span<const Vec3<bool>> mirrors;  // at least one; identity first

  // Either labels (shape rule->file_shape, all zero before the call) or logits of finished planes, folds
  // averaged.
  const LabelRule* rule = nullptr;
  LabelMap* labels = nullptr;
  LogitSink logits;

  std::function<void(int64_t done, int64_t total)> progress;  // forwards; from the calling thread
  const std::atomic<bool>* cancel = nullptr;                  // looked at between batches
};

// Where the time of one scan went, in seconds of wall time. Work on the device overlaps with the host's; each
// moment counts once.
struct ScanReport {
  double preprocess_s = 0;        // sending the scan, normalising, resampling
  double network_s = 0;           // the rest, with cutting tiles and adding them up
  double export_s = 0;            // dividing, interpolating and deciding on the device, labels to the host
  std::vector<float> forward_ms;  // device time of each forward pass, in order: a batch's time over its size
  // Forward passes and exports on the device and the host's stages around them, since run() began; in no
  // order across kinds.
  std::vector<RunSpan> spans;
  int batch = 0;
  // Choosing kernels by measurement, where sessions were made in this run; within network_s.
  double tuning_s = 0;
  std::string tuning;  // what came of it, in words; empty: nothing was chosen in this run
  bool preprocessed_on_device = false;
  bool streamed = false;  // the prepared volume stayed on the host and came in slabs
  uint64_t peak_device_bytes =
      0;  // of this process's allocations on the device so far, without the driver's own
};

// Labels are those of the host's rooms: accumulation, division and export have the same bits for the same
// logits; resampling differs by rounding (float32, < 3e-6 of the value range). Not thread-safe. Two runs give
// the same bits.
class ScanRunner {
 public:
  virtual ~ScanRunner() = default;
  // Errors: memory (after streaming in slabs was tried), a device that fails, values beyond the precision's
  // range, infinite logits, kCancelled, whatever the sink returns. Nothing is left running.
  virtual Status run(const ScanRequest& request, ScanReport* report) = 0;
  // Of the first fold's network at the batch of the last run, as Session::layer_times(). kInvalidArgument
  // before the first run.
  virtual Result<std::vector<LayerTime>> layer_times(int runs);
  // What really runs, e.g. "cuda NVIDIA H100 80GB HBM3, fp16, batch 4".
  virtual std::string description() const = 0;
};

}  // namespace isoline
