// Job: one scan that was accepted to be segmented. Plain data.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "isoline/base/result.h"

namespace isoline::jobs {

enum class JobStatus { kQueued, kRunning, kSucceeded, kFailed, kCancelled };
const char* to_string(JobStatus status);
std::optional<JobStatus> parse_status(const std::string& text);
inline bool has_ended(JobStatus s) {
  return s != JobStatus::kQueued && s != JobStatus::kRunning;
}

// What a request may choose for itself; the rest is the server's.
struct JobSettings {
  double step = 0.5;
  std::string tta = "all";
  friend bool operator==(const JobSettings&, const JobSettings&) = default;
};

// kInvalidArgument, naming the option, for a step or axes that no scan can be segmented with.
Status check_settings(const JobSettings& settings);

struct Job {
  std::string id;  // 32 hexadecimal digits, not to be guessed
  std::string model;
  JobSettings settings;
  // A file that stays where it is; empty: the scan was sent and lies in the store.
  std::string referenced_file;
  JobStatus status = JobStatus::kQueued;
  bool cancel_requested = false;  // while it runs
  int attempts = 0;               // times it was started
  std::string error;              // of a failed job
  std::string report;             // of a job that succeeded: JSON
  // Milliseconds since 1970, UTC; 0: not yet.
  int64_t created_ms = 0, started_ms = 0, finished_ms = 0;
};

int64_t now_ms();

}  // namespace isoline::jobs
