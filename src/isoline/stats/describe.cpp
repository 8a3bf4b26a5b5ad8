#include "isoline/stats/describe.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace isoline {

double quantile_sorted(std::span<const double> sorted, double q) {
  const double at = q * double(sorted.size() - 1);
  const size_t below = size_t(at);
  if (below + 1 >= sorted.size()) return sorted.back();
  return sorted[below] + (at - double(below)) * (sorted[below + 1] - sorted[below]);
}

double median(std::span<const double> values) {
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  return quantile_sorted(sorted, 0.5);
}

double mean(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / double(values.size());
}

double standard_deviation(std::span<const double> values) {
  if (values.size() < 2) return 0;
  const double m = mean(values);
  double squares = 0;
  for (double v : values) squares += (v - m) * (v - m);
  return std::sqrt(squares / double(values.size() - 1));
}

Spread describe(std::span<const double> values) {
  Spread s;
  s.n = int64_t(values.size());
  if (values.empty()) return s;
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  s.mean = mean(values);
  s.min = sorted.front();
  s.q1 = quantile_sorted(sorted, 0.25);
  s.median = quantile_sorted(sorted, 0.5);
  s.q3 = quantile_sorted(sorted, 0.75);
  s.max = sorted.back();
  if (s.n >= 10) s.p90 = quantile_sorted(sorted, 0.90);
  if (s.n >= 20) s.p95 = quantile_sorted(sorted, 0.95);
  if (s.n >= 100) s.p99 = quantile_sorted(sorted, 0.99);
  return s;
}

}  // namespace isoline
