#include "isoline/metrics/overlap.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace isoline {
namespace {

ThreadPool& pool() {
  static ThreadPool p(3);
  return p;
}

LabelMap map_of(const Shape3& shape, const std::vector<int>& values) {
  LabelMap m(shape, {});
  for (size_t i = 0; i < values.size(); ++i) m.data[i] = uint16_t(values[i]);
  return m;
}

const std::vector<LabelSet> kKits{{"kidney_and_mass", {1, 2, 3}}, {"mass", {2, 3}}, {"tumor", {2}}};

TEST(Overlap, ByHand) {
  const LabelMap r = map_of({1, 2, 5}, {0, 1, 1, 2, 3, 0, 0, 2, 2, 9});
  const LabelMap p = map_of({1, 2, 5}, {0, 1, 2, 2, 0, 3, 0, 3, 2, 9});
  const auto c = count_overlaps(r, p, kKits, std::nullopt, pool());
  ASSERT_TRUE(c.ok());
  const auto expect = [](const OverlapCounts& c, uint64_t tp, uint64_t fp, uint64_t fn, uint64_t tn) {
    EXPECT_EQ(c.true_positive, tp);
    EXPECT_EQ(c.false_positive, fp);
    EXPECT_EQ(c.false_negative, fn);
    EXPECT_EQ(c.true_negative, tn);
  };
  expect((*c)[0], 5, 1, 1, 3);
  expect((*c)[1], 3, 2, 1, 4);
  expect((*c)[2], 2, 1, 1, 6);
  EXPECT_DOUBLE_EQ((*c)[1].dice(BothEmpty::kNan), 6.0 / 9.0);
  EXPECT_DOUBLE_EQ((*c)[1].iou(BothEmpty::kNan), 3.0 / 6.0);
  const auto ignoring =
      count_overlaps(r, p, kKits, 2, pool());  // reference label 2 is left out, predicted 2 is not
  expect((*ignoring)[0], 2, 1, 1, 3);
  expect((*ignoring)[1], 0, 2, 1, 4);
  expect((*ignoring)[2], 0, 1, 0, 6);
}

TEST(Overlap, EmptyMasksByBothConventions) {
  const LabelMap none = map_of({1, 1, 4}, {0, 0, 0, 0}), some = map_of({1, 1, 4}, {0, 2, 2, 0});
  const auto dice = [&](const LabelMap& r, const LabelMap& p, BothEmpty e) {
    return (*count_overlaps(r, p, kKits, std::nullopt, pool()))[2].dice(e);
  };
  EXPECT_TRUE(std::isnan(dice(none, none, BothEmpty::kNan)));
  EXPECT_EQ(dice(none, none, BothEmpty::kOne), 1.0);
  for (BothEmpty e : {BothEmpty::kNan, BothEmpty::kOne}) {
    EXPECT_EQ(dice(some, none, e), 0.0);
    EXPECT_EQ(dice(none, some, e), 0.0);
    EXPECT_EQ(dice(some, some, e), 1.0);
  }
}

// Against a count voxel by voxel, over sizes that leave every remainder of words and grains.
TEST(Overlap, MatchesTheSlowCount) {
  std::mt19937 random(5);
  for (int64_t n : {int64_t{1}, int64_t{15}, int64_t{16}, int64_t{17}, int64_t{1000}, int64_t{700001}}) {
    LabelMap r(Shape3{1, 1, n}, {}), p(Shape3{1, 1, n}, {});
    for (auto* m : {&r, &p})
      for (int64_t i = 0; i < n;) {
        const uint16_t label = uint16_t(random() % 5 == 0 ? 40000 + random() % 3 : random() % 4);
        for (int64_t run = int64_t(random() % 40); run >= 0 && i < n; --run, ++i) m->data[size_t(i)] = label;
      }
    const std::vector<LabelSet> sets{{"a", {1}}, {"b", {0, 40001}}, {"c", {3, 2, 3}}, {"d", {777}}};
    const auto fast = count_overlaps(r, p, sets, 40002, pool());
    ASSERT_TRUE(fast.ok());
    for (size_t s = 0; s < sets.size(); ++s) {
      uint64_t counts[2][2] = {};
      const auto in = [&](uint16_t l) {
        return std::count(sets[s].labels.begin(), sets[s].labels.end(), l) > 0;
      };
      for (int64_t i = 0; i < n; ++i)
        if (r.data[size_t(i)] != 40002) ++counts[in(r.data[size_t(i)])][in(p.data[size_t(i)])];
      EXPECT_EQ((*fast)[s].true_positive, counts[1][1]);
      EXPECT_EQ((*fast)[s].false_positive, counts[0][1]);
      EXPECT_EQ((*fast)[s].false_negative, counts[1][0]);
      EXPECT_EQ((*fast)[s].true_negative, counts[0][0]);
    }
    if (n > 2000) continue;
    std::vector<int> want;
    for (int l = 0; l < 65536; ++l)
      if (std::count(r.data.begin(), r.data.end(), l)) want.push_back(l);
    EXPECT_EQ(labels_present(r, pool()), want);
  }
}

TEST(Overlap, Refusals) {
  const LabelMap a = map_of({1, 1, 4}, {0, 0, 0, 0}), b = map_of({1, 4, 1}, {0, 0, 0, 0});
  EXPECT_FALSE(count_overlaps(a, b, kKits, std::nullopt, pool()).ok());
  EXPECT_FALSE(count_overlaps(a, a, std::vector<LabelSet>{{"x", {}}}, std::nullopt, pool()).ok());
  EXPECT_FALSE(count_overlaps(a, a, std::vector<LabelSet>{{"x", {70000}}}, std::nullopt, pool()).ok());
  EXPECT_FALSE(count_overlaps(a, a, std::vector<LabelSet>{{"x", {-1}}}, std::nullopt, pool()).ok());
}

TEST(Overlap, MeansByBothConventions) {
  const OverlapCounts half{1, 1, 1, 5}, full{4, 0, 0, 4}, empty{0, 0, 0, 8}, missed{0, 0, 3, 5};
  const std::vector<std::vector<OverlapCounts>> cases{
      {full, half, empty}, {full, empty, empty}, {full, missed, empty}};
  OverlapMeans m = mean_overlaps(cases, {});
  EXPECT_DOUBLE_EQ(m.dice_nan[1], 0.25);           // (0.5 + 0) / 2
  EXPECT_DOUBLE_EQ(m.dice_one[1], 0.5);            // (0.5 + 1 + 0) / 3
  EXPECT_TRUE(std::isnan(m.dice_nan[2]));          // defined nowhere
  EXPECT_TRUE(std::isnan(m.foreground_dice_nan));  // as numpy.mean over the regions
  EXPECT_DOUBLE_EQ(m.foreground_dice_one, (1 + 0.5 + 1) / 3);
  m = mean_overlaps(cases, {true, false, true});
  EXPECT_DOUBLE_EQ(m.foreground_dice_nan, 0.25);
  EXPECT_TRUE(std::isnan(mean_overlaps({}, {}).foreground_dice_one));
}

TEST(Overlap, Volume) {
  Geometry g;
  g.spacing_mm = {2.5, 0.5, 0.5};
  EXPECT_DOUBLE_EQ(volume_mm3(8, g), 5.0);
}

}  // namespace
}  // namespace isoline
