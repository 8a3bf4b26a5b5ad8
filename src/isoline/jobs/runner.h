// JobRunner: what a job does once it is its turn.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "isoline/engine/backend.h"
#include "isoline/jobs/job.h"
#include "isoline/jobs/volume_model.h"

namespace isoline::jobs {

struct JobFiles {
  std::string scan;     // to read
  std::string labels;   // to write
  std::string picture;  // to write, if the scan can be drawn
};

class JobRunner {
 public:
  virtual ~JobRunner() = default;
  // From one thread. The report, JSON, of a scan whose labels are written; kCancelled once `cancel` was seen.
  virtual Result<std::string> run(const Job& job, const VolumeModel& model, const JobFiles& files,
                                  const std::function<void(double done)>& progress,
                                  const std::atomic<bool>& cancel) = 0;
};

struct SegmentRunnerOptions {
  std::string backend = "auto";
  Precision precision = Precision::kFloat32;
  int threads = 0;
  uint64_t max_ram_bytes = 0, max_vram_bytes = 0;
  int batch = 0;
  Autotune autotune = Autotune::kSameBits;
};
// Segments, as `isoline segment` does. One model is kept open: that of the last job. `registry` must outlive
// it.
std::unique_ptr<JobRunner> make_segment_runner(const BackendRegistry& registry, SegmentRunnerOptions options);

}  // namespace isoline::jobs
