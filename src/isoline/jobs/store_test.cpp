// The store across deaths of the process: a copy of its folder at a moment is what a kill at that moment
// leaves.
#include "isoline/jobs/store.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

namespace isoline::jobs {
namespace {

namespace fs = std::filesystem;

class StoreTest : public ::testing::Test {
 protected:
  StoreTest() {
    std::string pattern = (fs::temp_directory_path() / "isoline-jobs-XXXXXX").string();
    root_ = ::mkdtemp(pattern.data());
  }
  ~StoreTest() override { fs::remove_all(root_); }

  std::unique_ptr<JobStore> open(const std::string& name = "state", size_t keep_jobs = 1000,
                                 double keep_hours = 168) {
    auto store = JobStore::open({(root_ / name).string(), keep_jobs, keep_hours});
    EXPECT_TRUE(store.ok()) << store.error().to_string();
    return store.ok() ? std::move(*store) : nullptr;
  }
  static void write(const std::string& path, const std::string& text = "bytes") {
    ASSERT_TRUE(write_file_atomically(path, text).ok());
  }
  static Job added(JobStore& store, const std::string& model = "m") {
    Job job;
    job.id = make_job_id();
    job.model = model;
    job.settings = {0.25, "0,1"};
    write(store.scan_path(job.id));
    EXPECT_TRUE(store.add(job).ok());
    return job;
  }
  // What a kill -9 now would leave, opened anew.
  std::unique_ptr<JobStore> after_death(const std::string& from = "state") {
    const std::string to = "after-" + std::to_string(++deaths_);
    fs::copy(root_ / from, root_ / to, fs::copy_options::recursive);
    return open(to);
  }
  size_t files(const std::string& folder) {
    return size_t(std::distance(fs::directory_iterator(root_ / folder), fs::directory_iterator()));
  }

  fs::path root_;
  int deaths_ = 0;
};

TEST_F(StoreTest, FolderIsPrivateAndForOneProcess) {
  const auto store = open();
  struct stat s {};
  ASSERT_EQ(::stat((root_ / "state").c_str(), &s), 0);
  EXPECT_EQ(s.st_mode & 0777, 0700u);
  const auto second = JobStore::open({(root_ / "state").string()});
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(second.error().message.find("another server"), std::string::npos);
}

TEST_F(StoreTest, JobsComeBackAsTheyWere) {
  auto store = open();
  const Job a = added(*store), b = added(*store, "other");
  store.reset();
  store = open();
  const auto jobs = store->newest(10);
  ASSERT_TRUE(jobs.ok());
  ASSERT_EQ(jobs->size(), 2u);
  EXPECT_EQ((*jobs)[0].id, b.id);  // newest first
  EXPECT_EQ((*jobs)[0].model, "other");
  EXPECT_EQ((*jobs)[1].id, a.id);
  EXPECT_EQ((*jobs)[1].settings, a.settings);
  EXPECT_EQ((*jobs)[1].created_ms, a.created_ms);
  EXPECT_GT(a.created_ms, 0);
  EXPECT_EQ(store->newest(1)->size(), 1u);
  EXPECT_EQ(store->find("nothing").error().code, ErrorCode::kNotFound);
}

TEST_F(StoreTest, OldestIsStartedFirstAndPutBackIntoItsPlace) {
  const auto store = open();
  const Job a = added(*store), b = added(*store);
  EXPECT_EQ((*store->start_next())->id, a.id);
  ASSERT_TRUE(store->put_back(a.id).ok());
  EXPECT_EQ(store->find(a.id)->attempts, 0);
  EXPECT_EQ((*store->start_next())->id, a.id);
  EXPECT_EQ((*store->start_next())->id, b.id);
  EXPECT_FALSE(store->start_next()->has_value());
}

TEST_F(StoreTest, KilledBeforeTheRowLeavesNothing) {
  const auto store = open();
  write(store->scan_path(make_job_id()));                                        // complete, no row
  write((root_ / "state/scans" / ("." + make_job_id() + ".tmp-1-2")).string());  // half sent
  write((root_ / "state/scans/notes.txt").string());                             // not ours
  const auto after = after_death();
  EXPECT_EQ(files("after-1/scans"), 1u);
  EXPECT_TRUE(fs::exists(root_ / "after-1/scans/notes.txt"));
  EXPECT_TRUE(after->newest(10)->empty());
}

TEST_F(StoreTest, KilledAfterTheRowKeepsTheJob) {
  const auto store = open();
  const Job a = added(*store);
  const auto after = after_death();
  EXPECT_EQ(after->find(a.id)->status, JobStatus::kQueued);
  EXPECT_TRUE(fs::exists(after->scan_path(a.id)));
}

TEST_F(StoreTest, KilledWhileRunningStartsAgainAtMostThreeTimes) {
  open().reset();
  std::string folder = "state";
  std::string first, second;
  {
    const auto store = open();
    first = added(*store).id;
    second = added(*store).id;
  }
  for (int attempt = 1; attempt <= kMaxAttempts; ++attempt) {
    auto store = open(folder);
    const auto started = store->start_next();
    ASSERT_TRUE(started.ok() && started->has_value());
    EXPECT_EQ((*started)->id, first) << "it keeps its place";
    EXPECT_EQ((*started)->attempts, attempt);
    write(store->labels_path(first));  // killed between the labels and the row
    after_death(folder).reset();
    store.reset();
    folder = "after-" + std::to_string(deaths_);
    EXPECT_FALSE(fs::exists(root_ / folder / "results" / (first + ".nii.gz"))) << "labels of no finished job";
  }
  const auto store = open(folder);
  const auto failed = store->find(first);
  EXPECT_EQ(failed->status, JobStatus::kFailed);
  EXPECT_NE(failed->error.find("3 times"), std::string::npos) << failed->error;
  EXPECT_GT(failed->finished_ms, 0);
  EXPECT_FALSE(fs::exists(store->scan_path(first)));
  EXPECT_EQ((*store->start_next())->id, second);
}

TEST_F(StoreTest, FinishedResultsOutliveDeath) {
  const auto store = open();
  const Job a = added(*store);
  ASSERT_TRUE(store->start_next().ok());
  write(store->labels_path(a.id), "labels");
  write(store->picture_path(a.id), "picture");
  ASSERT_TRUE(store->finish(a.id, JobStatus::kSucceeded, "", "{}").ok());
  EXPECT_FALSE(fs::exists(store->scan_path(a.id)));
  const auto after = after_death();
  const auto job = after->find(a.id);
  EXPECT_EQ(job->status, JobStatus::kSucceeded);
  EXPECT_EQ(job->report, "{}");
  EXPECT_TRUE(fs::exists(after->labels_path(a.id)));
  EXPECT_TRUE(fs::exists(after->picture_path(a.id)));
}

TEST_F(StoreTest, CancelOfARunningJobIsRemembered) {
  const auto store = open();
  const Job a = added(*store), b = added(*store);
  ASSERT_TRUE(store->start_next().ok());
  EXPECT_EQ(store->cancel(a.id)->status, JobStatus::kRunning);
  EXPECT_EQ(store->cancel(b.id)->status, JobStatus::kCancelled);
  EXPECT_FALSE(fs::exists(store->scan_path(b.id)));
  const auto after = after_death();
  EXPECT_EQ(after->find(a.id)->status, JobStatus::kCancelled);
  EXPECT_FALSE(fs::exists(after->scan_path(a.id)));
  EXPECT_FALSE(after->start_next()->has_value());
}

TEST_F(StoreTest, KilledWhileRemovingLeavesNoFiles) {
  const auto store = open();
  const Job a = added(*store);
  EXPECT_EQ(store->remove(a.id).error().code, ErrorCode::kInvalidArgument) << "it has not ended";
  ASSERT_TRUE(store->start_next().ok());
  write(store->labels_path(a.id));
  ASSERT_TRUE(store->finish(a.id, JobStatus::kSucceeded, "", "{}").ok());
  ASSERT_TRUE(store->remove(a.id).ok());
  EXPECT_EQ(files("state/results"), 0u);
  write(store->labels_path(a.id));  // as if killed between the row and the file
  after_death();
  EXPECT_EQ(files("after-1/results"), 0u);
}

TEST_F(StoreTest, OldJobsGoWithTheirFiles) {
  const auto store = open("few", 2, 1);
  std::vector<std::string> ids;
  for (int i = 0; i < 4; ++i) {
    ids.push_back(added(*store).id);
    ASSERT_TRUE(store->start_next().ok());
    write(store->labels_path(ids.back()));
    ASSERT_TRUE(store->finish(ids.back(), JobStatus::kSucceeded, "", "{}").ok());
  }
  const Job waiting = added(*store);
  ASSERT_TRUE(store->remove_old(now_ms()).ok());
  EXPECT_EQ(store->counts()->succeeded, 2u);
  EXPECT_EQ(files("few/results"), 2u);
  EXPECT_TRUE(store->find(ids[3]).ok());
  EXPECT_FALSE(store->find(ids[0]).ok());
  ASSERT_TRUE(store->remove_old(now_ms() + 3'601'000).ok());
  EXPECT_EQ(store->counts()->succeeded, 0u);
  EXPECT_EQ(store->find(waiting.id)->status, JobStatus::kQueued) << "what waits is never too old";
}

TEST_F(StoreTest, ForeignAndDamagedDatabasesAreRefused) {
  fs::create_directories(root_ / "damaged");
  write((root_ / "damaged/jobs.sqlite").string(), std::string(5000, 'x'));
  auto store = JobStore::open({(root_ / "damaged").string()});
  ASSERT_FALSE(store.ok());
  EXPECT_EQ(store.error().code, ErrorCode::kCorrupt) << store.error().to_string();
  open("newer").reset();
  {
    auto database = Database::open((root_ / "newer/jobs.sqlite").string());
    ASSERT_TRUE(database.ok());
    ASSERT_TRUE(database->run("PRAGMA user_version=2").ok());
  }
  store = JobStore::open({(root_ / "newer").string()});
  ASSERT_FALSE(store.ok());
  EXPECT_EQ(store.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(store.error().message.find("schema 2"), std::string::npos);
}

TEST_F(StoreTest, FolderThatCannotBeMade) {
  write((root_ / "file").string());
  const auto store = JobStore::open({(root_ / "file").string()});
  ASSERT_FALSE(store.ok());
  EXPECT_EQ(store.error().code, ErrorCode::kIo);
}

TEST_F(StoreTest, IdsDiffer) {
  std::set<std::string> ids;
  for (int i = 0; i < 1000; ++i) ids.insert(make_job_id());
  EXPECT_EQ(ids.size(), 1000u);
  EXPECT_EQ(ids.begin()->size(), 32u);
}

}  // namespace
}  // namespace isoline::jobs
