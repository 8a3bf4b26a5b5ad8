#include "isoline/lab/cost.h"

#include <cmath>

namespace isoline::lab {
namespace {

constexpr double kJoulesPerKwh = 3.6e6;

// amount * price, or the reason why not.
Reading priced(const Reading& amount, const std::optional<double>& price, double units, const char* option) {
  if (!price) return Reading::unavailable(std::string("no ") + option + " was given");
  if (!amount.ok()) return Reading::unavailable(amount.reason);
  return Reading::of(*amount / units * *price);
}

}  // namespace

Status validate(const Prices& prices) {
  const std::pair<const char*, std::optional<double>> all[] = {{"--price-per-hour", prices.per_hour},
                                                               {"--price-per-kwh", prices.per_kwh},
                                                               {"--co2-g-per-kwh", prices.co2_g_per_kwh}};
  for (const auto& [option, value] : all)
    if (value && !(std::isfinite(*value) && *value >= 0))
      return Error{ErrorCode::kInvalidArgument, "a price must be a finite number, 0 or more", option, ""};
  return {};
}

std::string missing_reason(const RunSummary& run, const SettingSummary& setting) {
  if (!setting.not_run.empty()) return "not run: " + setting.not_run;
  for (const std::string& note : setting.notes)
    if (note.starts_with("published table not available")) return note;
  if (run.kind == "published") return "the published table does not give it";
  if (setting.cases == 0 && !setting.failures.empty()) return "every case failed";
  return "not measured in this run";
}

Reading seconds_per_case(const RunSummary& run, const SettingSummary& setting) {
  if (setting.s_per_case.n > 0 && std::isfinite(setting.s_per_case.value) && setting.s_per_case.value > 0)
    return Reading::of(setting.s_per_case.value);
  return Reading::unavailable(missing_reason(run, setting));
}

MeteredEnergy metered_energy(const RunSummary& run, const SettingSummary& setting) {
  if (!setting.not_run.empty())
    return {Reading::unavailable("not run: " + setting.not_run),
            run.device_kind == "cpu" ? "CPU packages" : "accelerator, gross"};
  if (run.device_kind == "cpu" && !setting.energy_gross_j.ok())
    return {setting.cpu_energy_j.ok() || !setting.cpu_energy_j.reason.empty()
                ? setting.cpu_energy_j
                : Reading::unavailable("no energy was recorded"),
            "CPU packages"};
  Reading gross = setting.energy_gross_j;
  if (!gross.ok() && gross.reason.empty())
    gross.reason = run.energy_source.empty() ? "no energy was recorded" : run.energy_source;
  return {std::move(gross), "accelerator, gross"};
}

Cost cost_per_case(const RunSummary& run, const SettingSummary& setting, const Prices& prices) {
  Cost cost;
  const MeteredEnergy energy = metered_energy(run, setting);
  cost.energy_scope = energy.scope;
  cost.machine = priced(seconds_per_case(run, setting), prices.per_hour, 3600, "--price-per-hour");
  cost.electricity = priced(energy.j_per_case, prices.per_kwh, kJoulesPerKwh, "--price-per-kwh");
  cost.co2_g = priced(energy.j_per_case, prices.co2_g_per_kwh, kJoulesPerKwh, "--co2-g-per-kwh");
  if (!prices.per_hour && !prices.per_kwh)
    cost.total = Reading::unavailable("no --price-per-hour and no --price-per-kwh was given");
  else if (prices.per_hour && !cost.machine.ok())
    cost.total = cost.machine;
  else if (prices.per_kwh && !cost.electricity.ok())
    cost.total = cost.electricity;
  else
    cost.total = Reading::of(cost.machine.value.value_or(0) + cost.electricity.value.value_or(0));
  return cost;
}

}  // namespace isoline::lab
