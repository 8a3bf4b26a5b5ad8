// EnergySource: one thing that has an energy counter (a GPU, a CPU package), read piece by piece.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "isoline/measure/reading.h"

namespace isoline::measure {

inline constexpr const char* kKindGpu = "gpu";
inline constexpr const char* kKindCpuPackage = "cpu_package";

// What a source is, or why it cannot be read.
struct SourceInfo {
  std::string id;    // UUID of a GPU ("GPU-..."), "rapl:package-0" of a CPU package
  std::string name;  // as the driver calls it
  std::string kind;  // kKindGpu | kKindCpuPackage
  bool available = false;
  std::string reason;   // why not available; empty if it is
  std::string remedy;   // what the user can do about it; may be empty
  std::string counter;  // what the energy counter is, e.g. "NVML total energy"
  std::string power;    // what the second reading is, e.g. "NVML field 186 (instant)"; or why there is none
  bool has_power = false;                    // the second reading exists
  double power_limit_w = 0;                  // enforced limit; 0: not known
  std::map<std::string, std::string> facts;  // driver, power_limit_w, persistence, ecc, ...: text for reports
};

// The raw counter: counts, or why it could not be read.
struct CounterReading {
  std::optional<uint64_t> count;
  std::string reason;
};

struct CounterProperties {
  double joules_per_count = 1e-3;
  uint64_t range_counts = 0;  // the count runs from 0 to here and then starts again; 0: it never wraps
  // Nothing this counter measures draws more. Tells a wrap from a reset and bounds energy inside a tick.
  double max_plausible_w = 2000;
};

// State beside energy. Every member that cannot be read says why.
struct Health {
  Reading temperature_c, sm_clock_mhz, memory_clock_mhz;
  std::optional<uint64_t> throttle_bits;  // NVML clocks event reasons
  std::string throttle_reason;            // why there are none
};

struct MemoryUse {
  Reading device_bytes;   // all processes and the driver
  Reading process_bytes;  // of one process and its descendants
  Reading device_total_bytes = Reading::unavailable("this source has no memory size");
};

// Reads may take a system call or a driver call (microseconds to milliseconds) and never throw for a device
// that fails: they return the reason. Threads: one at a time; only the meter's thread calls.
class EnergySource {
 public:
  virtual ~EnergySource() = default;
  virtual const SourceInfo& info() const = 0;
  virtual CounterProperties counter_properties() const = 0;
  virtual CounterReading read_counter() = 0;
  // Instant power in watts, independent of the counter. Called only if info().has_power.
  virtual Reading read_power_w() = 0;
  // Power averaged by the device over its own window (NVML: 1 s).
  virtual Reading read_average_power_w() { return Reading::unavailable("this source has no averaged power"); }
  // Share of time in which the device was busy, 0..1, over the driver's own short window.
  virtual Reading read_utilization() { return Reading::unavailable("this source has no utilisation"); }
  virtual Health read_health() = 0;
  // Memory of the device and of process `pid` (with its descendants).
  virtual MemoryUse read_memory(int64_t pid) = 0;
  // Number of processes that hold a compute context.
  virtual Reading read_contexts() = 0;
};

// "hw_thermal_slowdown" etc. for the bits of NVML's clocks event reasons, lowest bit first.
std::vector<std::string> throttle_names(uint64_t bits);
// True if a bit says that the device ran slower than its power and clock limits allow: hardware slowdown,
// thermal slowdown, power brake. Running at the power limit (sw_power_cap) is a property of the limit, not a
// fault.
bool is_throttled(uint64_t bits);
bool is_power_capped(uint64_t bits);

}  // namespace isoline::measure
