// EnergyMonitor: what the devices have used since it began, looked at once a period, for a program that runs
// for months and is asked at any time.
//
// A Meter answers "how much in this window" to the tick; this one answers "how much so far" to the period,
// at a few calls a second.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "isoline/measure/clock.h"
#include "isoline/measure/energy_source.h"
#include "isoline/measure/reading.h"

namespace isoline::measure {

// What the program did so far, in its own unit of work.
struct WorkDone {
  uint64_t done = 0;     // never decreases
  bool running = false;  // some is being done now
};

struct DeviceUse {
  std::string id, name, kind;  // as in SourceInfo
  // By the counter, since the monitor began. A counter that starts again (driver reloaded) starts these again
  // at 0, as counters of a restarted program do; nothing is guessed for the time in between.
  Reading energy_j;
  Reading working_energy_j;   // of the periods in which work was done or running: the whole device's
  Reading energy_per_work_j;  // of the last minute: the whole device's energy / work done meanwhile
  Reading power_w;            // instant reading; where there is none, the counter over the last period
  Reading power_limit_w;
  Reading utilization;  // 0..1: share of time in which a kernel ran, as the driver says
  Reading memory_used_bytes, memory_total_bytes;
};

struct EnergyMonitorOptions {
  double period_s = 1;
  std::function<WorkDone()> work;  // called from the monitor's thread; empty: no work is ever done
};

// Owns its sources and one thread, which runs only if there is a source. Threads: all calls from any.
class EnergyMonitor {
 public:
  // `unavailable`: what could not be opened. `clock` must outlive the monitor; with a simulated one the
  // calling thread must be attached to it.
  EnergyMonitor(std::vector<std::unique_ptr<EnergySource>> sources, Clock& clock,
                EnergyMonitorOptions options = {}, std::vector<SourceInfo> unavailable = {});
  ~EnergyMonitor();
  EnergyMonitor(const EnergyMonitor&) = delete;
  EnergyMonitor& operator=(const EnergyMonitor&) = delete;

  // As the last look found it; in the order of the sources.
  std::vector<DeviceUse> devices() const;
  // What cannot be read here, and why.
  const std::vector<SourceInfo>& unavailable() const { return unavailable_; }

 private:
  struct Track;
  void watch();
  void look();

  Clock& clock_;
  const EnergyMonitorOptions options_;
  const std::vector<SourceInfo> unavailable_;
  mutable std::mutex mutex_;  // of uses_
  std::vector<DeviceUse> uses_;
  std::vector<std::unique_ptr<Track>> tracks_;  // of whoever looks
  bool was_running_ = false;
  uint64_t done_before_ = 0;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

// All GPUs of `nvml_library` and all RAPL packages of `rapl_root`, on the real clock.
std::unique_ptr<EnergyMonitor> open_energy_monitor(const std::string& nvml_library,
                                                   const std::string& rapl_root,
                                                   EnergyMonitorOptions options = {});

}  // namespace isoline::measure
