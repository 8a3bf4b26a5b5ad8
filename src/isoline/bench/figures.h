// From single requests to figures: percentiles, throughput, stability. Pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "isoline/bench/result.h"

namespace isoline::bench {

// `ms`: latencies in the order in which the answers came. n = 0 for none. Quantile q is given where
// n (1 - q) >= 1: .9 from 10 on, .999 from 1000 on.
Latency latency_figures(std::span<const double> ms);

// Events a second over [begin, end): `at` ascending, same clock. The interval comes from 20 equal slices; it
// is left out where they would hold fewer than 5 events each on average.
Interval rate_figure(std::span<const int64_t> at_ns, int64_t begin_ns, int64_t end_ns);

// What one window of a measurement gave.
struct WindowFigures {
  double requests_per_s = 0, mean_latency_ms = 0;
};
inline constexpr size_t kStableWindows = 3;
// Stable: throughput and mean latency of each of the last three windows lie within `tolerance` (0.1: 10 %) of
// their mean over the three, as perf_analyzer demands. Else one sentence that says what moves; "" if stable.
std::string why_unstable(std::span<const WindowFigures> windows, double tolerance);

}  // namespace isoline::bench
