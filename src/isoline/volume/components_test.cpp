#include "isoline/volume/components.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace isoline {
namespace {

using Mask = std::vector<uint8_t>;

Components label(const Shape3& s, const Mask& mask) {
  return connected_components(s, [&](int64_t z, int64_t y, uint8_t* inside) {
    const uint8_t* row = mask.data() + (z * s[1] + y) * s[2];
    std::copy(row, row + s[2], inside);
    return std::count(row, row + s[2], 1) > 0;
  });
}

// Component number + 1 per voxel.
std::vector<int> paint(const Components& c) {
  std::vector<int> out(size_t(voxels(c.shape)), 0);
  for (int64_t z = 0; z < c.shape[0]; ++z)
    for (int64_t y = 0; y < c.shape[1]; ++y)
      for (const auto& run : c.row(z, y))
        for (int64_t x = run.x_begin; x < run.x_end; ++x)
          out[size_t((z * c.shape[1] + y) * c.shape[2] + x)] = run.component + 1;
  return out;
}

// Voxel by voxel, with a stack.
std::vector<int> slow(const Shape3& s, const Mask& mask) {
  std::vector<int> out(mask.size(), 0);
  int next = 0;
  for (size_t start = 0; start < mask.size(); ++start) {
    if (!mask[start] || out[start]) continue;
    std::vector<int64_t> stack{int64_t(start)};
    out[start] = ++next;
    while (!stack.empty()) {
      const int64_t i = stack.back();
      stack.pop_back();
      const int64_t z = i / (s[1] * s[2]), y = i / s[2] % s[1], x = i % s[2];
      for (int64_t a = z - 1; a <= z + 1; ++a)
        for (int64_t b = y - 1; b <= y + 1; ++b)
          for (int64_t c = x - 1; c <= x + 1; ++c) {
            if (a < 0 || b < 0 || c < 0 || a >= s[0] || b >= s[1] || c >= s[2]) continue;
            const int64_t j = (a * s[1] + b) * s[2] + c;
            if (!mask[size_t(j)] || out[size_t(j)]) continue;
            out[size_t(j)] = next;
            stack.push_back(j);
          }
    }
  }
  return out;
}

TEST(Components, MatchTheSlowFloodFillInNumberAndOrder) {
  std::mt19937 random(3);
  for (int trial = 0; trial < 300; ++trial) {
    const Shape3 s{1 + int64_t(random() % 7), 1 + int64_t(random() % 9), 1 + int64_t(random() % 23)};
    Mask mask(size_t(voxels(s)));
    const unsigned density = 1 + random() % 9;
    for (uint8_t& m : mask) m = random() % 10 < density;
    const Components c = label(s, mask);
    const std::vector<int> want = slow(s, mask);
    ASSERT_EQ(paint(c), want) << "trial " << trial;
    for (int64_t k = 0; k < c.size(); ++k)
      EXPECT_EQ(c.voxels[size_t(k)], std::count(want.begin(), want.end(), int(k) + 1));
    EXPECT_EQ(c.size(), *std::max_element(want.begin(), want.end()));
  }
}

TEST(Components, CornersTouchAndEmptyIsEmpty) {
  EXPECT_EQ(label({2, 2, 2}, {1, 0, 0, 0, 0, 0, 0, 1}).size(), 1);
  EXPECT_EQ(label({1, 3, 3}, {1, 0, 0, 0, 0, 0, 0, 0, 1}).size(), 2);
  EXPECT_EQ(label({1, 1, 3}, {0, 0, 0}).size(), 0);
  EXPECT_EQ(label({0, 0, 0}, {}).size(), 0);
}

}  // namespace
}  // namespace isoline
