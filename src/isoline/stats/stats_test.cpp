#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "isoline/stats/describe.h"
#include "isoline/stats/noninferiority.h"

namespace isoline {
namespace {

TEST(Describe, QuantilesAreThoseOfNumpy) {
  // numpy.percentile([15, 20, 35, 40, 50], [25, 50, 75]) = 20, 35, 40; 40th: 29
  const std::vector<double> v{50, 15, 40, 20, 35};
  const Spread s = describe(v);
  EXPECT_EQ(s.n, 5);
  EXPECT_DOUBLE_EQ(s.q1, 20);
  EXPECT_DOUBLE_EQ(s.median, 35);
  EXPECT_DOUBLE_EQ(s.q3, 40);
  EXPECT_DOUBLE_EQ(s.mean, 32);
  EXPECT_FALSE(s.p90.has_value());
  EXPECT_NEAR(standard_deviation(v), 14.404860290887934, 1e-12);
  const std::vector<double> sorted{15, 20, 35, 40, 50};
  EXPECT_DOUBLE_EQ(quantile_sorted(sorted, 0.4), 29);
}

TEST(Describe, PercentilesOnlyWhereCasesCarryThem) {
  std::vector<double> v(100);
  for (size_t i = 0; i < v.size(); ++i) v[i] = double(i);
  EXPECT_TRUE(describe(v).p99.has_value());
  v.pop_back();
  EXPECT_FALSE(describe(v).p99.has_value());
  EXPECT_TRUE(describe(v).p95.has_value());
}

// The table of measurement practice: n at s/delta = 1, 2, 3, 5 for 80 and 90 % power.
TEST(CasesNeeded, PublishedTable) {
  const int expected[4][3] = {{1, 7, 9}, {2, 25, 35}, {3, 56, 78}, {5, 155, 215}};
  for (const auto& row : expected) {
    EXPECT_EQ(cases_needed(row[0], 1, 0.80), row[1]);
    EXPECT_EQ(cases_needed(row[0], 1, 0.90), row[2]);
  }
}

TEST(MeanBounds, NeverInsideStudentsT) {
  // scipy: t.ppf(.95, 9) = 1.8331129326536335
  const std::vector<double> v{.3, -.1, .7, .2, -.4, .5, .1, .0, .6, -.2};
  const auto b = mean_bounds(v);
  ASSERT_TRUE(b);
  const double half = 1.8331129326536335 * b->sd / std::sqrt(10.0);
  EXPECT_LE(b->lower, b->mean - half + 1e-12);
  EXPECT_GE(b->upper, b->mean + half - 1e-12);
  EXPECT_LE(b->low, b->lower);
  EXPECT_GE(b->high, b->upper);
}

TEST(MeanBounds, SkewMovesTheBoundThatMatters) {
  // One large loss: the lower bound must lie farther from the mean than the upper one.
  const std::vector<double> v{0, .001, -.001, 0, .002, -.002, .001, 0, -.001, -.08};
  const auto b = mean_bounds(v);
  ASSERT_TRUE(b);
  EXPECT_GT(b->mean - b->lower, 1.5 * (b->upper - b->mean));
}

TEST(MeanBounds, SameSeedSameBoundsOtherSeedAlmost) {
  const std::vector<double> v{.3, -.1, .7, .2, -.4, .5, .1, .0, .6, -.2};
  const auto a = mean_bounds(v, {10'000, 1}), b = mean_bounds(v, {10'000, 1}),
             c = mean_bounds(v, {10'000, 2});
  EXPECT_EQ(a->lower, b->lower);
  EXPECT_NE(a->lower, c->lower);
  EXPECT_NEAR(a->lower, c->lower, 0.05 * a->sd);
}

TEST(Decision, ThreeVerdicts) {
  std::vector<double> d;
  for (int i = 0; i < 12; ++i) d.push_back(i % 2 ? .001 : -.001);
  EXPECT_EQ(decide_noninferiority(d, .01).verdict, Verdict::kPreserved);
  for (double& v : d) v -= .05;
  EXPECT_EQ(decide_noninferiority(d, .01).verdict, Verdict::kNotPreserved);
  for (int i = 0; i < 12; ++i) d[size_t(i)] = i % 2 ? .05 : -.06;
  EXPECT_EQ(decide_noninferiority(d, .01).verdict, Verdict::kInconclusive);
}

// Half precision often changes a single case in the last digit: a tiny loss in one of eight is no reason for
// doubt.
TEST(Decision, NearlyAllEqualDifferencesCanBePreserved) {
  const std::vector<double> d{0, 0, 0, 0, 0, 0, 0, -5e-5};
  const Decision decision = decide_noninferiority(d, .02);
  EXPECT_EQ(decision.verdict, Verdict::kPreserved) << decision.why;
  EXPECT_LT(decision.bounds->lower, decision.bounds->mean - decision.bounds->sd / std::sqrt(8.0));
  EXPECT_EQ(decide_noninferiority(d, 2e-5).verdict, Verdict::kInconclusive);
}

TEST(Decision, TooFewCasesAreNeverPreserved) {
  const std::vector<double> zeros(kMinimumCases - 1, 0.0);
  EXPECT_EQ(decide_noninferiority(zeros, .01).verdict, Verdict::kInconclusive);
  const std::vector<double> enough(kMinimumCases, 0.0);
  EXPECT_EQ(decide_noninferiority(enough, .01).verdict, Verdict::kPreserved);
  const std::vector<double> one{0.0};
  EXPECT_FALSE(decide_noninferiority(one, .01).bounds.has_value());
}

TEST(Decision, ALossOfExactlyDeltaIsNotPreserved) {
  const std::vector<double> d(20, -.01);
  EXPECT_EQ(decide_noninferiority(d, .01).verdict, Verdict::kInconclusive);
}

}  // namespace
}  // namespace isoline
