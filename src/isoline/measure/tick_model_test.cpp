#include "isoline/measure/tick_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace isoline::measure {
namespace {

constexpr double kMs = 1e6;

// Tick k of a counter with a period of 100.03 ms, seen through windows of 8 ms at random offsets.
struct Seen {
  std::mt19937 random{3};
  double width = 8 * kMs, jitter = 0;
  double at(int64_t k) const { return 5e12 + double(k) * 100.03 * kMs; }
  void observe(TickModel& m, int64_t k) {
    const double t = at(k) + jitter * std::uniform_real_distribution<double>(0, 1)(random);
    const double lo = t - width * std::uniform_real_distribution<double>(0.02, 0.98)(random);
    m.observe(int64_t(lo), int64_t(lo + width));
  }
};

TEST(TickModel, FifthTickMakesItValidAndOthersSharpenIt) {
  TickModel m;
  Seen s;
  for (int k = 0; k < 5; ++k) {
    EXPECT_FALSE(m.valid());
    s.observe(m, k);
  }
  ASSERT_TRUE(m.valid());
  EXPECT_NEAR(double(m.period_ns()), 100.03 * kMs, 2 * kMs);
  for (int k = 15; k < 400; k += 10) {
    s.observe(m, k);
    ASSERT_TRUE(m.valid()) << k;
    const TickModel::Tick t = m.next_after(int64_t(s.at(k + 3) - 50 * kMs));
    EXPECT_LE(std::abs(double(t.at_ns) - s.at(k + 3)), double(t.half_ns)) << k;
  }
  const TickModel::Tick t = m.last_before(int64_t(s.at(410) + 50 * kMs));
  EXPECT_NEAR(double(t.at_ns), s.at(410), 1 * kMs);
  EXPECT_LT(t.half_ns, 2 * kMs);  // from windows of 8 ms
}

TEST(TickModel, JitterWidensThePrediction) {
  TickModel m;
  Seen s;
  s.width = 1 * kMs;
  s.jitter = 6 * kMs;
  for (int k = 0; k < 200; ++k) s.observe(m, k);
  ASSERT_TRUE(m.valid());
  const TickModel::Tick t = m.next_after(int64_t(s.at(205) - 50 * kMs));
  EXPECT_GE(t.half_ns, 2 * kMs);
  EXPECT_LE(t.half_ns, 12 * kMs);
}

TEST(TickModel, ShiftedPhaseStartsANewModel) {
  TickModel m;
  Seen s;
  for (int k = 0; k < 20; ++k) s.observe(m, k);
  ASSERT_TRUE(m.valid());
  m.observe(int64_t(s.at(20) + 45 * kMs), int64_t(s.at(20) + 50 * kMs));
  EXPECT_FALSE(m.valid());
}

// A tick missed while learning must not become the period.
TEST(TickModel, UnequalDistancesAreNotLearnt) {
  TickModel m;
  Seen s;
  for (int k : {0, 2, 3, 5, 6, 8, 9}) s.observe(m, k);
  EXPECT_FALSE(m.valid());
  for (int k : {10, 11, 12}) s.observe(m, k);
  EXPECT_TRUE(m.valid());
  EXPECT_NEAR(double(m.period_ns()), 100.03 * kMs, 4 * kMs);
}

}  // namespace
}  // namespace isoline::measure
