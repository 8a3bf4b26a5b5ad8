// A clock, and a source of energy readings with known truth, to test the meter and everything above it
// without hardware: square-wave power, a counter that ticks, wraps, sticks, resets, and a device that
// vanishes.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <mutex>
#include <random>
#include <string>

#include "isoline/measure/clock.h"
#include "isoline/measure/energy_source.h"

namespace isoline::measure {

// Time that stands still while any attached thread runs and jumps to the earliest deadline once all of them
// sleep. Threads wake one at a time in order of deadline, so a program of several threads that sleep only on
// this clock runs the same way every time. The constructing thread is attached.
class SimulatedClock : public Clock {
 public:
  explicit SimulatedClock(int64_t start_ns = 0) : now_(start_ns) {}
  int64_t now_ns() override;
  void sleep_until(int64_t t_ns) override;
  void attach() override;
  void detach() override;

 private:
  struct Sleeper {
    int64_t deadline;
    bool awake = false;
  };
  void advance_if_all_sleep();  // lock held
  std::mutex mutex_;
  std::condition_variable woken_;
  std::list<Sleeper*> sleepers_;
  int attached_ = 1;
  int64_t now_;
};

// Power between two levels; energy_j is its exact integral from 0. Times in seconds.
struct SquareWave {
  double low_w = 100, high_w = 500, period_s = 1,
         duty = 0.5;   // high in the first duty * period_s of each period
  double phase_s = 0;  // time at which a period begins
  double power_w(double t_s) const;
  double energy_j(double t0_s, double t1_s) const;
};

inline constexpr double kNever = 1e300;

struct SimulatedConfig {
  std::string id = "GPU-simulated", name = "Simulated GPU", kind = kKindGpu;
  SquareWave power;
  double tick_period_s = 0.1, tick_phase_s = 0.0123, tick_jitter_s = 0;  // counter published at these times
  double joules_per_count = 1e-3;
  uint64_t range_counts = 0, initial_count = 123456;
  double max_plausible_w = 1500;
  double power_refresh_s = 0.025;  // the instant reading changes this often
  double power_noise_w = 0;        // standard deviation per refresh
  double power_gain = 1;           // systematic error of the power reading
  bool power_available = true;
  double call_cost_s = 50e-6;                         // every read takes this long
  double counter_cost_s = 0;                          // a read of the counter takes this much more,
  double slow_call_s = 0;                             // and every thirteenth this much more again
  int64_t* counter_reads = nullptr;                   // counts them if set
  double vanish_at_s = kNever, return_at_s = kNever;  // reads fail in between
  double stuck_at_s = kNever, unstuck_at_s = kNever;  // the counter stands still in between, then catches up
  double reset_at_s = kNever;                         // the counter starts again at 0
  double read_stall_at_s = kNever, read_stall_s = 0;  // one read takes this much longer (a starved meter)
  double throttle_at_s = kNever;                      // hw_thermal_slowdown from here on
  double temperature_c = 50, sm_clock_mhz = 1500;
  double memory_bytes = 1e9;
  uint64_t seed = 1;
};

class SimulatedSource : public EnergySource {
 public:
  // Times of the configuration are seconds on `clock`.
  SimulatedSource(SimulatedConfig config, Clock& clock);
  const SourceInfo& info() const override { return info_; }
  CounterProperties counter_properties() const override;
  CounterReading read_counter() override;
  Reading read_power_w() override;
  Health read_health() override;
  MemoryUse read_memory(int64_t pid) override;
  Reading read_contexts() override;

 private:
  double pass_time(double more_s = 0);  // spends the cost of a call; the time in its middle
  bool gone(double t_s) const { return t_s >= config_.vanish_at_s && t_s < config_.return_at_s; }
  SimulatedConfig config_;
  Clock& clock_;
  SourceInfo info_;
  bool stalled_ = false;
  int64_t reads_ = 0;
};

}  // namespace isoline::measure
