// The cheapest setting that preserves the answer.
#pragma once

#include <string>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/lab/summary.h"

namespace isoline::lab {

struct Recommendation {
  std::string setting, by;
  std::string why;                       // one sentence with the figures
  std::vector<std::string> passed_over;  // cheaper settings, each with its reason
  std::vector<std::string> caveats;      // registration, failures
};

// by: "time" (s/case), "energy" (gross J/case), "vram" or "rss" (peak bytes). Candidates: the baseline and
// every setting whose verdict is preserved. kUnsupported: that cost is not available for a candidate; its
// reason is named. kNotFound: the baseline has no result.
Result<Recommendation> recommend(const RunSummary& summary, const std::string& by = "time");

}  // namespace isoline::lab
