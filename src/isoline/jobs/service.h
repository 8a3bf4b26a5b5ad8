// JobService: accepts scans, has them segmented one after another, and hands out what came of it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "isoline/jobs/runner.h"
#include "isoline/jobs/store.h"

namespace isoline::jobs {

struct ServiceOptions {
  StoreOptions store;
  size_t max_waiting = 100;                       // jobs in the queue, scans on their way included
  uint64_t max_volume_bytes = uint64_t{2} << 30;  // of a scan as it is sent, and again inflated
  std::vector<std::string> allowed_roots;         // folders whose files may be named instead of sent
  JobSettings defaults;                           // of requests that do not say
  std::function<void(const Error&)> warn;  // told, from the worker's thread, when the store cannot be written
};

// Why something asked for is not done; whoever speaks a protocol turns it into a status.
enum class Refused {
  kWrong,        // the request or the scan
  kUnknown,      // no such model, job or file
  kForbidden,    // a file outside the allowed folders
  kNotYet,       // the job is not in a state for that
  kTooLarge,     // the scan
  kQueueFull,    // ask again later
  kDiskFull,     // likewise, but somebody has to make room
  kUnavailable,  // the server stops, or its folder cannot be written
};
struct Refusal {
  Refused why;
  std::string text;
};
template <class T>
class Outcome {
 public:
  Outcome(T value) : value_(std::move(value)) {}              // NOLINT: implicit by design
  Outcome(Refusal refusal) : refusal_(std::move(refusal)) {}  // NOLINT
  bool ok() const { return value_.has_value(); }
  T& operator*() { return *value_; }
  const T& operator*() const { return *value_; }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }
  const Refusal& refusal() const { return refusal_; }

 private:
  std::optional<T> value_;
  Refusal refusal_{Refused::kWrong, ""};
};

// A job as it is at the moment.
struct JobView {
  Job job;
  double progress = 0;  // 0..1
};

// A place in the queue and a file for a scan that is being sent. Destroyed before it is accepted, it leaves
// nothing. One thread at a time.
class Upload {
 public:
  ~Upload();
  // Appends; what is refused stays refused.
  std::optional<Refusal> write(std::span<const std::byte> bytes);

 private:
  friend class JobService;
  Upload(class JobService& service, Job job, const VolumeModel& model, AtomicFile file);
  class JobService& service_;
  Job job_;
  const VolumeModel& model_;
  std::optional<AtomicFile> file_;
};

// Threads: all calls from any; those marked so wait for the disk.
class JobService {
 public:
  // `models`: those without an error can be asked for. Begins to work at once.
  static Result<std::unique_ptr<JobService>> open(ServiceOptions options, std::vector<VolumeModel> models,
                                                  std::unique_ptr<JobRunner> runner);
  ~JobService();  // stop() without time

  const std::vector<VolumeModel>& models() const { return models_; }
  const ServiceOptions& options() const { return options_; }

  // Why such a scan would be refused, as far as that is known without looking at the disk or the queue.
  std::optional<Refusal> check_request(const std::string& model, const JobSettings& settings,
                                       std::optional<uint64_t> bytes) const;
  // A place for a scan of so many bytes, if that is known. Waits for the disk, briefly.
  Outcome<std::shared_ptr<Upload>> begin(const std::string& model, const JobSettings& settings,
                                         std::optional<uint64_t> bytes);
  // The scan is there: it is checked and, once everything is on disk, queued. Waits for the disk.
  Outcome<JobView> accept(Upload& upload);
  // The same for a file inside an allowed folder. Waits for the disk.
  Outcome<JobView> accept_file(const std::string& model, const JobSettings& settings,
                               const std::string& file);

  Outcome<JobView> find(const std::string& id) const;
  Outcome<std::vector<JobView>> newest(size_t most) const;
  Outcome<JobStore::Counts> counts() const;
  // The path of a finished job's labels or picture.
  Outcome<std::string> labels_file(const std::string& id) const;
  Outcome<std::string> picture_file(const std::string& id) const;
  // Cancels a job that has not ended (a running one ends soon); removes one that has (nothing is returned).
  Outcome<std::optional<JobView>> remove(const std::string& id);

  // Nothing more is accepted and no further job begins.
  void stop_taking();
  // Waits until the running job has ended or, at `deadline`, puts it back into the queue.
  void stop(std::chrono::steady_clock::time_point deadline);

 private:
  friend class Upload;
  JobService(ServiceOptions options, std::vector<VolumeModel> models, std::unique_ptr<JobRunner> runner,
             std::unique_ptr<JobStore> store);
  Outcome<const VolumeModel*> find_model(const std::string& name) const;
  std::optional<Refusal> check_scan(const std::string& path, const VolumeModel& model) const;
  std::optional<Refusal> take_place();
  void give_place();
  Outcome<JobView> queue(Job job);
  JobView view(Job job) const;
  void work();
  void run(const Job& job);
  void finish(const Job& job, JobStatus status, const std::string& error, const std::string& report);

  const ServiceOptions options_;
  const std::vector<VolumeModel> models_;
  const std::unique_ptr<JobRunner> runner_;
  const std::unique_ptr<JobStore> store_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  size_t coming_ = 0;                // places taken by scans on their way
  bool taking_ = true;               // false: the server stops
  std::string running_id_;           // empty: none
  std::atomic<bool> cancel_{false};  // of the running job: its own wish, or the server stops
  std::atomic<double> progress_{0};
  std::thread worker_;
};

}  // namespace isoline::jobs
