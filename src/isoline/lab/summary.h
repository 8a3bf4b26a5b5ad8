// RunSummary: everything a finished run says, as plain data. `sweep` writes it as summary.json, the published
// tables under docs/reference have the same form, and compare, recommend and report read nothing else.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/measure/reading.h"
#include "isoline/stats/describe.h"
#include "isoline/stats/noninferiority.h"

namespace isoline::lab {

inline constexpr const char* kSummaryFormat = "isoline-run-summary/1";

// A mean (or other location, as the field's name says) over n cases with a two-sided interval.
struct Estimate {
  double value = 0;
  std::optional<double> low, high;  // 95 %, bootstrap over cases; unset: fewer than 2 cases
  int n = 0;
};

// One registered endpoint of one setting, judged against the baseline on the same cases.
// d_i = metric(setting, case i) - metric(baseline, case i). preserved: lower_bound > -delta; not preserved:
// upper_bound < -delta; else (or with too few cases) inconclusive. Both bounds are one-sided at 95 %.
struct EndpointResult {
  std::string metric;  // "dice" | "surface_dice"
  std::string region;
  double delta = 0;  // largest loss that counts as preserved, > 0
  int n = 0;         // cases with a difference
  double baseline_mean = 0, setting_mean = 0, mean_difference = 0, sd_difference = 0;
  std::optional<double> lower_bound, upper_bound;
  std::optional<double> worst_difference;  // of a single case
  // Means say nothing about cases that did not occur: with n cases of which none fails, a failure of up to
  // this fraction of all cases is still compatible with the data (95 %): 1 - .05^(1/n).
  std::optional<double> unseen_failure_rate;
  Verdict verdict = Verdict::kInconclusive;
  std::string why;                              // one sentence
  std::optional<int> n_needed_80, n_needed_90;  // cases for 80 / 90 % power if nothing is lost in truth
  std::string bound_method;                     // e.g. "bootstrap-t, 10000 resamples"
};

struct RegionQuality {
  std::string region;
  Estimate dice;                         // both empty: 1 (KiTS)
  std::optional<double> dice_nnunet;     // nanmean (nnU-Net)
  Estimate surface_dice;                 // at tolerance_mm; n = 0: not computed
  std::optional<double> tolerance_mm;    // of surface_dice
  std::optional<double> hd95_median_mm;  // over cases where it is finite
  int hd95_infinite = 0;                 // cases where one side is empty
};

// Lesions of the lesion region, against the reference and against what the baseline found.
struct LesionCounts {
  std::string region, definition;
  int reference = 0, found = 0, false_positive = 0;
  int lost = 0;    // found by the baseline, missed here
  int gained = 0;  // missed by the baseline, found here
};

struct CaseRecord {
  std::string case_id;
  double wall_s = 0;  // median over repetitions
  std::vector<double> wall_s_all;
  std::map<std::string, double> stages_s;  // read, preprocess, network, export, write
  int64_t windows = 0, forwards = 0;
  Reading energy_gross_j, energy_net_j;  // accelerator; mean over repetitions
  Reading cpu_energy_j;
  std::map<std::string, double> dice, surface_dice, hd95_mm;  // by region; hd95 only where finite
  std::optional<double> disagreement;                         // fraction of voxels unlike the baseline's
};

struct SettingSummary {
  std::string name;
  std::string description;                    // what changes against the setting before it (or the baseline)
  std::map<std::string, std::string> values;  // precision, backend, step, tta, threads, ...
  std::string runtime;                        // what executed, as the session describes itself
  std::string not_run;                        // why this setting was listed but not run; empty: it was run
  int cases = 0;
  std::vector<std::string> failures;  // "case: error", none is left out
  std::vector<std::string> notes;     // discarded repetitions, throttling, thermal, ...

  Spread wall_s;                           // per case, boundary as RunSummary::boundary says
  Estimate s_per_case;                     // mean with interval
  std::optional<Estimate> speedup;         // geometric mean over cases of baseline / setting; unset: baseline
  std::map<std::string, double> stages_s;  // mean per case
  Spread window_ms;                        // per forward pass; n = 0: not measured
  Reading energy_gross_j, energy_net_j;    // mean per case, accelerator counter
  Reading energy_integrated_j;             // the second, independent reading
  Reading energy_disagreement;             // (counter - integrated) / counter
  Reading average_power_w, peak_power_w;
  std::optional<Estimate> energy_reduction;  // baseline / setting, geometric mean over cases, gross
  Reading cpu_energy_j;                      // RAPL packages, mean per case
  Reading cpu_s;                             // CPU time, mean per case
  Reading peak_vram_bytes, peak_rss_bytes;

  std::vector<RegionQuality> quality;
  std::vector<EndpointResult> endpoints;  // empty for the baseline
  std::optional<Verdict> verdict;         // over all endpoints; unset for the baseline
  std::optional<double> disagreement_mean, disagreement_max;
  std::vector<LesionCounts> lesions;
  std::optional<double> published_speedup;  // published tables only
  bool pareto = false;  // no other setting is better or equal in every available dimension and better in one
  std::vector<CaseRecord> per_case;  // may be empty in published tables
};

struct Provenance {
  std::string isoline_version, commit, started, finished;  // UTC, ISO 8601
  std::string model_name, model_sha256;
  std::string cases_sha256;  // over ids, images and references, sorted by id
  std::string experiment_sha256;
  std::map<std::string, std::string> device;  // name, uuid, driver, power_limit_w, cores, ram_bytes, os, ...
};

// Whether thresholds were fixed before anything was measured.
struct Registration {
  std::string status;  // "registered" | "changed" | "late" | "missing"
  std::string sha256, time, file;
  std::vector<std::string> changes;  // "endpoint dice/kidney: delta 0.01 -> 0.02"
};

struct RunSummary {
  std::string kind = "measured";  // or "published"
  std::string id, title, source;  // source: only published, e.g. "EXP-ISODICE-001"
  std::string device_name;        // short, for table heads
  std::string device_kind;        // "cpu" | "gpu"
  std::string boundary;           // what the clock includes
  Provenance provenance;
  Registration registration;
  std::string mode, order;  // "sequence" | "grid"; "interleaved" | "random" | "blocked"
  uint64_t seed = 0;
  int repetitions = 1, warmup = 1;
  std::vector<std::string> case_ids;
  std::vector<std::pair<std::string, std::string>> regions;  // name, labels as text, e.g. "1,2,3"
  std::vector<std::string> definitions;                      // one sentence each, of every metric shown
  std::string energy_source;                                 // what was read; or why there is none
  std::map<std::string, Reading> idle_power_w;               // "context alive", "cold"
  std::string idle_protocol;                                 // how idle was taken and who pays the tail
  std::map<std::string, std::string> meter;                  // tick, refresh, call cost, as text
  std::string baseline;                                      // name of the baseline setting
  std::vector<SettingSummary> settings;                      // in experiment order
  std::vector<std::string> remarks;
};

// JSON and back. parse: kCorrupt naming the field; every number finite; unknown fields are ignored.
std::string to_json_text(const RunSummary& summary);
Result<RunSummary> parse_summary(const std::string& json_text, const std::string& file);
// RUN/summary.json of a run folder, or a summary file itself.
Result<RunSummary> read_summary(const std::string& path);

}  // namespace isoline::lab
