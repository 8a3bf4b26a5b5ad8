// Sweep: runs every case under every setting, in the planned order, and puts each result on disk before the
// next.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <string>

#include "isoline/base/parallel.h"
#include "isoline/base/result.h"
#include "isoline/lab/plan.h"
#include "isoline/lab/system.h"
#include "isoline/measure/meter.h"

namespace isoline::lab {

// One piece of work.
struct Job {
  size_t setting = 0, case_index = 0;  // into Plan
  int repetition = 0;
};
// All jobs of a plan in order. interleaved: case by case, settings one after the other, the first one
// rotating so that none always runs first; random: shuffled by the seed; blocked: setting by setting.
std::vector<Job> order_jobs(const Plan& plan);

struct SweepOptions {
  std::string run_folder;
  std::string isoline_version, commit;
  SystemFactory open_system;
  measure::Meter* meter = nullptr;  // not owned; null: time only
  // done and total pieces of work, and what is being worked on.
  std::function<void(int64_t done, int64_t total, const std::string& what)> progress;
  const std::atomic<bool>* cancel = nullptr;
};

// Starts or goes on: what the folder's journal already holds is not run again. Failed cases are tried once
// more by each new sweep. Files: run.json (what is being run, fixed by the first sweep), experiment.toml,
// registration.json (as found by the first sweep), results.jsonl, labels/SETTING/CASE, logs/SETTING.log. A
// failing case or setting is journalled and the sweep goes on; it stops for kCancelled and where results
// cannot be kept (disk full, no permission). kInvalidArgument: the folder belongs to another run (the first
// difference is named), or another sweep writes there.
Status run_sweep(const Plan& plan, const SweepOptions& options, ThreadPool& pool);

// What this machine is: processor, cores, memory, system.
std::map<std::string, std::string> machine_facts();

// RUN/labels/SETTING/CASE<ending>.
std::string labels_path(const std::string& run_folder, const Plan& plan, const std::string& setting,
                        const std::string& case_id);

}  // namespace isoline::lab
