// JobStore: jobs, their scans and their results in one folder that outlives the process.
//
//   FOLDER/lock                 held by the process that uses the folder
//   FOLDER/jobs.sqlite          one row a job; every change is on disk before the call returns
//   FOLDER/scans/ID             a scan that was sent, until its job ended
//   FOLDER/results/ID.nii.gz    labels, and ID.png, their picture
//
// The order of writing makes every moment safe to be killed in: a scan's file is complete before its row is
// there, labels are complete before their row says succeeded, and a row goes before its files do. Files
// without a row are removed when the store is opened.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "isoline/base/file.h"
#include "isoline/base/result.h"
#include "isoline/jobs/database.h"
#include "isoline/jobs/job.h"

namespace isoline::jobs {

// A job that was running this often when the process died is not started again.
inline constexpr int kMaxAttempts = 3;

struct StoreOptions {
  std::string folder;  // made, for this user only, if it is not there
  // Jobs that have ended are removed with their files when there are more, or they ended longer ago.
  size_t keep_jobs = 1000;
  double keep_hours = 168;
};

// A new random id.
std::string make_job_id();

// Threads: all calls from any. Errors: as Database; kNotFound for an unknown id.
class JobStore {
 public:
  // Takes the folder for this process (kInvalidArgument if another has it). What was running is queued again
  // in its old place, or failed after kMaxAttempts, or cancelled if that was asked for.
  static Result<std::unique_ptr<JobStore>> open(const StoreOptions& options);
  ~JobStore();

  std::string scan_path(const std::string& id) const;
  std::string labels_path(const std::string& id) const;
  std::string picture_path(const std::string& id) const;
  // Bytes that the folder's disk still takes.
  Result<uint64_t> free_bytes() const;

  // A new job at the end of the queue; its scan is in its place already. Sets created_ms.
  Status add(Job& job);
  // The job that waits longest, now running; none if none waits.
  Result<std::optional<Job>> start_next();
  // A running job goes back to its place in the queue; the attempt does not count.
  Status put_back(const std::string& id);
  // A running job ends. Its scan is removed.
  Status finish(const std::string& id, JobStatus status, const std::string& error, const std::string& report);
  // A queued job is cancelled at once; of a running one the wish is kept. The job as it is now; those that
  // have ended stay as they are.
  Result<Job> cancel(const std::string& id);
  // A job that has ended goes, with its files; kInvalidArgument for others.
  Status remove(const std::string& id);
  // Removes what keep_jobs and keep_hours say.
  Status remove_old(int64_t at_ms);

  Result<Job> find(const std::string& id) const;
  // Newest first, without reports.
  Result<std::vector<Job>> newest(size_t most) const;
  // Jobs in each state.
  struct Counts {
    size_t queued = 0, running = 0, succeeded = 0, failed = 0, cancelled = 0;
  };
  Result<Counts> counts() const;

 private:
  JobStore(StoreOptions options, int lock_fd, Database database);
  Status recover();
  Status remove_strays();
  Status remove_row_and_files(const std::string& id);
  Result<Job> find_locked(const std::string& id) const;
  const StoreOptions options_;
  const int lock_fd_;
  mutable std::mutex mutex_;
  mutable Database database_;
};

}  // namespace isoline::jobs
