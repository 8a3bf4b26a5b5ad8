// What `isoline evaluate` says, as JSON and as a table.
#pragma once

#include <string>
#include <vector>

#include "cli.h"
#include "isoline/metrics/evaluate_case.h"

namespace isoline::cli {

// Everything one call found out.
struct Evaluation {
  EvaluationOptions options;
  std::string preset, preset_source;  // empty: none
  std::vector<std::string> case_ids;
  std::vector<CaseMetrics> cases;  // as case_ids
};

Json to_json(const Evaluation& evaluation);
// To standard output.
void print_table(const Evaluation& evaluation);

}  // namespace isoline::cli
