#include "isoline/lab/summarize.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include "isoline/base/file.h"
#include "isoline/io/nifti.h"
#include "isoline/lab/registration.h"
#include "isoline/lab/sweep.h"
#include "isoline/measure/meter.h"

namespace isoline::lab {
namespace {

namespace fs = std::filesystem;

std::optional<double> finite(double v) {
  return std::isfinite(v) ? std::optional<double>(v) : std::nullopt;
}

Estimate estimate(const std::vector<double>& values) {
  Estimate e;
  e.n = int(values.size());
  if (values.empty()) return e;
  e.value = mean(values);
  if (const auto b = mean_bounds(values)) e.low = finite(b->low), e.high = finite(b->high);
  return e;
}

// An interval of a score cannot leave the score's range.
Estimate within_unit(Estimate e) {
  if (e.low) e.low = std::max(0.0, *e.low);
  if (e.high) e.high = std::min(1.0, *e.high);
  return e;
}

// Geometric mean of ratios, each > 0.
std::optional<Estimate> ratio_estimate(const std::vector<double>& ratios) {
  if (ratios.empty()) return std::nullopt;
  std::vector<double> logs;
  for (double r : ratios) logs.push_back(std::log(r));
  Estimate e = estimate(logs);
  e.value = std::exp(e.value);
  if (e.low) e.low = std::exp(*e.low);
  if (e.high) e.high = finite(std::exp(*e.high));
  return e;
}

// Mean of readings; unavailable, with the first reason, if one of them is.
template <class Range, class Get>
Reading mean_reading(const Range& items, Get get) {
  double sum = 0;
  int n = 0;
  for (const auto& item : items) {
    const Reading r = get(item);
    if (!r.ok()) return r;
    sum += *r;
    ++n;
  }
  return n ? Reading::of(sum / n) : Reading::unavailable("nothing was run");
}

template <class Range, class Get>
Reading max_reading(const Range& items, Get get) {
  Reading top = Reading::unavailable("nothing was run");
  for (const auto& item : items) {
    const Reading r = get(item);
    if (!r.ok()) return r;
    if (!top.ok() || *r > *top) top = r;
  }
  return top;
}

// The entries of one case under one setting that count: the last good one of each repetition, unthrottled
// ones where there are any.
struct CaseRuns {
  std::string id;
  std::vector<const RunEntry*> runs;
};

struct SettingRuns {
  std::vector<CaseRuns> cases;
  std::vector<std::string> failures, notes;

  std::vector<const RunEntry*> all() const {
    std::vector<const RunEntry*> out;
    for (const CaseRuns& c : cases) out.insert(out.end(), c.runs.begin(), c.runs.end());
    return out;
  }
  const CaseRuns* find(const std::string& id) const {
    for (const CaseRuns& c : cases)
      if (c.id == id) return &c;
    return nullptr;
  }
};

SettingRuns collect(const Plan& plan, const JournalContent& journal, const std::string& setting) {
  SettingRuns out;
  int throttled = 0, kept_throttled = 0;
  std::set<std::string> warnings;
  for (const PlannedCase& c : plan.cases) {
    CaseRuns runs{c.files.id, {}};
    std::string failure = "not run yet";
    for (int r = 0; r < plan.experiment.repetitions; ++r) {
      const RunEntry* chosen = nullptr;
      for (const RunEntry& e : journal.runs) {
        if (e.setting != setting || e.case_id != c.files.id || e.repetition != r) continue;
        if (!e.error.empty()) {
          failure = e.error;
          continue;
        }
        throttled += e.throttled;
        if (!chosen || !e.throttled || chosen->throttled) chosen = &e;
        warnings.insert(e.warnings.begin(), e.warnings.end());
      }
      if (!chosen) continue;
      kept_throttled += chosen->throttled;
      runs.runs.push_back(chosen);
    }
    if (int(runs.runs.size()) < plan.experiment.repetitions)
      out.failures.push_back(c.files.id + ": " + failure);
    for (const RunEntry* e : runs.runs)
      if (e->labels_sha256 != runs.runs[0]->labels_sha256) {
        out.notes.push_back(c.files.id + ": labels differ between repetitions");
        break;
      }
    if (!runs.runs.empty()) out.cases.push_back(std::move(runs));
  }
  if (throttled)
    out.notes.push_back(std::to_string(throttled) +
                        " measurements were made while the device was throttled; " +
                        std::to_string(throttled - kept_throttled) + " of them are discarded");
  for (const std::string& w : warnings) out.notes.push_back(w);
  return out;
}

// Mean idle power with the context alive, W.
Reading idle_power(const JournalContent& journal, const std::string& state, Reading IdleEntry::*which) {
  std::vector<const IdleEntry*> entries;
  for (const IdleEntry& i : journal.idle)
    if (i.state == state) entries.push_back(&i);
  if (entries.empty()) return Reading::unavailable("idle power was not measured");
  return mean_reading(entries, [&](const IdleEntry* i) { return i->*which; });
}

CaseRecord case_record(const CaseRuns& c, const Reading& idle_w) {
  CaseRecord out;
  out.case_id = c.id;
  for (const RunEntry* r : c.runs) out.wall_s_all.push_back(r->wall_s);
  out.wall_s = median(out.wall_s_all);
  const RunEntry& first = *c.runs[0];
  for (const auto& [stage, unused] : first.stages_s) {
    double sum = 0;
    for (const RunEntry* r : c.runs)
      if (const auto it = r->stages_s.find(stage); it != r->stages_s.end()) sum += it->second;
    out.stages_s[stage] = sum / double(c.runs.size());
  }
  out.windows = first.windows;
  out.forwards = first.forwards;
  out.energy_gross_j = mean_reading(c.runs, [](const RunEntry* r) { return r->energy_gross_j; });
  out.energy_net_j = mean_reading(c.runs, [&](const RunEntry* r) {
    return measure::net_energy_j(r->energy_gross_j, idle_w, r->meter_wall_s);
  });
  out.cpu_energy_j = mean_reading(c.runs, [](const RunEntry* r) { return r->cpu_energy_j; });
  for (const auto& [region, s] : first.regions) {  // labels of the first repetition
    out.dice[region] = s.dice;
    if (s.surface_dice) out.surface_dice[region] = *s.surface_dice;
    if (s.hd95_mm) out.hd95_mm[region] = *s.hd95_mm;
  }
  return out;
}

RegionQuality region_quality(const Plan& plan, size_t r, const SettingRuns& runs) {
  RegionQuality q;
  q.region = plan.evaluation.regions[r].name;
  q.tolerance_mm = plan.evaluation.tolerance_mm(r);
  std::vector<double> dice, nnunet, surface, hd95;
  for (const CaseRuns& c : runs.cases) {
    const auto it = c.runs[0]->regions.find(q.region);
    if (it == c.runs[0]->regions.end()) continue;
    const RegionScores& s = it->second;
    dice.push_back(s.dice);
    if (s.dice_nnunet) nnunet.push_back(*s.dice_nnunet);
    if (s.surface_dice) surface.push_back(*s.surface_dice);
    if (s.hd95_mm) hd95.push_back(*s.hd95_mm);
    q.hd95_infinite += s.hd95_infinite;
  }
  q.dice = within_unit(estimate(dice));
  if (!nnunet.empty()) q.dice_nnunet = mean(nnunet);
  q.surface_dice = within_unit(estimate(surface));
  if (!hd95.empty()) q.hd95_median_mm = median(hd95);
  return q;
}

std::optional<double> score(const RunEntry& run, const Endpoint& e) {
  const auto it = run.regions.find(e.region);
  if (it == run.regions.end()) return std::nullopt;
  if (e.metric == "surface_dice") return it->second.surface_dice;
  return it->second.dice;
}

EndpointResult judge(const Endpoint& endpoint, const SettingRuns& setting, const SettingRuns& baseline) {
  EndpointResult out;
  out.metric = endpoint.metric;
  out.region = endpoint.region;
  out.delta = endpoint.delta;
  out.bound_method = bound_method();
  std::vector<double> differences, ours, theirs;
  for (const CaseRuns& c : setting.cases) {
    const CaseRuns* b = baseline.find(c.id);
    if (!b) continue;
    const auto mine = score(*c.runs[0], endpoint), base = score(*b->runs[0], endpoint);
    if (!mine || !base) continue;
    differences.push_back(*mine - *base);
    ours.push_back(*mine);
    theirs.push_back(*base);
  }
  const Decision d = decide_noninferiority(differences, endpoint.delta);
  out.n = int(differences.size());
  if (out.n) {
    out.setting_mean = mean(ours);
    out.baseline_mean = mean(theirs);
    out.mean_difference = mean(differences);
    out.sd_difference = standard_deviation(differences);
    out.worst_difference = *std::min_element(differences.begin(), differences.end());
    out.unseen_failure_rate = 1 - std::pow(0.05, 1.0 / out.n);
  }
  if (d.bounds) {  // differences of scores lie in [-1, 1], and so does their mean
    out.lower_bound = std::max(-1.0, d.bounds->lower);
    out.upper_bound = std::min(1.0, d.bounds->upper);
  }
  out.verdict = d.verdict;
  out.why = d.why;
  out.n_needed_80 = d.n_needed_80;
  out.n_needed_90 = d.n_needed_90;
  return out;
}

// All must pass; a setting that failed on a case cannot be called preserved.
Verdict overall(const SettingSummary& s) {
  bool all = s.failures.empty();
  for (const EndpointResult& e : s.endpoints) {
    if (e.verdict == Verdict::kNotPreserved) return Verdict::kNotPreserved;
    all = all && e.verdict == Verdict::kPreserved;
  }
  return all ? Verdict::kPreserved : Verdict::kInconclusive;
}

std::vector<LesionCounts> count_lesions(const Plan& plan, const SettingRuns& setting,
                                        const SettingRuns& baseline) {
  std::vector<LesionCounts> out;
  for (const LesionCriterion& criterion : plan.evaluation.lesions) {
    LesionCounts l;
    l.region = criterion.region.name;
    l.definition = criterion.definition();
    for (const CaseRuns& c : setting.cases) {
      const RunEntry& run = *c.runs[0];
      const auto found = run.lesions_found.find(l.region);
      if (found == run.lesions_found.end()) continue;
      l.reference += int(found->second.size());
      l.found += int(std::count(found->second.begin(), found->second.end(), 1));
      if (const auto fp = run.lesions_false_positive.find(l.region); fp != run.lesions_false_positive.end())
        l.false_positive += fp->second;
      const CaseRuns* b = baseline.find(c.id);
      const auto before = b ? b->runs[0]->lesions_found.find(l.region) : found;
      if (!b || before == b->runs[0]->lesions_found.end()) continue;
      for (size_t i = 0; i < std::min(found->second.size(), before->second.size()); ++i) {
        l.lost += before->second[i] && !found->second[i];
        l.gained += !before->second[i] && found->second[i];
      }
    }
    out.push_back(std::move(l));
  }
  return out;
}

// "precision fp32 -> bf16, step 0.5 -> 0.75".
std::string changes(const Setting& before, const Setting& after) {
  const auto a = before.values(), b = after.values();
  std::string out;
  for (const auto& [key, value] : b)
    if (a.at(key) != value) out += (out.empty() ? "" : ", ") + key + " " + a.at(key) + " -> " + value;
  return out;
}

std::string description(const Plan& plan, size_t index) {
  const std::vector<Setting>& settings = plan.experiment.settings;
  const Setting& s = settings[index];
  std::string out = s.title;
  std::string what;
  if (s.name == plan.experiment.baseline) {
    what = "baseline";
  } else {
    const Setting* before = &plan.setting(plan.experiment.baseline);
    if (!plan.experiment.grid)  // the setting it inherits from
      for (size_t i = index; i-- > 0;)
        if (settings[i].not_run.empty()) {
          before = &settings[i];
          break;
        }
    what = changes(*before, s);
  }
  if (!what.empty()) out += (out.empty() ? "" : ": ") + what;
  return out;
}

SettingSummary summarize_setting(const Plan& plan, const JournalContent& journal, size_t index,
                                 const SettingRuns& baseline, const DisagreementFunction& disagreement) {
  const Setting& setting = plan.experiment.settings[index];
  SettingSummary out;
  out.name = setting.name;
  out.description = description(plan, index);
  out.values = setting.values();
  out.not_run = setting.not_run;
  if (!setting.not_run.empty()) return out;
  const bool is_baseline = setting.name == plan.experiment.baseline;
  const SettingRuns runs = collect(plan, journal, setting.name);
  out.cases = int(runs.cases.size());
  out.failures = runs.failures;
  out.notes = runs.notes;
  const std::vector<const RunEntry*> all = runs.all();
  if (!all.empty()) out.runtime = all[0]->runtime;

  const Reading idle_w = idle_power(journal, "context alive", &IdleEntry::gpu_w);
  std::vector<double> walls, ratios, energy_ratios, forwards;
  for (const CaseRuns& c : runs.cases) {
    CaseRecord record = case_record(c, idle_w);
    walls.push_back(record.wall_s);
    if (const CaseRuns* b = is_baseline ? nullptr : baseline.find(c.id)) {
      const CaseRecord base = case_record(*b, idle_w);
      ratios.push_back(base.wall_s / record.wall_s);
      if (base.energy_gross_j.ok() && record.energy_gross_j.ok())
        energy_ratios.push_back(*base.energy_gross_j / *record.energy_gross_j);
      record.disagreement = disagreement(setting.name, c.id);
    }
    for (const auto& [stage, s] : record.stages_s) out.stages_s[stage] += s / double(runs.cases.size());
    out.per_case.push_back(std::move(record));
  }
  for (const RunEntry* r : all) forwards.insert(forwards.end(), r->forward_ms.begin(), r->forward_ms.end());
  out.wall_s = describe(walls);
  out.s_per_case = estimate(walls);
  out.window_ms = describe(forwards);
  if (!is_baseline) {
    out.speedup = ratio_estimate(ratios);
    if (energy_ratios.size() == ratios.size()) out.energy_reduction = ratio_estimate(energy_ratios);
  }
  out.energy_gross_j = mean_reading(out.per_case, [](const CaseRecord& c) { return c.energy_gross_j; });
  out.energy_net_j = mean_reading(out.per_case, [](const CaseRecord& c) { return c.energy_net_j; });
  out.cpu_energy_j = mean_reading(out.per_case, [](const CaseRecord& c) { return c.cpu_energy_j; });
  out.energy_integrated_j = mean_reading(all, [](const RunEntry* r) { return r->energy_integrated_j; });
  const Reading counter = mean_reading(all, [](const RunEntry* r) { return r->energy_gross_j; });
  if (counter.ok() && out.energy_integrated_j.ok() && *counter > 0)
    out.energy_disagreement = Reading::of((*counter - *out.energy_integrated_j) / *counter);
  else
    out.energy_disagreement =
        Reading::unavailable(counter.ok() ? out.energy_integrated_j.reason : counter.reason);
  out.average_power_w = mean_reading(all, [](const RunEntry* r) { return r->average_power_w; });
  out.peak_power_w = max_reading(all, [](const RunEntry* r) { return r->peak_power_w; });
  out.cpu_s = mean_reading(all, [](const RunEntry* r) { return r->cpu_s; });
  out.peak_vram_bytes = max_reading(all, [](const RunEntry* r) { return r->peak_vram_bytes; });
  out.peak_rss_bytes = max_reading(all, [](const RunEntry* r) { return r->peak_rss_bytes; });

  for (size_t r = 0; r < plan.evaluation.regions.size(); ++r)
    out.quality.push_back(region_quality(plan, r, runs));
  out.lesions = count_lesions(plan, runs, baseline);
  if (is_baseline) return out;
  for (const Endpoint& e : plan.experiment.endpoints) out.endpoints.push_back(judge(e, runs, baseline));
  out.verdict = overall(out);
  std::vector<double> unlike;
  for (const CaseRecord& c : out.per_case)
    if (c.disagreement) unlike.push_back(*c.disagreement);
  if (!unlike.empty()) {
    out.disagreement_mean = mean(unlike);
    out.disagreement_max = *std::max_element(unlike.begin(), unlike.end());
  }
  return out;
}

std::string text_of(const std::vector<std::string>& lines) {
  std::string out;
  for (const std::string& l : lines) out += (out.empty() ? "" : "; ") + l;
  return out;
}

}  // namespace

void mark_pareto(std::vector<SettingSummary>& settings) {
  // Costs of each setting that was run; smaller is better in all of them.
  std::vector<std::vector<Reading>> costs;
  for (const SettingSummary& s : settings) {
    double dice = 0;
    for (const RegionQuality& q : s.quality) dice += q.dice.value;
    const auto known = [&](bool ok, double v) { return ok ? Reading::of(v) : Reading{}; };
    costs.push_back({known(s.wall_s.n > 0, s.s_per_case.value), s.energy_gross_j, s.peak_vram_bytes,
                     known(!s.quality.empty(), -dice)});
  }
  const auto run = [&](size_t i) { return settings[i].wall_s.n > 0 && !settings[i].quality.empty(); };
  // A dimension that is missing for some setting cannot decide between any.
  std::vector<bool> usable(4, true);
  for (size_t d = 0; d < 4; ++d)
    for (size_t i = 0; i < settings.size(); ++i)
      if (run(i) && !costs[i][d].ok()) usable[d] = false;
  for (size_t i = 0; i < settings.size(); ++i) {
    settings[i].pareto = run(i);
    for (size_t j = 0; j < settings.size() && settings[i].pareto; ++j) {
      if (i == j || !run(j)) continue;
      bool no_worse = true, better = false;
      for (size_t d = 0; d < 4; ++d) {
        if (!usable[d]) continue;
        no_worse = no_worse && *costs[j][d] <= *costs[i][d];
        better = better || *costs[j][d] < *costs[i][d];
      }
      if (no_worse && better) settings[i].pareto = false;
    }
  }
}

RunSummary summarize(const Plan& plan, const JournalContent& journal, const Registration& registration,
                     const DisagreementFunction& disagreement) {
  const Experiment& e = plan.experiment;
  RunSummary out;
  out.id = e.id;
  out.title = e.title;
  out.boundary = kBoundary;
  out.registration = registration;
  out.mode = e.grid ? "grid" : "sequence";
  out.order = e.order;
  out.seed = e.seed;
  out.repetitions = e.repetitions;
  out.warmup = e.warmup;
  for (const PlannedCase& c : plan.cases) out.case_ids.push_back(c.files.id);
  for (const LabelSet& r : plan.evaluation.regions) {
    std::string labels;
    for (int l : r.labels) labels += (labels.empty() ? "" : ",") + std::to_string(l);
    out.regions.emplace_back(r.name, labels);
  }
  for (const auto& [name, sentence] : plan.evaluation.definitions())
    out.definitions.push_back(name + ": " + sentence);
  out.definitions.push_back("speed-up and energy reduction: geometric mean over cases of baseline / setting");
  out.definitions.push_back(
      "intervals: two-sided 95 % of the mean over cases, the wider of Student's t and bootstrap-t");
  out.definitions.push_back("verdict: non-inferiority of the mean paired difference; bound: " +
                            bound_method());
  out.definitions.push_back(
      "disagreement: fraction of all voxels whose label differs from the baseline's; needs no reference");

  Provenance& p = out.provenance;
  p.model_name = plan.model_name;
  p.model_sha256 = plan.model_sha256;
  p.cases_sha256 = plan.cases_sha256;
  if (!journal.sessions.empty()) {
    const SessionEntry& last = journal.sessions.back();
    p.isoline_version = last.isoline_version;
    p.commit = last.commit;
    p.started = journal.sessions.front().started;
    p.device = last.device;
    out.device_kind = "cpu";
    for (const RunEntry& r : journal.runs)
      if (r.device_kind == "gpu") out.device_kind = "gpu";
    const auto name = last.device.find(out.device_kind);
    out.device_name = name == last.device.end() ? out.device_kind : name->second;
    out.energy_source = last.energy_sources.empty() ? "no meter" : text_of(last.energy_sources);
    out.meter = last.meter;
    for (const SessionEntry& s : journal.sessions)
      if (s.device != last.device || s.commit != last.commit) {
        out.remarks.push_back(
            "the run was continued on another machine or version: its times do not compare");
        break;
      }
  }
  if (!journal.runs.empty()) p.finished = journal.runs.back().started;
  out.idle_protocol = measure::kIdleProtocol;
  for (const char* state : {"cold", "context alive"})
    out.idle_power_w[state] = idle_power(journal, state, &IdleEntry::gpu_w);

  out.baseline = e.baseline;
  const SettingRuns baseline = collect(plan, journal, e.baseline);
  for (size_t i = 0; i < e.settings.size(); ++i)
    out.settings.push_back(summarize_setting(plan, journal, i, baseline, disagreement));
  mark_pareto(out.settings);

  const std::string& status = registration.status;
  if (status == "missing")
    out.remarks.push_back(
        "NOT REGISTERED: thresholds were not fixed before measuring; verdicts are exploratory");
  if (status == "late")
    out.remarks.push_back("REGISTERED LATE, at " + registration.time +
                          ", after the first measurement: verdicts are exploratory");
  if (status == "changed")
    for (const std::string& c : registration.changes)
      out.remarks.push_back("CHANGED since registration at " + registration.time + ": " + c);
  return out;
}

Result<RunSummary> summarize_run(const Plan& plan, const std::string& run_folder, ThreadPool& pool,
                                 const PlanProgress& progress) {
  ISOLINE_ASSIGN(const JournalContent journal, read_journal(run_folder));
  if (journal.sessions.empty())
    return Error{ErrorCode::kNotFound, "nothing was run here yet", run_folder, "Run 'isoline sweep' first."};
  // The copy that the first sweep made counts; one made later can only show that it is late.
  ISOLINE_ASSIGN(auto record, read_registration((fs::path(run_folder) / "registration.json").string()));
  if (!record) {
    ISOLINE_ASSIGN(record, read_registration(registration_path(plan.experiment.file)));
  }
  const Registration registration = judge_registration(plan, record, journal.sessions.front().started);

  // Label maps are compared case by case, so that the baseline's is read once.
  std::map<std::pair<std::string, std::string>, double> fractions;
  int64_t done = 0;
  for (const PlannedCase& c : plan.cases) {
    const std::string base_file = labels_path(run_folder, plan, plan.experiment.baseline, c.files.id);
    std::error_code ec;
    if (fs::exists(base_file, ec)) {
      ISOLINE_ASSIGN(const LabelMap base, read_labels(base_file, plan.reader, {}, pool));
      for (const Setting& s : plan.experiment.settings) {
        const std::string file = labels_path(run_folder, plan, s.name, c.files.id);
        if (s.name == plan.experiment.baseline || !fs::exists(file, ec)) continue;
        ISOLINE_ASSIGN(const LabelMap labels, read_labels(file, plan.reader, {}, pool));
        if (labels.shape != base.shape)
          return Error{ErrorCode::kCorrupt, "its shape is not that of " + base_file, file,
                       "Delete both and run the case again."};
        int64_t unlike = 0;
        for (size_t i = 0; i < base.data.size(); ++i) unlike += base.data[i] != labels.data[i];
        fractions[{s.name, c.files.id}] = double(unlike) / double(std::max<size_t>(1, base.data.size()));
      }
    }
    if (progress) progress(++done, int64_t(plan.cases.size()));
  }
  const RunSummary summary =
      summarize(plan, journal, registration,
                [&](const std::string& setting, const std::string& id) -> std::optional<double> {
                  const auto it = fractions.find({setting, id});
                  return it == fractions.end() ? std::nullopt : std::optional<double>(it->second);
                });
  ISOLINE_RETURN_IF_ERROR(
      write_file_atomically((fs::path(run_folder) / "summary.json").string(), to_json_text(summary)));
  return summary;
}

}  // namespace isoline::lab
