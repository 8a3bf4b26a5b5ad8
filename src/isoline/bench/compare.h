// Bench results beside each other: equal loads in one row, ratios where they may be formed, one
// recommendation. A pure function of what the results say.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "isoline/bench/result.h"

namespace isoline::bench {

struct CompareOptions {
  std::optional<double> price_per_hour;  // of every machine; else each result's own
  std::optional<double> max_p99_ms;      // what the recommendation must keep
};

// One result's figures under one load.
struct Cell {
  size_t result = 0, point = 0;
  // Against the first result that has the load; > 1 is better (more inferences a second, a shorter p99, less
  // energy). Their intervals are the widest that both sides' intervals allow.
  Interval throughput_x, p99_x;
  Reading throughput_ratio, p99_ratio, energy_ratio;  // the same values, or why there is none
  Reading price_per_1000;
};
struct Row {
  std::string load;  // load_name()
  std::vector<Cell> cells;
};

struct Recommendation {
  std::optional<Cell> choice;
  std::string why;                       // one sentence
  std::vector<std::string> passed_over;  // loads left out, and why
};

struct Comparison {
  std::vector<std::string> labels;       // of the results, unique
  std::vector<std::string> differences;  // why ratios are not formed, naming both results; empty: they are
  std::vector<Row> rows;
  std::vector<std::string> notes;
  Recommendation recommendation;
};

// kInvalidArgument: no results.
Result<Comparison> compare(const std::vector<BenchResult>& results, const std::vector<std::string>& files,
                           const CompareOptions& options);

}  // namespace isoline::bench
