// The meter in simulated time, against sources whose true energy is known.
#include "isoline/measure/meter.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <random>
#include <vector>

#include "isoline/measure/simulated.h"

namespace isoline::measure {
namespace {

struct Bench {
  explicit Bench(std::vector<SimulatedConfig> configs, MeterOptions options = {}) {
    std::vector<std::unique_ptr<EnergySource>> sources;
    for (const SimulatedConfig& c : configs) sources.push_back(std::make_unique<SimulatedSource>(c, clock));
    meter = std::make_unique<Meter>(std::move(sources), clock, std::move(options));
  }
  void sleep(double s) { clock.sleep_until(clock.now_ns() + ns_from_s(s)); }
  WindowReport window(double s, Phase phase = Phase::kAny) {
    const int64_t token = meter->begin(phase);
    sleep(s);
    auto r = meter->end(token);
    EXPECT_TRUE(r.ok());
    return std::move(r).value();
  }
  SimulatedClock clock;
  std::unique_ptr<Meter> meter;
};

double truth(const SimulatedConfig& c, const WindowReport& w) {
  return c.power.energy_j(s_from_ns(w.begin_ns), s_from_ns(w.end_ns));
}

TEST(SquareWaveTest, EnergyIsTheIntegralOfPower) {
  SquareWave wave;
  wave.low_w = 90;
  wave.high_w = 700;
  wave.period_s = 0.37;
  wave.duty = 0.3;
  wave.phase_s = 0.05;
  double sum = 0;
  const double step = 1e-5;
  for (int i = 0; i < 200000; ++i) sum += wave.power_w(-0.4 + (i + 0.5) * step) * step;
  EXPECT_NEAR(wave.energy_j(-0.4, 1.6), sum, 0.02);
}

// Forty windows of odd length at odd phases: the error is always inside the stated bound, and the bound is
// not idle (at most what two half ticks can hold).
TEST(Meter, EnergyOfAnyWindowLiesWithinItsUncertainty) {
  for (const double period : {0.013, 0.09, 0.7, 5.0}) {
    SimulatedConfig c;
    c.power.period_s = period;
    c.power.phase_s = 0.0077;
    c.tick_jitter_s = 0.004;
    Bench bench({c});
    std::mt19937 random(7);
    double worst = 0;
    for (int i = 0; i < 40; ++i) {
      bench.sleep(std::uniform_real_distribution<double>(0, 0.3)(random));
      const WindowReport w =
          bench.window(i == 0 ? 3.217 : std::uniform_real_distribution<double>(0.05, 2)(random));
      const DeviceWindow& d = w.devices[0];
      ASSERT_TRUE(d.energy_gross_j.ok()) << d.energy_gross_j.reason;
      const double error = std::abs(*d.energy_gross_j - truth(c, w));
      worst = std::max(worst, error);
      EXPECT_LE(error, *d.energy_uncertainty_j + 1e-3) << "period " << period << " window " << i;
      EXPECT_LE(*d.energy_uncertainty_j, 2 * c.power.high_w * 0.11) << period;
      EXPECT_NEAR(*d.average_power_w, *d.energy_gross_j / w.wall_s, 1e-9);
      EXPECT_EQ(d.missed_samples, 0);
    }
    EXPECT_GT(worst, 0.005);  // the truth is not simply copied
  }
}

// A counter whose every read costs 3.6 ms of CPU, now and then 15 (an H100 with driver 580): read seldom, and
// the bound still holds at any phase.
TEST(Meter, ExpensiveCounterIsReadSeldomAndStillBounded) {
  for (const double period : {0.013, 0.37, 5.0}) {
    int64_t reads = 0;
    SimulatedConfig c;
    c.power.period_s = period;
    c.counter_cost_s = 3.6e-3;
    c.slow_call_s = 11.5e-3;
    c.counter_reads = &reads;
    Bench bench({c});
    bench.sleep(2);
    std::mt19937 random(11);
    double uncertainty = 0;
    for (int i = 0; i < 60; ++i) {
      bench.sleep(std::uniform_real_distribution<double>(0, 1.5)(random));
      const WindowReport w = bench.window(std::uniform_real_distribution<double>(0.3, 4)(random));
      const DeviceWindow& d = w.devices[0];
      ASSERT_TRUE(d.energy_gross_j.ok()) << d.energy_gross_j.reason;
      EXPECT_NEAR(*d.energy_gross_j, truth(c, w), *d.energy_uncertainty_j + 1e-3)
          << period << " window " << i;
      uncertainty += *d.energy_uncertainty_j / 60;
    }
    EXPECT_LT(uncertainty, 60);
    const int64_t before = reads;
    const WindowReport w = bench.window(60);
    EXPECT_NEAR(*w.devices[0].energy_gross_j, truth(c, w), *w.devices[0].energy_uncertainty_j);
    EXPECT_LT(reads - before, 60 * 7);  // of 600 ticks; under 3 % of a core
    EXPECT_GE(w.devices[0].counter_ticks, 50);
  }
}

TEST(Meter, ExpensiveCounterAlignsToo) {
  SimulatedConfig c;
  c.power.period_s = 0.033;
  c.counter_cost_s = 3.6e-3;
  Bench bench({c});
  for (int i = 0; i < 10; ++i) {
    bench.sleep(0.6371);
    const WindowReport w = bench.window(1.05, Phase::kAligned);
    EXPECT_NEAR(*w.devices[0].energy_gross_j, truth(c, w), *w.devices[0].energy_uncertainty_j);
    EXPECT_LT(std::fmod(s_from_ns(w.begin_ns) - c.tick_phase_s, c.tick_period_s), 0.012);
  }
}

TEST(Meter, ConstantPowerIsExactUpToTheMomentOfTheTicks) {
  SimulatedConfig c;
  c.power.low_w = c.power.high_w = 400;
  Bench bench({c});
  bench.sleep(1);  // the meter has learnt the tick
  const WindowReport w = bench.window(3.217);
  EXPECT_NEAR(w.wall_s, 3.217, 1e-9);
  // Half a fine poll at each end: 0.3 ms x 400 W.
  EXPECT_NEAR(*w.devices[0].energy_gross_j, truth(c, w), 0.25);
  EXPECT_NEAR(*w.devices[0].energy_integrated_j, truth(c, w), 0.01);
  EXPECT_NEAR(*w.devices[0].energy_disagreement, 0, 2e-4);
}

TEST(Meter, AlignedBeginHalvesTheUncertainty) {
  SimulatedConfig c;
  c.power.period_s = 0.033;
  Bench bench({c});
  double aligned = 0, any = 0;
  for (int i = 0; i < 10; ++i) {
    bench.sleep(0.0371);
    any += *bench.window(1.05).devices[0].energy_uncertainty_j;
    const WindowReport w = bench.window(1.05, Phase::kAligned);
    aligned += *w.devices[0].energy_uncertainty_j;
    // Begins within 2 ms of a tick.
    const double since = std::fmod(s_from_ns(w.begin_ns) - c.tick_phase_s, c.tick_period_s);
    EXPECT_LT(since, 0.002);
  }
  EXPECT_LT(aligned, 0.7 * any);
}

TEST(Meter, RandomPhaseSpreadsOverTheTickAndAveragesTheError) {
  SimulatedConfig c;
  c.power.period_s = 0.4;
  Bench bench({c});
  int quarter[4] = {};
  double sum = 0;
  const int n = 60;
  for (int i = 0; i < n; ++i) {
    const WindowReport w = bench.window(0.5, Phase::kRandom);
    const double phase = std::fmod(s_from_ns(w.begin_ns) - c.tick_phase_s, c.tick_period_s) / c.tick_period_s;
    ++quarter[std::min(3, int(phase * 4))];
    sum += *w.devices[0].energy_gross_j - truth(c, w);
  }
  for (int q : quarter) EXPECT_GE(q, 5);
  EXPECT_LT(std::abs(sum / n), 1.5);  // of 150 J a window
}

TEST(Meter, DisagreementIsComputedAndShowsAPowerReadingThatIsOff) {
  SimulatedConfig c;
  c.power.low_w = c.power.high_w = 300;
  c.power_gain = 0.95;
  c.power_noise_w = 5;
  Bench bench({c});
  const DeviceWindow d = bench.window(20).devices[0];
  EXPECT_NEAR(*d.energy_disagreement, 0.05, 0.002);
  EXPECT_NEAR(*d.energy_disagreement, (*d.energy_gross_j - *d.energy_integrated_j) / *d.energy_gross_j,
              1e-12);
}

// Power that changes between two refreshes of the instant reading escapes it; the counter holds.
TEST(Meter, SubTickSquareWaveFoolsPowerButNotTheCounter) {
  SimulatedConfig c;
  c.power = {100, 500, 0.025, 0.5, -0.005};  // in step with the refresh: every sample is high
  c.power_refresh_s = 0.025;
  Bench bench({c});
  const WindowReport w = bench.window(10);
  const DeviceWindow& d = w.devices[0];
  EXPECT_NEAR(*d.energy_gross_j, truth(c, w), *d.energy_uncertainty_j);
  EXPECT_NEAR(*d.energy_gross_j, 3000, 15);
  EXPECT_NEAR(*d.energy_integrated_j, 5000, 15);
  EXPECT_NEAR(*d.energy_disagreement, -0.667, 0.01);
}

TEST(Meter, CounterWrapIsCounted) {
  SimulatedConfig c;
  c.kind = kKindCpuPackage;
  c.power = {50, 200, 0.3, 0.5, 0};
  c.joules_per_count = 1e-6;
  c.tick_period_s = 0.001;  // as RAPL
  c.power_available = false;
  c.max_plausible_w = 1000;
  c.range_counts = 262143328;  // 262 J: wraps every two seconds
  c.call_cost_s = 20e-6;
  Bench bench({c});
  const WindowReport w = bench.window(9.77);
  const DeviceWindow& d = w.devices[0];
  ASSERT_TRUE(d.energy_gross_j.ok()) << d.energy_gross_j.reason;
  EXPECT_GT(*d.energy_gross_j, 4 * 262);
  EXPECT_NEAR(*d.energy_gross_j, truth(c, w), *d.energy_uncertainty_j);
  EXPECT_LT(*d.energy_uncertainty_j, 3.5);  // ticks far faster than 100 ms
  EXPECT_FALSE(d.energy_integrated_j.ok());
  EXPECT_FALSE(d.energy_disagreement.ok());
  EXPECT_NE(d.energy_integrated_j.reason.find("none"), std::string::npos);
}

TEST(Meter, SixtyFourBitCounterMayStartNearItsEnd) {
  SimulatedConfig c;
  c.initial_count =
      ~0ull - 2'000'000'000;  // mJ; no wrap in this window, but any signed arithmetic would show
  Bench bench({c});
  const WindowReport w = bench.window(2);
  EXPECT_NEAR(*w.devices[0].energy_gross_j, truth(c, w), *w.devices[0].energy_uncertainty_j);
}

void expect_no_energy(const DeviceWindow& d, const char* word) {
  EXPECT_FALSE(d.energy_gross_j.ok());
  EXPECT_NE(d.energy_gross_j.reason.find(word), std::string::npos) << d.energy_gross_j.reason;
  EXPECT_FALSE(d.average_power_w.ok());
  EXPECT_FALSE(d.energy_uncertainty_j.ok());
  EXPECT_FALSE(d.energy_disagreement.ok());
  EXPECT_FALSE(net_energy_j(d.energy_gross_j, Reading::of(70), 1).ok());
}

TEST(Meter, VanishingDeviceMakesItsEnergyUnavailableAndOnlyIts) {
  SimulatedConfig gone, other;
  gone.vanish_at_s = 5;
  other.id = "GPU-other";
  Bench bench({gone, other});
  const WindowReport before = bench.window(2);
  EXPECT_TRUE(before.devices[0].energy_gross_j.ok());
  EXPECT_TRUE(before.total_gross_j(kKindGpu).ok());
  const WindowReport during = bench.window(6);
  expect_no_energy(during.devices[0], "lost");
  EXPECT_FALSE(during.devices[0].energy_integrated_j.ok());
  EXPECT_GT(during.devices[0].missed_samples, 0);
  ASSERT_TRUE(during.devices[1].energy_gross_j.ok());
  EXPECT_NEAR(*during.devices[1].energy_gross_j, truth(other, during),
              *during.devices[1].energy_uncertainty_j);
  EXPECT_FALSE(during.total_gross_j(kKindGpu).ok());  // never the sum of what is left
  EXPECT_NE(during.total_gross_j(kKindGpu).reason.find("GPU-simulated"), std::string::npos);
  const WindowReport after = bench.window(1);
  expect_no_energy(after.devices[0], "before the window began");
}

// Gone for the very end only: shorter than max_gap_s, and the window must still not report.
TEST(Meter, DeviceGoneAtTheEndOfAWindow) {
  SimulatedConfig c;
  c.vanish_at_s = 3;
  Bench bench({c});
  const int64_t token = bench.meter->begin();
  bench.clock.sleep_until(ns_from_s(3.05));
  const auto r = bench.meter->end(token);
  ASSERT_TRUE(r.ok());
  expect_no_energy(r->devices[0], "lost");
}

TEST(Meter, DeviceThatComesBackIsMeasuredAgainAfterwards) {
  SimulatedConfig c;
  c.vanish_at_s = 3;
  c.return_at_s = 6;
  Bench bench({c});
  expect_no_energy(bench.window(8).devices[0], "lost");
  const WindowReport w = bench.window(1.5);
  ASSERT_TRUE(w.devices[0].energy_gross_j.ok()) << w.devices[0].energy_gross_j.reason;
  EXPECT_NEAR(*w.devices[0].energy_gross_j, truth(c, w), *w.devices[0].energy_uncertainty_j);
}

TEST(Meter, ShortDropoutIsBridgedByTheCounterAndCounted) {
  SimulatedConfig c;
  c.vanish_at_s = 3;
  c.return_at_s = 3.4;
  Bench bench({c});
  const WindowReport w = bench.window(6);
  const DeviceWindow& d = w.devices[0];
  ASSERT_TRUE(d.energy_gross_j.ok()) << d.energy_gross_j.reason;
  EXPECT_NEAR(*d.energy_gross_j, truth(c, w), *d.energy_uncertainty_j);
  EXPECT_GT(d.missed_samples, 5);
  EXPECT_NEAR(d.largest_gap_s, 0.4, 0.05);
}

TEST(Meter, StuckCounterIsNotReportedAsNoEnergy) {
  SimulatedConfig c;
  c.stuck_at_s = 2;
  Bench bench({c});
  const WindowReport w = bench.window(8);
  expect_no_energy(w.devices[0], "stood still");
  EXPECT_NEAR(*w.devices[0].energy_integrated_j, truth(c, w),
              0.03 * truth(c, w));  // the second reading goes on
  expect_no_energy(bench.window(0.5).devices[0], "stood still");
  // Stuck from the start.
  c.stuck_at_s = 0;
  Bench never({c});
  EXPECT_FALSE(never.window(1).devices[0].energy_gross_j.ok());
}

TEST(Meter, ResetOfTheCounterIsNoWrap) {
  SimulatedConfig gpu, cpu;
  gpu.reset_at_s = cpu.reset_at_s = 4;
  cpu.id = "rapl";
  cpu.range_counts = 262143328;
  cpu.initial_count = 100'000'000;
  cpu.max_plausible_w = 3000;
  Bench bench({gpu, cpu});
  const WindowReport w = bench.window(6);
  expect_no_energy(w.devices[0], "went back");
  expect_no_energy(w.devices[1], "reset");
  const WindowReport next = bench.window(1);
  EXPECT_TRUE(next.devices[0].energy_gross_j.ok()) << next.devices[0].energy_gross_j.reason;
}

TEST(Meter, StarvedMeterKeepsTheCounterAndDropsTheIntegral) {
  SimulatedConfig c;
  c.read_stall_at_s = 3;
  c.read_stall_s = 2.5;
  Bench bench({c});
  const WindowReport w = bench.window(8);
  const DeviceWindow& d = w.devices[0];
  ASSERT_TRUE(d.energy_gross_j.ok()) << d.energy_gross_j.reason;
  EXPECT_NEAR(*d.energy_gross_j, truth(c, w), *d.energy_uncertainty_j);
  EXPECT_FALSE(d.energy_integrated_j.ok());
  EXPECT_NE(d.energy_integrated_j.reason.find("no power sample for"), std::string::npos)
      << d.energy_integrated_j.reason;
  EXPECT_GT(d.missed_samples, 100);
}

TEST(Meter, WindowsNestAndAddUp) {
  SimulatedConfig c;
  Bench bench({c});
  const int64_t outer = bench.meter->begin();
  const int64_t first = bench.meter->begin();
  bench.sleep(1.234);
  const WindowReport a = std::move(bench.meter->end(first)).value();
  const WindowReport b = bench.window(2.5);
  const WindowReport all = std::move(bench.meter->end(outer)).value();
  EXPECT_NEAR(*all.devices[0].energy_gross_j, truth(c, all), *all.devices[0].energy_uncertainty_j);
  EXPECT_GT(*all.devices[0].energy_gross_j, *a.devices[0].energy_gross_j + *b.devices[0].energy_gross_j);
  EXPECT_FALSE(bench.meter->end(first).ok());
  EXPECT_FALSE(bench.meter->end(12345).ok());
}

TEST(Meter, ShorterThanATick) {
  SimulatedConfig c;
  Bench bench({c});
  for (int i = 0; i < 20; ++i) {
    const WindowReport w = bench.window(0.02 + 0.003 * i);
    ASSERT_TRUE(w.devices[0].energy_gross_j.ok()) << w.devices[0].energy_gross_j.reason;
    EXPECT_NEAR(*w.devices[0].energy_gross_j, truth(c, w), *w.devices[0].energy_uncertainty_j + 1e-3);
  }
}

TEST(Meter, PeakPowerHealthAndThrottling) {
  SimulatedConfig c;
  c.throttle_at_s = 6;
  Bench bench({c});
  const DeviceWindow calm = bench.window(3).devices[0];
  EXPECT_EQ(*calm.peak_power_w, 500);
  EXPECT_EQ(*calm.peak_vram_bytes, 1e9);
  EXPECT_FALSE(calm.peak_process_vram_bytes.ok());
  EXPECT_EQ(*calm.sm_clock_min_mhz, 1500);
  EXPECT_FALSE(calm.throttled);
  const DeviceWindow hot = bench.window(4).devices[0];
  EXPECT_TRUE(hot.throttled);
  EXPECT_EQ(hot.throttle_reasons, std::vector<std::string>{"hw_thermal_slowdown"});
  EXPECT_EQ(*hot.sm_clock_min_mhz, 750);
  EXPECT_GT(*hot.sm_clock_mean_mhz, 750);
}

TEST(Meter, IdleAndNet) {
  SimulatedConfig c;
  c.power.low_w = c.power.high_w = 72;
  Bench bench({c});
  const IdleReport idle = bench.meter->measure_idle(5);
  ASSERT_EQ(idle.devices.size(), 1u);
  EXPECT_NEAR(*idle.devices[0].power_w, 72, 0.05);
  EXPECT_LT(*idle.devices[0].power_uncertainty_w, 0.7);  // both ends lie at ticks
  EXPECT_NEAR(*idle.devices[0].power_integrated_w, 72, 0.05);
  EXPECT_EQ(idle.devices[0].state, "cold");
  EXPECT_DOUBLE_EQ(*net_energy_j(Reading::of(1000), Reading::of(72), 5), 640);
  const Reading none = net_energy_j(Reading::of(1000), Reading::unavailable("no meter"), 5);
  EXPECT_EQ(none.reason, "idle power: no meter");
}

TEST(Meter, CalibrationFindsTickStepRefreshAndCost) {
  SimulatedConfig c;
  c.power = {200, 400, 0.777, 0.5, 0};
  c.power_noise_w = 3;
  c.call_cost_s = 300e-6;
  Bench bench({c});
  const CalibrationReport r = bench.meter->calibrate(5);
  ASSERT_EQ(r.sources.size(), 1u);
  const SourceCalibration& s = r.sources[0];
  EXPECT_NEAR(s.tick_period_s.median, 0.1, 0.002);
  EXPECT_GE(s.tick_period_s.n, 40);
  EXPECT_NEAR(s.tick_step_j.median, 30, 10.5);
  EXPECT_NEAR(s.power_refresh_s.median, 0.025, 0.001);
  EXPECT_NEAR(s.counter_call_us.median, 300, 1);
  EXPECT_NEAR(s.power_call_us.p99, 300, 1);
  EXPECT_LT(s.poll_s, 0.001);
  // The meter works on afterwards.
  const WindowReport w = bench.window(2);
  EXPECT_NEAR(*w.devices[0].energy_gross_j, truth(c, w), *w.devices[0].energy_uncertainty_j);
}

TEST(Meter, NoSourcesIsNoError) {
  Bench bench({});
  const WindowReport w = bench.window(1);
  EXPECT_TRUE(w.devices.empty());
  EXPECT_NEAR(w.wall_s, 1, 1e-9);
  EXPECT_FALSE(w.total_gross_j(kKindGpu).ok());
  EXPECT_TRUE(bench.meter->calibrate().sources.empty());
  EXPECT_TRUE(bench.meter->measure_idle(1).devices.empty());
}

TEST(Meter, BadPeriodsAreRefused) {
  MeterOptions o;
  o.power_period_s = std::nan("");
  const auto m = Meter::open(o);
  ASSERT_FALSE(m.ok());
  EXPECT_EQ(m.error().code, ErrorCode::kInvalidArgument);
}

TEST(Meter, TraceShowsWhatWasRead) {
  std::vector<TraceRow> rows;
  MeterOptions o;
  o.trace = [&](const TraceRow& r) { rows.push_back(r); };
  {
    SimulatedConfig c;
    Bench bench({c}, o);
    bench.sleep(2);
  }
  int counters = 0, powers = 0;
  for (const TraceRow& r : rows) {
    counters += std::string(r.what) == "counter_j";
    powers += std::string(r.what) == "power_w";
  }
  EXPECT_NEAR(counters, 20, 2);
  EXPECT_NEAR(powers, 100, 6);
}

}  // namespace
}  // namespace isoline::measure
