// What the cells of a report's tables are made of; for run_sections.cpp and report.cpp.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "isoline/lab/compare.h"
#include "isoline/lab/summary.h"
#include "isoline/report/document.h"

namespace isoline::report {

using Format = std::function<std::string(double)>;

bool published(const lab::RunSummary& run);
bool is_baseline(const lab::RunSummary& run, const lab::SettingSummary& s);
const lab::SettingSummary* baseline_of(const lab::RunSummary& run);  // null: it is not among the settings
// Why a figure is missing, if nothing better is known.
std::string missing(const lab::RunSummary& run, const lab::SettingSummary& s);
Text verdict_badge(Verdict v);
std::string joined(const std::vector<std::string>& parts, const char* between = ", ");

std::string kilojoules(double j);
std::string dice_text(double v);
std::string difference_text(double v);  // with its sign

// Each gives the figure with its interval below it, or n/a with a note of `t`.
Text estimate_cell(Table& t, const lab::Estimate& e, const Format& format, const std::string& why);
Text reading_cell(Table& t, const Reading& r, const Format& format, const std::string& why);
Text relative_cell(Table& t, const lab::Relative& r, const Format& format);
// Durations are positive; 0 is a field the source left out.
Text duration_cell(Table& t, std::optional<double> v, const std::string& why);
Text name_cell(const lab::SettingSummary& s, bool with_description = false);

// One column of a table with a row per setting.
struct SettingColumn {
  Column column;
  std::function<bool(const lab::SettingSummary&)> has;
  std::function<Text(Table&, const lab::SettingSummary&)> cell;
};
SettingColumn reading_column(const lab::RunSummary& run, std::string header, std::string group,
                             std::function<Reading(const lab::SettingSummary&)> get, Format format);
SettingColumn estimate_column(const lab::RunSummary& run, std::string header, std::string group,
                              std::function<lab::Estimate(const lab::SettingSummary&)> get, Format format);
// Columns that no setting fills are left out of published tables (and named), and shown as n/a in measured
// runs.
Table setting_table(const lab::RunSummary& run, const std::string& caption,
                    const std::vector<SettingColumn>& columns, bool described);

// Mean Dice over regions; unset if a region has none.
std::optional<double> mean_dice(const lab::SettingSummary& s);
std::vector<std::string> regions_of(const lab::RunSummary& run);
const lab::RegionQuality* quality_of(const lab::SettingSummary& s, const std::string& region);

}  // namespace isoline::report
