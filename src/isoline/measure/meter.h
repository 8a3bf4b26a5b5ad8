// Meter: energy, power, memory and health of every readable device over windows of time.
//
// Two independent readings of energy. *Gross* comes from the device's energy counter: a background thread
// watches the counter closely enough to see when it ticks, and the energy at a time between two ticks is
// interpolated, so that a window may begin and end anywhere. *Integrated* is the trapezoid over instant power
// samples. Both and their disagreement are reported; neither corrects the other.
//
// A figure that could not be measured over the whole window (device vanished, counter stuck or reset, no
// permission) is a Reading with a reason: never 0, never a part passed off as the whole.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/measure/clock.h"
#include "isoline/measure/energy_source.h"
#include "isoline/measure/reading.h"

namespace isoline::measure {

// How idle power is taken and who pays for what; printed with every net figure.
inline constexpr const char* kIdleProtocol =
    "Idle power is the counter's energy over a window in which nobody submits work, divided by its length, "
    "taken in "
    "two states: cold (no process holds a context on the device) and context alive (a context exists and "
    "sleeps). "
    "Net energy = gross energy - idle power with the context alive x wall time of the same window. Clocks "
    "and power "
    "that stay up after the last piece of work (the tail) are paid by a window only while it lasts; what "
    "follows is "
    "charged to nobody and shows as the difference between the two idle states.";

// Where in a counter tick a window begins.
enum class Phase {
  kAny,      // now
  kAligned,  // right after the counter ticked: removes the uncertainty of that end
  kRandom,   // a random time within a tick: averages the error of both ends away over repetitions
};

// One line of the optional trace: what the meter's thread read and when.
struct TraceRow {
  int64_t t_ns = 0;       // middle of the read
  size_t source = 0;      // index into Meter::sources()
  const char* what = "";  // "counter_j" | "power_w" | "sm_clock_mhz" | "temperature_c" | "memory_bytes"
  double value = 0;
};

struct MeterOptions {
  bool gpus = true;
  bool cpu_packages = true;
  std::string nvml_library = "libnvidia-ml.so.1";
  std::string rapl_root = "/sys/class/powercap";
  std::vector<std::string> gpu_ids;  // UUIDs; empty: all
  Phase phase = Phase::kAny;         // of begin() without an argument
  uint64_t seed = 1;                 // of random phases
  double power_period_s = 0.02;      // between power samples
  double health_period_s = 0.1;      // between health and memory samples
  double max_gap_s = 1.0;            // longer without a sample: the integrated reading is unavailable
  int64_t process_id = 0;            // whose VRAM is reported (with its descendants); 0: this process
  // Called from the meter's thread; must be quick and not call the meter.
  std::function<void(const TraceRow&)> trace;
};

struct DeviceWindow {
  std::string id, name, kind;       // as in SourceInfo
  Reading energy_gross_j;           // counter
  Reading energy_integrated_j;      // trapezoid over instant power
  Reading energy_disagreement;      // (gross - integrated) / gross
  Reading energy_uncertainty_j;     // bound on the gross figure's error from ticks at both ends; not the
                                    // sensor's own
  Reading average_power_w;          // gross / wall
  Reading peak_power_w;             // largest instant sample (no counter-derived peaks)
  Reading peak_vram_bytes;          // device-wide, sampled
  Reading peak_process_vram_bytes;  // of the process of interest, sampled
  Reading temperature_max_c;
  Reading sm_clock_mean_mhz, sm_clock_min_mhz;
  std::vector<std::string> throttle_reasons;  // every reason seen in the window
  bool throttled = false;                     // slowed by heat or hardware in some sample: see is_throttled()
  bool power_capped = false;                  // ran at the power limit in some sample
  int64_t counter_ticks = 0, power_samples = 0;
  int64_t missed_samples = 0;  // failed reads and power gaps over three periods
  double largest_gap_s = 0;    // between power samples
};

struct WindowReport {
  double wall_s = 0;
  int64_t begin_ns = 0, end_ns = 0;   // on the meter's clock
  Reading meter_cpu_s;                // CPU time of the meter's own thread in the window
  std::vector<DeviceWindow> devices;  // one per available source, same order

  // Sum over devices of a kind; unavailable if there is none of it or one of them is unavailable.
  Reading total_gross_j(const std::string& kind) const;
  Reading total_integrated_j(const std::string& kind) const;
};

struct IdleDevice {
  std::string id, name, kind;
  Reading power_w;             // counter
  Reading power_integrated_w;  // mean of instant power
  Reading power_uncertainty_w;
  Reading contexts;   // processes with a compute context at the end of the window
  std::string state;  // "cold" | "context alive" | "unknown"; "idle" for a CPU package
  Reading temperature_max_c, sm_clock_mean_mhz;
};
struct IdleReport {
  double seconds = 0;
  std::vector<IdleDevice> devices;
};

// Everything but energy, read once.
struct Snapshot {
  std::string id;
  Reading power_w, average_power_w;  // instant; averaged by the device over its own window (NVML: 1 s)
  Health health;
  Reading memory_bytes, contexts;
};

// Median and 99th percentile of n durations or steps.
struct Quantiles {
  int64_t n = 0;
  double median = 0, p99 = 0, min = 0, max = 0;
};
struct SourceCalibration {
  std::string id, name;
  Quantiles tick_period_s;    // between changes of the counter; n = 0: it did not tick
  Quantiles tick_step_j;      // size of a change
  Quantiles power_refresh_s;  // between changes of the power reading
  Quantiles counter_call_us, power_call_us, health_call_us, memory_call_us;
  double poll_s = 0;               // time between reads while looking for ticks: resolution of the periods
  std::vector<std::string> notes;  // what could not be calibrated and why
};
struct CalibrationReport {
  double seconds = 0;
  double meter_cpu_fraction = 0;  // of one core, while sampling normally
  std::vector<SourceCalibration> sources;
};

// gross - idle_w x wall_s; unavailable if either is, with its reason. Negative results are kept: they say
// that the idle power does not fit.
Reading net_energy_j(const Reading& gross_j, const Reading& idle_w, double wall_s);

// Owns its sources and one thread that samples them from construction to destruction. Threads: all members
// from any thread; windows may nest and overlap. Memory does not grow with the length of a window.
class Meter {
 public:
  // All GPUs that NVML knows and all RAPL packages. A machine with neither is no error: sources() says why.
  // kNotFound if options.gpu_ids names a device that does not exist; kInvalidArgument for bad periods.
  static Result<std::unique_ptr<Meter>> open(const MeterOptions& options = {});
  // `unavailable`: described by sources() after the real ones. `clock` must outlive the meter; the calling
  // thread must be attached to it.
  Meter(std::vector<std::unique_ptr<EnergySource>> sources, Clock& clock, MeterOptions options = {},
        std::vector<SourceInfo> unavailable = {});
  ~Meter();
  Meter(const Meter&) = delete;
  Meter& operator=(const Meter&) = delete;

  // The available sources in the order of WindowReport::devices, then the unavailable ones with their
  // reasons.
  std::vector<SourceInfo> sources() const;
  Clock& clock() const;

  // Opens a window and returns its token. Waits only if a phase asks for it (at most a few ticks of the
  // slowest counter; a counter that does not tick is not waited for longer than 1 s).
  int64_t begin();
  int64_t begin(Phase phase);
  // Closes it: the window ends when end() is called; end() then waits for each counter's next tick (bounded).
  // kInvalidArgument: no such open window.
  Result<WindowReport> end(int64_t token);

  // Whose VRAM the windows report from now on (with its descendants); open windows forget what they saw of
  // another.
  void set_process(int64_t pid);

  // State of each available source now.
  std::vector<Snapshot> snapshot();

  // Idle power over `seconds` from now. The caller sees to it that nothing runs.
  IdleReport measure_idle(double seconds);
  // Reads each source as fast as it goes for about `seconds` altogether (1 s each at least). Windows that are
  // open meanwhile lose their power samples.
  CalibrationReport calibrate(double seconds = 4);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace isoline::measure
