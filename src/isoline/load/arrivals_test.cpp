#include "isoline/load/arrivals.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace isoline::load {
namespace {

TEST(Arrivals, ConstantHasNoDrift) {
  ArrivalTimes times(Arrivals::kConstant, 300, 1);
  for (int i = 0; i < 300; ++i) EXPECT_EQ(times.next(), int64_t(double(i) / 300 * 1e9));
  EXPECT_EQ(times.next(), 1'000'000'000);
}

TEST(Arrivals, PoissonIsSeededAndExponential) {
  ArrivalTimes a(Arrivals::kPoisson, 100, 5), b(Arrivals::kPoisson, 100, 5), c(Arrivals::kPoisson, 100, 6);
  constexpr int kCount = 20000;
  std::vector<double> gaps;
  int64_t last = 0, differ = 0;
  for (int i = 0; i < kCount; ++i) {
    const int64_t t = a.next();
    EXPECT_EQ(t, b.next());
    differ += t != c.next();
    EXPECT_GE(t, last);
    gaps.push_back(double(t - last) * 1e-9);
    last = t;
  }
  EXPECT_GT(differ, kCount - 10);
  double mean = 0, squares = 0, beyond = 0;
  for (double g : gaps) {
    mean += g / kCount;
    squares += g * g / kCount;
    beyond += (g > .02) / double(kCount);
  }
  EXPECT_NEAR(mean, .01, .01 * 4 / std::sqrt(kCount));
  EXPECT_NEAR(squares, 2 * .01 * .01, .01 * .01 * .15);  // variance of an exponential: its mean squared
  EXPECT_NEAR(beyond, std::exp(-2), 4 * std::sqrt(.12 / kCount));  // its tail
}

}  // namespace
}  // namespace isoline::load
