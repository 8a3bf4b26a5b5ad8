#include "isoline/lab/journal.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace isoline::lab {
namespace {

namespace fs = std::filesystem;

class JournalTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "isoline_journal_XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string text() const {
    std::ifstream in(folder_ + "/results.jsonl");
    std::stringstream out;
    out << in.rdbuf();
    return out.str();
  }
  void write(const std::string& t) const { std::ofstream(folder_ + "/results.jsonl") << t; }
  static RunEntry entry(const std::string& id) {
    RunEntry e;
    e.setting = "B0";
    e.case_id = id;
    e.wall_s = 1.5;
    e.forward_ms = {1, 2.5};
    e.energy_gross_j = Reading::of(3);
    e.regions["kidney"].dice = 0.75;
    e.regions["kidney"].hd95_infinite = true;
    e.lesions_found["tumour"] = {1, 0};
    return e;
  }
  std::string folder_;
};

TEST_F(JournalTest, ReadsBackWhatWasAppended) {
  {
    auto j = Journal::open(folder_);
    ASSERT_TRUE(j.ok()) << j.error().to_string();
    ASSERT_TRUE(j->append(entry("a")).ok());
    SessionEntry s;
    s.device["cpu"] = "x";
    ASSERT_TRUE(j->append(s).ok());
  }
  auto j = Journal::open(folder_);
  ASSERT_TRUE(j.ok());
  ASSERT_EQ(j->content().runs.size(), 1u);
  const RunEntry& r = j->content().runs[0];
  EXPECT_EQ(r.case_id, "a");
  EXPECT_EQ(*r.energy_gross_j, 3);
  EXPECT_FALSE(r.energy_integrated_j.ok());
  EXPECT_EQ(r.regions.at("kidney").dice, 0.75);
  EXPECT_TRUE(r.regions.at("kidney").hd95_infinite);
  EXPECT_EQ(r.lesions_found.at("tumour"), (std::vector<int>{1, 0}));
  EXPECT_EQ(j->content().sessions[0].device.at("cpu"), "x");
}

TEST_F(JournalTest, ALineCutShortByACrashIsDroppedAndTheRestKept) {
  { ASSERT_TRUE(Journal::open(folder_)->append(entry("a")).ok()); }
  const std::string whole = text();
  { ASSERT_TRUE(Journal::open(folder_)->append(entry("b")).ok()); }
  write(text().substr(0, whole.size() + 20));
  auto j = Journal::open(folder_);
  ASSERT_TRUE(j.ok());
  EXPECT_TRUE(j->dropped_tail());
  EXPECT_EQ(j->content().runs.size(), 1u);
  ASSERT_TRUE(j->append(entry("c")).ok());
  EXPECT_EQ(read_journal(folder_)->runs.size(), 2u);
}

TEST_F(JournalTest, ADamagedLineIsNamedAndNothingChanges) {
  {
    auto j = Journal::open(folder_);
    for (const char* id : {"a", "b", "c"}) ASSERT_TRUE(j->append(entry(id)).ok());
  }
  std::string damaged = text();
  damaged[damaged.find("\"b\"") + 1] = 'x';
  write(damaged);
  auto j = Journal::open(folder_);
  ASSERT_FALSE(j.ok());
  EXPECT_EQ(j.error().code, ErrorCode::kCorrupt);
  EXPECT_NE(j.error().to_string().find("results.jsonl:2"), std::string::npos) << j.error().to_string();
  EXPECT_EQ(text(), damaged);
}

TEST_F(JournalTest, TwoWritersAreRefused) {
  auto first = Journal::open(folder_);
  ASSERT_TRUE(first.ok());
  auto second = Journal::open(folder_);
  ASSERT_FALSE(second.ok());
  EXPECT_NE(second.error().to_string().find("another sweep"), std::string::npos);
}

TEST_F(JournalTest, AFullDiskLosesNothing) {
  auto j = Journal::open(folder_);
  ASSERT_TRUE(j.ok());
  ASSERT_TRUE(j->append(entry("a")).ok());
  const std::string before = text();
  // A file size limit refuses writes as a full disk does, part of the line first.
  struct rlimit old {
  }, tight{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  tight = old;
  tight.rlim_cur = before.size() + 50;
  ::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &tight), 0);
  const Status s = j->append(entry("b"));
  ::setrlimit(RLIMIT_FSIZE, &old);
  ASSERT_FALSE(s.ok());
  EXPECT_EQ(text(), before);
  ASSERT_TRUE(j->append(entry("b")).ok());
  EXPECT_EQ(read_journal(folder_)->runs.size(), 2u);
}

}  // namespace
}  // namespace isoline::lab
