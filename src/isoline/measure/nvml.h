// NVIDIA GPUs through NVML, loaded when the program runs: no header, no link dependency. Devices are keyed by
// UUID.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "isoline/measure/energy_source.h"

namespace isoline::measure {

struct NvmlSources {
  std::vector<std::unique_ptr<EnergySource>> sources;  // each keeps the library loaded and initialised
  std::vector<SourceInfo> unavailable;
};

// `library` is given to dlopen. No library, no driver, a missing symbol or an unreadable device are entries
// of `unavailable` with the reason, no errors.
NvmlSources open_nvml(const std::string& library);

// True if `pid` is `root` or a descendant of it, as /proc says now.
bool is_descendant(int64_t pid, int64_t root);

}  // namespace isoline::measure
