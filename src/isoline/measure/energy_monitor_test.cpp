// The energy monitor in simulated time, against sources whose true energy is known.
#include "isoline/measure/energy_monitor.h"

#include <gtest/gtest.h>

#include "isoline/measure/simulated.h"

namespace isoline::measure {
namespace {

SimulatedConfig steady(double watts) {
  SimulatedConfig c;
  c.power.low_w = c.power.high_w = watts;
  return c;
}

struct Bench {
  explicit Bench(const SimulatedConfig& config, std::function<WorkDone(double t_s)> work = nullptr) {
    std::vector<std::unique_ptr<EnergySource>> sources;
    sources.push_back(std::make_unique<SimulatedSource>(config, clock));
    EnergyMonitorOptions options;
    if (work) options.work = [this, work] { return work(s_from_ns(clock.now_ns())); };
    monitor = std::make_unique<EnergyMonitor>(std::move(sources), clock, std::move(options));
  }
  // The device once `t_s` is reached.
  DeviceUse at(double t_s) {
    clock.sleep_until(ns_from_s(t_s));
    return monitor->devices().at(0);
  }
  SimulatedClock clock;
  std::unique_ptr<EnergyMonitor> monitor;
};

TEST(EnergyMonitor, CountsFromItsBeginning) {
  Bench bench(steady(200));
  const DeviceUse first = bench.at(0.5);
  EXPECT_EQ(*first.energy_j, 0);
  const DeviceUse later = bench.at(30.5);
  EXPECT_NEAR(*later.energy_j, 200 * 30, 200 * 0.2);  // ticks of 100 ms at both ends
  EXPECT_NEAR(*later.power_w, 200, 1e-9);
  EXPECT_EQ(*later.memory_used_bytes, 1e9);
  EXPECT_FALSE(later.utilization.ok());
  EXPECT_FALSE(later.power_limit_w.ok());
}

TEST(EnergyMonitor, FollowsACounterThatWraps) {
  SimulatedConfig c = steady(300);
  c.range_counts = 2'000'000;  // 2 kJ: a wrap about every 7 s
  Bench bench(c);
  EXPECT_NEAR(*bench.at(60.5).energy_j, 300 * 60, 300 * 0.2);
}

TEST(EnergyMonitor, StartsAgainWithTheCounter) {
  SimulatedConfig c = steady(100);
  c.initial_count = 5'000'000;
  c.reset_at_s = 20.05;
  Bench bench(c);
  EXPECT_NEAR(*bench.at(19.5).energy_j, 1900, 30);
  const DeviceUse after = bench.at(30.5);
  EXPECT_NEAR(*after.energy_j, 900, 120);  // what came since, and no more
}

TEST(EnergyMonitor, ALostDeviceHasNoFiguresAndItsCounterBridgesTheGap) {
  SimulatedConfig c = steady(100);
  c.vanish_at_s = 5.5;
  c.return_at_s = 8.5;
  Bench bench(c);
  const DeviceUse lost = bench.at(7.5);
  for (const Reading* r : {&lost.energy_j, &lost.working_energy_j, &lost.power_w, &lost.memory_used_bytes}) {
    EXPECT_FALSE(r->ok());
    EXPECT_EQ(r->reason, "the device is lost (simulated)");
  }
  EXPECT_NEAR(*bench.at(20.5).energy_j, 2000, 30);
}

TEST(EnergyMonitor, WorkingEnergyIsThatOfPeriodsWithWork) {
  // Ten a second from second 10 to 20; nothing else ever runs.
  Bench bench(steady(100), [](double t) {
    return WorkDone{uint64_t(10 * std::min(std::max(t - 10, 0.), 10.)), false};
  });
  EXPECT_EQ(*bench.at(9.5).working_energy_j, 0);
  EXPECT_EQ(bench.at(9.6).energy_per_work_j.reason, "no work was done in the last minute");
  const DeviceUse use = bench.at(40.5);
  EXPECT_NEAR(*use.working_energy_j, 1000, 120);  // a period begins and ends beside the work
  EXPECT_NEAR(*use.energy_per_work_j, 4000. / 100, 1);
  EXPECT_FALSE(bench.at(90.5).energy_per_work_j.ok());  // a minute later: said, not 0
}

TEST(EnergyMonitor, WorkThatRunsLongerThanAPeriodCounts) {
  Bench bench(steady(100), [](double t) { return WorkDone{t > 20 ? 1u : 0u, t > 10 && t < 20}; });
  EXPECT_NEAR(*bench.at(30.5).working_energy_j, 1000, 220);
}

TEST(EnergyMonitor, WithoutDevicesThereIsNothing) {
  SimulatedClock clock;
  SourceInfo missing;
  missing.id = "nvml";
  missing.reason = "no driver";
  EnergyMonitor monitor({}, clock, {}, {missing});
  EXPECT_TRUE(monitor.devices().empty());
  EXPECT_EQ(monitor.unavailable().at(0).reason, "no driver");
}

}  // namespace
}  // namespace isoline::measure
