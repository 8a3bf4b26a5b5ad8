#include <gtest/gtest.h>

#include "isoline/render/overlay.h"

namespace isoline {
namespace {

TEST(Overlay, DrawsOutlinesOnlyWhereLabelsChange) {
  Image image;
  image.channels = 1;
  image.shape = {10, 20, 20};
  image.data = zeroed<int16_t>(4000);
  LabelMap labels(image.shape, {});
  std::fill(labels.data.begin(), labels.data.end(), uint16_t(0));
  const auto plain = render_overlay(image, labels, nullptr, {-160, 240, 64});
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(plain->height, 64);
  for (int64_t z = 3; z < 7; ++z)
    for (int64_t y = 5; y < 15; ++y)
      for (int64_t x = 5; x < 15; ++x) labels.at(z, y, x) = 1;
  const auto outlined = render_overlay(image, labels, nullptr, {-160, 240, 64});
  ASSERT_TRUE(outlined.ok());
  int64_t changed = 0;
  for (size_t i = 0; i < plain->pixels.size(); i += 3)
    changed += plain->pixels[i + 1] != outlined->pixels[i + 1];
  EXPECT_GT(changed, 3 * 60);
  EXPECT_LT(changed, 3 * 4 * 64);
}

TEST(Overlay, RefusesLabelsOfAnotherScan) {
  Image image;
  image.channels = 1;
  image.shape = {2, 2, 2};
  image.data = zeroed<int16_t>(8);
  EXPECT_FALSE(render_overlay(image, LabelMap({2, 2, 3}, {}), nullptr).ok());
}

}  // namespace
}  // namespace isoline
