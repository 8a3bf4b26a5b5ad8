// The part of `isoline serve` that segments whole scans: its options, and the service they make.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cli.h"
#include "isoline/jobs/service.h"
#include "isoline/serve/repository.h"

namespace isoline::cli {

struct JobOptions {
  std::string state;  // empty: default_state_folder()
  size_t max_jobs = 100, keep_jobs = 1000;
  double keep_hours = 168, max_volume_mb = 2048;
  std::vector<std::string> allow_roots;
  // As those of `isoline segment`.
  std::string backend = "auto", precision = "fp32", tta = "all", autotune = "same-bits";
  double step = 0.5;
  int threads = 0, batch = 0;
  uint64_t max_ram_bytes = 0, max_vram_bytes = 0;
};
void add_job_options(CLI::App& app, JobOptions& options);

// $XDG_STATE_HOME/isoline or ~/.local/state/isoline; an error that names --state where there is neither.
Result<std::string> default_state_folder();

// The service for these models; null if there are none and no --state was given. `registry` must outlive it.
Result<std::unique_ptr<jobs::JobService>> open_jobs(const JobOptions& options,
                                                    std::vector<jobs::VolumeModel> models,
                                                    const BackendRegistry& registry);

// How the repository lists them.
std::vector<serve::ModelState> volume_model_states(const std::vector<jobs::VolumeModel>& models);

}  // namespace isoline::cli
