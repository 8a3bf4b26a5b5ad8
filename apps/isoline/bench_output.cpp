#include "bench_output.h"

#include <algorithm>
#include <cstdio>

#include "cli.h"
#include "isoline/bench/compare.h"
#include "isoline/lab/compare.h"
#include "isoline/report/format.h"

namespace isoline::cli {
namespace {

using report::significant;

// A table of text whose columns are as wide as they must be; the first is left-aligned, the last too.
class TextTable {
 public:
  void add(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  void print() const {
    std::vector<size_t> width;
    for (const auto& row : rows_)
      for (size_t i = 0; i < row.size(); ++i) {
        if (i >= width.size()) width.push_back(0);
        width[i] = std::max(width[i], report::characters(row[i]));
      }
    for (const auto& row : rows_) {
      std::string line;
      for (size_t i = 0; i < row.size(); ++i) {
        const std::string pad(width[i] - report::characters(row[i]), ' ');
        const bool left = i == 0 || i + 1 == row.size();
        line += (i ? "  " : "") + (left ? row[i] + pad : pad + row[i]);
      }
      while (!line.empty() && line.back() == ' ') line.pop_back();
      std::printf("%s\n", line.c_str());
    }
  }

 private:
  std::vector<std::vector<std::string>> rows_;
};

// Reasons for figures that are missing, numbered; each is printed once below the tables.
class Reasons {
 public:
  std::string figure(const Reading& r) {
    if (r.ok()) return significant(*r);
    return mark(r.reason.empty() ? "not recorded" : r.reason);
  }
  std::string mark(const std::string& reason) {
    auto at = std::find(reasons_.begin(), reasons_.end(), reason);
    if (at == reasons_.end()) at = reasons_.insert(at, reason);
    return "n/a(" + std::to_string(at - reasons_.begin() + 1) + ")";
  }
  void print() const {
    for (size_t i = 0; i < reasons_.size(); ++i)
      std::printf("n/a(%zu): %s\n", i + 1, report::clean(reasons_[i]).c_str());
  }

 private:
  std::vector<std::string> reasons_;
};

std::string quantile(const bench::Point& p, double q, Reasons& reasons) {
  const bench::Interval* i = p.latency_ms.quantile(q);
  return i ? significant(i->value) : reasons.mark("too few requests for this percentile");
}

std::string state(const bench::Point& p) {
  std::string out = p.stable ? "stable" : "not stable";
  for (const auto& [status, count] : p.errors) out += ", " + std::to_string(count) + " " + status;
  return report::clean(out);
}

Json to_json(const Reading& r) {
  return r.ok() ? Json{{"value", *r}}
                : Json{{"value", nullptr}, {"reason", r.reason.empty() ? "not recorded" : r.reason}};
}
Json with_interval(const Reading& r, const bench::Interval& i) {
  Json j = to_json(r);
  if (r.ok() && i.low && i.high) j["interval_95"] = {*i.low, *i.high};
  return j;
}

// `published`: latency tables of docs/reference, shown beside and never divided by.
void print_comparison(const bench::Comparison& c, const std::vector<bench::BenchResult>& results,
                      const std::vector<lab::RunSummary>& published) {
  TextTable table;
  Reasons reasons;
  table.add({"load", "result", "inf/s", "ratio", "interval", "p50 ms", "p99 ms", "ratio", "J/1000", "ratio",
             "price/1000", "state"});
  for (const bench::Row& row : c.rows)
    for (const bench::Cell& cell : row.cells) {
      const bench::Point& p = results[cell.result].points[cell.point];
      const bench::Interval& x = cell.throughput_x;
      table.add({row.load, report::clean(c.labels[cell.result]), significant(p.inferences_per_s.value),
                 reasons.figure(cell.throughput_ratio),
                 x.low && x.high ? significant(*x.low) + "–" + significant(*x.high) : "",
                 quantile(p, .5, reasons), quantile(p, .99, reasons), reasons.figure(cell.p99_ratio),
                 reasons.figure(p.j_per_1000), reasons.figure(cell.energy_ratio),
                 reasons.figure(cell.price_per_1000), state(p)});
    }
  table.print();
  if (!published.empty()) {
    std::printf("\n%s\n", lab::kPublishedNote);
    TextTable beside;
    beside.add({"table", "setting", "batch", "mean ms", "p50 ms", "p95 ms", "p99 ms"});
    for (const lab::RunSummary& run : published)
      for (const lab::SettingSummary& s : run.settings) {
        const auto batch = s.values.find("batch");
        const auto optional = [&](const std::optional<double>& v) {
          return v ? significant(*v) : reasons.mark("not given by the source");
        };
        const bool any = s.window_ms.n > 0;
        const std::string none = any ? "" : reasons.mark("not given by the source");
        beside.add(
            {report::clean(run.device_name), report::clean(s.name),
             batch == s.values.end() ? reasons.mark("not given by the source") : report::clean(batch->second),
             any ? significant(s.window_ms.mean) : none, any ? significant(s.window_ms.median) : none,
             optional(s.window_ms.p95), optional(s.window_ms.p99)});
      }
    beside.print();
  }
  for (const auto* list : {&c.differences, &c.notes})
    for (const std::string& note : *list) std::printf("note: %s\n", report::clean(note).c_str());
  reasons.print();
  std::printf("\nrecommended: %s\n", report::clean(c.recommendation.why).c_str());
  for (const std::string& p : c.recommendation.passed_over)
    std::printf("  passed over: %s\n", report::clean(p).c_str());
}

Json comparison_json(const bench::Comparison& c, const std::vector<bench::BenchResult>& results) {
  Json rows = Json::array();
  for (const bench::Row& row : c.rows) {
    Json cells = Json::array();
    for (const bench::Cell& cell : row.cells) {
      const bench::Point& p = results[cell.result].points[cell.point];
      const bench::Interval* p99 = p.latency_ms.quantile(.99);
      cells.push_back({{"result", c.labels[cell.result]},
                       {"inferences_per_s", p.inferences_per_s.value},
                       {"p99_ms", p99 ? Json(p99->value) : Json(nullptr)},
                       {"stable", p.stable},
                       {"throughput_x", with_interval(cell.throughput_ratio, cell.throughput_x)},
                       {"p99_x", with_interval(cell.p99_ratio, cell.p99_x)},
                       {"energy_x", to_json(cell.energy_ratio)},
                       {"price_per_1000", to_json(cell.price_per_1000)}});
    }
    rows.push_back({{"load", row.load}, {"results", cells}});
  }
  const auto& choice = c.recommendation.choice;
  return {{"results", c.labels},
          {"not_comparable", c.differences},
          {"loads", rows},
          {"notes", c.notes},
          {"recommendation",
           {{"result", choice ? Json(c.labels[choice->result]) : Json(nullptr)},
            {"load",
             choice ? Json(bench::load_name(results[choice->result].points[choice->point])) : Json(nullptr)},
            {"why", c.recommendation.why},
            {"passed_over", c.recommendation.passed_over}}}};
}

}  // namespace

void print_bench(const bench::BenchResult& r) {
  Reasons reasons;
  std::printf("%s, %s %s, %s%s, %s\n", report::clean(r.model).c_str(), report::clean(r.server_name).c_str(),
              report::clean(r.server_version).c_str(), r.protocol.c_str(), r.tls ? " under TLS" : "",
              report::clean(r.device).c_str());
  std::printf("round trip without work: %s\n",
              r.round_trip_ms.ok()
                  ? (significant(*r.round_trip_ms) + " ms (median of health requests)").c_str()
                  : reasons.figure(r.round_trip_ms).c_str());
  TextTable table;
  table.add({"load", "inf/s", "95 %", "mean ms", "p50", "p90", "p95", "p99", "p99.9", "J/1000",
             report::clean(r.currency) + "/1000", "state"});
  for (const bench::Point& p : r.points) {
    const bench::Interval& i = p.inferences_per_s;
    table.add({bench::load_name(p), significant(i.value),
               i.low && i.high ? significant(*i.low) + "–" + significant(*i.high) : "",
               p.latency_ms.n ? significant(p.latency_ms.mean.value) : reasons.mark("nothing was answered"),
               quantile(p, .5, reasons), quantile(p, .9, reasons), quantile(p, .95, reasons),
               quantile(p, .99, reasons), quantile(p, .999, reasons), reasons.figure(p.j_per_1000),
               reasons.figure(p.price_per_1000), state(p)});
  }
  table.print();
  std::printf("\nmeans of a request, ms\n");
  TextTable parts;
  parts.add({"load", "wait", "send", "network", "queue", "input", "compute", "output", "receive", ""});
  for (const bench::Point& p : r.points) {
    const bench::Parts& m = p.parts_ms;
    std::vector<std::string> row{bench::load_name(p)};
    for (const Reading* part : {&m.client_wait, &m.client_send, &m.network, &m.queue, &m.compute_input,
                                &m.compute_infer, &m.compute_output, &m.client_receive})
      row.push_back(reasons.figure(*part));
    row.push_back("");
    parts.add(std::move(row));
  }
  parts.print();
  reasons.print();
  for (const std::string& remark : r.remarks) std::printf("note: %s\n", report::clean(remark).c_str());
}

Status compare_bench(const BenchCompareOptions& o) {
  std::vector<bench::BenchResult> results;
  std::vector<lab::RunSummary> published;
  std::vector<std::string> files;
  for (const std::string& file : o.files) {
    if (bench::is_bench_file(file)) {
      ISOLINE_ASSIGN(auto result, bench::read_bench(file));
      results.push_back(std::move(result));
      files.push_back(file);
      continue;
    }
    ISOLINE_ASSIGN(auto run, lab::read_summary(file));
    if (run.kind != "published")
      return Error{ErrorCode::kInvalidArgument, "a run of a sweep and a bench result have nothing in common",
                   file, "Compare runs with runs and bench results with bench results."};
    published.push_back(std::move(run));
  }
  ISOLINE_ASSIGN(const bench::Comparison comparison,
                 bench::compare(results, files, {o.price_per_hour, o.max_p99_ms}));
  if (o.json)
    print(comparison_json(comparison, results));
  else if (!o.quiet)
    print_comparison(comparison, results, published);
  return {};
}

}  // namespace isoline::cli
