// Several runs side by side: each setting against one baseline, and the same setting from run to run. A pure
// function of what the runs wrote.
//
// Measured runs are comparable only if they ran one model over the same cases (equal model_sha256 and
// cases_sha256); anything else is refused. Published tables have neither hash. They are shown beside, each of
// their settings only against the table's own baseline, and say so: kPublishedNote.
//
// Ratios: speed_x = baseline time / setting time, energy_x = baseline energy / setting energy, so > 1 is
// better. Where both sides have the same cases, the geometric mean over cases of the per-case ratio; else the
// ratio of means. Dice differences are setting minus baseline, paired by case where both sides have cases.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/lab/cost.h"
#include "isoline/lab/summary.h"

namespace isoline::lab {

inline constexpr const char* kPublishedNote = "published, other cases/model: ratios only";

// A figure relative to a baseline, with a two-sided 95 % interval over cases where it is paired
// (stats/mean_bounds; ratios on the logarithm).
struct Relative {
  Reading value;
  std::optional<double> low, high;
  int n = 0;        // cases behind it; 0: means only
  std::string how;  // e.g. "geometric mean over 10 cases, 95 % interval", "ratio of means"
};

struct QualityDelta {
  std::string metric;  // "dice" | "surface_dice"
  std::string region;
  Reading value;   // the setting's mean
  Relative delta;  // setting - baseline
};

struct ComparedSetting {
  size_t run = 0, setting = 0;  // indices into the input
  bool is_baseline = false;     // what the row is compared with
  Relative speed_x, energy_x;
  std::vector<QualityDelta> quality;  // regions of the run compared with, Dice first, then surface Dice
  Cost cost;
};

// One setting that several measured runs have, each against the first of them (the baseline's run if it has
// it).
struct SettingMatch {
  std::string setting;
  std::vector<ComparedSetting> entries;  // the first is what the others are compared with
  std::string note;                      // set where equally named settings hold different values
};

struct Comparison {
  std::vector<std::string> labels;        // of the runs, unique, in input order
  std::optional<size_t> baseline_run;     // unset: only published tables
  std::string baseline;                   // "RUN:SETTING"; empty: each table against its own
  std::vector<ComparedSetting> settings;  // run by run, in experiment order
  std::vector<SettingMatch> matches;      // empty: fewer than two measured runs
  std::vector<std::string> notes;         // what a reader must know: clocks or energy that differ, ...
};

struct CompareOptions {
  // "RUN[:SETTING]": RUN is a file or folder as given, a run's id or its label. Empty: the baseline setting
  // of the first measured run.
  std::string baseline;
  Prices prices;
};

// files[i] is where runs[i] came from, for messages and labels. kInvalidArgument: nothing to compare, a run
// without settings, hashes that differ, a baseline that is not there or is a published table.
Result<Comparison> compare(const std::vector<RunSummary>& runs, const std::vector<std::string>& files,
                           const CompareOptions& options);

// Short unique names for table heads, in input order.
std::vector<std::string> run_labels(const std::vector<RunSummary>& runs,
                                    const std::vector<std::string>& files);

// Index of the setting that `run` calls its baseline; the first one where the name is unset. nullopt: not
// there.
std::optional<size_t> baseline_index(const RunSummary& run);

}  // namespace isoline::lab
