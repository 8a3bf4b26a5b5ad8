#include "isoline/bench/page.h"

#include <algorithm>

#include "isoline/report/format.h"

namespace isoline::bench {
namespace {

using report::plain;
using report::significant;
using report::sub;
using report::Text;

Text figure(const Interval& i) {
  Text out = plain(significant(i.value));
  if (i.low && i.high) out = out + sub(significant(*i.low) + " – " + significant(*i.high));
  return out;
}

Text cell(report::Table& table, const Reading& r) {
  return r.ok() ? plain(significant(*r)) : table.unavailable(r.reason);
}

std::string shapes(const std::vector<Tensor>& tensors) {
  std::string out;
  for (const Tensor& t : tensors) {
    out += (out.empty() ? "" : "; ") + t.name + " " + t.datatype + " [";
    for (size_t i = 0; i < t.shape.size(); ++i)
      out += (i ? ", " : "") + (t.shape[i] < 0 ? std::string("any") : std::to_string(t.shape[i]));
    out += "]";
  }
  return out;
}

Text state(report::Table& table, const Point& p) {
  Text out = p.stable ? report::badge(report::Tone::kGood, "stable")
                      : report::badge(report::Tone::kWarn, "not stable") + table.mark(p.why_unstable);
  for (const auto& [status, count] : p.errors) out = out + sub(std::to_string(count) + " × " + status);
  return out;
}

report::Cards cards(const BenchResult& result) {
  report::Cards out;
  const Point *fastest = nullptr, *quickest = nullptr;
  for (const Point& p : result.points) {
    if (!p.stable || p.latency_ms.n == 0) continue;
    if (!fastest || p.inferences_per_s.value > fastest->inferences_per_s.value) fastest = &p;
    if (const Interval* m = p.latency_ms.quantile(.5))
      if (!quickest || m->value < quickest->latency_ms.quantile(.5)->value) quickest = &p;
  }
  if (fastest)
    out.cards.push_back({"most inferences a second", significant(fastest->inferences_per_s.value),
                         load_name(*fastest), report::Tone::kInfo});
  if (quickest)
    out.cards.push_back({"shortest median latency",
                         significant(quickest->latency_ms.quantile(.5)->value) + " ms", load_name(*quickest),
                         report::Tone::kInfo});
  if (result.round_trip_ms.ok())
    out.cards.push_back({"round trip without work", significant(*result.round_trip_ms) + " ms",
                         "health request, median", report::Tone::kPlain});
  return out;
}

report::Table latency_table(const BenchResult& result) {
  report::Table t;
  t.caption = "Throughput and latency. Below each figure its 95 % interval.";
  t.columns = {{"load", report::Align::kLeft, ""}, {"inferences/s", report::Align::kRight, ""}};
  for (const char* name : {"mean", "median", "p90", "p95", "p99", "p99.9"})
    t.columns.push_back({name, report::Align::kRight, "latency, ms"});
  t.columns.push_back({"requests", report::Align::kRight, ""});
  t.columns.push_back({"state", report::Align::kLeft, ""});
  for (const Point& p : result.points) {
    report::Table::Row row;
    row.cells = {plain(load_name(p)), figure(p.inferences_per_s)};
    row.cells.push_back(p.latency_ms.n ? figure(p.latency_ms.mean) : t.unavailable("nothing was answered"));
    for (double q : {.5, .9, .95, .99, .999}) {
      const Interval* i = p.latency_ms.quantile(q);
      row.cells.push_back(i ? figure(*i) : t.unavailable("too few requests for this percentile"));
    }
    row.cells.push_back(plain(std::to_string(p.latency_ms.n)));
    row.cells.push_back(state(t, p));
    t.rows.push_back(std::move(row));
  }
  return t;
}

report::Table parts_table(const BenchResult& result) {
  report::Table t;
  t.caption =
      "Where a request's time goes: means, ms. Network holds what the others leave, the server's handling of "
      "bytes included.";
  t.columns = {{"load", report::Align::kLeft, ""}};
  for (const char* name : {"wait", "send", "receive"})
    t.columns.push_back({name, report::Align::kRight, "client"});
  t.columns.push_back({"network", report::Align::kRight, ""});
  for (const char* name : {"queue", "input", "compute", "output"})
    t.columns.push_back({name, report::Align::kRight, "server"});
  for (const Point& p : result.points) {
    const Parts& m = p.parts_ms;
    report::Table::Row row;
    row.cells.push_back(plain(load_name(p)));
    for (const Reading* r : {&m.client_wait, &m.client_send, &m.client_receive, &m.network, &m.queue,
                             &m.compute_input, &m.compute_infer, &m.compute_output})
      row.cells.push_back(cell(t, *r));
    t.rows.push_back(std::move(row));
  }
  return t;
}

report::Table cost_table(const BenchResult& result) {
  report::Table t;
  t.caption = "Energy, memory and price.";
  t.columns = {{"load", report::Align::kLeft, ""},
               {"GPU power, W", report::Align::kRight, ""},
               {"GPU", report::Align::kRight, "J per 1000 inferences"},
               {"CPU packages", report::Align::kRight, "J per 1000 inferences"},
               {"peak VRAM", report::Align::kRight, ""},
               {result.currency + " per 1000", report::Align::kRight, ""},
               {"client CPU, cores", report::Align::kRight, ""}};
  for (const Point& p : result.points)
    t.rows.push_back(
        {{plain(load_name(p)), cell(t, p.gpu_power_w), cell(t, p.j_per_1000), cell(t, p.cpu_j_per_1000),
          p.peak_vram_bytes.ok() ? plain(report::bytes(*p.peak_vram_bytes))
                                 : t.unavailable(p.peak_vram_bytes.reason),
          cell(t, p.price_per_1000), cell(t, p.client_cpu_s_per_s)},
         false});
  return t;
}

// The figures as drawings.
void add_charts(const BenchResult& result, std::vector<report::Block>& blocks) {
  std::vector<report::BarRow> rate, percentiles;
  std::vector<report::ScatterPoint> trade;
  std::vector<report::StackRow> parts;
  for (const Point& p : result.points) {
    if (p.latency_ms.n == 0) continue;
    report::BarRow row;
    row.label = load_name(p);
    row.value = p.inferences_per_s.value;
    row.text = significant(p.inferences_per_s.value) + "/s";
    row.muted = !p.stable;
    rate.push_back(row);
    report::BarRow latency;
    latency.label = load_name(p);
    latency.muted = !p.stable;
    for (const Quantile& q : p.latency_ms.quantiles) {
      if (q.q == .5) latency.value = q.ms.value;
      if (q.q == .99) latency.second = q.ms.value;
      if (q.q != .5 && q.q != .99) latency.points.push_back(q.ms.value);
    }
    if (latency.value) {
      latency.text = "median " + significant(*latency.value) +
                     (latency.second ? ", p99 " + significant(*latency.second) : "") + " ms";
      percentiles.push_back(latency);
      trade.push_back({load_name(p), latency.second ? *latency.second : p.latency_ms.max,
                       p.inferences_per_s.value, p.stable});
    }
    const Parts& m = p.parts_ms;
    if (!m.network.ok()) continue;
    const auto value = [](const Reading& r) { return r.ok() ? *r : 0.0; };
    parts.push_back(
        {load_name(p),
         {value(m.client_wait) + value(m.client_send) + value(m.client_receive), *m.network, value(m.queue),
          value(m.compute_input) + value(m.compute_infer) + value(m.compute_output)},
         significant(p.latency_ms.mean.value) + " ms"});
  }
  if (rate.empty()) return;
  blocks.push_back(report::Figure{"throughput", "Inferences a second under each load.",
                                  report::bar_chart("Throughput", "inferences/s", rate)});
  if (!percentiles.empty())
    blocks.push_back(report::Figure{
        "latency", "Latency: the bar ends at the median, the mark is p99, dots are p90, p95 and p99.9.",
        report::bar_chart("Latency", "ms", percentiles)});
  if (trade.size() > 1)
    blocks.push_back(report::Figure{
        "trade-off", "Throughput against p99 (the longest latency where there is none); filled: stable.",
        report::scatter_chart("Trade-off", "p99, ms", "inferences/s", trade)});
  if (!parts.empty())
    blocks.push_back(report::Figure{
        "parts", "Mean latency and what it is made of.",
        report::stacked_chart("Parts", "ms", {"client", "network", "queue", "compute"}, parts)});
}

report::Terms setup(const BenchResult& r) {
  report::Terms t;
  const auto add = [&](const char* name, const std::string& value) {
    if (!value.empty()) t.entries.emplace_back(name, plain(value));
  };
  add("Model", r.model + (r.model_version.empty() ? "" : " version " + r.model_version) +
                   (r.platform.empty() ? "" : ", " + r.platform));
  add("Inputs", shapes(r.inputs));
  add("Outputs", shapes(r.outputs));
  const bool small = r.request_bytes < (64 << 10);
  add("Requests",
      r.payload + ", " +
          (small ? std::to_string(r.request_bytes) + " bytes" : report::bytes(double(r.request_bytes))) +
          " a sample");
  add("Server", r.server_name + " " + r.server_version);
  add("Protocol", r.protocol + (r.tls ? " under TLS" : ""));
  add("The clock", r.boundary);
  add("Round trip", r.round_trip_ms.ok()
                        ? significant(*r.round_trip_ms) + " ms, median of health requests before any load"
                        : "not available: " + r.round_trip_ms.reason);
  add("Windows",
      significant(r.window_s) + " s each after " + significant(r.warmup_s) +
          " s of warm-up that is not counted, until throughput and mean latency of three lie within " +
          report::percent(r.stability) + " of their mean; these three are reported");
  add("Energy", r.energy_source);
  for (const auto& [name, value] : r.machine) t.entries.emplace_back("This machine: " + name, plain(value));
  add("Made by", "isoline " + r.isoline_version + " " + r.commit + ", " + r.created);
  return t;
}

}  // namespace

report::Document make_page(const BenchResult& result, const std::string& title) {
  report::Document d;
  d.title = title.empty() ? result.model + " under load" : title;
  d.subtitle = result.server_name + ", " + result.protocol + ", " + result.device;
  if (auto c = cards(result); !c.cards.empty()) d.blocks.push_back(std::move(c));
  d.blocks.push_back(report::Heading{2, "Throughput and latency"});
  d.blocks.push_back(latency_table(result));
  add_charts(result, d.blocks);
  d.blocks.push_back(report::Heading{2, "Where the time goes"});
  d.blocks.push_back(parts_table(result));
  d.blocks.push_back(report::Heading{2, "Energy and price"});
  d.blocks.push_back(cost_table(result));
  if (!result.remarks.empty()) {
    report::Bullets bullets;
    for (const std::string& r : result.remarks) bullets.items.push_back(plain(r));
    d.blocks.push_back(report::Heading{2, "Remarks"});
    d.blocks.push_back(std::move(bullets));
  }
  d.blocks.push_back(report::Heading{2, "Setup"});
  d.blocks.push_back(setup(result));
  return d;
}

}  // namespace isoline::bench
