// Bench results as text.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/bench/result.h"

namespace isoline::cli {

void print_bench(const bench::BenchResult& result);

struct BenchCompareOptions {
  std::vector<std::string> files;
  std::optional<double> price_per_hour, max_p99_ms;
  bool json = false, quiet = false;
};
// `isoline compare` of bench results; published tables (docs/reference) among the files are shown beside.
Status compare_bench(const BenchCompareOptions& options);

}  // namespace isoline::cli
