#include "isoline/base/progress.h"

#include <gtest/gtest.h>

#include <cstring>

#include "isoline/base/buffer.h"
#include "isoline/base/resources.h"

namespace isoline {
namespace {

TEST(Progress, Lines) {
  EXPECT_EQ(progress_line("network", 0, 4, 0.5, 60),
            "network [........................................] 0/4");
  EXPECT_EQ(progress_line("network", 1, 4, 20, 70),
            "network [##########..............................] 1/4  1:00 left");
  EXPECT_EQ(progress_line("n", 4, 4, 3725, 38), "n [####################] 4/4  1:02:05");
  EXPECT_EQ(progress_line("network", 1, 4, 20, 25), "network 1/4  1:00 left");  // no room for a bar
  EXPECT_EQ(progress_line("network", 1, 4, 20, 9), "network 1");
  EXPECT_EQ(progress_line("n", 9, 4, 1, 12), "n 4/4  0:01");
  EXPECT_EQ(progress_line("n", 0, 0, 1, 12), "n 0/0");
}

TEST(Progress, SilentWithoutATerminal) {
  testing::internal::CaptureStderr();  // a file now, not a terminal
  {
    Progress p("network", 3);
    p.advance(2);
    p.finish();
    EXPECT_EQ(p.done(), 2);
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST(Resources, PeakCoversWhatWasTouched) {
  const uint64_t before = current_rss_bytes();
  {
    Buffer<char> b(size_t{64} << 20);
    std::memset(b.data(), 1, b.size());
    EXPECT_GE(current_rss_bytes(), before + (size_t{60} << 20));
  }
  EXPECT_GE(peak_rss_bytes(), before + (size_t{60} << 20));
  EXPECT_LT(current_rss_bytes(), before + (size_t{32} << 20));
  EXPECT_GT(available_memory_bytes(), 0u);
}

}  // namespace
}  // namespace isoline
