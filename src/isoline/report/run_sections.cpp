#include "isoline/report/run_sections.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "isoline/report/cells.h"
#include "isoline/report/format.h"

namespace isoline::report {
namespace {

using lab::RunSummary;
using lab::SettingSummary;

// Appendix tables stop here and say so.
constexpr size_t kMaxCasesShown = 100;

lab::Estimate ratio_or_none(const RunSummary& run, const SettingSummary& s,
                            const std::optional<lab::Estimate>& e) {
  if (e) return *e;
  if (is_baseline(run, s)) return {1, {}, {}, std::max(1, s.s_per_case.n)};
  return {};
}

class RunWriter {
 public:
  RunWriter(Document& doc, const RunContext& c)
      : doc_(doc), run_(c.run), label_(c.label), options_(c.options), index_(c.index), many_(c.many) {}

  void setup() {
    heading("Setup");
    Terms t;
    add(t, "title", run_.title);
    if (published(run_)) {
      add(t, "source", run_.source + " (" + lab::kPublishedNote + ")");
    } else {
      std::string model = run_.provenance.model_name;
      add(t, "model", model);
    }
    add(t, "device", run_.device_name + (run_.device_kind.empty() ? "" : " (" + run_.device_kind + ")"));
    if (!run_.case_ids.empty()) add(t, "cases", std::to_string(run_.case_ids.size()));
    std::vector<std::string> regions;
    for (const auto& [name, labels] : run_.regions) regions.push_back(name + " (labels " + labels + ")");
    add(t, "regions", joined(regions, "; "));
    add(t, "clock", run_.boundary);
    add(t, "energy", run_.energy_source);
    if (!published(run_))
      add(t, "design",
          (run_.mode == "grid" ? "grid of settings"
                               : "sequence: each setting keeps what the ones before it changed") +
              std::string(", ") + std::to_string(run_.repetitions) + " repetition" +
              (run_.repetitions == 1 ? "" : "s") + " a case, " + std::to_string(run_.warmup) + " warm-up" +
              (run_.warmup == 1 ? "" : "s") + ", order " + run_.order + ", seed " +
              std::to_string(run_.seed));
    add(t, "baseline", run_.baseline);
    doc_.blocks.push_back(std::move(t));
  }

  void registration() {
    const lab::Registration& r = run_.registration;
    Callout c;
    const std::string where = many_ ? label_ + ": " : "";
    if (r.status == "registered") {
      c.tone = Tone::kGood;
      c.title = where + "Registered before the first measurement";
      c.lines.push_back(plain("Endpoints and thresholds were fixed at " + r.time + " and are unchanged."));
    } else if (r.status == "changed") {
      c.tone = Tone::kWarn;
      c.title = where + "Registered, then changed";
      c.lines.push_back(
          plain("What was measured differs from what was registered; the verdicts use the new values."));
    } else if (r.status == "late") {
      c.tone = Tone::kWarn;
      c.title = where + "Registered late";
      c.lines.push_back(plain("Endpoints and thresholds were fixed only after the first measurement."));
    } else {
      c.tone = Tone::kBad;
      c.title = where + "Not registered";
      c.lines.push_back(plain(
          "Endpoints and thresholds were not fixed before measuring: read the verdicts as exploratory."));
    }
    for (const std::string& change : r.changes) c.lines.push_back(plain("Changed: " + change));
    if (!r.sha256.empty())
      c.lines.push_back(plain("Registration ") + code(r.file) + plain(", SHA-256 ") + code(r.sha256));
    doc_.blocks.push_back(std::move(c));
  }

  void summary_lines() {
    Bullets b;
    for (const SettingSummary& s : run_.settings) {
      if (is_baseline(run_, s)) continue;
      Text line = strong(s.name) + plain(s.description.empty() ? ": " : " (" + s.description + "): ");
      if (!s.not_run.empty()) {
        b.items.push_back(line + plain("not run: " + s.not_run));
        continue;
      }
      if (s.speedup && s.speedup->n > 0) line = line + plain(times(s.speedup->value) + " faster");
      if (s.energy_reduction && s.energy_reduction->n > 0)
        line = line + plain(", " + times(s.energy_reduction->value) + " less energy");
      if (s.verdict) line = line + plain("; ") + verdict_badge(*s.verdict);
      std::vector<std::string> failed;
      for (const lab::EndpointResult& e : s.endpoints)
        if (e.verdict != Verdict::kPreserved)
          failed.push_back(metric_name(e.metric) + " " + e.region + " " + difference_text(e.mean_difference) +
                           " (δ " + significant(e.delta, 2) + ", " + to_string(e.verdict) + ")");
      if (!failed.empty()) line = line + plain(" " + joined(failed, "; "));
      b.items.push_back(std::move(line));
    }
    if (!b.items.empty()) doc_.blocks.push_back(std::move(b));
  }

  void cards() {
    Cards c;
    const SettingSummary* base = baseline_of(run_);
    int judged = 0, kept = 0;
    const SettingSummary *fastest = nullptr, *leanest = nullptr;
    for (const SettingSummary& s : run_.settings) {
      if (!s.verdict) continue;
      ++judged;
      if (*s.verdict != Verdict::kPreserved) continue;
      ++kept;
      if (s.speedup && (!fastest || s.speedup->value > fastest->speedup->value)) fastest = &s;
      if (s.energy_reduction && (!leanest || s.energy_reduction->value > leanest->energy_reduction->value))
        leanest = &s;
    }
    if (many_) c.cards.push_back({"Run", label_, run_.device_name, Tone::kInfo});
    c.cards.push_back({"Preserved", std::to_string(kept) + " of " + std::to_string(judged),
                       judged == 1 ? "setting" : "settings judged against " + run_.baseline,
                       kept ? Tone::kGood : Tone::kWarn});
    if (fastest)
      c.cards.push_back(
          {"Largest preserved speed-up", times(fastest->speedup->value),
           fastest->name + (base ? ", from " + seconds_text(*base) + " to " + seconds_text(*fastest) : ""),
           Tone::kInfo});
    if (leanest)
      c.cards.push_back({"Largest preserved energy saving", times(leanest->energy_reduction->value),
                         leanest->name + (base && base->energy_gross_j.ok() && leanest->energy_gross_j.ok()
                                              ? ", from " + kilojoules(*base->energy_gross_j) + " to " +
                                                    kilojoules(*leanest->energy_gross_j) + " kJ a case"
                                              : ""),
                         Tone::kInfo});
    c.cards.push_back(
        {"Cases", std::to_string(base ? base->cases : int(run_.case_ids.size())),
         std::to_string(run_.repetitions) + " repetition" + (run_.repetitions == 1 ? "" : "s") + " each",
         Tone::kPlain});
    c.cards.push_back({"Registration",
                       run_.registration.status.empty() ? "missing" : run_.registration.status,
                       run_.registration.time, registration_tone()});
    doc_.blocks.push_back(std::move(c));
  }

  void sequence() {
    heading(run_.mode == "grid" ? "The settings" : "The sequence");
    std::vector<SettingColumn> columns;
    columns.push_back(estimate_column(
        run_, "s/case", "Time", [](const auto& s) { return s.s_per_case; },
        [](double v) { return significant(v); }));
    SettingColumn quartiles;
    quartiles.column = {published(run_) ? "median" : "median, quartiles", Align::kRight, "Time"};
    quartiles.has = [](const SettingSummary& s) { return s.wall_s.n > 0 && s.wall_s.median > 0; };
    quartiles.cell = [this](Table& t, const SettingSummary& s) {
      if (!(s.wall_s.n > 0 && s.wall_s.median > 0)) return t.unavailable(missing(run_, s));
      Text cell = plain(significant(s.wall_s.median));
      if (s.wall_s.q1 > 0 && s.wall_s.q3 > 0)
        cell = cell + sub(significant(s.wall_s.q1) + " – " + significant(s.wall_s.q3));
      return cell;
    };
    columns.push_back(quartiles);
    columns.push_back(estimate_column(
        run_, "speed-up", "Time",
        [this](const SettingSummary& s) {
          if (s.published_speedup) return lab::Estimate{*s.published_speedup, {}, {}, 1};
          if (published(run_)) return mean_ratio(s);
          return ratio_or_none(run_, s, s.speedup);
        },
        times));
    columns.push_back(reading_column(
        run_, "gross kJ", "Energy per case", [](const auto& s) { return s.energy_gross_j; }, kilojoules));
    columns.push_back(reading_column(
        run_, "net kJ", "Energy per case", [](const auto& s) { return s.energy_net_j; }, kilojoules));
    columns.push_back(estimate_column(
        run_, "reduction", "Energy per case",
        [this](const SettingSummary& s) {
          return s.energy_gross_j.ok() || s.energy_reduction ? ratio_or_none(run_, s, s.energy_reduction)
                                                             : lab::Estimate{};
        },
        times));
    columns.back().cell = [cell = columns.back().cell](Table& t, const SettingSummary& s) {
      return s.not_run.empty() && !s.energy_gross_j.ok() && !s.energy_gross_j.reason.empty()
                 ? t.unavailable(s.energy_gross_j.reason)
                 : cell(t, s);
    };
    if (run_.device_kind == "cpu" || std::any_of(run_.settings.begin(), run_.settings.end(),
                                                 [](const auto& s) { return s.cpu_energy_j.ok(); }))
      columns.push_back(reading_column(
          run_, "CPU kJ", "Energy per case", [](const auto& s) { return s.cpu_energy_j; }, kilojoules));
    columns.push_back(reading_column(
        run_, "average W", "Power", [](const auto& s) { return s.average_power_w; },
        [](double v) { return significant(v); }));
    columns.push_back(reading_column(
        run_, "VRAM", "Peak memory", [](const auto& s) { return s.peak_vram_bytes; }, bytes));
    columns.push_back(reading_column(
        run_, "RSS", "Peak memory", [](const auto& s) { return s.peak_rss_bytes; }, bytes));
    std::string caption = "Time, energy and memory per case" + of_label();
    caption +=
        published(run_)
            ? ", as the source gives them. Speed-up: its baseline / setting, from its means."
            : ". Below a mean: its 95 % interval over cases; below the median: the quartiles over cases. "
              "Speed-up and reduction: geometric mean over cases of baseline / setting.";
    doc_.blocks.push_back(setting_table(run_, caption, columns, true));

    cost_figure();

    const std::vector<std::string> regions = regions_of(run_);
    if (regions.empty() || (published(run_) && !any_quality())) {
      doc_.blocks.push_back(Paragraph{
          plain(published(run_) ? "The source gives no accuracy." : "No region was evaluated in this run.")});
      return;
    }
    std::vector<SettingColumn> dice, surface;
    for (const std::string& region : regions) {
      dice.push_back(estimate_column(
          run_, "Dice", region,
          [region](const SettingSummary& s) {
            const auto* q = quality_of(s, region);
            return q ? q->dice : lab::Estimate{};
          },
          dice_text));
      dice.push_back(reading_column(
          run_, "nnU-Net", region,
          [region, this](const SettingSummary& s) {
            const auto* q = quality_of(s, region);
            return q && q->dice_nnunet ? Reading::of(*q->dice_nnunet)
                                       : Reading::unavailable(missing(run_, s));
          },
          dice_text));
      const SettingSummary* base = baseline_of(run_);
      const lab::RegionQuality* b = base ? quality_of(*base, region) : nullptr;
      const std::string tolerance =
          b && b->tolerance_mm ? "surface Dice, " + significant(*b->tolerance_mm) + " mm" : "surface Dice";
      surface.push_back(estimate_column(
          run_, tolerance, region,
          [region](const SettingSummary& s) {
            const auto* q = quality_of(s, region);
            return q ? q->surface_dice : lab::Estimate{};
          },
          dice_text));
      SettingColumn hd;
      hd.column = {"HD95 mm", Align::kRight, region};
      hd.has = [region](const SettingSummary& s) {
        const auto* q = quality_of(s, region);
        return q && q->hd95_median_mm;
      };
      hd.cell = [region, this](Table& t, const SettingSummary& s) {
        const auto* q = quality_of(s, region);
        if (!q || !q->hd95_median_mm) return t.unavailable(missing(run_, s));
        Text cell = plain(significant(*q->hd95_median_mm));
        if (q->hd95_infinite) cell = cell + sub("+ " + std::to_string(q->hd95_infinite) + " infinite");
        return cell;
      };
      surface.push_back(hd);
    }
    doc_.blocks.push_back(
        setting_table(run_,
                      "Dice per region" + of_label() +
                          ", mean over cases with its 95 % interval (cut at 0 and 1). Dice: both masks "
                          "empty counts 1 (KiTS). nnU-Net: such cases are "
                          "left out of the mean.",
                      dice, false));
    doc_.blocks.push_back(setting_table(run_,
                                        "Surface Dice and Hausdorff distance per region" + of_label() +
                                            ". Surface Dice: mean with its 95 % interval; HD95: median over "
                                            "the cases where it is finite, with the "
                                            "number of cases where one mask is empty.",
                                        surface, false));
  }

  void verdicts() {
    if (published(run_)) return;
    const bool any = std::any_of(run_.settings.begin(), run_.settings.end(),
                                 [](const SettingSummary& s) { return !s.endpoints.empty(); });
    heading("Verdicts");
    const std::string& status = run_.registration.status;
    doc_.blocks.push_back(Paragraph{plain("Registration of endpoints and thresholds: ") +
                                    badge(registration_tone(), status.empty() ? "missing" : status) +
                                    plain(status == "registered" ? "" : ", see the summary")});
    if (!any) {
      doc_.blocks.push_back(
          Paragraph{plain("No setting was judged: there is no endpoint, or no setting but the baseline.")});
      return;
    }
    Table t;
    std::set<std::string> methods;
    double unseen = 0;
    t.columns = {{"setting", Align::kLeft, ""},
                 {"endpoint", Align::kLeft, ""},
                 {"n", Align::kRight, ""},
                 {"δ", Align::kRight, ""},
                 {"baseline", Align::kRight, "Mean"},
                 {"setting", Align::kRight, "Mean"},
                 {"difference", Align::kRight, "Difference"},
                 {"sd", Align::kRight, "Difference"},
                 {"worst case", Align::kRight, "Difference"},
                 {"lower", Align::kRight, "95 % bound"},
                 {"upper", Align::kRight, "95 % bound"},
                 {"80 %", Align::kRight, "n needed"},
                 {"90 %", Align::kRight, "n needed"},
                 {"verdict", Align::kLeft, ""}};
    for (const SettingSummary& s : run_.settings) {
      bool first = true;
      for (const lab::EndpointResult& e : s.endpoints) {
        const std::string few = "too few cases (n = " + std::to_string(e.n) + ")";
        const auto bound = [&](const std::optional<double>& v) {
          return v ? plain(difference_text(*v)) : t.unavailable(few);
        };
        const auto needed = [&](const std::optional<int>& v) {
          return v ? plain(std::to_string(*v)) : t.unavailable(few);
        };
        Table::Row row;
        row.strong = first;
        Text name = first ? plain(s.name) : Text{};
        if (first && s.verdict) name = name + sub(std::string("all: ") + to_string(*s.verdict));
        row.cells = {
            name, plain(metric_name(e.metric) + " " + e.region), plain(std::to_string(e.n)),
            plain(significant(e.delta, 2)), plain(dice_text(e.baseline_mean)),
            plain(dice_text(e.setting_mean)), plain(difference_text(e.mean_difference)),
            plain(dice_text(e.sd_difference)), bound(e.worst_difference), bound(e.lower_bound),
            bound(e.upper_bound), needed(e.n_needed_80), needed(e.n_needed_90),
            // The row's own figures say why, unless there are none.
            verdict_badge(e.verdict) +
                (e.why.empty() || (e.lower_bound && e.upper_bound && e.n >= kMinimumCases) ? Text{}
                                                                                           : t.mark(e.why))};
        t.rows.push_back(std::move(row));
        first = false;
        unseen = std::max(unseen, e.unseen_failure_rate.value_or(0));
        if (!e.bound_method.empty()) methods.insert(e.bound_method);
      }
    }
    t.caption =
        "Verdict per endpoint" + of_label() +
        ": paired differences setting − baseline on the same cases. Preserved: the lower bound lies above "
        "−δ. Not "
        "preserved: the upper bound lies below −δ. Otherwise inconclusive. Bounds are one-sided at 95 %" +
        (methods.empty() ? "" : " (" + joined({methods.begin(), methods.end()}) + ")") +
        ". n needed: cases for that power if nothing is lost in truth." +
        (unseen > 0 ? " Means say nothing about cases that did not occur: outright failures of up to " +
                          percent(unseen) + " of all cases cannot be excluded by so few (95 %)."
                    : "");
    doc_.blocks.push_back(std::move(t));
    difference_figures();
  }

  void time_sections() {
    stage_section();
    latency_section();
    ab_section();
  }

  void side_effects() {
    if (published(run_)) return;
    bool disagreement = false, lesions = false;
    for (const SettingSummary& s : run_.settings) {
      disagreement = disagreement || s.disagreement_mean.has_value();
      lesions = lesions || !s.lesions.empty();
    }
    heading("What labels do not show: disagreement and lesions");
    if (!disagreement && !lesions) {
      doc_.blocks.push_back(Paragraph{
          plain("Neither the voxel disagreement from the baseline nor lesions were recorded in this run.")});
      return;
    }
    if (disagreement) {
      Table t;
      t.caption =
          "Voxels whose label differs from the baseline's" + of_label() +
          ", as a fraction of the scan: no reference is involved, so it is far more sensitive than Dice.";
      t.columns = {{"setting", Align::kLeft, ""},
                   {"mean over cases", Align::kRight, ""},
                   {"largest case", Align::kRight, ""}};
      for (const SettingSummary& s : run_.settings) {
        if (is_baseline(run_, s)) continue;
        t.rows.push_back(
            {{name_cell(s),
              s.disagreement_mean ? plain(percent(*s.disagreement_mean)) : t.unavailable(missing(run_, s)),
              s.disagreement_max ? plain(percent(*s.disagreement_max)) : t.unavailable(missing(run_, s))},
             false});
      }
      doc_.blocks.push_back(std::move(t));
    }
    if (lesions) {
      Table t;
      t.caption = "Lesions" + of_label() + ": found, and flipped against the baseline.";
      t.columns = {{"setting", Align::kLeft, ""},
                   {"region", Align::kLeft, ""},
                   {"in reference", Align::kRight, ""},
                   {"found", Align::kRight, ""},
                   {"false positive", Align::kRight, ""},
                   {"lost", Align::kRight, "Against the baseline"},
                   {"gained", Align::kRight, "Against the baseline"}};
      for (const SettingSummary& s : run_.settings)
        for (const lab::LesionCounts& l : s.lesions) {
          const auto count = [](int v) { return plain(std::to_string(v)); };
          const bool base = is_baseline(run_, s);
          t.rows.push_back(
              {{name_cell(s), plain(l.region) + (l.definition.empty() ? Text{} : t.mark(l.definition)),
                count(l.reference), count(l.found), count(l.false_positive),
                base ? plain("–") : count(l.lost), base ? plain("–") : count(l.gained)},
               base});
        }
      doc_.blocks.push_back(std::move(t));
    }
  }

  void trade_off() {
    std::vector<ScatterPoint> time, energy;
    std::string scope;
    for (const SettingSummary& s : run_.settings) {
      const auto quality = mean_dice(s);
      if (!quality) continue;
      if (const Reading t = lab::seconds_per_case(run_, s); t.ok())
        time.push_back({s.name, *t, *quality, s.pareto});
      const lab::MeteredEnergy e = lab::metered_energy(run_, s);
      scope = e.scope;
      if (e.j_per_case.ok()) energy.push_back({s.name, *e.j_per_case / 1000, *quality, s.pareto});
    }
    if (time.size() < 2) return;
    heading("Trade-off");
    const std::string legend =
        ". Filled and bold: on the Pareto front over time, energy, memory and quality together (no other "
        "setting is "
        "better or equal in all of them). Dotted: the front in these two.";
    figure("pareto-time", "Time against quality" + of_label() + legend,
           scatter_chart("Time per case against mean Dice", "s/case (less is better)",
                         "mean Dice over regions (more is better)", time));
    if (energy.size() > 1)
      figure("pareto-energy", "Energy against quality" + of_label() + " (" + scope + ")" + legend,
             scatter_chart("Energy per case against mean Dice", "kJ/case (less is better)",
                           "mean Dice over regions (more is better)", energy));
    else
      doc_.blocks.push_back(Paragraph{plain("Energy against quality is not drawn: " + no_energy() + ".")});
    Table t;
    t.caption = "The front" + of_label() + ", as drawn.";
    t.columns = {{"setting", Align::kLeft, ""},
                 {"s/case", Align::kRight, ""},
                 {"kJ/case", Align::kRight, ""},
                 {"mean Dice", Align::kRight, ""},
                 {"on the front", Align::kLeft, ""}};
    for (const SettingSummary& s : run_.settings) {
      const auto quality = mean_dice(s);
      t.rows.push_back(
          {{name_cell(s),
            reading_cell(
                t, lab::seconds_per_case(run_, s), [](double v) { return significant(v); }, missing(run_, s)),
            reading_cell(t, lab::metered_energy(run_, s).j_per_case, kilojoules, missing(run_, s)),
            quality ? plain(dice_text(*quality)) : t.unavailable(missing(run_, s)),
            plain(s.pareto ? "yes" : "no")},
           s.pareto});
    }
    doc_.blocks.push_back(std::move(t));
  }

  void recommendation() {
    if (published(run_)) return;
    heading("Recommended setting");
    bool any = false;
    for (const Recommendation& r : options_.recommendations) {
      if (r.run != index_) continue;
      any = true;
      Callout c;
      c.tone = r.setting.empty() ? Tone::kWarn : Tone::kGood;
      c.title = "By " + r.by + ": " + (r.setting.empty() ? "none" : r.setting);
      c.lines.push_back(plain(r.why));
      for (const std::string& m : r.more) c.lines.push_back(plain(m));
      doc_.blocks.push_back(std::move(c));
    }
    if (!any) doc_.blocks.push_back(Paragraph{plain("No recommendation was made for this run.")});
  }

  void provenance() {
    heading("Provenance");
    Terms t;
    const lab::Provenance& p = run_.provenance;
    add(t, "run", run_.id);
    add(t, "source", run_.source);
    add(t, "isoline", p.isoline_version + (p.commit.empty() ? "" : ", commit " + p.commit));
    add(t, "measured", p.started + (p.finished.empty() ? "" : " to " + p.finished));
    add(t, "model", p.model_name);
    add_code(t, "model SHA-256", p.model_sha256);
    add_code(t, "cases SHA-256", p.cases_sha256);
    add_code(t, "experiment SHA-256", p.experiment_sha256);
    for (const auto& [key, value] : p.device) add(t, "device: " + key, value);
    add(t, "clock includes", run_.boundary);
    add(t, "energy source", run_.energy_source);
    for (const auto& [state, w] : run_.idle_power_w)
      add(t, "idle, " + state, w.ok() ? significant(*w) + " W" : "n/a: " + w.reason);
    add(t, "idle protocol", run_.idle_protocol);
    for (const auto& [key, value] : run_.meter) add(t, "meter: " + key, value);
    std::map<std::string, std::vector<std::string>> runtimes;
    for (const SettingSummary& s : run_.settings)
      if (!s.runtime.empty()) runtimes[s.runtime].push_back(s.name);
    for (const auto& [runtime, names] : runtimes) add(t, "runtime of " + joined(names), runtime);
    doc_.blocks.push_back(std::move(t));
    std::vector<SettingColumn> columns;
    columns.push_back(reading_column(
        run_, "counter kJ", "Accelerator energy, two readings",
        [](const auto& s) { return s.energy_gross_j; }, kilojoules));
    columns.push_back(reading_column(
        run_, "integrated power kJ", "Accelerator energy, two readings",
        [](const auto& s) { return s.energy_integrated_j; }, kilojoules));
    columns.push_back(reading_column(
        run_, "disagreement", "Accelerator energy, two readings",
        [](const auto& s) { return s.energy_disagreement; }, [](double v) { return percent(v); }));
    columns.push_back(reading_column(
        run_, "peak W", "", [](const auto& s) { return s.peak_power_w; },
        [](double v) { return significant(v); }));
    columns.push_back(reading_column(
        run_, "CPU s/case", "", [](const auto& s) { return s.cpu_s; },
        [](double v) { return significant(v); }));
    if (!published(run_))
      doc_.blocks.push_back(setting_table(run_, "What else was read" + of_label() + ".", columns, false));
    values_table();
  }

  void remarks() {
    heading("Remarks and failures");
    Bullets b;
    for (const std::string& r : run_.remarks) b.items.push_back(plain(r));
    for (const SettingSummary& s : run_.settings) {
      if (!s.not_run.empty()) b.items.push_back(strong(s.name) + plain(": not run: " + s.not_run));
      for (const std::string& f : s.failures)
        b.items.push_back(strong(s.name) + plain(": ") + badge(Tone::kBad, "failed") + plain(" " + f));
      for (const std::string& n : s.notes) b.items.push_back(strong(s.name) + plain(": " + n));
    }
    if (b.items.empty())
      doc_.blocks.push_back(Paragraph{plain("None: every case finished and nothing was discarded.")});
    else
      doc_.blocks.push_back(std::move(b));
  }

  void appendix() {
    const bool any = std::any_of(run_.settings.begin(), run_.settings.end(),
                                 [](const SettingSummary& s) { return !s.per_case.empty(); });
    if (!any) return;
    heading("Appendix: every case");
    const SettingSummary* base = baseline_of(run_);
    std::map<std::string, const lab::CaseRecord*> from;
    if (base)
      for (const lab::CaseRecord& c : base->per_case) from[c.case_id] = &c;
    const std::vector<std::string> regions = regions_of(run_);
    for (const SettingSummary& s : run_.settings) {
      if (s.per_case.empty()) continue;
      const bool own = is_baseline(run_, s);
      Table t;
      t.caption = s.name + of_label() + ": " + std::to_string(s.per_case.size()) + " cases" +
                  (s.per_case.size() > kMaxCasesShown ? " (the first " + std::to_string(kMaxCasesShown) +
                                                            "; all of them are in the run's summary.json)"
                                                      : "") +
                  (run_.repetitions > 1 ? ". s: median over repetitions, below it their range." : ".") +
                  (own ? "" : " Below a Dice: its difference from the baseline.");
      t.columns = {{"case", Align::kLeft, ""},
                   {"windows", Align::kRight, ""},
                   {"s", Align::kRight, ""},
                   {"gross kJ", Align::kRight, ""}};
      for (const std::string& r : regions) t.columns.push_back({r, Align::kRight, "Dice"});
      if (!own) t.columns.push_back({"disagreement", Align::kRight, ""});
      for (size_t i = 0; i < std::min(s.per_case.size(), kMaxCasesShown); ++i) {
        const lab::CaseRecord& c = s.per_case[i];
        Table::Row row;
        Text wall = duration_cell(t, c.wall_s, missing(run_, s));
        if (c.wall_s_all.size() > 1) {
          const auto [low, high] = std::minmax_element(c.wall_s_all.begin(), c.wall_s_all.end());
          wall = wall + sub(significant(*low) + " – " + significant(*high));
        }
        const Reading& energy = run_.device_kind == "cpu" && !c.energy_gross_j.ok() && c.cpu_energy_j.ok()
                                    ? c.cpu_energy_j
                                    : c.energy_gross_j;
        row.cells = {plain(c.case_id),
                     c.windows > 0 ? plain(std::to_string(c.windows)) : t.unavailable(missing(run_, s)), wall,
                     reading_cell(t, energy, kilojoules, missing(run_, s))};
        const auto b = from.find(c.case_id);
        for (const std::string& r : regions) {
          const auto d = c.dice.find(r);
          if (d == c.dice.end()) {
            row.cells.push_back(t.unavailable("not evaluated for this case"));
            continue;
          }
          Text cell = plain(dice_text(d->second));
          if (!own && b != from.end() && b->second->dice.count(r))
            cell = cell + sub(difference_text(d->second - b->second->dice.at(r)));
          row.cells.push_back(std::move(cell));
        }
        if (!own)
          row.cells.push_back(c.disagreement ? plain(percent(*c.disagreement))
                                             : t.unavailable(missing(run_, s)));
        t.rows.push_back(std::move(row));
      }
      doc_.blocks.push_back(std::move(t));
    }
  }

  void latency_section() {
    const bool any = std::any_of(run_.settings.begin(), run_.settings.end(),
                                 [](const SettingSummary& s) { return s.window_ms.n > 0; });
    if (!any) {
      if (!published(run_)) {
        heading("Latency per window");
        doc_.blocks.push_back(Paragraph{plain("Times of single windows were not recorded in this run.")});
      }
      return;
    }
    heading(published(run_) ? "Latency per request" : "Latency per window");
    const auto of = [this](std::string header,
                           std::function<std::optional<double>(const SettingSummary&)> get, std::string why) {
      SettingColumn c;
      c.column = {std::move(header), Align::kRight, ""};
      c.has = [get](const SettingSummary& s) { return get(s).value_or(0) > 0; };
      c.cell = [get, why, this](Table& t, const SettingSummary& s) {
        return duration_cell(t, get(s),
                             s.window_ms.n == 0 || why.empty() || published(run_) ? missing(run_, s) : why);
      };
      return c;
    };
    std::vector<SettingColumn> columns;
    SettingColumn count;
    count.column = {"n", Align::kRight, ""};
    count.has = [](const SettingSummary& s) { return s.window_ms.n > 0; };
    count.cell = [this](Table& t, const SettingSummary& s) {
      return s.window_ms.n > 0 ? plain(std::to_string(s.window_ms.n)) : t.unavailable(missing(run_, s));
    };
    columns.push_back(count);
    using Get = std::optional<double>;
    columns.push_back(of(
        "mean", [](const auto& s) -> Get { return s.window_ms.mean; }, ""));
    columns.push_back(of(
        "median", [](const auto& s) -> Get { return s.window_ms.median; }, ""));
    columns.push_back(of(
        "p90", [](const auto& s) -> Get { return s.window_ms.p90; }, "fewer than 10 windows"));
    columns.push_back(of(
        "p95", [](const auto& s) -> Get { return s.window_ms.p95; }, "fewer than 20 windows"));
    columns.push_back(of(
        "p99", [](const auto& s) -> Get { return s.window_ms.p99; }, "fewer than 100 windows"));
    columns.push_back(of(
        "max", [](const auto& s) -> Get { return s.window_ms.max; }, ""));
    columns.push_back(of(
        "windows/s",
        [](const auto& s) -> Get {
          return s.window_ms.mean > 0 ? Get(1000 / s.window_ms.mean) : std::nullopt;
        },
        ""));
    if (published(run_)) columns.back().column.header = "requests/s, one at a time";
    SettingColumn accuracy;
    accuracy.column = {"accuracy (mean Dice)", Align::kRight, ""};
    accuracy.has = [](const SettingSummary& s) { return mean_dice(s).has_value(); };
    accuracy.cell = [this](Table& t, const SettingSummary& s) {
      const auto d = mean_dice(s);
      if (!d) return t.unavailable(missing(run_, s));
      const SettingSummary* base = baseline_of(run_);
      const auto b = base ? mean_dice(*base) : std::nullopt;
      Text cell = plain(dice_text(*d));
      return b && base != &s ? cell + sub(difference_text(*d - *b)) : cell;
    };
    columns.push_back(accuracy);
    doc_.blocks.push_back(setting_table(
        run_,
        (published(run_) ? "Milliseconds per request"
                         : "Milliseconds per window (one forward pass of the network)") +
            of_label() +
            ". Accuracy: mean Dice over regions and cases, below it the difference from the baseline.",
        columns, false));
  }

  // Pairs of settings that differ in what executes the network and in nothing else.
  void ab_section() {
    static const std::set<std::string> kRuntimeKeys = {"backend", "runtime", "provider",
                                                       "execution_provider"};
    struct Pair {
      const SettingSummary *a, *b;
    };
    std::vector<Pair> pairs;
    for (size_t i = 0; i < run_.settings.size(); ++i)
      for (size_t k = i + 1; k < run_.settings.size(); ++k) {
        const SettingSummary &a = run_.settings[i], &b = run_.settings[k];
        if (!a.not_run.empty() || !b.not_run.empty()) continue;
        // Published tables hold pairs without a time of the network; there is nothing to set side by side.
        if (published(run_) && (!a.stages_s.count("network") || !b.stages_s.count("network"))) continue;
        std::set<std::string> keys, differ;
        for (const auto* s : {&a, &b})
          for (const auto& [key, value] : s->values) keys.insert(key);
        for (const std::string& key : keys) {
          const auto x = a.values.find(key), y = b.values.find(key);
          if (x == a.values.end() || y == b.values.end() || x->second != y->second) differ.insert(key);
        }
        if (!std::includes(kRuntimeKeys.begin(), kRuntimeKeys.end(), differ.begin(), differ.end())) continue;
        if (differ.empty() && (a.runtime == b.runtime || a.runtime.empty() || b.runtime.empty())) continue;
        pairs.push_back({&a, &b});
      }
    if (pairs.empty()) return;
    heading("Two runtimes in one pipeline");
    for (const Pair& p : pairs) {
      const auto part = [&](const SettingSummary& s, bool network) {
        const Reading total = lab::seconds_per_case(run_, s);
        const auto n = s.stages_s.find("network");
        if (n == s.stages_s.end()) return Reading::unavailable("the stages of a case were not recorded");
        if (network) return Reading::of(n->second);
        return total.ok() ? Reading::of(*total - n->second) : total;
      };
      Table t;
      t.caption = "A: " + p.a->name + runtime_text(*p.a) + "; B: " + p.b->name + runtime_text(*p.b) +
                  of_label() +
                  ". What is recorded of the two settings differs in nothing else. Seconds per case, mean "
                  "over cases.";
      t.columns = {{"part of the case", Align::kLeft, ""},
                   {"A, s", Align::kRight, ""},
                   {"B, s", Align::kRight, ""},
                   {"A − B, s", Align::kRight, ""},
                   {"A / B", Align::kRight, ""}};
      const auto row = [&](const std::string& name, const Reading& a, const Reading& b, bool bold) {
        const Format f = [](double v) { return significant(v); };
        Table::Row r;
        r.strong = bold;
        r.cells = {plain(name), reading_cell(t, a, f, ""), reading_cell(t, b, f, "")};
        if (a.ok() && b.ok() && *b > 0)
          r.cells.insert(r.cells.end(), {plain(difference_of(*a, *b)), plain(times(*a / *b))});
        else
          r.cells.insert(r.cells.end(),
                         {t.unavailable("needs both times"), t.unavailable("needs both times")});
        t.rows.push_back(std::move(r));
      };
      const Reading na = part(*p.a, true), nb = part(*p.b, true), ea = part(*p.a, false),
                    eb = part(*p.b, false);
      const Reading ta = lab::seconds_per_case(run_, *p.a), tb = lab::seconds_per_case(run_, *p.b);
      row("network", na, nb, false);
      row("everything else", ea, eb, false);
      row("whole case", ta, tb, true);
      if (na.ok() && nb.ok() && ta.ok() && tb.ok() && *nb > 0) {
        t.rows.push_back({{plain("network's share"), plain(percent(*na / *ta)), plain(percent(*nb / *tb)),
                           plain("–"), plain("–")},
                          false});
        doc_.blocks.push_back(
            Paragraph{plain("From " + p.a->name + " to " + p.b->name + " the network takes " +
                            percent(*nb / *na, 3) + " of its time and the whole case " +
                            percent(*tb / *ta, 3) + ": everything else than the network is " +
                            percent(*ea / *ta) + " of A and " + percent(*eb / *tb) + " of B.")});
      }
      doc_.blocks.push_back(std::move(t));
    }
  }

 private:
  Tone registration_tone() const {
    const std::string& s = run_.registration.status;
    return s == "registered" ? Tone::kGood : s == "changed" || s == "late" ? Tone::kWarn : Tone::kBad;
  }
  static std::string metric_name(const std::string& metric) {
    return metric == "dice" ? "Dice" : metric == "surface_dice" ? "surface Dice" : metric;
  }
  std::string seconds_text(const SettingSummary& s) const {
    const Reading r = lab::seconds_per_case(run_, s);
    return r.ok() ? significant(*r) + " s" : "n/a";
  }
  // a - b with as many decimals as a shows.
  static std::string difference_of(double a, double b) {
    return fixed(a - b, a > 0 ? std::max(0, 2 - int(std::floor(std::log10(a)))) : 3);
  }
  static std::string runtime_text(const SettingSummary& s) {
    const auto backend = s.values.find("backend");
    if (backend != s.values.end()) return " (" + backend->second + ")";
    return s.runtime.empty() ? "" : " (" + s.runtime + ")";
  }
  lab::Estimate mean_ratio(const SettingSummary& s) const {
    const SettingSummary* base = baseline_of(run_);
    if (!base) return {};
    const Reading a = lab::seconds_per_case(run_, *base), b = lab::seconds_per_case(run_, s);
    return a.ok() && b.ok() ? lab::Estimate{*a / *b, {}, {}, 1} : lab::Estimate{};
  }
  bool any_quality() const {
    return std::any_of(run_.settings.begin(), run_.settings.end(),
                       [](const SettingSummary& s) { return mean_dice(s); });
  }
  std::string no_energy() const {
    for (const SettingSummary& s : run_.settings) {
      const lab::MeteredEnergy e = lab::metered_energy(run_, s);
      if (!e.j_per_case.ok() && s.not_run.empty()) return e.scope + ": " + e.j_per_case.reason;
    }
    return "no energy was recorded";
  }

  void heading(const std::string& text) { doc_.blocks.push_back(Heading{many_ ? 3 : 2, text}); }
  std::string of_label() const { return many_ ? " (" + label_ + ")" : ""; }
  void figure(const std::string& name, const std::string& caption, Chart chart) {
    if (chart.empty()) return;
    doc_.blocks.push_back(
        Figure{(many_ ? "run" + std::to_string(index_ + 1) + "-" : "") + name, caption, std::move(chart)});
  }
  static void add(Terms& t, const std::string& name, const std::string& value) {
    if (!value.empty()) t.entries.emplace_back(name, plain(value));
  }
  static void add_code(Terms& t, const std::string& name, const std::string& value) {
    if (!value.empty()) t.entries.emplace_back(name, code(value));
  }

  // Energy per case along the sequence; time where there is no energy, saying so.
  void cost_figure() {
    bool energy = false;
    for (const SettingSummary& s : run_.settings)
      energy = energy || lab::metered_energy(run_, s).j_per_case.ok();
    const std::string scope = lab::metered_energy(run_, run_.settings.front()).scope;
    std::vector<BarRow> rows;
    for (const SettingSummary& s : run_.settings) {
      BarRow r;
      r.label = s.name;
      r.muted = is_baseline(run_, s);
      if (energy) {
        const Reading gross = lab::metered_energy(run_, s).j_per_case;
        if (gross.ok()) {
          r.value = *gross / 1000;
          r.text = kilojoules(*gross) + " kJ";
          if (scope != "CPU packages" && s.energy_net_j.ok()) {
            r.second = *s.energy_net_j / 1000;
            r.text += ", net " + kilojoules(*s.energy_net_j);
          }
          if (s.energy_reduction && !r.muted) r.text += " · " + times(s.energy_reduction->value) + " less";
          for (const lab::CaseRecord& c : s.per_case) {
            const Reading& e = scope == "CPU packages" ? c.cpu_energy_j : c.energy_gross_j;
            if (e.ok()) r.points.push_back(*e / 1000);
          }
        } else {
          r.text = "n/a";
        }
      } else {
        const Reading t = lab::seconds_per_case(run_, s);
        r.text = t.ok() ? significant(*t) + " s" : "n/a";
        if (t.ok()) r.value = *t;
        if (s.speedup && !r.muted) r.text += " · " + times(s.speedup->value) + " faster";
        for (const lab::CaseRecord& c : s.per_case) r.points.push_back(c.wall_s);
      }
      rows.push_back(std::move(r));
    }
    if (energy)
      figure("energy",
             "Energy per case along the sequence" + of_label() + " (" + scope +
                 "). Bars: mean; circles: cases; the line across a bar: net of idle.",
             bar_chart("Energy per case", "kJ/case", rows));
    else
      figure("time",
             "Time per case along the sequence" + of_label() + ", because energy is not available: " +
                 no_energy() + ". Bars: mean" + (published(run_) ? "." : "; circles: cases."),
             bar_chart("Time per case", "s/case", rows));
  }

  void difference_figures() {
    struct Endpoint {
      std::string metric, region;
      double delta;
      std::vector<DifferenceRow> rows;
    };
    std::vector<Endpoint> endpoints;
    const SettingSummary* base = baseline_of(run_);
    std::map<std::string, const lab::CaseRecord*> from;
    if (base)
      for (const lab::CaseRecord& c : base->per_case) from[c.case_id] = &c;
    for (const SettingSummary& s : run_.settings)
      for (const lab::EndpointResult& e : s.endpoints) {
        auto at = std::find_if(endpoints.begin(), endpoints.end(), [&](const Endpoint& x) {
          return x.metric == e.metric && x.region == e.region && x.delta == e.delta;
        });
        if (at == endpoints.end()) at = endpoints.insert(at, {e.metric, e.region, e.delta, {}});
        DifferenceRow r;
        r.label = s.name;
        r.verdict = to_string(e.verdict);
        r.tone = e.verdict == Verdict::kPreserved ? 1 : e.verdict == Verdict::kNotPreserved ? 3 : 2;
        if (e.n > 0) r.mean = e.mean_difference;
        r.low = e.lower_bound;
        r.high = e.upper_bound;
        for (const lab::CaseRecord& c : s.per_case) {
          const auto b = from.find(c.case_id);
          if (b == from.end()) continue;
          const auto& x = e.metric == "surface_dice" ? b->second->surface_dice : b->second->dice;
          const auto& y = e.metric == "surface_dice" ? c.surface_dice : c.dice;
          if (x.count(e.region) && y.count(e.region))
            r.differences.push_back(y.at(e.region) - x.at(e.region));
        }
        at->rows.push_back(std::move(r));
      }
    for (size_t i = 0; i < endpoints.size(); ++i) {
      const Endpoint& e = endpoints[i];
      const std::string what = metric_name(e.metric) + " of " + e.region;
      figure("differences-" + std::to_string(i + 1),
             what + of_label() + ": difference from " + run_.baseline +
                 ", case by case. Dots: cases; diamond and line: mean and one-sided 95 % bounds; dashed: −δ. "
                 "Triangles: "
                 "cases beyond the axis.",
             difference_chart(what + ": difference from the baseline", "difference from " + run_.baseline,
                              e.delta, e.rows));
    }
  }

  void stage_section() {
    static const char* kOrder[] = {"read", "preprocess", "network", "export", "write"};
    std::vector<std::string> names;
    const auto add_name = [&](const std::string& n) {
      if (std::find(names.begin(), names.end(), n) == names.end()) names.push_back(n);
    };
    for (const char* n : kOrder)
      for (const SettingSummary& s : run_.settings)
        if (s.stages_s.count(n)) add_name(n);
    for (const SettingSummary& s : run_.settings)
      for (const auto& [n, v] : s.stages_s) add_name(n);
    if (names.empty()) return;
    heading("Where the time goes");
    names.push_back("other");
    Table t;
    t.caption = "Seconds per case by stage" + of_label() +
                ", mean over cases. Other: the whole case minus its stages.";
    t.columns = {{"setting", Align::kLeft, ""}};
    for (const std::string& n : names) t.columns.push_back({n, Align::kRight, ""});
    t.columns.push_back({"whole case", Align::kRight, ""});
    std::vector<StackRow> rows;
    for (const SettingSummary& s : run_.settings) {
      if (published(run_) && s.stages_s.empty()) continue;
      Table::Row row;
      row.strong = is_baseline(run_, s);
      row.cells.push_back(name_cell(s));
      StackRow stack;
      stack.label = s.name;
      double sum = 0;
      for (const std::string& n : names) {
        const auto at = s.stages_s.find(n);
        if (n == "other") {
          const Reading total = lab::seconds_per_case(run_, s);
          if (!total.ok() || s.stages_s.empty()) {
            stack.parts.push_back(0);
            row.cells.push_back(t.unavailable(missing(run_, s)));
            continue;
          }
          const double rest = *total - sum;
          stack.parts.push_back(std::max(0.0, rest));
          row.cells.push_back(
              plain(rest < 0      ? difference_of(rest, 0)
                    : rest < .001 ? "< 0.001"
                                  : significant(rest, 2)) +
              (rest < 0 ? t.mark("below 0: stages are means, the whole case is a median over repetitions")
                        : Text{}));
          continue;
        }
        stack.parts.push_back(at == s.stages_s.end() ? 0 : at->second);
        sum += stack.parts.back();
        row.cells.push_back(at == s.stages_s.end() ? t.unavailable(missing(run_, s))
                                                   : plain(significant(at->second)));
      }
      row.cells.push_back(reading_cell(
          t, lab::seconds_per_case(run_, s), [](double v) { return significant(v); }, missing(run_, s)));
      t.rows.push_back(std::move(row));
      stack.text = seconds_text(s);
      rows.push_back(std::move(stack));
    }
    figure("stages", "Stages of a case" + of_label() + ", mean over cases, in seconds.",
           stacked_chart("Stages of a case", "s/case", names, rows));
    doc_.blocks.push_back(std::move(t));
  }

  void values_table() {
    std::set<std::string> keys;
    for (const SettingSummary& s : run_.settings)
      for (const auto& [key, value] : s.values) keys.insert(key);
    if (keys.empty()) return;
    Table t;
    t.caption = "What each setting holds" + of_label() + ".";
    t.columns = {{"setting", Align::kLeft, ""}};
    for (const std::string& key : keys) t.columns.push_back({key, Align::kLeft, ""});
    for (const SettingSummary& s : run_.settings) {
      Table::Row row;
      row.strong = is_baseline(run_, s);
      row.cells.push_back(name_cell(s));
      for (const std::string& key : keys) {
        const auto v = s.values.find(key);
        row.cells.push_back(plain(v == s.values.end() ? "default" : v->second));
      }
      t.rows.push_back(std::move(row));
    }
    doc_.blocks.push_back(std::move(t));
  }

  Document& doc_;
  const RunSummary& run_;
  std::string label_;
  const ReportOptions& options_;
  size_t index_;
  bool many_;
};

}  // namespace

void append_summary(Document& doc, const RunContext& context) {
  RunWriter w(doc, context);
  w.cards();
  w.registration();
  w.summary_lines();
}
void append_setup(Document& doc, const RunContext& context) {
  RunWriter(doc, context).setup();
}
void append_results(Document& doc, const RunContext& context) {
  RunWriter w(doc, context);
  w.sequence();
  w.verdicts();
  w.time_sections();
  w.side_effects();
  w.trade_off();
  w.recommendation();
}
void append_published(Document& doc, const RunContext& context) {
  RunWriter w(doc, context);
  w.setup();
  w.sequence();
  w.time_sections();
  w.remarks();
}
void append_records(Document& doc, const RunContext& context) {
  RunWriter w(doc, context);
  w.provenance();
  w.remarks();
  w.appendix();
}

}  // namespace isoline::report
