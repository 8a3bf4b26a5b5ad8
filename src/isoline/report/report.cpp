#include "isoline/report/report.h"

#include <algorithm>
#include <optional>
#include <set>

#include "isoline/report/cells.h"
#include "isoline/report/format.h"
#include "isoline/report/run_sections.h"

namespace isoline::report {
namespace {

using lab::RunSummary;
using lab::SettingSummary;

void key_terms(Document& doc, const std::vector<RunSummary>& runs) {
  doc.blocks.push_back(Heading{2, "Key terms"});
  Terms t;
  const auto add = [&](const char* term, const char* text) { t.entries.emplace_back(term, plain(text)); };
  add("s/case",
      "Wall-clock seconds of one case within the stated boundary; mean over cases of the median over "
      "repetitions.");
  add("kJ/case, gross",
      "Energy the accelerator drew during the case, idle power included. Not the whole machine.");
  add("kJ/case, net", "Gross minus the idle power (context alive) over the same time.");
  add("speed-up, reduction", "Baseline divided by setting, case by case, geometric mean: above 1 is better.");
  add("Dice",
      "2|P∩R| / (|P| + |R|) of predicted and reference voxels; 1 where both are empty (KiTS), unless a "
      "column says nnU-Net.");
  add("surface Dice", "Share of both surfaces that lies within the stated tolerance of the other one.");
  add("HD95", "95th percentile of the distance between the surfaces, the larger of both directions.");
  add("δ", "The largest loss that still counts as preserved, fixed per endpoint before measuring.");
  add("preserved",
      "With 95 % confidence the mean loss is smaller than δ, on every endpoint. Not preserved: with 95 % "
      "confidence it is larger on at least one. Inconclusive: neither, or too few cases.");
  add("interval", "Two-sided 95 %, over cases; it says how far the mean could lie, not how cases scatter.");
  add("Pareto front", "Settings that no other setting equals or beats in every dimension.");
  std::set<std::string> seen;
  for (const RunSummary& r : runs)
    for (const std::string& d : r.definitions)
      if (seen.insert(d).second) {
        // "name: sentence" reads as a term of its own.
        const size_t colon = d.find(": ");
        const bool named = colon != std::string::npos && colon > 0 && colon <= 40;
        t.entries.emplace_back("measured: " + (named ? d.substr(0, colon) : "definition"),
                               plain(named ? d.substr(colon + 2) : d));
      }
  doc.blocks.push_back(std::move(t));
}

void comparison(Document& doc, const std::vector<RunSummary>& runs, const lab::Comparison& c) {
  doc.blocks.push_back(Heading{2, "Comparison"});
  if (!c.notes.empty()) {
    Bullets b;
    for (const std::string& n : c.notes) b.items.push_back(plain(n));
    doc.blocks.push_back(std::move(b));
  }
  const auto seconds = [&](Table& t, const lab::ComparedSetting& row) {
    const RunSummary& run = runs[row.run];
    return reading_cell(
        t, lab::seconds_per_case(run, run.settings[row.setting]), [](double v) { return significant(v); },
        "");
  };
  const auto energy = [&](Table& t, const lab::ComparedSetting& row) {
    return reading_cell(t, lab::metered_energy(runs[row.run], runs[row.run].settings[row.setting]).j_per_case,
                        kilojoules, "");
  };
  const auto deltas = [](Table& t, const lab::ComparedSetting& row, Table::Row& out, size_t columns) {
    size_t filled = 0;
    for (const lab::QualityDelta& q : row.quality)
      if (q.metric == "dice" && filled < columns) {
        out.cells.push_back(relative_cell(t, q.delta, difference_text));
        ++filled;
      }
    for (; filled < columns; ++filled) out.cells.push_back(t.unavailable("this region was not evaluated"));
  };
  const auto regions = [](const lab::ComparedSetting& row) {
    std::vector<std::string> names;
    for (const lab::QualityDelta& q : row.quality)
      if (q.metric == "dice") names.push_back(q.region);
    return names;
  };

  const auto table = [&](bool of_published) -> std::optional<Table> {
    Table t;
    std::vector<std::string> names;
    for (const lab::ComparedSetting& row : c.settings)
      if (published(runs[row.run]) == of_published)
        for (const std::string& n : regions(row))
          if (std::find(names.begin(), names.end(), n) == names.end()) names.push_back(n);
    // One run alone needs no column for its name.
    std::set<size_t> shown;
    for (const lab::ComparedSetting& row : c.settings)
      if (published(runs[row.run]) == of_published) shown.insert(row.run);
    const bool name_runs = of_published || shown.size() > 1;
    if (name_runs) t.columns.push_back({"run", Align::kLeft, ""});
    t.columns.insert(t.columns.end(), {{"setting", Align::kLeft, ""},
                                       {"s/case", Align::kRight, ""},
                                       {"speed", Align::kRight, ""},
                                       {"kJ/case", Align::kRight, ""},
                                       {"energy", Align::kRight, ""}});
    for (const std::string& n : names) t.columns.push_back({n, Align::kRight, "Dice difference"});
    if (!of_published) t.columns.push_back({"verdict in its run", Align::kLeft, ""});
    size_t last = runs.size();
    for (const lab::ComparedSetting& row : c.settings) {
      const RunSummary& run = runs[row.run];
      if (published(run) != of_published) continue;
      const SettingSummary& s = run.settings[row.setting];
      Table::Row out;
      out.strong = row.is_baseline;
      if (name_runs) out.cells.push_back(row.run == last ? Text{} : plain(c.labels[row.run]));
      out.cells.insert(out.cells.end(), {plain(s.name) + (row.is_baseline ? sub("baseline") : Text{}),
                                         seconds(t, row), relative_cell(t, row.speed_x, times),
                                         energy(t, row), relative_cell(t, row.energy_x, times)});
      last = row.run;
      deltas(t, row, out, names.size());
      if (!of_published)
        out.cells.push_back(s.verdict ? verdict_badge(*s.verdict)
                                      : plain(s.name == run.baseline ? "baseline" : "not judged"));
      t.rows.push_back(std::move(out));
    }
    return t.rows.empty() ? std::nullopt : std::optional(t);
  };
  if (auto t = table(false)) {
    t->caption =
        "Every setting against " + c.baseline +
        ". Speed and energy: baseline / setting, above 1 is better, geometric mean over the same cases; Dice "
        "difference: setting − baseline, paired by case. Below: 95 % interval.";
    doc.blocks.push_back(std::move(*t));
  }
  if (auto t = table(true)) {
    t->caption = std::string("Published tables, each against its own baseline (") + lab::kPublishedNote +
                 "). Seconds and joules of different tables are not comparable with each other or with the "
                 "runs above.";
    doc.blocks.push_back(std::move(*t));
  }
  if (!c.matches.empty()) {
    Table t;
    const std::vector<std::string> names = regions(c.matches.front().entries.front());
    t.caption = "Setting for setting: the same setting from run to run, against the run named first.";
    t.columns = {{"setting", Align::kLeft, ""},  {"run", Align::kLeft, ""},
                 {"s/case", Align::kRight, ""},  {"speed", Align::kRight, ""},
                 {"kJ/case", Align::kRight, ""}, {"energy", Align::kRight, ""}};
    for (const std::string& n : names) t.columns.push_back({n, Align::kRight, "Dice difference"});
    for (const lab::SettingMatch& m : c.matches)
      for (size_t i = 0; i < m.entries.size(); ++i) {
        const lab::ComparedSetting& row = m.entries[i];
        Table::Row out;
        out.strong = i == 0;
        out.cells = {
            i == 0 ? plain(m.setting) + (m.note.empty() ? Text{} : t.mark(m.note)) : Text{},
            plain(c.labels[row.run]) + sub(runs[row.run].device_name +
                                           (runs[row.run].provenance.started.empty()
                                                ? ""
                                                : ", " + runs[row.run].provenance.started.substr(0, 10))),
            seconds(t, row),
            relative_cell(t, row.speed_x, times),
            energy(t, row),
            relative_cell(t, row.energy_x, times)};
        deltas(t, row, out, names.size());
        t.rows.push_back(std::move(out));
      }
    doc.blocks.push_back(std::move(t));
  }
}

void costs(Document& doc, const std::vector<RunSummary>& runs, const lab::Comparison& c,
           const lab::Prices& p) {
  if (!p.any()) return;
  doc.blocks.push_back(Heading{2, "Cost"});
  std::vector<std::string> stated;
  if (p.per_hour) stated.push_back(significant(*p.per_hour) + " " + p.currency + " per machine hour");
  if (p.per_kwh) stated.push_back(significant(*p.per_kwh) + " " + p.currency + " per kWh");
  if (p.co2_g_per_kwh) stated.push_back(significant(*p.co2_g_per_kwh) + " g CO₂ per kWh");
  Table t;
  t.caption = "At " + joined(stated) +
              ". Machine: its hours alone, as if it did nothing else. Electricity and CO₂: the energy that "
              "was metered, "
              "never the whole machine.";
  if (runs.size() > 1) t.columns.push_back({"run", Align::kLeft, ""});
  t.columns.push_back({"setting", Align::kLeft, ""});
  if (p.per_hour) t.columns.push_back({"machine", Align::kRight, p.currency + " per 1000 cases"});
  if (p.per_kwh) t.columns.push_back({"electricity", Align::kRight, p.currency + " per 1000 cases"});
  if (p.per_hour || p.per_kwh) {
    t.columns.push_back({"total", Align::kRight, p.currency + " per 1000 cases"});
    t.columns.push_back({p.currency + " per case", Align::kRight, ""});
  }
  if (p.co2_g_per_kwh) {
    t.columns.push_back({"g per case", Align::kRight, "CO₂"});
    t.columns.push_back({"kg per 1000", Align::kRight, "CO₂"});
  }
  size_t last = runs.size();
  const Format per_thousand = [](double v) { return significant(1000 * v); },
               per_case = [](double v) { return significant(v); };
  for (const lab::ComparedSetting& row : c.settings) {
    Table::Row out;
    out.strong = row.is_baseline;
    if (runs.size() > 1) out.cells.push_back(row.run == last ? Text{} : plain(c.labels[row.run]));
    out.cells.push_back(plain(runs[row.run].settings[row.setting].name));
    last = row.run;
    const lab::Cost& cost = row.cost;
    if (p.per_hour) out.cells.push_back(reading_cell(t, cost.machine, per_thousand, ""));
    if (p.per_kwh)
      out.cells.push_back(reading_cell(t, cost.electricity, per_thousand, "") +
                          (cost.electricity.ok() ? t.mark("covers: " + cost.energy_scope) : Text{}));
    if (p.per_hour || p.per_kwh) {
      out.cells.push_back(reading_cell(t, cost.total, per_thousand, ""));
      out.cells.push_back(reading_cell(t, cost.total, per_case, ""));
    }
    if (p.co2_g_per_kwh) {
      out.cells.push_back(reading_cell(t, cost.co2_g, per_case, "") +
                          (cost.co2_g.ok() ? t.mark("covers: " + cost.energy_scope) : Text{}));
      out.cells.push_back(reading_cell(t, cost.co2_g, per_case, ""));  // g per case = kg per 1000
    }
    t.rows.push_back(std::move(out));
  }
  doc.blocks.push_back(std::move(t));
}

}  // namespace

Result<Document> make_report(const std::vector<RunSummary>& runs, const std::vector<std::string>& files,
                             const ReportOptions& options) {
  ISOLINE_ASSIGN(const lab::Comparison compared,
                 lab::compare(runs, files, {options.baseline, options.prices}));
  Document doc;
  const auto first =
      std::find_if(runs.begin(), runs.end(), [](const RunSummary& r) { return !published(r); });
  const RunSummary& lead = first == runs.end() ? runs.front() : *first;
  doc.title = !options.title.empty() ? options.title
              : !lead.title.empty()  ? lead.title
                                     : "Report on " + lead.id;
  std::vector<std::string> about;
  for (size_t i = 0; i < runs.size(); ++i)
    about.push_back(compared.labels[i] +
                    (published(runs[i]) || runs[i].device_name.empty() ? "" : " on " + runs[i].device_name));
  doc.subtitle = joined(about, "; ") + (options.written.empty() ? "" : ". Written " + options.written + ".");

  const size_t measured =
      size_t(std::count_if(runs.begin(), runs.end(), [](const RunSummary& r) { return !published(r); }));
  const bool many = measured > 1 || (measured == 0 && runs.size() > 1);
  const auto context = [&](size_t i) {
    return RunContext{runs[i], compared.labels[i], options, i, many || published(runs[i])};
  };
  std::vector<size_t> own, beside;
  for (size_t i = 0; i < runs.size(); ++i) (published(runs[i]) ? beside : own).push_back(i);

  if (!own.empty()) doc.blocks.push_back(Heading{2, "Summary"});
  for (size_t i : own) append_summary(doc, context(i));
  if (own.size() != 1) key_terms(doc, runs);
  for (size_t i : own) {
    if (many) doc.blocks.push_back(Heading{2, compared.labels[i]});
    append_setup(doc, context(i));
    if (!many) key_terms(doc, runs);
    append_results(doc, context(i));
  }
  comparison(doc, runs, compared);
  costs(doc, runs, compared, options.prices);
  for (size_t i : beside) {
    doc.blocks.push_back(Heading{2, "Published: " + compared.labels[i]});
    append_published(doc, context(i));
  }
  for (size_t i : own) {
    if (many) doc.blocks.push_back(Heading{2, "Provenance, remarks and cases: " + compared.labels[i]});
    append_records(doc, context(i));
  }
  return doc;
}

}  // namespace isoline::report
