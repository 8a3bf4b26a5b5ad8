#include "serve_jobs.h"

#include <cstdlib>
#include <iostream>

#include "segment_cases.h"

namespace isoline::cli {

void add_job_options(CLI::App& app, JobOptions& o) {
  const std::string group = "Scans (nnU-Net results folders)";
  app.add_option("--state", o.state,
                 "Folder of jobs, their scans and results; default: $XDG_STATE_HOME/isoline")
      ->group(group);
  app.add_option("--max-jobs", o.max_jobs, "Scans that wait; more are refused with 429")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str()
      ->group(group);
  app.add_option("--keep-jobs", o.keep_jobs, "Ended jobs that are kept with their results")
      ->check(CLI::Range(0, 1000000))
      ->capture_default_str()
      ->group(group);
  app.add_option("--keep-hours", o.keep_hours, "How long at most")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str()
      ->group(group);
  app.add_option("--max-volume-mb", o.max_volume_mb, "Largest scan, as sent and again inflated")
      ->check(CLI::Range(0.001, 1e6))
      ->capture_default_str()
      ->group(group);
  app.add_option("--allow-root", o.allow_roots, "Folder whose files may be named instead of sent; repeatable")
      ->group(group);
  app.add_option("--step", o.step, "Largest window move as a fraction of the patch")
      ->check(CLI::Range(0.05, 1.0))
      ->capture_default_str()
      ->group(group);
  app.add_option("--tta", o.tta, "Mirroring: all, none or axes such as 0,1")
      ->capture_default_str()
      ->group(group);
  app.add_option("--precision", o.precision, "fp32, tf32, bf16 or fp16, as the backend has it")
      ->capture_default_str()
      ->group(group);
  app.add_option("--backend", o.backend, "See `isoline devices`; auto: the first that can")
      ->capture_default_str()
      ->group(group);
  app.add_option("--threads", o.threads, "Default: one per core")->check(CLI::Range(0, 1024))->group(group);
  app.add_option("--max-ram", o.max_ram_bytes, "Fail scans estimated to need more, e.g. 4GiB")
      ->transform(CLI::AsSizeValue(false))
      ->group(group);
  app.add_option("--max-vram", o.max_vram_bytes, "GPU memory to use at most, e.g. 3GiB")
      ->transform(CLI::AsSizeValue(false))
      ->group(group);
  app.add_option("--batch", o.batch, "Windows at a time on a GPU; default: chosen")
      ->check(CLI::Range(1, 8))
      ->group(group);
  app.add_option("--autotune", o.autotune, "GPU kernels chosen by measurement: off, same-bits or all")
      ->capture_default_str()
      ->group(group);
}

Result<std::string> default_state_folder() {
  const char* const state = std::getenv("XDG_STATE_HOME");
  if (state && state[0] == '/') return std::string(state) + "/isoline";
  const char* const home = std::getenv("HOME");
  if (home && home[0] == '/') return std::string(home) + "/.local/state/isoline";
  return Error{ErrorCode::kInvalidArgument, "there is no folder to keep jobs in", "--state",
               "Name one, or set XDG_STATE_HOME or HOME."};
}

Result<std::unique_ptr<jobs::JobService>> open_jobs(const JobOptions& o,
                                                    std::vector<jobs::VolumeModel> models,
                                                    const BackendRegistry& registry) {
  if (models.empty() && o.state.empty()) return std::unique_ptr<jobs::JobService>();
  jobs::ServiceOptions options;
  options.store = {o.state, o.keep_jobs, o.keep_hours};
  if (o.state.empty()) {
    ISOLINE_ASSIGN(options.store.folder, default_state_folder());
  }
  options.max_waiting = o.max_jobs;
  options.max_volume_bytes = uint64_t(o.max_volume_mb * (1 << 20));
  options.allowed_roots = o.allow_roots;
  options.defaults = {o.step, o.tta};
  options.warn = [](const Error& e) { std::cerr << "isoline: jobs: " << e.to_string() << "\n"; };
  jobs::SegmentRunnerOptions run;
  run.backend = o.backend;
  ISOLINE_ASSIGN(run.precision, parse_precision(o.precision));
  run.threads = o.threads;
  run.max_ram_bytes = o.max_ram_bytes;
  run.max_vram_bytes = o.max_vram_bytes;
  run.batch = o.batch;
  auto autotune = parse_autotune(o.autotune);
  if (!autotune.ok()) return autotune.error().in("--autotune");
  run.autotune = *autotune;
  if (o.backend != "auto") {
    ISOLINE_RETURN_IF_ERROR(registry.find(o.backend));
  }
  ISOLINE_RETURN_IF_ERROR(jobs::check_settings(options.defaults));
  return jobs::JobService::open(std::move(options), std::move(models),
                                jobs::make_segment_runner(registry, run));
}

std::vector<serve::ModelState> volume_model_states(const std::vector<jobs::VolumeModel>& models) {
  std::vector<serve::ModelState> states;
  for (const jobs::VolumeModel& m : models)
    states.push_back({m.name, std::to_string(m.version), m.error ? "UNAVAILABLE" : "READY",
                      m.error ? m.error->to_string() : ""});
  return states;
}

}  // namespace isoline::cli
