// The service with a runner that does as it is told: no network, no waiting for one.
#include "isoline/jobs/service.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "isoline/io/nifti.h"

namespace isoline::jobs {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

template <class F>
bool soon(F&& condition) {
  for (const auto end = Clock::now() + std::chrono::seconds(20); Clock::now() < end;) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return false;
}

// Waits until it is let go or cancelled.
struct Control {
  std::atomic<bool> hold{false}, fail{false}, crash{false};
  std::atomic<int> runs{0};
};
class ToldRunner final : public JobRunner {
 public:
  explicit ToldRunner(Control& control) : control_(control) {}
  Result<std::string> run(const Job&, const VolumeModel&, const JobFiles& files,
                          const std::function<void(double)>& progress,
                          const std::atomic<bool>& cancel) override {
    ++control_.runs;
    progress(0.5);
    while (control_.hold && !cancel) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (cancel) return Error{ErrorCode::kCancelled, "interrupted", "", ""};
    if (control_.crash) throw std::runtime_error("the device died");
    if (control_.fail) return Error{ErrorCode::kCorrupt, "is damaged", files.scan, ""};
    if (Status s = write_file_atomically(files.labels, std::string("labels")); !s.ok()) return s.error();
    return std::string("{}");
  }

 private:
  Control& control_;
};

class ServiceTest : public ::testing::Test {
 protected:
  ServiceTest() {
    std::string pattern = (fs::temp_directory_path() / "isoline-jobs-XXXXXX").string();
    root_ = fs::canonical(::mkdtemp(pattern.data()));
    options_.store.folder = (root_ / "state").string();
    options_.max_waiting = 3;
    options_.max_volume_bytes = 1 << 20;
    fs::create_directories(root_ / "allowed/sub");
    options_.allowed_roots = {(root_ / "allowed").string()};
    make_scan("scan.nii.gz");
  }
  ~ServiceTest() override {
    service_.reset();
    fs::remove_all(root_);
  }

  void start() {
    VolumeModel good{"m", 1, "", {}, std::nullopt}, broken{"broken", 1, "", {}, Error{}};
    good.spec.channels.resize(1);
    good.spec.patch_size = {8, 8, 8};
    auto service = JobService::open(options_, {broken, good}, std::make_unique<ToldRunner>(control_));
    ASSERT_TRUE(service.ok()) << service.error().to_string();
    service_ = std::move(*service);
  }
  void make_scan(const std::string& name) {
    Image image;
    image.channels = 1;
    image.shape = {4, 5, 6};
    image.data = Buffer<int16_t>(120);
    for (int16_t& v : std::get<Buffer<int16_t>>(image.data)) v = 7;
    ThreadPool pool(1);
    ASSERT_TRUE(write_image((root_ / "allowed" / name).string(), image,
                            source_from(image.geometry, image.shape), pool)
                    .ok());
  }
  std::vector<std::byte> scan_bytes() {
    const auto b = read_whole_file((root_ / "allowed/scan.nii.gz").string(), 1 << 20);
    return {b->begin(), b->end()};
  }
  Outcome<JobView> send(const std::vector<std::byte>& bytes, const std::string& model = "m") {
    auto upload = service_->begin(model, {}, bytes.size());
    if (!upload.ok()) return upload.refusal();
    // In two pieces, as a socket would.
    const std::span all(bytes);
    for (const auto piece : {all.first(all.size() / 2), all.subspan(all.size() / 2)})
      if (auto refusal = (*upload)->write(piece)) return *refusal;
    return service_->accept(**upload);
  }
  std::string sent() {
    const auto view = send(scan_bytes());
    EXPECT_TRUE(view.ok()) << view.refusal().text;
    return view.ok() ? view->job.id : std::string();
  }
  JobStatus status(const std::string& id) { return service_->find(id)->job.status; }
  bool becomes(const std::string& id, JobStatus s) {
    return soon([&] { return status(id) == s; });
  }
  size_t scans() {
    return size_t(std::distance(fs::directory_iterator(root_ / "state/scans"), fs::directory_iterator()));
  }

  fs::path root_;
  Control control_;
  ServiceOptions options_;
  std::unique_ptr<JobService> service_;
};

TEST_F(ServiceTest, AScanBecomesLabels) {
  start();
  const std::string id = sent();
  ASSERT_TRUE(becomes(id, JobStatus::kSucceeded));
  const auto view = service_->find(id);
  EXPECT_EQ(view->progress, 1);
  EXPECT_EQ(view->job.report, "{}");
  EXPECT_GE(view->job.finished_ms, view->job.started_ms);
  EXPECT_TRUE(fs::exists(*service_->labels_file(id)));
  EXPECT_EQ(service_->picture_file(id).refusal().why, Refused::kUnknown);
  EXPECT_EQ(scans(), 0u);
  ASSERT_TRUE(service_->remove(id).ok());
  EXPECT_EQ(service_->find(id).refusal().why, Refused::kUnknown);
}

TEST_F(ServiceTest, ProgressAndCancel) {
  control_.hold = true;
  start();
  const std::string running = sent(), queued = sent();
  ASSERT_TRUE(soon([&] { return service_->find(running)->progress == 0.5; }));
  EXPECT_EQ(service_->labels_file(running).refusal().why, Refused::kNotYet);
  const auto gone = service_->remove(queued);
  ASSERT_TRUE(gone.ok() && gone->has_value());
  EXPECT_EQ((*gone)->job.status, JobStatus::kCancelled);
  ASSERT_TRUE(service_->remove(running).ok());
  ASSERT_TRUE(becomes(running, JobStatus::kCancelled));
  EXPECT_EQ(control_.runs, 1);
  EXPECT_EQ(scans(), 0u);
}

TEST_F(ServiceTest, QueueIsBoundedScansOnTheirWayIncluded) {
  control_.hold = true;
  start();
  const std::string running = sent();
  ASSERT_TRUE(becomes(running, JobStatus::kRunning));
  sent();
  sent();
  auto coming = service_->begin("m", {}, std::nullopt);
  ASSERT_TRUE(coming.ok());
  EXPECT_EQ(send(scan_bytes()).refusal().why, Refused::kQueueFull);
  EXPECT_EQ(service_->accept_file("m", {}, (root_ / "allowed/scan.nii.gz").string()).refusal().why,
            Refused::kQueueFull);
  *coming = nullptr;  // its client left
  EXPECT_TRUE(send(scan_bytes()).ok());
  EXPECT_EQ(scans(), 4u);
}

TEST_F(ServiceTest, BadScansAreRefusedAndLeaveNothing) {
  start();
  const auto why = [&](std::vector<std::byte> bytes, const std::string& model = "m") {
    const auto view = send(bytes, model);
    EXPECT_FALSE(view.ok());
    EXPECT_EQ(view.refusal().text.find(root_.string()), std::string::npos) << view.refusal().text;
    return view.refusal().why;
  };
  EXPECT_EQ(why({}), Refused::kWrong);
  EXPECT_EQ(why(std::vector<std::byte>(5000, std::byte{'x'})), Refused::kWrong);
  auto cut = scan_bytes();
  cut.resize(cut.size() - 9);
  EXPECT_EQ(why(cut), Refused::kWrong);
  EXPECT_EQ(why(scan_bytes(), "absent"), Refused::kUnknown);
  EXPECT_EQ(why(scan_bytes(), "broken"), Refused::kUnavailable);
  EXPECT_EQ(service_->begin("m", {0, "all"}, 1).refusal().why, Refused::kWrong);
  EXPECT_EQ(service_->begin("m", {0.5, "7"}, 1).refusal().why, Refused::kWrong);
  EXPECT_EQ(service_->begin("m", {}, options_.max_volume_bytes + 1).refusal().why, Refused::kTooLarge);
  const auto upload = service_->begin("m", {}, std::nullopt);
  const std::vector<std::byte> much(size_t{1} << 20);
  EXPECT_FALSE((*upload)->write(much));
  EXPECT_EQ((*upload)->write(std::span(much).first(1))->why, Refused::kTooLarge);
  EXPECT_EQ(scans(), 0u);
  EXPECT_EQ(control_.runs, 0);
}

TEST_F(ServiceTest, FailuresSayWhyAndTheNextOneRuns) {
  control_.fail = true;
  start();
  const std::string failed = sent();
  ASSERT_TRUE(becomes(failed, JobStatus::kFailed));
  EXPECT_EQ(service_->find(failed)->job.error, "the scan: is damaged");
  control_.crash = true;
  const std::string crashed = sent();
  ASSERT_TRUE(becomes(crashed, JobStatus::kFailed));
  EXPECT_EQ(service_->find(crashed)->job.error, "the device died");
  control_.crash = control_.fail = false;
  EXPECT_TRUE(becomes(sent(), JobStatus::kSucceeded));
}

TEST_F(ServiceTest, FilesInsideAllowedFoldersOnly) {
  make_scan("sub/inner.nii");
  fs::copy(root_ / "allowed/scan.nii.gz", root_ / "outside.nii.gz");
  fs::create_directories(root_ / "allowed-not");
  fs::copy(root_ / "allowed/scan.nii.gz", root_ / "allowed-not/a.nii.gz");
  fs::create_symlink(root_ / "outside.nii.gz", root_ / "allowed/link.nii.gz");
  fs::create_directory_symlink(root_, root_ / "allowed/up");
  fs::create_symlink("sub/inner.nii", root_ / "allowed/good-link");
  start();
  const auto ask = [&](const std::string& file) { return service_->accept_file("m", {}, file); };
  const std::string allowed = (root_ / "allowed").string();
  for (const std::string& file :
       {allowed + "/link.nii.gz", allowed + "/up/outside.nii.gz", allowed + "/../outside.nii.gz",
        (root_ / "outside.nii.gz").string(), (root_ / "allowed-not/a.nii.gz").string(),
        std::string("/etc/passwd"), std::string("/absent"), allowed, allowed + "/"})
    EXPECT_EQ(ask(file).refusal().why, Refused::kForbidden) << file;
  for (const std::string& file : {std::string(), std::string("scan.nii.gz"), allowed + "/sub"})
    EXPECT_EQ(ask(file).refusal().why, Refused::kWrong) << file;
  EXPECT_EQ(ask(allowed + "/absent.nii").refusal().why, Refused::kUnknown);
  for (const std::string& file :
       {allowed + "/scan.nii.gz", allowed + "/sub/../sub/inner.nii", allowed + "/good-link"}) {
    const auto view = ask(file);
    ASSERT_TRUE(view.ok()) << file << ": " << view.refusal().text;
    EXPECT_TRUE(becomes(view->job.id, JobStatus::kSucceeded));
  }
  EXPECT_TRUE(fs::exists(root_ / "allowed/scan.nii.gz")) << "a file that was named stays";
}

TEST_F(ServiceTest, AFileThatBecameALinkIsNotFollowed) {
  fs::copy(root_ / "allowed/scan.nii.gz", root_ / "outside.nii.gz");
  make_scan("second.nii.gz");
  control_.hold = true;
  start();
  const std::string first = sent();
  ASSERT_TRUE(becomes(first, JobStatus::kRunning));
  const auto second = service_->accept_file("m", {}, (root_ / "allowed/second.nii.gz").string());
  ASSERT_TRUE(second.ok());
  fs::remove(root_ / "allowed/second.nii.gz");
  fs::create_symlink(root_ / "outside.nii.gz", root_ / "allowed/second.nii.gz");
  control_.hold = false;
  ASSERT_TRUE(becomes(second->job.id, JobStatus::kFailed));
  EXPECT_EQ(control_.runs, 1);
}

TEST_F(ServiceTest, StoppingPutsTheRunningJobBack) {
  control_.hold = true;
  start();
  const std::string running = sent(), queued = sent();
  ASSERT_TRUE(becomes(running, JobStatus::kRunning));
  auto late = service_->begin("m", {}, std::nullopt);
  ASSERT_TRUE(late.ok());
  ASSERT_FALSE((*late)->write(scan_bytes()));
  service_->stop_taking();
  EXPECT_EQ(service_->accept(**late).refusal().why, Refused::kUnavailable);
  *late = nullptr;
  EXPECT_EQ(send(scan_bytes()).refusal().why, Refused::kUnavailable);
  service_->stop(Clock::now() + std::chrono::milliseconds(30));
  EXPECT_EQ(status(running), JobStatus::kQueued);
  EXPECT_EQ(service_->find(running)->job.attempts, 0);
  service_.reset();
  control_.hold = false;
  start();
  EXPECT_TRUE(becomes(running, JobStatus::kSucceeded));
  EXPECT_TRUE(becomes(queued, JobStatus::kSucceeded));
}

TEST_F(ServiceTest, StoppingWaitsForWhatEndsInTime) {
  control_.hold = true;
  start();
  const std::string running = sent(), queued = sent();
  ASSERT_TRUE(becomes(running, JobStatus::kRunning));
  std::thread let_go([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    control_.hold = false;
  });
  service_->stop(Clock::now() + std::chrono::seconds(20));
  let_go.join();
  EXPECT_EQ(status(running), JobStatus::kSucceeded);
  EXPECT_EQ(status(queued), JobStatus::kQueued);
}

TEST_F(ServiceTest, AllowedRootsMustExist) {
  options_.allowed_roots = {(root_ / "absent").string()};
  const auto service = JobService::open(options_, {}, std::make_unique<ToldRunner>(control_));
  ASSERT_FALSE(service.ok());
  EXPECT_EQ(service.error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace isoline::jobs
