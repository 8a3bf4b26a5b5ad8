#include "isoline/jobs/service.h"

#include <pthread.h>

#include <algorithm>
#include <filesystem>

#include "isoline/io/nifti.h"

namespace isoline::jobs {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
constexpr auto kRetry = std::chrono::seconds(1);
constexpr auto kCleanEvery = std::chrono::minutes(1);
// Left free on the disk: the results of what was accepted have to be written too.
constexpr uint64_t kSpareBytes = uint64_t{64} << 20;

// The server's folder cannot be used.
Refusal refuse_folder(const Error& e) {
  if (e.code == ErrorCode::kResourceExhausted) return {Refused::kDiskFull, "the server's disk is full"};
  return {Refused::kUnavailable, "the server cannot keep jobs now: " + e.message};
}

// An error of the store. Where its folder lies is nobody's business but the server's.
Refusal refuse_store(const Error& e) {
  if (e.code == ErrorCode::kNotFound) return {Refused::kUnknown, "there is no such job"};
  return refuse_folder(e);
}

// `text` with the store's name of a scan taken out.
std::string without_path(std::string text, const std::string& path) {
  for (size_t at; (at = text.find(path)) != std::string::npos;) text.replace(at, path.size(), "the scan");
  return text;
}

bool lies_in(const fs::path& file, const fs::path& folder) {
  const auto [end, rest] = std::mismatch(folder.begin(), folder.end(), file.begin(), file.end());
  return end == folder.end() && rest != file.end();
}

bool lies_in_any(const fs::path& file, const std::vector<std::string>& folders) {
  return std::any_of(folders.begin(), folders.end(), [&](const std::string& f) { return lies_in(file, f); });
}

}  // namespace

Upload::Upload(JobService& service, Job job, const VolumeModel& model, AtomicFile file)
    : service_(service), job_(std::move(job)), model_(model), file_(std::move(file)) {}

Upload::~Upload() {
  file_.reset();
  service_.give_place();
}

std::optional<Refusal> Upload::write(std::span<const std::byte> bytes) {
  if (!file_) return Refusal{Refused::kUnavailable, "the scan was refused already"};
  const uint64_t most = service_.options_.max_volume_bytes;
  std::optional<Refusal> refusal;
  if (file_->bytes_written() + bytes.size() > most)
    refusal = {Refused::kTooLarge, "the scan is above the limit of " + std::to_string(most) + " bytes"};
  else if (Status s = file_->write(bytes); !s.ok())
    refusal = refuse_folder(s.error());
  if (refusal) file_.reset();  // its bytes go at once
  return refusal;
}

JobService::JobService(ServiceOptions options, std::vector<VolumeModel> models,
                       std::unique_ptr<JobRunner> runner, std::unique_ptr<JobStore> store)
    : options_(std::move(options)),
      models_(std::move(models)),
      runner_(std::move(runner)),
      store_(std::move(store)) {}

Result<std::unique_ptr<JobService>> JobService::open(ServiceOptions options, std::vector<VolumeModel> models,
                                                     std::unique_ptr<JobRunner> runner) {
  for (std::string& root : options.allowed_roots) {
    std::error_code ec;
    const fs::path real = fs::canonical(root, ec);
    if (ec || !fs::is_directory(real, ec))
      return Error{ErrorCode::kNotFound, "is no folder", root, "Give --allow-root an existing folder."};
    root = real.string();
  }
  ISOLINE_ASSIGN(auto store, JobStore::open(options.store));
  std::unique_ptr<JobService> service(
      new JobService(std::move(options), std::move(models), std::move(runner), std::move(store)));
  service->worker_ = std::thread([s = service.get()] { s->work(); });
  return service;
}

JobService::~JobService() {
  stop(Clock::now());
}

Outcome<const VolumeModel*> JobService::find_model(const std::string& name) const {
  for (const VolumeModel& m : models_) {
    if (m.name != name) continue;
    if (m.error) return Refusal{Refused::kUnavailable, "model '" + name + "' cannot be used"};
    return &m;
  }
  return Refusal{Refused::kUnknown, "there is no model '" + name.substr(0, 128) + "' for scans"};
}

std::optional<Refusal> JobService::check_scan(const std::string& path, const VolumeModel& model) const {
  const auto summary = check_nifti(path, model.spec.reader, options_.max_volume_bytes);
  if (!summary.ok()) {
    const ErrorCode code = summary.error().code;
    const Refused why = code == ErrorCode::kResourceExhausted ? Refused::kTooLarge
                        : code == ErrorCode::kNotFound        ? Refused::kUnknown
                        : code == ErrorCode::kIo              ? Refused::kUnavailable
                                                              : Refused::kWrong;
    return Refusal{why, without_path(summary.error().to_string(), path)};
  }
  const size_t wanted = model.spec.channels.size();
  if (size_t(summary->channels) != wanted)
    return Refusal{Refused::kWrong, "the scan has " + std::to_string(summary->channels) +
                                        " channels, model '" + model.name + "' takes " +
                                        std::to_string(wanted)};
  if (summary->dimensions == 2 && model.spec.patch_size.size() == 3)
    return Refusal{Refused::kWrong, "a 2-D image cannot go through a 3-D model"};
  return std::nullopt;
}

std::optional<Refusal> JobService::take_place() {
  std::lock_guard lock(mutex_);
  if (!taking_) return Refusal{Refused::kUnavailable, "the server is stopping"};
  const auto counts = store_->counts();
  if (!counts.ok()) return refuse_store(counts.error());
  if (counts->queued + coming_ >= options_.max_waiting)
    return Refusal{Refused::kQueueFull,
                   "the queue is full: " + std::to_string(options_.max_waiting) + " scans wait"};
  ++coming_;
  return std::nullopt;
}

void JobService::give_place() {
  std::lock_guard lock(mutex_);
  --coming_;
}

std::optional<Refusal> JobService::check_request(const std::string& model, const JobSettings& settings,
                                                 std::optional<uint64_t> bytes) const {
  const auto found = find_model(model);
  if (!found.ok()) return found.refusal();
  if (const Status s = check_settings(settings); !s.ok())
    return Refusal{Refused::kWrong, s.error().to_string()};
  if (bytes.value_or(0) > options_.max_volume_bytes)
    return Refusal{Refused::kTooLarge,
                   "the scan is above the limit of " + std::to_string(options_.max_volume_bytes) + " bytes"};
  return std::nullopt;
}

Outcome<std::shared_ptr<Upload>> JobService::begin(const std::string& model, const JobSettings& settings,
                                                   std::optional<uint64_t> bytes) {
  if (auto refusal = check_request(model, settings, bytes)) return *refusal;
  const auto found = find_model(model);
  const auto free_bytes = store_->free_bytes();
  if (!free_bytes.ok()) return refuse_folder(free_bytes.error());
  if (*free_bytes < bytes.value_or(0) + kSpareBytes)
    return Refusal{Refused::kDiskFull, "the server's disk is full"};
  if (auto refusal = take_place()) return *refusal;
  Job job;
  job.id = make_job_id();
  job.model = model;
  job.settings = settings;
  auto file = AtomicFile::create(store_->scan_path(job.id));
  if (!file.ok()) {
    give_place();
    return refuse_folder(file.error());
  }
  return std::shared_ptr<Upload>(new Upload(*this, std::move(job), **found, std::move(*file)));
}

Outcome<JobView> JobService::accept(Upload& upload) {
  if (!upload.file_) return Refusal{Refused::kWrong, "no scan was sent"};
  const std::string path = store_->scan_path(upload.job_.id);
  const Status committed = upload.file_->commit();
  upload.file_.reset();
  if (!committed.ok()) return refuse_folder(committed.error());
  auto refusal = check_scan(path, upload.model_);
  if (!refusal) {
    auto queued = queue(upload.job_);
    if (queued.ok()) return queued;
    refusal = queued.refusal();
  }
  std::error_code ec;
  fs::remove(path, ec);
  return *refusal;
}

Outcome<JobView> JobService::accept_file(const std::string& model, const JobSettings& settings,
                                         const std::string& file) {
  if (auto refusal = check_request(model, settings, std::nullopt)) return *refusal;
  const auto found = find_model(model);
  if (options_.allowed_roots.empty())
    return Refusal{Refused::kForbidden,
                   "files cannot be named here: send the scan (or start with --allow-root)"};
  if (file.empty() || file[0] != '/' || file.find('\0') != std::string::npos)
    return Refusal{Refused::kWrong, "file must be an absolute path"};
  const Refusal outside{Refused::kForbidden, "the file is not inside an allowed folder"};
  std::error_code ec;
  const fs::path real = fs::canonical(file, ec);  // without links and ..
  if (ec) {
    // Whether something exists elsewhere is not told.
    if (!lies_in_any(fs::path(file).lexically_normal(), options_.allowed_roots)) return outside;
    return Refusal{Refused::kUnknown, "there is no such file"};
  }
  if (!lies_in_any(real, options_.allowed_roots)) return outside;
  if (auto refusal = check_scan(real.string(), **found)) return *refusal;
  if (auto refusal = take_place()) return *refusal;
  Job job;
  job.id = make_job_id();
  job.model = model;
  job.settings = settings;
  job.referenced_file = real.string();
  auto queued = queue(std::move(job));
  give_place();
  return queued;
}

Outcome<JobView> JobService::queue(Job job) {
  {
    std::lock_guard lock(mutex_);
    if (!taking_) return Refusal{Refused::kUnavailable, "the server is stopping"};
    if (Status s = store_->add(job); !s.ok()) return refuse_store(s.error());
  }
  changed_.notify_all();
  return JobView{std::move(job), 0};
}

JobView JobService::view(Job job) const {
  double progress = job.status == JobStatus::kSucceeded ? 1 : 0;
  if (job.status == JobStatus::kRunning) {
    std::lock_guard lock(mutex_);
    if (running_id_ == job.id) progress = progress_;
  }
  return {std::move(job), progress};
}

Outcome<JobView> JobService::find(const std::string& id) const {
  auto job = store_->find(id);
  if (!job.ok()) return refuse_store(job.error());
  return view(std::move(*job));
}

Outcome<std::vector<JobView>> JobService::newest(size_t most) const {
  auto jobs = store_->newest(most);
  if (!jobs.ok()) return refuse_store(jobs.error());
  std::vector<JobView> views;
  for (Job& job : *jobs) views.push_back(view(std::move(job)));
  return views;
}

Outcome<JobStore::Counts> JobService::counts() const {
  const auto counts = store_->counts();
  if (!counts.ok()) return refuse_store(counts.error());
  return *counts;
}

Outcome<std::string> JobService::labels_file(const std::string& id) const {
  const auto job = store_->find(id);
  if (!job.ok()) return refuse_store(job.error());
  if (job->status == JobStatus::kSucceeded) return store_->labels_path(id);
  return Refusal{Refused::kNotYet,
                 std::string("the job is ") + to_string(job->status) + ": there are no labels"};
}

Outcome<std::string> JobService::picture_file(const std::string& id) const {
  auto labels = labels_file(id);
  if (!labels.ok()) return labels.refusal();
  const std::string path = store_->picture_path(id);
  std::error_code ec;
  if (fs::is_regular_file(path, ec)) return path;
  return Refusal{Refused::kUnknown, "this scan could not be drawn; its report says why"};
}

Outcome<std::optional<JobView>> JobService::remove(const std::string& id) {
  std::unique_lock lock(mutex_);  // so that the job does not begin or end meanwhile
  const auto before = store_->find(id);
  if (!before.ok()) return refuse_store(before.error());
  if (has_ended(before->status)) {
    if (Status s = store_->remove(id); !s.ok()) return refuse_store(s.error());
    return std::optional<JobView>();
  }
  auto job = store_->cancel(id);
  if (!job.ok()) return refuse_store(job.error());
  if (running_id_ == id) cancel_ = true;
  lock.unlock();
  return std::optional(view(std::move(*job)));
}

void JobService::stop_taking() {
  {
    std::lock_guard lock(mutex_);
    taking_ = false;
  }
  changed_.notify_all();
}

void JobService::stop(Clock::time_point deadline) {
  stop_taking();
  {
    std::unique_lock lock(mutex_);
    changed_.wait_until(lock, deadline, [&] { return running_id_.empty(); });
    if (!running_id_.empty()) cancel_ = true;
  }
  if (worker_.joinable()) worker_.join();
}

void JobService::work() {
  ::pthread_setname_np(::pthread_self(), "jobs");
  const auto warn = [&](const Error& e) {
    if (options_.warn) options_.warn(e);
  };
  std::unique_lock lock(mutex_);
  while (taking_) {
    auto next = store_->start_next();
    if (!next.ok()) {
      warn(next.error());
      changed_.wait_for(lock, kRetry);
      continue;
    }
    if (!*next) {
      // Old jobs go even where no new ones come.
      if (changed_.wait_for(lock, kCleanEvery) == std::cv_status::timeout)
        if (Status s = store_->remove_old(now_ms()); !s.ok()) warn(s.error());
      continue;
    }
    running_id_ = (*next)->id;
    progress_ = 0;
    cancel_ = false;
    lock.unlock();
    run(**next);
    lock.lock();
    running_id_.clear();
    changed_.notify_all();
    if (Status s = store_->remove_old(now_ms()); !s.ok()) warn(s.error());
  }
}

void JobService::run(const Job& job) {
  const auto attempt = [&]() -> Result<std::string> {
    const auto model = find_model(job.model);
    if (!model.ok()) return Error{ErrorCode::kNotFound, model.refusal().text, "", ""};
    JobFiles files{store_->scan_path(job.id), store_->labels_path(job.id), store_->picture_path(job.id)};
    if (!job.referenced_file.empty()) {
      files.scan = job.referenced_file;
      std::error_code ec;
      const fs::path real = fs::canonical(files.scan, ec);
      if (ec || real != files.scan || !lies_in_any(real, options_.allowed_roots))
        return Error{ErrorCode::kNotFound, "the file is not there any more, or not allowed any more", "", ""};
    }
    auto report = runner_->run(
        job, **model, files, [&](double done) { progress_ = done; }, cancel_);
    if (report.ok()) return report;
    Error error = report.error();
    if (job.referenced_file.empty()) {
      error.context = without_path(error.context, files.scan);
      error.message = without_path(error.message, files.scan);
    }
    error.context = without_path(error.context, files.labels);
    return error;
  };
  Result<std::string> report = std::string();
  try {
    report = attempt();
  } catch (const std::bad_alloc&) {
    report = Error{ErrorCode::kResourceExhausted, "memory ran out", "", ""};
  } catch (const std::exception& e) {
    report = Error{ErrorCode::kInternal, e.what(), "", ""};
  }
  if (report.ok()) return finish(job, JobStatus::kSucceeded, "", *report);
  if (report.error().code != ErrorCode::kCancelled)
    return finish(job, JobStatus::kFailed, report.error().to_string(), "");
  const auto now = store_->find(job.id);
  if (now.ok() && now->cancel_requested) return finish(job, JobStatus::kCancelled, "", "");
  // The server stops. If this cannot be written, the job counts as one during which the server died.
  if (Status s = store_->put_back(job.id); !s.ok() && options_.warn) options_.warn(s.error());
}

void JobService::finish(const Job& job, JobStatus status, const std::string& error,
                        const std::string& report) {
  for (;;) {
    const Status s = store_->finish(job.id, status, error, report);
    if (s.ok()) return;
    if (options_.warn) options_.warn(s.error());
    std::unique_lock lock(mutex_);
    // Hours of work may hang on it: tried until it can be written, or the server stops and starts the job
    // again.
    changed_.wait_for(lock, kRetry, [&] { return !taking_; });
    if (!taking_) return;
  }
}

}  // namespace isoline::jobs
