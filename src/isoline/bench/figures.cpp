#include "isoline/bench/figures.h"

#include <algorithm>
#include <cmath>

#include "isoline/report/format.h"
#include "isoline/stats/describe.h"
#include "isoline/stats/noninferiority.h"
#include "isoline/stats/quantile_interval.h"

namespace isoline::bench {
namespace {

constexpr size_t kBlocks = 20, kLeastPerBlock = 5;
constexpr double kQuantiles[] = {.5, .9, .95, .99, .999};

void bound(Interval& figure, std::span<const double> blocks, double scale) {
  if (const auto b = mean_bounds(blocks)) {
    figure.low = std::max(0.0, b->low * scale);
    figure.high = b->high * scale;
  }
}

}  // namespace

Latency latency_figures(std::span<const double> ms) {
  Latency out;
  out.n = int64_t(ms.size());
  if (ms.empty()) return out;
  out.mean.value = mean(ms);
  if (ms.size() >= kBlocks * kLeastPerBlock) {
    std::vector<double> blocks;
    for (size_t b = 0; b < kBlocks; ++b) {
      const size_t from = ms.size() * b / kBlocks, to = ms.size() * (b + 1) / kBlocks;
      blocks.push_back(mean(ms.subspan(from, to - from)));
    }
    bound(out.mean, blocks, 1);
  }
  std::vector<double> sorted(ms.begin(), ms.end());
  std::sort(sorted.begin(), sorted.end());
  out.min = sorted.front();
  out.max = sorted.back();
  for (double q : kQuantiles) {
    if (double(out.n) * (1 - q) < 1 - 1e-9) continue;
    const QuantileEstimate e = quantile_with_interval(sorted, q);
    out.quantiles.push_back({q, {e.value, e.low, e.high}});
  }
  return out;
}

Interval rate_figure(std::span<const int64_t> at_ns, int64_t begin_ns, int64_t end_ns) {
  Interval out;
  const double seconds = double(end_ns - begin_ns) * 1e-9;
  if (seconds <= 0) return out;
  out.value = double(at_ns.size()) / seconds;
  if (at_ns.size() < kBlocks * kLeastPerBlock) return out;
  std::vector<double> slices(kBlocks);
  for (int64_t t : at_ns) {
    const double slice = double(t - begin_ns) / double(end_ns - begin_ns) * double(kBlocks);
    slices[size_t(std::clamp(slice, 0.0, double(kBlocks - 1)))] += 1;
  }
  bound(out, slices, double(kBlocks) / seconds);
  return out;
}

std::string why_unstable(std::span<const WindowFigures> windows, double tolerance) {
  if (windows.size() < kStableWindows)
    return "only " + std::to_string(windows.size()) + " of the 3 windows that stability takes were measured";
  const auto last = windows.last(kStableWindows);
  const auto spread = [&](double WindowFigures::*figure) {
    double sum = 0, worst = 0;
    for (const WindowFigures& w : last) sum += w.*figure;
    const double centre = sum / double(last.size());
    if (centre <= 0) return 1.0;
    for (const WindowFigures& w : last) worst = std::max(worst, std::abs(w.*figure - centre) / centre);
    return worst;
  };
  const double throughput = spread(&WindowFigures::requests_per_s);
  const double latency = spread(&WindowFigures::mean_latency_ms);
  if (throughput <= tolerance && latency <= tolerance) return "";
  const bool which = throughput > tolerance;
  return std::string(which ? "throughput" : "mean latency") + " of the last three windows is up to " +
         report::percent(which ? throughput : latency) + " from its mean, above " +
         report::percent(tolerance);
}

}  // namespace isoline::bench
