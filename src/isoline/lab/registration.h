// Registration: endpoints and thresholds, fixed in a file before anything is measured.
#pragma once

#include <optional>
#include <string>

#include "isoline/base/result.h"
#include "isoline/lab/plan.h"
#include "isoline/lab/summary.h"

namespace isoline::lab {

struct RegistrationRecord {
  std::string file, time;  // UTC, ISO 8601
  std::string sha256;      // of `registered`
  std::string registered;  // Plan::registered as it was then
};

// EXPERIMENT.toml -> EXPERIMENT.registered.json, beside it.
std::string registration_path(const std::string& experiment_file);

// Writes the record, once: with the same content again it returns the first record; with other content it is
// kInvalidArgument naming what differs, because a registration that can be rewritten is none.
Result<RegistrationRecord> register_plan(const Plan& plan);

// Unset: not registered. kCorrupt: the record does not fit its own hash.
Result<std::optional<RegistrationRecord>> read_registration(const std::string& file);

// What a run may say about itself: "registered", "changed" (with each difference), "late" (after the first
// measurement) or "missing".
Registration judge_registration(const Plan& plan, const std::optional<RegistrationRecord>& record,
                                const std::string& first_measurement);

// Differences of two JSON texts, one "path: before -> after" each.
std::vector<std::string> json_changes(const std::string& before, const std::string& after);

// Now, UTC, e.g. "2026-01-31T12:00:00Z". Texts of this form order as times do.
std::string utc_now();

}  // namespace isoline::lab
