// From a run folder's journal and label maps to its RunSummary: locations, intervals, verdicts, Pareto front.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "isoline/base/parallel.h"
#include "isoline/base/result.h"
#include "isoline/lab/journal.h"
#include "isoline/lab/plan.h"
#include "isoline/lab/summary.h"

namespace isoline::lab {

// What the clock of every wall_s includes.
inline constexpr const char* kBoundary =
    "file to file: from the first byte of the scan read to the labels on disk (fsync and rename included), "
    "in a process "
    "that has loaded the model and warmed up";

// Everything that can be said from the journal alone. Disagreement with the baseline's labels needs the label
// maps: `disagreement(setting, case)` gives the fraction of voxels, unset where one map is missing.
using DisagreementFunction =
    std::function<std::optional<double>(const std::string& setting, const std::string& case_id)>;
RunSummary summarize(const Plan& plan, const JournalContent& journal, const Registration& registration,
                     const DisagreementFunction& disagreement);

// Reads RUN and writes RUN/summary.json. kNotFound: nothing was run yet.
Result<RunSummary> summarize_run(const Plan& plan, const std::string& run_folder, ThreadPool& pool,
                                 const PlanProgress& progress = {});

// Marks settings that no other setting dominates in time, energy and VRAM (where every setting has them) and
// quality (mean Dice over regions): at least as good in all and better in one.
void mark_pareto(std::vector<SettingSummary>& settings);

}  // namespace isoline::lab
