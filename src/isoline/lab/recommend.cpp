#include "isoline/lab/recommend.h"

#include <algorithm>
#include <cstdio>

namespace isoline::lab {
namespace {

struct Cost {
  const char *name, *unit;
  double scale;
  Reading (*of)(const SettingSummary&);
};

constexpr Cost kCosts[] = {
    {"time", "s/case", 1,
     [](const SettingSummary& s) {
       return s.s_per_case.n ? Reading::of(s.s_per_case.value) : Reading::unavailable("nothing was run");
     }},
    {"energy", "kJ/case", 1e-3, [](const SettingSummary& s) { return s.energy_gross_j; }},
    {"vram", "MB", 1e-6, [](const SettingSummary& s) { return s.peak_vram_bytes; }},
    {"rss", "MB", 1e-6, [](const SettingSummary& s) { return s.peak_rss_bytes; }},
};

std::string figure(const Cost& cost, double value) {
  char text[64];
  std::snprintf(text, sizeof text, "%.4g %s", value * cost.scale, cost.unit);
  return text;
}

}  // namespace

Result<Recommendation> recommend(const RunSummary& summary, const std::string& by) {
  const auto cost =
      std::find_if(std::begin(kCosts), std::end(kCosts), [&](const Cost& c) { return by == c.name; });
  if (cost == std::end(kCosts))
    return Error{ErrorCode::kInvalidArgument, "'" + by + "' is no cost", "--by",
                 "Use time, energy, vram or rss."};
  const SettingSummary *baseline = nullptr, *best = nullptr;
  for (const SettingSummary& s : summary.settings)
    if (s.name == summary.baseline) baseline = &s;
  if (!baseline || baseline->cases == 0)
    return Error{ErrorCode::kNotFound, "the baseline '" + summary.baseline + "' has no result", summary.id,
                 "Finish the sweep first."};
  for (const SettingSummary& s : summary.settings) {
    const bool candidate = &s == baseline || s.verdict == Verdict::kPreserved;
    if (!candidate) continue;
    const Reading r = cost->of(s);
    if (!r.ok())
      return Error{ErrorCode::kUnsupported, by + " is not available for '" + s.name + "': " + r.reason,
                   summary.id, "Choose by another cost."};
    if (!best || *r < *cost->of(*best)) best = &s;
  }
  Recommendation out;
  out.setting = best->name;
  out.by = by;
  const double least = *cost->of(*best), before = *cost->of(*baseline);
  out.why = best == baseline
                ? "no cheaper setting was shown to preserve every endpoint; the baseline takes " +
                      figure(*cost, before)
                : figure(*cost, least) + " against the baseline's " + figure(*cost, before) +
                      ", and every endpoint is preserved (" + std::to_string(best->cases) + " cases)";
  for (const SettingSummary& s : summary.settings) {
    if (!s.not_run.empty()) {
      out.passed_over.push_back(s.name + ": not run: " + s.not_run);
      continue;
    }
    const Reading r = cost->of(s);
    if (!s.verdict || s.verdict == Verdict::kPreserved || !r.ok() || *r >= least) continue;
    std::string why =
        s.failures.empty() ? "" : "; failed on " + std::to_string(s.failures.size()) + " case(s)";
    for (const EndpointResult& e : s.endpoints)
      if (e.verdict != Verdict::kPreserved) {
        why = "; " + e.metric + " of " + e.region + ": " + e.why;
        break;
      }
    out.passed_over.push_back(s.name + " (" + figure(*cost, *r) + "): " + to_string(*s.verdict) + why);
  }
  if (summary.registration.status != "registered")
    out.caveats.push_back(
        "thresholds were not fixed beforehand (registration: " + summary.registration.status + ")");
  return out;
}

}  // namespace isoline::lab
