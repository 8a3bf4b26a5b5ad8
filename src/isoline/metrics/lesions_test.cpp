#include "isoline/metrics/lesions.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace isoline {
namespace {

LabelMap map_of(const std::vector<int>& values) {
  LabelMap m({1, 1, int64_t(values.size())}, {});
  for (size_t i = 0; i < values.size(); ++i) m.data[i] = uint16_t(values[i]);
  m.geometry.spacing_mm = {2, 0.5, 0.5};  // 0.5 mm3 a voxel
  return m;
}

const LabelSet kTumor{"tumor", {2}};
const LabelMap kReference = map_of({2, 0, 2, 2, 2, 2, 0, 2, 2, 1, 0, 0});
const LabelMap kPrediction = map_of({0, 0, 0, 2, 2, 0, 0, 1, 1, 2, 0, 2});

TEST(Lesions, FoundMissedAndFalsePositive) {
  const auto d = detect_lesions(kReference, kPrediction, {kTumor}, std::nullopt);
  ASSERT_TRUE(d.ok());
  EXPECT_EQ(d->found_flags(), (std::vector<bool>{false, true, false}));
  EXPECT_EQ(d->found(), 1);
  EXPECT_EQ(d->predicted, 3);
  ASSERT_EQ(d->false_positives.size(), 2u);
  EXPECT_EQ(d->false_positives[0].first_voxel, (Index3{0, 0, 9}));
  EXPECT_EQ(d->reference[1].voxels, 4u);
  EXPECT_DOUBLE_EQ(d->reference[1].volume_mm3, 2.0);
  EXPECT_EQ(d->reference[1].covered_voxels, 2u);
  EXPECT_EQ(d->reference[2].first_voxel, (Index3{0, 0, 7}));
}

TEST(Lesions, CoveredFractionIncludesItsLimit) {
  EXPECT_EQ(detect_lesions(kReference, kPrediction, {kTumor, 0, 0.5}, std::nullopt)->found(), 1);
  EXPECT_EQ(detect_lesions(kReference, kPrediction, {kTumor, 0, 0.51}, std::nullopt)->found(), 0);
}

TEST(Lesions, SmallOnesNeitherCountNorFindNorAreFalse) {
  // 1 mm3 = 2 voxels: the reference's single voxel goes, so do both single predicted ones.
  auto d = detect_lesions(kReference, kPrediction, {kTumor, 1.0}, std::nullopt);
  EXPECT_EQ(d->found_flags(), (std::vector<bool>{true, false}));
  EXPECT_EQ(d->predicted, 1);
  EXPECT_TRUE(d->false_positives.empty());
  // A predicted lesion below the limit does not find a large one.
  d = detect_lesions(map_of({2, 2, 2}), map_of({0, 2, 0}), {kTumor, 1.0}, std::nullopt);
  EXPECT_EQ(d->found_flags(), std::vector<bool>{false});
  // A large prediction over a small reference lesion is no false positive.
  d = detect_lesions(map_of({0, 2, 0}), map_of({2, 2, 2}), {kTumor, 1.0}, std::nullopt);
  EXPECT_TRUE(d->reference.empty());
  EXPECT_TRUE(d->false_positives.empty());
}

TEST(Lesions, IgnoredReferenceVoxelsAreOutsideInBoth) {
  const auto d = detect_lesions(kReference, kPrediction, {kTumor}, 1);
  EXPECT_EQ(d->false_positives.size(), 1u);  // the one at voxel 9 is gone
}

TEST(Lesions, Flips) {
  const auto f = lesion_flips({true, true, false, false}, {true, false, true, true});
  EXPECT_EQ(f->lost, 1);
  EXPECT_EQ(f->gained, 2);
  EXPECT_FALSE(lesion_flips({true}, {}).ok());
}

TEST(Lesions, Refusals) {
  EXPECT_FALSE(detect_lesions(kReference, map_of({0}), {kTumor}, std::nullopt).ok());
  EXPECT_FALSE(detect_lesions(kReference, kPrediction, {{"x", {}}}, std::nullopt).ok());
  EXPECT_FALSE(detect_lesions(kReference, kPrediction, {kTumor, -1}, std::nullopt).ok());
  EXPECT_FALSE(detect_lesions(kReference, kPrediction, {kTumor, 0, 1.5}, std::nullopt).ok());
}

}  // namespace
}  // namespace isoline
