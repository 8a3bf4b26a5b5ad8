// HostWatch: what the serving process and the machine's devices use, ready for whoever asks for the metrics.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "isoline/measure/energy_monitor.h"
#include "isoline/oip/prometheus.h"
#include "isoline/serve/repository.h"

namespace isoline::frontend {

// Inferences of all models that a repository ever served. A model that is unloaded keeps its place; what it
// answered after the last look is lost (the monitor looks every second). Threads: all calls from any.
class InferenceTally {
 public:
  explicit InferenceTally(const serve::Repository& repository) : repository_(repository) {}
  measure::WorkDone look();

 private:
  const serve::Repository& repository_;
  std::mutex mutex_;
  // By served version; expired ones go. A reloaded model is another object that counts from 0.
  std::map<std::weak_ptr<serve::ServedModel>, uint64_t, std::owner_less<>> counted_;
  uint64_t total_ = 0;
};

struct HostWatchOptions {
  std::string nvml_library = "libnvidia-ml.so.1";
  std::string rapl_root = "/sys/class/powercap";
};

// The repository must outlive it. Threads: all calls from any.
class HostWatch {
 public:
  HostWatch(const HostWatchOptions& options, const serve::Repository& repository);
  // Takes microseconds: devices are read by a thread of their own.
  oip::HostFigures figures();

 private:
  InferenceTally tally_;
  const double start_time_s_;
  std::unique_ptr<measure::EnergyMonitor> monitor_;  // last: its thread uses the tally
};

}  // namespace isoline::frontend
