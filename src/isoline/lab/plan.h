// Plan: an experiment looked up on disk: cases paired with references, regions of the model, fingerprints,
// and the part of it that is to be registered.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "isoline/base/parallel.h"
#include "isoline/base/result.h"
#include "isoline/lab/experiment.h"
#include "isoline/metrics/evaluate_case.h"
#include "isoline/pipeline/cases.h"
#include "isoline/volume/reader_kind.h"

namespace isoline::lab {

struct PlannedCase {
  CaseFiles files;  // output is left empty: it depends on the setting
  std::string reference;
  std::string sha256;  // over images and reference
};

struct Plan {
  Experiment experiment;
  std::string model_name, model_sha256, cases_sha256;
  ReaderKind reader = ReaderKind::kSimpleItk;
  std::string file_ending;
  std::vector<PlannedCase> cases;  // by id
  EvaluationOptions evaluation;    // regions, tolerances, lesions
  // Canonical JSON of what registration freezes: baseline, endpoints and their deltas, regions, tolerances,
  // decision rule, cases and model.
  std::string registered;

  const Setting& setting(const std::string& name) const;  // must exist
};

// Called after each case was checked.
using PlanProgress = std::function<void(int64_t done, int64_t total)>;

// Reads the model and every case once. Errors name the file: no such model, a case without a reference, an id
// of `only` without a scan, no case at all, scan and reference on different grids, an endpoint whose region
// does not exist or has no tolerance.
Result<Plan> make_plan(Experiment experiment, ThreadPool& pool, const PlanProgress& progress = {});

}  // namespace isoline::lab
