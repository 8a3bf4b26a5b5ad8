#include "isoline/bench/compare.h"

#include <algorithm>
#include <filesystem>

#include "isoline/report/format.h"

namespace isoline::bench {
namespace {

bool same_tensors(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Tensor& x, const Tensor& y) {
    return x.name == y.name && x.datatype == y.datatype && x.shape == y.shape;
  });
}

// Why figures of the two must not be divided by each other; "" if they may.
std::string why_not_comparable(const BenchResult& a, const BenchResult& b) {
  if (a.model != b.model) return "other models: " + a.model + " and " + b.model;
  if (!same_tensors(a.inputs, b.inputs)) return "the inputs differ in names, types or shapes";
  if (!same_tensors(a.outputs, b.outputs)) return "the outputs differ in names, types or shapes";
  if (a.request_bytes != b.request_bytes)
    return "requests carry other amounts of data: " + std::to_string(a.request_bytes) + " and " +
           std::to_string(b.request_bytes) + " bytes a sample";
  if (a.boundary != b.boundary) return "the clocks' boundaries differ: " + a.boundary + "; " + b.boundary;
  return "";
}

std::vector<std::string> labels_of(const std::vector<BenchResult>& results,
                                   const std::vector<std::string>& files) {
  std::vector<std::string> out;
  for (size_t i = 0; i < results.size(); ++i) {
    std::string label = i < files.size() ? std::filesystem::path(files[i]).stem().string() : "";
    if (label.empty()) label = results[i].server_name + " " + results[i].protocol;
    if (std::find(out.begin(), out.end(), label) != out.end()) label += " (" + std::to_string(i + 1) + ")";
    out.push_back(label);
  }
  return out;
}

// better / other, with the widest interval both sides' bounds allow.
Interval ratio(const Interval& above, const Interval& below) {
  Interval out;
  out.value = above.value / below.value;
  if (above.low && below.high && *below.high > 0) out.low = *above.low / *below.high;
  if (above.high && below.low && *below.low > 0) out.high = *above.high / *below.low;
  return out;
}

Reading price_of(const BenchResult& result, const Point& point, const CompareOptions& options) {
  const auto price = options.price_per_hour ? options.price_per_hour : result.price_per_hour;
  if (!price) return Reading::unavailable("no price was given for " + result.device);
  if (!(point.inferences_per_s.value > 0)) return Reading::unavailable("nothing was answered");
  return Reading::of(*price / 3600 / point.inferences_per_s.value * 1000);
}

uint64_t error_count(const Point& p) {
  uint64_t n = 0;
  for (const auto& [status, count] : p.errors) n += count;
  return n;
}

void add_ratios(Cell& cell, const Point& first, const Point& here, const std::string& why_not) {
  cell.throughput_ratio = cell.p99_ratio = cell.energy_ratio = Reading::unavailable(why_not);
  if (!why_not.empty()) return;
  const auto nothing = Reading::unavailable("nothing was answered");
  cell.throughput_ratio = cell.energy_ratio = nothing;
  if (first.inferences_per_s.value > 0) {
    if (&first != &here)
      cell.throughput_x = ratio(here.inferences_per_s, first.inferences_per_s);
    else
      cell.throughput_x.value = 1;
    cell.throughput_ratio = Reading::of(cell.throughput_x.value);
  }
  const Interval *a = first.latency_ms.quantile(.99), *b = here.latency_ms.quantile(.99);
  cell.p99_ratio = Reading::unavailable("fewer than 100 requests");
  if (a && b && b->value > 0) {
    if (&first != &here)
      cell.p99_x = ratio(*a, *b);
    else
      cell.p99_x.value = 1;
    cell.p99_ratio = Reading::of(cell.p99_x.value);
  }
  if (!first.j_per_1000.ok() || !here.j_per_1000.ok())
    cell.energy_ratio = first.j_per_1000.ok() ? here.j_per_1000 : first.j_per_1000;
  else if (*here.j_per_1000 > 0)
    cell.energy_ratio = Reading::of(*first.j_per_1000 / *here.j_per_1000);
}

std::string unfit(const Point& p, const CompareOptions& options) {
  if (!p.stable) return "not stable: " + p.why_unstable;
  if (const uint64_t n = error_count(p)) return std::to_string(n) + " requests failed";
  const Interval* p99 = p.latency_ms.quantile(.99);
  if (options.max_p99_ms && !p99) return "fewer than 100 requests: no p99";
  if (options.max_p99_ms && p99->value > *options.max_p99_ms)
    return "p99 " + report::significant(p99->value) + " ms is above " +
           report::significant(*options.max_p99_ms) + " ms";
  return "";
}

// The cheapest load that is fit; the fastest where prices are missing.
Recommendation recommend(const Comparison& comparison, const std::vector<BenchResult>& results,
                         const CompareOptions& options) {
  Recommendation out;
  if (!comparison.differences.empty()) {
    out.why = "Nothing is recommended: the results are not comparable.";
    return out;
  }
  std::vector<Cell> fit;
  for (const Row& row : comparison.rows)
    for (const Cell& c : row.cells) {
      const std::string why = unfit(results[c.result].points[c.point], options);
      if (why.empty())
        fit.push_back(c);
      else
        out.passed_over.push_back(comparison.labels[c.result] + ", " + row.load + ": " + why);
    }
  if (fit.empty()) {
    out.why = "No load was stable, without errors and within the limit.";
    return out;
  }
  const bool priced =
      std::all_of(fit.begin(), fit.end(), [](const Cell& c) { return c.price_per_1000.ok(); });
  const bool one_currency = std::all_of(results.begin(), results.end(), [&](const BenchResult& r) {
    return r.currency == results[0].currency;
  });
  const bool by_price = priced && one_currency;
  const auto rate = [&](const Cell& c) { return results[c.result].points[c.point].inferences_per_s.value; };
  const auto better = [&](const Cell& a, const Cell& b) {
    return by_price ? *a.price_per_1000 < *b.price_per_1000 : rate(a) > rate(b);
  };
  const Cell best = *std::min_element(fit.begin(), fit.end(), better);
  const Point& point = results[best.result].points[best.point];
  const std::string limit =
      options.max_p99_ms ? " with p99 at most " + report::significant(*options.max_p99_ms) + " ms" : "";
  out.choice = best;
  out.why =
      comparison.labels[best.result] + ", " + load_name(point) + ": " +
      (by_price ? "the lowest price per 1000 inferences" : "the most inferences a second") + limit + ", " +
      (by_price ? report::significant(*best.price_per_1000) + " " + results[best.result].currency + " at "
                : "") +
      report::significant(rate(best)) + " inferences/s" +
      (by_price  ? "."
       : !priced ? "; prices were not given for all (--price-per-hour)."
                 : "; prices are in different currencies.");
  return out;
}

}  // namespace

Result<Comparison> compare(const std::vector<BenchResult>& results, const std::vector<std::string>& files,
                           const CompareOptions& options) {
  if (results.empty()) return Error{ErrorCode::kInvalidArgument, "there is nothing to compare", "", ""};
  Comparison out;
  out.labels = labels_of(results, files);
  std::vector<std::string> why_not(results.size());
  for (size_t i = 1; i < results.size(); ++i) {
    why_not[i] = why_not_comparable(results[0], results[i]);
    if (!why_not[i].empty())
      out.differences.push_back(out.labels[0] + " and " + out.labels[i] +
                                " are not comparable: " + why_not[i]);
    else if (results[i].payload != results[0].payload)
      out.notes.push_back(out.labels[0] + " and " + out.labels[i] +
                          " were sent other data: " + results[0].payload + "; " + results[i].payload);
    if (results[i].device != results[0].device)
      out.notes.push_back("devices: " + out.labels[0] + " " + results[0].device + ", " + out.labels[i] + " " +
                          results[i].device);
  }
  for (size_t r = 0; r < results.size(); ++r)
    for (size_t p = 0; p < results[r].points.size(); ++p) {
      const Point& point = results[r].points[p];
      const std::string load = load_name(point);
      auto row = std::find_if(out.rows.begin(), out.rows.end(), [&](const Row& x) { return x.load == load; });
      if (row == out.rows.end()) row = out.rows.insert(row, Row{load, {}});
      Cell cell;
      cell.result = r;
      cell.point = p;
      cell.price_per_1000 = price_of(results[r], point, options);
      const Cell& first = row->cells.empty() ? cell : row->cells.front();
      // Two results that differ from the first may still be alike.
      const std::string why = first.result == r ? "" : why_not_comparable(results[first.result], results[r]);
      add_ratios(cell, results[first.result].points[first.point], point, why);
      row->cells.push_back(std::move(cell));
    }
  out.recommendation = recommend(out, results, options);
  return out;
}

}  // namespace isoline::bench
