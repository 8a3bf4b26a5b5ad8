// What a case costs: machine time, electricity and CO2, from prices the user states. Nothing is assumed: a
// figure whose price or measurement is missing is unavailable and says why.
#pragma once

#include <optional>
#include <string>

#include "isoline/base/result.h"
#include "isoline/lab/summary.h"

namespace isoline::lab {

struct Prices {
  std::optional<double> per_hour;       // currency units per hour of the machine
  std::optional<double> per_kwh;        // currency units per kilowatt-hour
  std::optional<double> co2_g_per_kwh;  // grams of CO2 (equivalent) per kilowatt-hour
  std::string currency = "USD";         // a label; nothing is converted
  bool any() const { return per_hour || per_kwh || co2_g_per_kwh; }
};

// kInvalidArgument for a price that is negative or not finite, naming its option.
Status validate(const Prices& prices);

// The energy a setting is billed for, in joules per case, and what it covers. On an accelerator: its gross
// energy (idle included). On a CPU: the packages, as RAPL counts them. Never the whole machine, and `scope`
// says so.
struct MeteredEnergy {
  Reading j_per_case;
  std::string scope;  // "accelerator, gross" | "CPU packages"
};
MeteredEnergy metered_energy(const RunSummary& run, const SettingSummary& setting);

// Why a figure of this setting is missing, if nothing better is known: it was not run, the source's table is
// not available (a note that begins so), the published table leaves it out, or it was not measured.
std::string missing_reason(const RunSummary& run, const SettingSummary& setting);

// Mean seconds per case, or why there are none (a published table without it, no case finished).
Reading seconds_per_case(const RunSummary& run, const SettingSummary& setting);

// All per case. machine = s / 3600 * per_hour; electricity = J / 3.6e6 * per_kwh; co2_g = J / 3.6e6 *
// co2_g_per_kwh. total adds the parts whose price was given, and is unavailable if one of them is. Times
// 1000: per 1000 cases.
struct Cost {
  Reading machine, electricity, total;  // in Prices::currency
  Reading co2_g;                        // grams
  std::string energy_scope;             // what electricity and CO2 cover
};
Cost cost_per_case(const RunSummary& run, const SettingSummary& setting, const Prices& prices);

}  // namespace isoline::lab
