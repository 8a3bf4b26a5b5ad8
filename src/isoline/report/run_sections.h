// The sections of a report about one run. report.cpp decides which and in what order.
#pragma once

#include <string>

#include "isoline/lab/summary.h"
#include "isoline/report/document.h"
#include "isoline/report/report.h"

namespace isoline::report {

// One run among those of a report.
struct RunContext {
  const lab::RunSummary& run;
  std::string label;
  const ReportOptions& options;
  size_t index = 0;
  bool many = false;  // headings one level down; captions and figure files carry the run
};

// The run in few figures, whether its thresholds were fixed beforehand, and a sentence per setting.
void append_summary(Document& doc, const RunContext& context);
void append_setup(Document& doc, const RunContext& context);
// The sequence, verdicts, where the time goes, side effects, the trade-off and what is recommended.
void append_results(Document& doc, const RunContext& context);
// What a published table gives: setup, its rows, times, remarks.
void append_published(Document& doc, const RunContext& context);
// Provenance, remarks and failures, every case.
void append_records(Document& doc, const RunContext& context);

}  // namespace isoline::report
