// Experiment: what a TOML file asks for, checked but not yet looked up on disk. docs/guides/lab.md explains
// every key.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "isoline/base/result.h"

namespace isoline::lab {

// One way to run the frozen model. Text values are those of `isoline segment`.
struct Setting {
  std::string name;                // unique; also a folder name: letters, digits, "._+-=," only
  std::string title;               // for people; may be empty
  std::string backend = "auto";    // auto | native | openvino | reference
  std::string precision = "fp32";  // fp32 | bf16 | fp16
  std::string tta = "all";         // all | none | mirror axes such as "0,1"
  double step = 0.5;
  int threads = 0;                 // 0: one per core
  std::vector<std::string> folds;  // empty: all there are
  std::string not_run;             // a reason: listed in every table, but not run

  // As text, for tables and for comparing settings; title and not_run left out.
  std::map<std::string, std::string> values() const;
};

struct Endpoint {
  std::string metric;  // "dice" | "surface_dice"
  std::string region;
  double delta = 0;  // largest loss of the mean that still counts as preserved, in (0, 1)
};

struct RegionChoice {
  std::string name;
  std::vector<int> labels;
  std::optional<double> tolerance_mm;  // surface Dice and HD95 are computed if set
};

struct Experiment {
  std::string file;  // where it was read from
  std::string text;  // as read; kept with the run
  std::string id, title;
  bool grid = false;  // else a sequence: each setting keeps what the one before it changed
  std::string model, checkpoint = "checkpoint_final.pth";
  std::string images, references;  // folders; relative paths are relative to the experiment's file
  std::vector<std::string> only;   // case ids; empty: all
  std::string baseline;            // name of a setting
  std::vector<Setting> settings;   // complete: inheritance and grid are resolved
  std::vector<Endpoint> endpoints;

  std::string preset;                 // "kits23" or empty
  std::vector<RegionChoice> regions;  // empty: the preset's, else the model's
  std::optional<double> surface_tolerance_mm;
  std::string lesion_region;  // empty: no lesion counts
  double lesion_min_mm3 = 0;

  int repetitions = 1, warmup = 1;
  std::string order = "interleaved";  // interleaved | random | blocked
  uint64_t seed = 1;
  double idle_s = 10;       // length of each idle measurement; 0: none
  double timeout_s = 3600;  // per case
  int max_workers = 0;      // models kept loaded at once; 0: one per setting
};

// kInvalidArgument / kCorrupt naming file, line and key for: unknown keys, wrong types, values out of range,
// names used twice, an endpoint without delta, a baseline that does not exist. Bounded: files above 1 MiB are
// refused.
Result<Experiment> read_experiment(const std::string& file);
Result<Experiment> parse_experiment(const std::string& text, const std::string& file);

}  // namespace isoline::lab
