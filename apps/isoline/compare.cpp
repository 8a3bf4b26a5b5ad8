#include <algorithm>
#include <cstdio>

#include "bench_output.h"
#include "cli.h"
#include "isoline/bench/result.h"
#include "isoline/lab/compare.h"
#include "isoline/report/format.h"
#include "price_options.h"

namespace isoline::cli {
namespace {

struct Options {
  Output output;
  std::vector<std::string> runs;
  std::string baseline;
  lab::Prices prices;
  std::optional<double> max_p99_ms;  // bench results only
};

Json to_json(const Reading& r) {
  return r.ok() ? Json{{"value", *r}}
                : Json{{"value", nullptr}, {"reason", r.reason.empty() ? "not recorded" : r.reason}};
}
Json to_json(const lab::Relative& r) {
  Json j = to_json(r.value);
  if (!r.value.ok()) return j;
  if (r.low && r.high) j["interval_95"] = {*r.low, *r.high};
  j["cases"] = r.n;
  j["how"] = r.how;
  return j;
}

class Printer {
 public:
  Printer(const Options& options, const std::vector<lab::RunSummary>& runs, const lab::Comparison& comparison)
      : o_(options), runs_(runs), c_(comparison) {
    for (const lab::ComparedSetting& s : c_.settings) {
      const auto fit = [](size_t& width, const std::string& text) {
        width = std::clamp(report::characters(report::clean(text)) + 2, width, size_t{44});
      };
      fit(run_width_, c_.labels[s.run]);
      fit(setting_width_, runs_[s.run].settings[s.setting].name);
    }
  }

  Json row(const lab::ComparedSetting& s) const {
    const lab::SettingSummary& setting = runs_[s.run].settings[s.setting];
    Json quality = Json::array();
    for (const lab::QualityDelta& q : s.quality)
      quality.push_back({{"metric", q.metric},
                         {"region", q.region},
                         {"mean", to_json(q.value)},
                         {"difference", to_json(q.delta)}});
    const lab::MeteredEnergy energy = lab::metered_energy(runs_[s.run], setting);
    Json j = {{"run", c_.labels[s.run]},
              {"setting", setting.name},
              {"baseline", s.is_baseline},
              {"s_per_case", to_json(lab::seconds_per_case(runs_[s.run], setting))},
              {"j_per_case", to_json(energy.j_per_case)},
              {"energy_scope", energy.scope},
              {"speed_x", to_json(s.speed_x)},
              {"energy_x", to_json(s.energy_x)},
              {"quality", quality}};
    if (setting.verdict) j["verdict_in_its_run"] = to_string(*setting.verdict);
    if (o_.prices.any())
      j["cost_per_case"] = {{"machine", to_json(s.cost.machine)},
                            {"electricity", to_json(s.cost.electricity)},
                            {"total", to_json(s.cost.total)},
                            {"co2_g", to_json(s.cost.co2_g)}};
    return j;
  }

  void as_json() const {
    Json runs = Json::array(), settings = Json::array(), matches = Json::array();
    for (size_t i = 0; i < runs_.size(); ++i) {
      Json r = {{"label", c_.labels[i]},
                {"kind", runs_[i].kind},
                {"device", runs_[i].device_name},
                {"started", runs_[i].provenance.started},
                {"boundary", runs_[i].boundary}};
      if (runs_[i].kind == "published") r["note"] = lab::kPublishedNote;
      runs.push_back(r);
    }
    for (const lab::ComparedSetting& s : c_.settings) settings.push_back(row(s));
    for (const lab::SettingMatch& m : c_.matches) {
      Json entries = Json::array();
      for (const lab::ComparedSetting& s : m.entries) entries.push_back(row(s));
      matches.push_back({{"setting", m.setting}, {"note", m.note}, {"runs", entries}});
    }
    Json out = {{"baseline", c_.baseline.empty() ? Json(nullptr) : Json(c_.baseline)},
                {"runs", runs},
                {"settings", settings},
                {"setting_for_setting", matches},
                {"notes", c_.notes}};
    if (o_.prices.any()) out["currency"] = o_.prices.currency;
    print(out);
  }

  void as_text() {
    head("against " + (c_.baseline.empty() ? "each table's own baseline" : c_.baseline));
    for (const lab::ComparedSetting& s : c_.settings)
      if (runs_[s.run].kind != "published") line(c_.labels[s.run], s);
    bool any = false;
    for (const lab::ComparedSetting& s : c_.settings) {
      if (runs_[s.run].kind != "published") continue;
      if (!any) std::printf("\n%s\n", lab::kPublishedNote);
      any = true;
      line(c_.labels[s.run], s);
    }
    if (!c_.matches.empty()) {
      std::printf("\n");
      head("setting for setting, against the run named first");
      for (const lab::SettingMatch& m : c_.matches) {
        for (const lab::ComparedSetting& s : m.entries) line(c_.labels[s.run], s);  // the first stands at 1
        if (!m.note.empty()) std::printf("  note: %s\n", report::clean(m.note).c_str());
      }
    }
    for (const std::string& n : c_.notes) std::printf("note: %s\n", report::clean(n).c_str());
    for (size_t i = 0; i < reasons_.size(); ++i)
      std::printf("n/a(%zu): %s\n", i + 1, report::clean(reasons_[i]).c_str());
  }

 private:
  // Left-aligned text, padded by characters and not by bytes.
  static std::string padded(const std::string& text, size_t width, bool right = false) {
    std::string t = report::clean(text, width > 1 ? width - 1 : width);
    const size_t n = report::characters(t);
    const std::string pad(n < width ? width - n : 0, ' ');
    return right ? pad + t : t + pad;
  }
  std::string figure(const Reading& r, const std::function<std::string(double)>& format) {
    if (r.ok()) return format(*r);
    const std::string reason = r.reason.empty() ? "not recorded" : r.reason;
    auto at = std::find(reasons_.begin(), reasons_.end(), reason);
    if (at == reasons_.end()) at = reasons_.insert(at, reason);
    return "n/a(" + std::to_string(at - reasons_.begin() + 1) + ")";
  }
  std::vector<std::string> regions() const {
    std::vector<std::string> names;
    for (const lab::ComparedSetting& s : c_.settings)
      for (const lab::QualityDelta& q : s.quality)
        if (q.metric == "dice" && std::find(names.begin(), names.end(), q.region) == names.end())
          names.push_back(q.region);
    return names;
  }
  static size_t region_width(const std::string& region) {
    return std::max<size_t>(9, report::characters(region) + 8);
  }
  void head(const std::string& what) {
    std::printf("%s\n%s%s%s%s%s%s", report::clean(what).c_str(), padded("run", run_width_).c_str(),
                padded("setting", setting_width_).c_str(), padded("s/case", 10, true).c_str(),
                padded("speed", 9, true).c_str(), padded("kJ/case", 10, true).c_str(),
                padded("energy", 9, true).c_str());
    for (const std::string& r : regions())
      std::printf("%s", padded("dDice " + r, region_width(r), true).c_str());
    if (o_.prices.per_hour || o_.prices.per_kwh)
      std::printf("%s", padded(o_.prices.currency + "/1000", 12, true).c_str());
    if (o_.prices.co2_g_per_kwh) std::printf("%s", padded("kg CO2/1000", 13, true).c_str());
    std::printf("  verdict\n");
  }
  void line(const std::string& label, const lab::ComparedSetting& s) {
    const lab::SettingSummary& setting = runs_[s.run].settings[s.setting];
    const auto plain = [](double v) { return report::significant(v); };
    const auto kj = [](double v) { return report::significant(v / 1000); };
    const auto thousand = [](double v) { return report::significant(1000 * v); };
    std::printf("%s%s%s%s%s%s", padded(label, run_width_).c_str(),
                padded(setting.name, setting_width_).c_str(),
                padded(figure(lab::seconds_per_case(runs_[s.run], setting), plain), 10, true).c_str(),
                padded(figure(s.speed_x.value, report::times), 9, true).c_str(),
                padded(figure(lab::metered_energy(runs_[s.run], setting).j_per_case, kj), 10, true).c_str(),
                padded(figure(s.energy_x.value, report::times), 9, true).c_str());
    for (const std::string& region : regions()) {
      Reading delta = Reading::unavailable(lab::missing_reason(runs_[s.run], setting));
      for (const lab::QualityDelta& q : s.quality)
        if (q.metric == "dice" && q.region == region) delta = q.delta.value;
      std::printf("%s", padded(figure(delta, [](double v) { return report::fixed(v, 4, true); }),
                               region_width(region), true)
                            .c_str());
    }
    if (o_.prices.per_hour || o_.prices.per_kwh)
      std::printf("%s", padded(figure(s.cost.total, thousand), 12, true).c_str());
    if (o_.prices.co2_g_per_kwh)
      std::printf("%s",
                  padded(figure(s.cost.co2_g, plain), 13, true).c_str());  // g per case = kg per 1000 cases
    std::printf("  %s\n", s.is_baseline ? (c_.baseline == c_.labels[s.run] + ":" + setting.name ? "baseline"
                                                                                                : "reference")
                          : setting.verdict                       ? to_string(*setting.verdict)
                          : setting.name == runs_[s.run].baseline ? "baseline of its run"
                                                                  : "not judged");
  }

  const Options& o_;
  const std::vector<lab::RunSummary>& runs_;
  const lab::Comparison& c_;
  size_t run_width_ = 8, setting_width_ = 10;
  std::vector<std::string> reasons_;
};

Status compare_runs(const Options& o) {
  if (std::any_of(o.runs.begin(), o.runs.end(), bench::is_bench_file)) {
    if (!o.baseline.empty() || o.prices.per_kwh || o.prices.co2_g_per_kwh)
      return Error{ErrorCode::kInvalidArgument, "is not for bench results",
                   "--baseline, --price-per-kwh, --co2-g-per-kwh", ""};
    return compare_bench({o.runs, o.prices.per_hour, o.max_p99_ms, o.output.json, o.output.quiet});
  }
  if (o.max_p99_ms)
    return Error{ErrorCode::kInvalidArgument, "is for results of 'isoline bench'", "--max-p99-ms", ""};
  std::vector<lab::RunSummary> runs;
  for (const std::string& path : o.runs) {
    ISOLINE_ASSIGN(lab::RunSummary run, lab::read_summary(path));
    runs.push_back(std::move(run));
  }
  ISOLINE_ASSIGN(const lab::Comparison comparison, lab::compare(runs, o.runs, {o.baseline, o.prices}));
  Printer printer(o, runs, comparison);
  if (o.output.json)
    printer.as_json();
  else if (!o.output.quiet)
    printer.as_text();
  return {};
}

}  // namespace

Action add_compare(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option(
         "runs", o->runs,
         "Run folders, summary.json files, published tables (docs/reference), or results of isoline bench")
      ->required()
      ->type_name("RUN");
  app.add_option("--baseline", o->baseline,
                 "RUN[:SETTING] everything is compared with (default: the first run's)");
  app.add_option("--max-p99-ms", o->max_p99_ms,
                 "Bench results: recommend only loads whose p99 is at most this")
      ->check(CLI::PositiveNumber);
  add_price_options(app, o->prices);
  add_output_options(app, o->output);
  return [o]() -> Status { return compare_runs(*o); };
}

}  // namespace isoline::cli
