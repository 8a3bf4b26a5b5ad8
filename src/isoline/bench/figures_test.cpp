#include "isoline/bench/figures.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "isoline/stats/quantile_interval.h"

namespace isoline::bench {
namespace {

TEST(LatencyFigures, ExactPercentilesOfAKnownList) {
  std::vector<double> ms(1001);
  std::iota(ms.begin(), ms.end(), 0);  // 0 ... 1000
  std::shuffle(ms.begin(), ms.end(), std::mt19937(3));
  const Latency l = latency_figures(ms);
  EXPECT_EQ(l.n, 1001);
  EXPECT_DOUBLE_EQ(l.mean.value, 500);
  EXPECT_EQ(l.min, 0);
  EXPECT_EQ(l.max, 1000);
  for (double q : {.5, .9, .95, .99, .999}) {
    ASSERT_NE(l.quantile(q), nullptr) << q;
    EXPECT_NEAR(l.quantile(q)->value, 1000 * q, 1e-9);
  }
  // Ranks of the binomial with n = 1001, p = .5: mean 500.5, sd 15.8.
  EXPECT_NEAR(*l.quantile(.5)->low, 500 - 31, 1.5);
  EXPECT_NEAR(*l.quantile(.5)->high, 500 + 31, 1.5);
  EXPECT_FALSE(l.quantile(.999)->high.has_value());  // nothing lies so far out
}

TEST(LatencyFigures, PercentilesOnlyWhereRequestsCarryThem) {
  std::vector<double> ms(999, 2.0);
  EXPECT_EQ(latency_figures(ms).quantile(.999), nullptr);
  ms.resize(9);
  EXPECT_EQ(latency_figures(ms).quantile(.9), nullptr);
  EXPECT_NE(latency_figures(ms).quantile(.5), nullptr);
  EXPECT_FALSE(latency_figures(ms).mean.low.has_value());
  EXPECT_EQ(latency_figures({}).n, 0);
  EXPECT_TRUE(latency_figures({}).quantiles.empty());
}

TEST(QuantileInterval, CoversTheTrueQuantileAsOftenAsItSays) {
  std::mt19937_64 random(7);
  int inside = 0;
  constexpr int kRuns = 2000;
  for (int run = 0; run < kRuns; ++run) {
    std::vector<double> v(200);
    for (double& x : v) x = -std::log(1 - double(random() >> 11) * 0x1p-53);
    std::sort(v.begin(), v.end());
    const QuantileEstimate e = quantile_with_interval(v, .9);
    inside += *e.low <= std::log(10.0) && std::log(10.0) < *e.high;
  }
  EXPECT_GE(inside, kRuns * .94);
  EXPECT_LE(inside, kRuns * .98);  // and is not wider than it must be
}

TEST(RateFigure, CountsAndBounds) {
  std::vector<int64_t> at;
  for (int i = 0; i < 1000; ++i) at.push_back(1'000'000 * i);
  const Interval rate = rate_figure(at, 0, 1'000'000'000);
  EXPECT_DOUBLE_EQ(rate.value, 1000);
  EXPECT_NEAR(*rate.low, 1000, 1e-6);
  EXPECT_NEAR(*rate.high, 1000, 1e-6);
  at.resize(99);
  EXPECT_FALSE(rate_figure(at, 0, 1'000'000'000).low.has_value());
}

TEST(Stability, LastThreeWindowsWithinTolerance) {
  const std::vector<WindowFigures> steady{{10, 90}, {100, 10}, {104, 9.8}, {97, 10.3}};
  EXPECT_EQ(why_unstable(steady, .1), "");  // the first no longer counts
  EXPECT_NE(why_unstable(std::span(steady).first(3), .1), "");
  EXPECT_NE(why_unstable(std::span(steady).first(2), .1), "");
  EXPECT_NE(why_unstable(steady, .01), "");
  const std::vector<WindowFigures> slower{{100, 10}, {100, 12}, {100, 15}};
  EXPECT_NE(why_unstable(slower, .1).find("latency"), std::string::npos);
  const std::vector<WindowFigures> silent{{0, 0}, {0, 0}, {0, 0}};
  EXPECT_NE(why_unstable(silent, .1), "");
}

}  // namespace
}  // namespace isoline::bench
