#include "isoline/pipeline/open_segmenter.h"

#include <gtest/gtest.h>

namespace isoline {
namespace {

TEST(MirrorAxes, Words) {
  const auto all = parse_mirror_axes("all"), none = parse_mirror_axes("none"), two = parse_mirror_axes("0,2");
  ASSERT_TRUE(all.ok() && none.ok() && two.ok());
  EXPECT_FALSE(all->has_value());
  EXPECT_EQ(none->value(), std::vector<int>());
  EXPECT_EQ(two->value(), (std::vector<int>{0, 2}));
}

TEST(MirrorAxes, AnythingElseIsRefused) {
  for (const char* text : {"", "3", "0,", ",0", "0 1", "00", "0,x", "some", "0;1"}) {
    const auto axes = parse_mirror_axes(text);
    ASSERT_FALSE(axes.ok()) << text;
    EXPECT_EQ(axes.error().context, "--tta");
  }
}

TEST(OpenSegmenter, WithoutBackendsIsRefused) {
  const BackendRegistry empty;
  const auto opened = open_segmenter({}, empty, {}, {}, [](const Backend&, const Error&) {});
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace isoline
