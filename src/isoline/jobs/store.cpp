#include "isoline/jobs/store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>

namespace isoline::jobs {
namespace {

namespace fs = std::filesystem;
constexpr int kSchemaVersion = 1;
constexpr int kApplicationId = 0x49534f4a;  // "ISOJ"
constexpr size_t kIdLength = 32;
constexpr const char* kColumns =
    "id, model, step, tta, referenced_file, status, cancel_requested, attempts, error, report, created_ms, "
    "started_ms, finished_ms";

// number: the order of the queue, which a restart does not change.
constexpr const char* kSchema = R"(
CREATE TABLE job(
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  model TEXT NOT NULL,
  step REAL NOT NULL,
  tta TEXT NOT NULL,
  referenced_file TEXT NOT NULL,
  status TEXT NOT NULL,
  cancel_requested INTEGER NOT NULL DEFAULT 0,
  attempts INTEGER NOT NULL DEFAULT 0,
  error TEXT NOT NULL DEFAULT '',
  report TEXT NOT NULL DEFAULT '',
  created_ms INTEGER NOT NULL,
  started_ms INTEGER NOT NULL DEFAULT 0,
  finished_ms INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX job_by_status ON job(status, number);
)";

Error io_error(const std::string& doing, const std::string& path) {
  const int code = errno;
  return {code == ENOSPC || code == EDQUOT ? ErrorCode::kResourceExhausted : ErrorCode::kIo,
          doing + ": " + std::strerror(code), path, "Choose another folder with --state."};
}

Status make_folder(const std::string& path) {
  std::error_code ec;
  const fs::path parent = fs::path(path).parent_path();
  if (!parent.empty()) fs::create_directories(parent, ec);
  if (::mkdir(path.c_str(), 0700) == 0) return {};
  if (errno == EEXIST && fs::is_directory(path, ec)) return {};
  return io_error("cannot make the folder", path);
}

// An open descriptor that holds the folder's lock.
Result<int> lock_folder(const std::string& folder) {
  const std::string path = folder + "/lock";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return io_error("cannot be written", path);
  if (::flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
  ::close(fd);
  return Error{ErrorCode::kInvalidArgument, "another server keeps its jobs in this folder", folder,
               "Give each server a --state folder of its own."};
}

Status prepare_schema(Database& database) {
  int64_t version = 0, application = 0;
  {
    Statement asked(database, "PRAGMA user_version");
    ISOLINE_RETURN_IF_ERROR(asked.step());
    version = asked.integer(0);
    Statement whose(database, "PRAGMA application_id");
    ISOLINE_RETURN_IF_ERROR(whose.step());
    application = whose.integer(0);
  }
  if (version == 0 && application == 0)
    return database.run("BEGIN;" + std::string(kSchema) +
                        "PRAGMA user_version=" + std::to_string(kSchemaVersion) +
                        ";PRAGMA application_id=" + std::to_string(kApplicationId) + ";COMMIT;");
  if (application == kApplicationId && version == kSchemaVersion) return {};
  return Error{ErrorCode::kUnsupported,
               application == kApplicationId
                   ? "was written by another version of isoline (schema " + std::to_string(version) +
                         ", this one knows " + std::to_string(kSchemaVersion) + ")"
                   : "is no database of jobs",
               "jobs.sqlite", "Choose another --state folder."};
}

Job read_job(const Statement& row) {
  Job job;
  int c = 0;
  job.id = row.text(c++);
  job.model = row.text(c++);
  job.settings.step = row.real(c++);
  job.settings.tta = row.text(c++);
  job.referenced_file = row.text(c++);
  job.status = parse_status(row.text(c++)).value_or(JobStatus::kFailed);
  job.cancel_requested = row.integer(c++) != 0;
  job.attempts = int(row.integer(c++));
  job.error = row.text(c++);
  job.report = row.text(c++);
  job.created_ms = row.integer(c++);
  job.started_ms = row.integer(c++);
  job.finished_ms = row.integer(c++);
  return job;
}

bool is_id(const std::string& text) {
  return text.size() == kIdLength && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

// The job whose file this is or was going to be (".ID.nii.gz.tmp-..."); empty: none of ours.
std::string id_of_file(std::string name) {
  if (name.starts_with('.')) name.erase(0, 1);
  const std::string id = name.substr(0, kIdLength);
  const bool ours = is_id(id) && (name.size() == kIdLength || name[kIdLength] == '.');
  return ours ? id : std::string();
}

void remove_file(const std::string& path) {
  std::error_code ec;  // what cannot be removed now is a stray when the store is opened again
  fs::remove(path, ec);
}

}  // namespace

std::string make_job_id() {
  std::array<unsigned char, kIdLength / 2> bytes{};
  if (::getrandom(bytes.data(), bytes.size(), 0) != ssize_t(bytes.size()))
    throw std::runtime_error(std::string("getrandom: ") + std::strerror(errno));
  std::string id;
  for (unsigned char b : bytes) {
    id += "0123456789abcdef"[b >> 4];
    id += "0123456789abcdef"[b & 15];
  }
  return id;
}

JobStore::JobStore(StoreOptions options, int lock_fd, Database database)
    : options_(std::move(options)), lock_fd_(lock_fd), database_(std::move(database)) {}

JobStore::~JobStore() {
  ::close(lock_fd_);
}

Result<std::unique_ptr<JobStore>> JobStore::open(const StoreOptions& options) {
  for (const char* sub : {"", "/scans", "/results"})
    ISOLINE_RETURN_IF_ERROR(make_folder(options.folder + sub));
  ISOLINE_ASSIGN(const int lock_fd, lock_folder(options.folder));
  auto database = Database::open(options.folder + "/jobs.sqlite");
  if (!database.ok()) {
    ::close(lock_fd);
    return database.error();
  }
  std::unique_ptr<JobStore> store(new JobStore(options, lock_fd, std::move(*database)));
  ISOLINE_RETURN_IF_ERROR(prepare_schema(store->database_));
  ISOLINE_RETURN_IF_ERROR(store->recover());
  ISOLINE_RETURN_IF_ERROR(store->remove_old(now_ms()));
  ISOLINE_RETURN_IF_ERROR(store->remove_strays());
  return store;
}

Status JobStore::recover() {
  const std::string now = std::to_string(now_ms());
  return database_.run(
      "BEGIN;"
      "UPDATE job SET status='cancelled', finished_ms=" +
      now + " WHERE status='running' AND cancel_requested;" +
      "UPDATE job SET status='failed', error='the server ended " + std::to_string(kMaxAttempts) +
      " times while this job ran', finished_ms=" + now +
      " WHERE status='running' AND attempts>=" + std::to_string(kMaxAttempts) + ";" +
      "UPDATE job SET status='queued', started_ms=0 WHERE status='running';"
      "COMMIT;");
}

Status JobStore::remove_strays() {
  for (const bool scans : {true, false}) {
    std::vector<fs::path> strays;
    std::error_code ec;
    for (fs::directory_iterator it(options_.folder + (scans ? "/scans" : "/results"), ec), end;
         !ec && it != end; it.increment(ec)) {
      const std::string name = it->path().filename().string();
      const std::string id = id_of_file(name);
      if (id.empty()) continue;
      const auto job = find_locked(id);
      if (!job.ok() && job.error().code != ErrorCode::kNotFound) return job.error();
      const bool wanted = job.ok() && !name.starts_with('.') &&
                          (scans ? !has_ended(job->status) : job->status == JobStatus::kSucceeded);
      if (!wanted) strays.push_back(it->path());
    }
    for (const fs::path& p : strays) remove_file(p.string());
  }
  return {};
}

std::string JobStore::scan_path(const std::string& id) const {
  return options_.folder + "/scans/" + id;
}
std::string JobStore::labels_path(const std::string& id) const {
  return options_.folder + "/results/" + id + ".nii.gz";
}
std::string JobStore::picture_path(const std::string& id) const {
  return options_.folder + "/results/" + id + ".png";
}

Result<uint64_t> JobStore::free_bytes() const {
  struct statvfs s {};
  if (::statvfs(options_.folder.c_str(), &s) != 0) return io_error("cannot be looked at", options_.folder);
  return uint64_t(s.f_bavail) * s.f_frsize;
}

Status JobStore::add(Job& job) {
  std::lock_guard lock(mutex_);
  job.status = JobStatus::kQueued;
  job.created_ms = now_ms();
  Statement s(database_,
              "INSERT INTO job(id, model, step, tta, referenced_file, status, created_ms) "
              "VALUES(?, ?, ?, ?, ?, 'queued', ?)");
  s.bind(job.id).bind(job.model).bind(job.settings.step).bind(job.settings.tta).bind(job.referenced_file);
  return s.bind(job.created_ms).finish();
}

Result<std::optional<Job>> JobStore::start_next() {
  std::lock_guard lock(mutex_);
  const std::string sql =
      "UPDATE job SET status='running', attempts=attempts+1, started_ms=? WHERE number=("
      "SELECT number FROM job WHERE status='queued' ORDER BY number LIMIT 1) RETURNING " +
      std::string(kColumns);
  Statement s(database_, sql.c_str());
  ISOLINE_ASSIGN(const bool any, s.bind(now_ms()).step());
  if (!any) return std::optional<Job>();
  Job job = read_job(s);
  ISOLINE_RETURN_IF_ERROR(s.finish());  // the change is on disk from here on
  return std::optional<Job>(std::move(job));
}

Status JobStore::put_back(const std::string& id) {
  std::lock_guard lock(mutex_);
  Statement s(
      database_,
      "UPDATE job SET status='queued', attempts=attempts-1, started_ms=0 WHERE id=? AND status='running'");
  return s.bind(id).finish();
}

Status JobStore::finish(const std::string& id, JobStatus status, const std::string& error,
                        const std::string& report) {
  {
    std::lock_guard lock(mutex_);
    Statement s(database_,
                "UPDATE job SET status=?, error=?, report=?, finished_ms=? WHERE id=? AND status='running'");
    s.bind(std::string(to_string(status))).bind(error).bind(report).bind(now_ms());
    ISOLINE_RETURN_IF_ERROR(s.bind(id).finish());
  }
  remove_file(scan_path(id));
  if (status == JobStatus::kSucceeded) return {};
  remove_file(labels_path(id));
  remove_file(picture_path(id));
  return {};
}

Result<Job> JobStore::cancel(const std::string& id) {
  std::lock_guard lock(mutex_);
  {
    Statement queued(database_,
                     "UPDATE job SET status='cancelled', finished_ms=? WHERE id=? AND status='queued'");
    ISOLINE_RETURN_IF_ERROR(queued.bind(now_ms()).bind(id).finish());
    if (database_.changes()) remove_file(scan_path(id));
    Statement running(database_, "UPDATE job SET cancel_requested=1 WHERE id=? AND status='running'");
    ISOLINE_RETURN_IF_ERROR(running.bind(id).finish());
  }
  return find_locked(id);
}

Status JobStore::remove_row_and_files(const std::string& id) {
  Statement s(database_, "DELETE FROM job WHERE id=?");
  ISOLINE_RETURN_IF_ERROR(s.bind(id).finish());
  for (const std::string& path : {scan_path(id), labels_path(id), picture_path(id)}) remove_file(path);
  return {};
}

Status JobStore::remove(const std::string& id) {
  std::lock_guard lock(mutex_);
  ISOLINE_ASSIGN(const Job job, find_locked(id));
  if (!has_ended(job.status))
    return Error{ErrorCode::kInvalidArgument, "the job has not ended", id, "Cancel it first."};
  return remove_row_and_files(id);
}

Status JobStore::remove_old(int64_t at_ms) {
  std::lock_guard lock(mutex_);
  std::vector<std::string> old;
  {
    Statement s(
        database_,
        "SELECT id FROM (SELECT id, finished_ms, row_number() OVER (ORDER BY finished_ms DESC, number "
        "DESC) AS place FROM job WHERE status NOT IN ('queued', 'running')) "
        "WHERE place > ? OR finished_ms < ?");
    s.bind(int64_t(options_.keep_jobs)).bind(at_ms - int64_t(options_.keep_hours * 3600e3));
    for (;;) {
      ISOLINE_ASSIGN(const bool any, s.step());
      if (!any) break;
      old.push_back(s.text(0));
    }
  }
  for (const std::string& id : old) ISOLINE_RETURN_IF_ERROR(remove_row_and_files(id));
  return {};
}

Result<Job> JobStore::find_locked(const std::string& id) const {
  const std::string sql = "SELECT " + std::string(kColumns) + " FROM job WHERE id=?";
  Statement s(database_, sql.c_str());
  ISOLINE_ASSIGN(const bool any, s.bind(id).step());
  if (!any) return Error{ErrorCode::kNotFound, "there is no such job", id.substr(0, 64), ""};
  return read_job(s);
}

Result<Job> JobStore::find(const std::string& id) const {
  std::lock_guard lock(mutex_);
  return find_locked(id);
}

Result<std::vector<Job>> JobStore::newest(size_t most) const {
  std::lock_guard lock(mutex_);
  const std::string sql =
      "SELECT id, model, step, tta, referenced_file, status, cancel_requested, attempts, error, "
      "'', created_ms, started_ms, finished_ms FROM job ORDER BY number DESC LIMIT ?";
  Statement s(database_, sql.c_str());
  s.bind(int64_t(most));
  std::vector<Job> jobs;
  for (;;) {
    ISOLINE_ASSIGN(const bool any, s.step());
    if (!any) return jobs;
    jobs.push_back(read_job(s));
  }
}

Result<JobStore::Counts> JobStore::counts() const {
  std::lock_guard lock(mutex_);
  Statement s(database_, "SELECT status, count(*) FROM job GROUP BY status");
  Counts counts;
  for (;;) {
    ISOLINE_ASSIGN(const bool any, s.step());
    if (!any) return counts;
    const size_t n = size_t(s.integer(1));
    switch (parse_status(s.text(0)).value_or(JobStatus::kFailed)) {
      case JobStatus::kQueued:
        counts.queued = n;
        break;
      case JobStatus::kRunning:
        counts.running = n;
        break;
      case JobStatus::kSucceeded:
        counts.succeeded = n;
        break;
      case JobStatus::kFailed:
        counts.failed = n;
        break;
      case JobStatus::kCancelled:
        counts.cancelled = n;
        break;
    }
  }
}

}  // namespace isoline::jobs
