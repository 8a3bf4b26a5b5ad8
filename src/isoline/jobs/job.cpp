#include "isoline/jobs/job.h"

#include <array>
#include <chrono>
#include <utility>

#include "isoline/pipeline/open_segmenter.h"

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

Status check_settings(const JobSettings& settings) {
  if (!(settings.step >= 0.05 && settings.step <= 1))
    return Error{ErrorCode::kInvalidArgument, "must be 0.05 to 1", "step", ""};
  if (!parse_mirror_axes(settings.tta).ok())
    return Error{ErrorCode::kInvalidArgument, "must be all, none or a list such as 0,1", "tta", ""};
  return {};
}

int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace isoline::jobs
