// Energy counters of CPU packages through Linux's powercap files (Intel and AMD RAPL).
//
// Domains nest: psys contains packages, a package contains its cores, uncore and (elsewhere) dram is beside
// it. Only top-level domains named package-* are sources; every other domain is listed as unavailable with
// the reason, so nothing is counted twice. The counter is in microjoules and wraps at max_energy_range_uj.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "isoline/measure/energy_source.h"

namespace isoline::measure {

struct RaplSources {
  std::vector<std::unique_ptr<EnergySource>> sources;
  std::vector<SourceInfo> unavailable;
};

// `root`: normally /sys/class/powercap. Absence and missing permission are entries of `unavailable`, no
// errors.
RaplSources open_rapl(const std::string& root);

}  // namespace isoline::measure
