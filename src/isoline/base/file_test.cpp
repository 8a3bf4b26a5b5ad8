#include "isoline/base/file.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>

namespace isoline {
namespace {

namespace fs = std::filesystem;

class Files : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "isoline-base-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  std::string text(const std::string& name) const {
    const auto b = read_whole_file(path(name), 1 << 20);
    EXPECT_TRUE(b.ok());
    return {reinterpret_cast<const char*>(b->data()), b->size()};
  }
  size_t entries() const {
    return size_t(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }
  std::string folder_;
};

TEST_F(Files, CommitReplacesAndAbandonDoesNot) {
  ASSERT_TRUE(write_file_atomically(path("a"), std::string("first")).ok());
  {
    auto f = AtomicFile::create(path("a"));
    ASSERT_TRUE(f.ok());
    ASSERT_TRUE(f->write(std::as_bytes(std::span("second", 6))).ok());
    EXPECT_EQ(text("a"), "first");
    EXPECT_EQ(entries(), 2u);
  }
  EXPECT_EQ(text("a"), "first");
  EXPECT_EQ(entries(), 1u);
  auto f = AtomicFile::create(path("a"));
  ASSERT_TRUE(f->write(std::as_bytes(std::span("second", 6))).ok());
  ASSERT_TRUE(f->write_at(1, std::as_bytes(std::span("E", 1))).ok());
  ASSERT_TRUE(f->commit().ok());
  EXPECT_EQ(text("a"), "sEcond");
  EXPECT_EQ(entries(), 1u);
}

TEST_F(Files, DestinationsThatCannotBe) {
  EXPECT_EQ(AtomicFile::create(path("none/a")).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(AtomicFile::create(folder_).error().code, ErrorCode::kIo);
  EXPECT_EQ(AtomicFile::create(folder_ + "/").error().code, ErrorCode::kIo);
  EXPECT_EQ(AtomicFile::create("/dev/null").error().code, ErrorCode::kIo);
  if (::geteuid() != 0) {
    fs::permissions(folder_, fs::perms::owner_read | fs::perms::owner_exec);
    EXPECT_EQ(AtomicFile::create(path("a")).error().code, ErrorCode::kIo);
    fs::permissions(folder_, fs::perms::owner_all);
  }
}

// A process killed by SIGTERM in the middle of a write leaves nothing behind and dies of the signal.
TEST_F(Files, SignalsRemoveWhatIsPending) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    install_interrupt_cleanup();
    auto f = AtomicFile::create(path("a"));
    auto g = AtomicFile::create(path("b"));
    (void)f->write(std::as_bytes(std::span("half", 4)));
    (void)!::write(ready[1], "x", 1);
    for (;;) ::pause();
  }
  char x;
  ASSERT_EQ(::read(ready[0], &x, 1), 1);
  EXPECT_EQ(entries(), 2u);
  ASSERT_EQ(::kill(child, SIGTERM), 0);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
  EXPECT_EQ(entries(), 0u);
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_F(Files, ReadingWithLimits) {
  ASSERT_TRUE(write_file_atomically(path("a"), std::string("0123456789")).ok());
  EXPECT_EQ(read_whole_file(path("a"), 9).error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(read_whole_file(path("b"), 9).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(read_whole_file(folder_, 9).error().code, ErrorCode::kInvalidArgument);
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  EXPECT_EQ(read_whole_file(path("pipe"), 9).error().code, ErrorCode::kInvalidArgument);  // and does not wait
  const auto f = InputFile::open(path("a"));
  std::byte some[4];
  ASSERT_TRUE(f->read_at(6, some).ok());
  EXPECT_EQ(some[3], std::byte{'9'});
  EXPECT_EQ(f->read_at(7, some).error().code, ErrorCode::kCorrupt);
  const auto m = MappedFile::open(path("a"));
  ASSERT_TRUE(m.ok());
  EXPECT_EQ(m->bytes().size(), 10u);
  EXPECT_EQ(m->bytes()[9], std::byte{'9'});
  ASSERT_TRUE(write_file_atomically(path("empty"), std::string()).ok());
  EXPECT_EQ(MappedFile::open(path("empty"))->bytes().size(), 0u);
}

}  // namespace
}  // namespace isoline
