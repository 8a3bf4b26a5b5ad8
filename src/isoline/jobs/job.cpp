#include "isoline/jobs/job.h"

#include <array>
#include <chrono>
#include <utility>

namespace isoline::jobs {
namespace {

constexpr std::array<std::pair<JobStatus, const char*>, 5> kNames{{{JobStatus::kQueued, "queued"},
                                                                   {JobStatus::kRunning, "running"},
                                                                   {JobStatus::kSucceeded, "succeeded"},
                                                                   {JobStatus::kFailed, "failed"},
                                                                   {JobStatus::kCancelled, "cancelled"}}};

}  // namespace

const char* to_string(JobStatus status) {
  for (const auto& [s, name] : kNames)
    if (s == status) return name;
  return "unknown";
}

std::optional<JobStatus> parse_status(const std::string& text) {
  for (const auto& [s, name] : kNames)
    if (text == name) return s;
  return std::nullopt;
}

int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace isoline::jobs
