#include "isoline/report/cells.h"

#include <algorithm>
#include <cmath>

#include "isoline/report/format.h"

namespace isoline::report {

using lab::RunSummary;
using lab::SettingSummary;

namespace {

Tone tone_of(Verdict v) {
  return v == Verdict::kPreserved ? Tone::kGood : v == Verdict::kNotPreserved ? Tone::kBad : Tone::kWarn;
}

std::string interval(const std::optional<double>& low, const std::optional<double>& high,
                     const Format& format) {
  if (!low || !high) return "";
  return format(*low) + (*low < 0 || *high < 0 ? " to " : " – ") + format(*high);
}

}  // namespace

bool published(const RunSummary& run) {
  return run.kind == "published";
}

bool is_baseline(const RunSummary& run, const SettingSummary& s) {
  const auto index = lab::baseline_index(run);
  return index && &run.settings[*index] == &s;
}

const SettingSummary* baseline_of(const RunSummary& run) {
  const auto index = lab::baseline_index(run);
  return index ? &run.settings[*index] : nullptr;
}

std::string missing(const RunSummary& run, const SettingSummary& s) {
  return lab::missing_reason(run, s);
}

Text verdict_badge(Verdict v) {
  return badge(tone_of(v), to_string(v));
}

std::string joined(const std::vector<std::string>& parts, const char* between) {
  std::string out;
  for (const std::string& p : parts) out += (out.empty() ? "" : between) + p;
  return out;
}

std::string kilojoules(double j) {
  return significant(j / 1000);
}
std::string dice_text(double v) {
  return fixed(v, 4);
}
std::string difference_text(double v) {
  return fixed(v, 4, true);
}

Text estimate_cell(Table& t, const lab::Estimate& e, const Format& format, const std::string& why) {
  if (e.n == 0 || !std::isfinite(e.value)) return t.unavailable(why);
  const std::string range = interval(e.low, e.high, format);
  return range.empty() ? plain(format(e.value)) : plain(format(e.value)) + sub(range);
}
Text reading_cell(Table& t, const Reading& r, const Format& format, const std::string& why) {
  return r.ok() ? plain(format(*r)) : t.unavailable(r.reason.empty() ? why : r.reason);
}
Text relative_cell(Table& t, const lab::Relative& r, const Format& format) {
  if (!r.value.ok()) return t.unavailable(r.value.reason);
  const std::string range = interval(r.low, r.high, format);
  return range.empty() ? plain(format(*r.value.value)) : plain(format(*r.value.value)) + sub(range);
}
Text duration_cell(Table& t, std::optional<double> v, const std::string& why) {
  return v && *v > 0 && std::isfinite(*v) ? plain(significant(*v)) : t.unavailable(why);
}

Text name_cell(const SettingSummary& s, bool with_description) {
  Text name = plain(s.name);
  if (with_description && !s.description.empty()) name = name + sub(s.description);
  return name;
}

// Columns that no setting fills are left out of published tables (and named), and shown as n/a in measured
// runs.
Table setting_table(const RunSummary& run, const std::string& caption,
                    const std::vector<SettingColumn>& columns, bool described) {
  Table t;
  t.caption = caption;
  t.columns.push_back({"setting", Align::kLeft, ""});
  std::vector<const SettingColumn*> used;
  std::vector<std::string> absent;
  for (const SettingColumn& c : columns) {
    const bool any = std::any_of(run.settings.begin(), run.settings.end(), c.has);
    if (published(run) && !any) {
      absent.push_back(c.column.group.empty() ? c.column.header : c.column.group + " " + c.column.header);
      continue;
    }
    used.push_back(&c);
    t.columns.push_back(c.column);
  }
  for (const SettingSummary& s : run.settings) {
    Table::Row row;
    row.strong = is_baseline(run, s);
    row.cells.push_back(name_cell(s, described));
    for (const SettingColumn* c : used) row.cells.push_back(c->cell(t, s));
    t.rows.push_back(std::move(row));
  }
  if (!absent.empty()) t.caption += " Not given by the source: " + joined(absent) + ".";
  return t;
}

SettingColumn reading_column(const RunSummary& run, std::string header, std::string group,
                             std::function<Reading(const SettingSummary&)> get, Format format) {
  SettingColumn c;
  c.column = {std::move(header), Align::kRight, std::move(group)};
  c.has = [get](const SettingSummary& s) { return get(s).ok(); };
  c.cell = [get, format, &run](Table& t, const SettingSummary& s) {
    return s.not_run.empty() ? reading_cell(t, get(s), format, missing(run, s))
                             : t.unavailable(missing(run, s));
  };
  return c;
}
SettingColumn estimate_column(const RunSummary& run, std::string header, std::string group,
                              std::function<lab::Estimate(const SettingSummary&)> get, Format format) {
  SettingColumn c;
  c.column = {std::move(header), Align::kRight, std::move(group)};
  c.has = [get](const SettingSummary& s) { return get(s).n > 0; };
  c.cell = [get, format, &run](Table& t, const SettingSummary& s) {
    return estimate_cell(t, get(s), format, missing(run, s));
  };
  return c;
}

std::optional<double> mean_dice(const SettingSummary& s) {
  double sum = 0;
  for (const lab::RegionQuality& q : s.quality) {
    if (q.dice.n == 0) return std::nullopt;
    sum += q.dice.value;
  }
  return s.quality.empty() ? std::nullopt : std::optional(sum / double(s.quality.size()));
}

std::vector<std::string> regions_of(const RunSummary& run) {
  std::vector<std::string> names;
  for (const auto& [name, labels] : run.regions) names.push_back(name);
  for (const SettingSummary& s : run.settings)
    for (const lab::RegionQuality& q : s.quality)
      if (std::find(names.begin(), names.end(), q.region) == names.end()) names.push_back(q.region);
  return names;
}

const lab::RegionQuality* quality_of(const SettingSummary& s, const std::string& region) {
  for (const lab::RegionQuality& q : s.quality)
    if (q.region == region) return &q;
  return nullptr;
}

}  // namespace isoline::report
