#include "isoline/lab/compare.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "isoline/stats/describe.h"
#include "isoline/stats/noninferiority.h"

namespace isoline::lab {
namespace {

struct Side {
  const RunSummary& run;
  const SettingSummary& setting;
};

bool published(const RunSummary& run) {
  return run.kind == "published";
}

std::map<std::string, const CaseRecord*> by_case(const SettingSummary& s) {
  std::map<std::string, const CaseRecord*> out;
  for (const CaseRecord& c : s.per_case) out[c.case_id] = &c;
  return out;
}

// value(baseline) / value(setting) per common case; cases where either is missing or not positive are left
// out.
template <class Value>
std::vector<double> paired_ratios(const Side& base, const Side& other, Value value) {
  const auto cases = by_case(base.setting);
  std::vector<double> out;
  for (const CaseRecord& c : other.setting.per_case) {
    const auto it = cases.find(c.case_id);
    if (it == cases.end()) continue;
    const std::optional<double> a = value(*it->second), b = value(c);
    if (a && b && *a > 0 && *b > 0) out.push_back(*a / *b);
  }
  return out;
}

// The full number of resamples up to 2000 cases; beyond, fewer: the time stays bounded and the two rules
// agree.
std::optional<MeanBounds> bounds_of(const std::vector<double>& values) {
  BootstrapOptions options;
  options.resamples =
      std::clamp(int(20'000'000 / std::max<size_t>(values.size(), 1)), 200, options.resamples);
  return mean_bounds(values, options);
}

Relative geometric_mean(const std::vector<double>& ratios) {
  std::vector<double> logs;
  for (double x : ratios) logs.push_back(std::log(x));
  Relative r;
  r.value = Reading::of(std::exp(mean(logs)));
  r.n = int(logs.size());
  r.how = "geometric mean over " + std::to_string(r.n) + " cases";
  if (const auto bounds = bounds_of(logs)) {
    r.low = std::exp(bounds->low);
    r.high = std::exp(bounds->high);
    r.how += ", 95 % interval";
  }
  return r;
}

Relative of_estimate(const Estimate& e) {
  Relative r{Reading::of(e.value), e.low, e.high, e.n, ""};
  r.how = "geometric mean over " + std::to_string(e.n) + " cases, 95 % interval";
  return r;
}

Relative unavailable(std::string why) {
  Relative r;
  r.value = Reading::unavailable(std::move(why));
  return r;
}

Relative one() {
  Relative r;
  r.value = Reading::of(1);
  r.how = "baseline";
  return r;
}

// Whether `base` is what the setting's own run compared it with, so that the run's own intervals apply.
bool own_baseline(const Side& base, const Side& other) {
  return &base.run == &other.run && base.setting.name == other.run.baseline;
}

Relative speed(const Side& base, const Side& other) {
  if (&base.setting == &other.setting) return one();
  if (base.run.boundary != other.run.boundary)
    return unavailable("the clocks include different things: '" + base.run.boundary + "' and '" +
                       other.run.boundary + "'");
  const Reading a = seconds_per_case(base.run, base.setting), b = seconds_per_case(other.run, other.setting);
  if (published(other.run) && other.setting.published_speedup) {
    Relative r;
    r.value = Reading::of(*other.setting.published_speedup);
    r.how = "as published";
    return r;
  }
  if (own_baseline(base, other) && other.setting.speedup && other.setting.speedup->n > 0)
    return of_estimate(*other.setting.speedup);
  const auto ratios = paired_ratios(base, other, [](const CaseRecord& c) { return std::optional(c.wall_s); });
  if (!ratios.empty()) return geometric_mean(ratios);
  if (!b.ok()) return unavailable(b.reason);
  if (!a.ok()) return unavailable("baseline: " + a.reason);
  Relative r;
  r.value = Reading::of(*a / *b);
  r.how = "ratio of means";
  return r;
}

Relative energy(const Side& base, const Side& other) {
  const MeteredEnergy a = metered_energy(base.run, base.setting),
                      b = metered_energy(other.run, other.setting);
  if (!b.j_per_case.ok()) return unavailable(b.j_per_case.reason);
  if (&base.setting == &other.setting) return one();
  if (!a.j_per_case.ok()) return unavailable("baseline: " + a.j_per_case.reason);
  if (a.scope != b.scope) return unavailable("not the same energy: " + a.scope + " and " + b.scope);
  const bool accelerator = b.scope != "CPU packages";
  if (accelerator && own_baseline(base, other) && other.setting.energy_reduction &&
      other.setting.energy_reduction->n > 0)
    return of_estimate(*other.setting.energy_reduction);
  const auto ratios = paired_ratios(base, other, [&](const CaseRecord& c) {
    return (accelerator ? c.energy_gross_j : c.cpu_energy_j).value;
  });
  if (!ratios.empty()) return geometric_mean(ratios);
  if (!(*a.j_per_case > 0 && *b.j_per_case > 0)) return unavailable("an energy of 0 J has no ratio");
  Relative r;
  r.value = Reading::of(*a.j_per_case / *b.j_per_case);
  r.how = "ratio of means";
  return r;
}

const Estimate* estimate_of(const SettingSummary& s, const std::string& region, bool surface) {
  for (const RegionQuality& q : s.quality)
    if (q.region == region) {
      const Estimate& e = surface ? q.surface_dice : q.dice;
      return e.n > 0 && std::isfinite(e.value) ? &e : nullptr;
    }
  return nullptr;
}

QualityDelta quality_delta(const Side& base, const Side& other, const std::string& region, bool surface) {
  QualityDelta q;
  q.metric = surface ? "surface_dice" : "dice";
  q.region = region;
  const Estimate *a = estimate_of(base.setting, region, surface),
                 *b = estimate_of(other.setting, region, surface);
  const std::string missing = missing_reason(other.run, other.setting);
  q.value = b ? Reading::of(b->value) : Reading::unavailable(missing);
  if (&base.setting == &other.setting) {
    q.delta = b ? Relative{Reading::of(0), {}, {}, b->n, "baseline"} : unavailable(missing);
    return q;
  }
  const auto cases = by_case(base.setting);
  std::vector<double> differences;
  for (const CaseRecord& c : other.setting.per_case) {
    const auto it = cases.find(c.case_id);
    if (it == cases.end()) continue;
    const auto& from = surface ? it->second->surface_dice : it->second->dice;
    const auto& to = surface ? c.surface_dice : c.dice;
    const auto x = from.find(region), y = to.find(region);
    if (x != from.end() && y != to.end() && std::isfinite(x->second) && std::isfinite(y->second))
      differences.push_back(y->second - x->second);
  }
  if (!differences.empty()) {
    q.delta = {Reading::of(mean(differences)),
               {},
               {},
               int(differences.size()),
               "mean over " + std::to_string(differences.size()) + " paired cases"};
    if (const auto bounds = bounds_of(differences)) {
      q.delta.low = bounds->low;
      q.delta.high = bounds->high;
      q.delta.how += ", 95 % interval";
    }
  } else if (a && b) {
    q.delta = {Reading::of(b->value - a->value), {}, {}, 0, "difference of means"};
  } else {
    q.delta = unavailable(b ? "baseline: " + missing : missing);
  }
  return q;
}

ComparedSetting row(const std::vector<RunSummary>& runs, size_t base_run, size_t base_setting, size_t run,
                    size_t setting, const Prices& prices) {
  const Side base{runs[base_run], runs[base_run].settings[base_setting]},
      other{runs[run], runs[run].settings[setting]};
  ComparedSetting out;
  out.run = run;
  out.setting = setting;
  out.is_baseline = run == base_run && setting == base_setting;
  out.speed_x = speed(base, other);
  out.energy_x = energy(base, other);
  for (bool surface : {false, true})
    for (const RegionQuality& q : base.setting.quality)
      if (!surface || q.surface_dice.n > 0)
        out.quality.push_back(quality_delta(base, other, q.region, surface));
  out.cost = cost_per_case(other.run, other.setting, prices);
  return out;
}

Error differing(const std::string& what, const std::string& file_a, const std::string& hash_a,
                const std::string& file_b, const std::string& hash_b) {
  const auto shown = [](const std::string& h) { return h.empty() ? std::string("none") : h.substr(0, 12); };
  return Error{ErrorCode::kInvalidArgument,
               "these runs differ in " + what + ": " + file_a + " has " + shown(hash_a) + ", " + file_b +
                   " has " + shown(hash_b),
               file_b, "Compare runs of one model over the same cases and references."};
}

// Index of the run that RUN names; npos: none.
size_t find_run(const std::string& name, const std::vector<RunSummary>& runs,
                const std::vector<std::string>& files, const std::vector<std::string>& labels) {
  const auto trimmed = [](std::string s) {
    while (s.size() > 1 && s.back() == '/') s.pop_back();
    return s;
  };
  for (size_t i = 0; i < runs.size(); ++i)
    if (trimmed(files[i]) == trimmed(name)) return i;
  for (size_t i = 0; i < runs.size(); ++i)
    if (labels[i] == name || runs[i].id == name) return i;
  return std::string::npos;
}

std::optional<size_t> find_setting(const RunSummary& run, const std::string& name) {
  for (size_t i = 0; i < run.settings.size(); ++i)
    if (run.settings[i].name == name) return i;
  return std::nullopt;
}

std::string names_of(const RunSummary& run) {
  std::string out;
  for (const SettingSummary& s : run.settings) out += (out.empty() ? "" : ", ") + s.name;
  return out;
}

// "precision: fp32 / bf16" for every value that differs; empty: none.
std::string differing_values(const SettingSummary& a, const SettingSummary& b) {
  std::map<std::string, std::pair<std::string, std::string>> both;
  for (const auto& [key, value] : a.values) both[key].first = value;
  for (const auto& [key, value] : b.values) both[key].second = value;
  std::string out;
  for (const auto& [key, values] : both)
    if (values.first != values.second)
      out += (out.empty() ? "" : "; ") + key + ": " + (values.first.empty() ? "-" : values.first) + " / " +
             (values.second.empty() ? "-" : values.second);
  return out;
}

struct Baseline {
  size_t run, setting;
};

Result<Baseline> choose_baseline(const std::vector<RunSummary>& runs, const std::vector<std::string>& files,
                                 const std::vector<std::string>& labels, const std::string& wanted,
                                 std::optional<size_t> first_measured) {
  size_t run = first_measured.value_or(0);
  std::string setting;
  if (!wanted.empty()) {
    run = find_run(wanted, runs, files, labels);
    // A path may hold ':' itself, so the whole text is tried first, then every split from the right.
    for (size_t at = wanted.rfind(':'); run == std::string::npos && at != std::string::npos && at > 0;
         at = wanted.rfind(':', at - 1)) {
      run = find_run(wanted.substr(0, at), runs, files, labels);
      setting = wanted.substr(at + 1);
    }
    if (run == std::string::npos) {
      std::string known;
      for (const std::string& l : labels) known += (known.empty() ? "" : ", ") + l;
      return Error{ErrorCode::kInvalidArgument, "'" + wanted + "' names none of the runs (" + known + ")",
                   "--baseline", "Write RUN or RUN:SETTING."};
    }
    if (published(runs[run]))
      return Error{ErrorCode::kInvalidArgument,
                   labels[run] + " is a published table over other cases; nothing can be set against it",
                   "--baseline",
                   "Name a measured run. Published tables are compared with their own baseline."};
  }
  std::optional<size_t> index =
      setting.empty() ? baseline_index(runs[run]) : find_setting(runs[run], setting);
  if (!index)
    return Error{ErrorCode::kInvalidArgument,
                 "there is no setting '" + (setting.empty() ? runs[run].baseline : setting) +
                     "'; the run has: " + names_of(runs[run]),
                 files[run], "Name one of them with --baseline RUN:SETTING."};
  return Baseline{run, *index};
}

}  // namespace

std::optional<size_t> baseline_index(const RunSummary& run) {
  if (run.settings.empty()) return std::nullopt;
  if (run.baseline.empty()) return 0;
  return find_setting(run, run.baseline);
}

std::vector<std::string> run_labels(const std::vector<RunSummary>& runs,
                                    const std::vector<std::string>& files) {
  std::vector<std::string> labels;
  for (size_t i = 0; i < runs.size(); ++i) {
    const RunSummary& r = runs[i];
    std::string label = published(r) && !r.source.empty() ? r.source : r.id;
    if (label.empty()) label = files[i];
    if (published(r) && !r.device_name.empty()) label += ", " + r.device_name;
    labels.push_back(label);
  }
  const auto twins = [&](size_t i) { return std::count(labels.begin(), labels.end(), labels[i]) > 1; };
  std::vector<std::string> unique = labels;
  for (size_t i = 0; i < runs.size(); ++i)
    if (twins(i) && !published(runs[i]) && !runs[i].device_name.empty())
      unique[i] += ", " + runs[i].device_name;
  labels = unique;
  for (size_t i = 0; i < runs.size(); ++i)
    if (twins(i)) unique[i] += " #" + std::to_string(i + 1);
  return unique;
}

Result<Comparison> compare(const std::vector<RunSummary>& runs, const std::vector<std::string>& files,
                           const CompareOptions& options) {
  if (runs.empty()) return Error{ErrorCode::kInvalidArgument, "there is no run to compare", "", ""};
  ISOLINE_RETURN_IF_ERROR(validate(options.prices));
  std::optional<size_t> first;
  for (size_t i = 0; i < runs.size(); ++i) {
    if (runs[i].settings.empty())
      return Error{ErrorCode::kInvalidArgument, "this run has no settings", files[i],
                   "Let the sweep finish first."};
    if (published(runs[i])) continue;
    if (!first) {
      first = i;
      continue;
    }
    const Provenance &a = runs[*first].provenance, &b = runs[i].provenance;
    if (a.model_sha256 != b.model_sha256 || a.model_sha256.empty())
      return differing("model (model_sha256)", files[*first], a.model_sha256, files[i], b.model_sha256);
    if (a.cases_sha256 != b.cases_sha256 || a.cases_sha256.empty())
      return differing("cases (cases_sha256)", files[*first], a.cases_sha256, files[i], b.cases_sha256);
  }

  Comparison out;
  out.labels = run_labels(runs, files);
  std::optional<Baseline> baseline;
  if (first || !options.baseline.empty()) {
    ISOLINE_ASSIGN(baseline, choose_baseline(runs, files, out.labels, options.baseline, first));
    out.baseline_run = baseline->run;
    out.baseline = out.labels[baseline->run] + ":" + runs[baseline->run].settings[baseline->setting].name;
  }

  for (size_t i = 0; i < runs.size(); ++i) {
    size_t base_run = i, base_setting = 0;
    if (published(runs[i])) {
      const auto own = baseline_index(runs[i]);
      if (!own)
        return Error{ErrorCode::kInvalidArgument,
                     "its baseline '" + runs[i].baseline + "' is not among its settings", files[i], ""};
      base_setting = *own;
      out.notes.push_back(out.labels[i] + ": " + kPublishedNote);
    } else {
      base_run = baseline->run;
      base_setting = baseline->setting;
      const RunSummary& base = runs[base_run];
      if (runs[i].boundary != base.boundary)
        out.notes.push_back(out.labels[i] + ": its clock includes something else than the baseline's ('" +
                            runs[i].boundary + "', not '" + base.boundary + "'), so no speed ratio is given");
    }
    for (size_t s = 0; s < runs[i].settings.size(); ++s)
      out.settings.push_back(row(runs, base_run, base_setting, i, s, options.prices));
  }

  // Setting for setting over the measured runs, the baseline's run first.
  std::vector<size_t> order;
  if (baseline) order.push_back(baseline->run);
  for (size_t i = 0; i < runs.size(); ++i)
    if (!published(runs[i]) && (!baseline || i != baseline->run)) order.push_back(i);
  std::vector<std::string> names;
  for (size_t i : order)
    for (const SettingSummary& s : runs[i].settings)
      if (std::find(names.begin(), names.end(), s.name) == names.end()) names.push_back(s.name);
  for (const std::string& name : names) {
    SettingMatch match;
    match.setting = name;
    std::optional<Baseline> reference;
    for (size_t i : order) {
      const auto s = find_setting(runs[i], name);
      if (!s) continue;
      if (!reference) reference = Baseline{i, *s};
      const std::string values =
          differing_values(runs[reference->run].settings[reference->setting], runs[i].settings[*s]);
      if (!values.empty())
        match.note += (match.note.empty() ? "" : "; ") + out.labels[reference->run] + " / " + out.labels[i] +
                      " differ in " + values;
      match.entries.push_back(row(runs, reference->run, reference->setting, i, *s, options.prices));
    }
    if (match.entries.size() > 1) out.matches.push_back(std::move(match));
  }
  return out;
}

}  // namespace isoline::lab
