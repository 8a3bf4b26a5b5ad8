// RunSummaries -> Document: which tables, figures and sentences a report holds. A pure function; a value that
// is missing prints "n/a" with the reason as a note of its table, never 0 and never nothing.
#pragma once

#include <string>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/lab/compare.h"
#include "isoline/lab/summary.h"
#include "isoline/report/document.h"

namespace isoline::report {

// What `recommend` says about one run.
struct Recommendation {
  size_t run = 0;       // index into the runs
  std::string by;       // "time", "energy", ...
  std::string setting;  // empty: none can be recommended
  std::string why;
  std::vector<std::string> more;  // settings passed over, caveats: one sentence each
};

struct ReportOptions {
  std::string title;     // empty: made from the first run
  std::string baseline;  // as in lab::CompareOptions
  lab::Prices prices;
  std::vector<Recommendation> recommendations;
  std::string written;  // when, for the subtitle; empty: not said
};

// files[i] is where runs[i] came from. Errors: those of lab::compare.
Result<Document> make_report(const std::vector<lab::RunSummary>& runs, const std::vector<std::string>& files,
                             const ReportOptions& options);

}  // namespace isoline::report
