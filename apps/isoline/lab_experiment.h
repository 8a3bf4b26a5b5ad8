// What `register`, `sweep` and `recommend` share.
#pragma once

#include <string>

#include "cli.h"
#include "isoline/lab/plan.h"
#include "isoline/lab/summary.h"

namespace isoline::cli {

// Reads the experiment and looks it up on disk, with a progress bar over its cases.
Result<lab::Plan> plan_experiment(const std::string& file, ThreadPool& pool, const Output& output);

// The table of settings, verdicts and remarks on standard output.
void print_summary(const lab::RunSummary& summary);

}  // namespace isoline::cli
