// Locations and spreads of a list of numbers.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace isoline {

// Distribution of a figure; the unit is the caller's.
struct Spread {
  int64_t n = 0;
  double mean = 0, min = 0, q1 = 0, median = 0, q3 = 0, max = 0;
  std::optional<double> p90, p95, p99;  // unset where n does not carry them (n < 10, 20, 100)
};

// Linear interpolation between order statistics (Hyndman & Fan type 7, numpy's default). `sorted` ascending,
// not empty; q in [0, 1].
double quantile_sorted(std::span<const double> sorted, double q);
double median(std::span<const double> values);  // not empty
double mean(std::span<const double> values);    // not empty
// Sample standard deviation (n - 1); 0 for fewer than two values.
double standard_deviation(std::span<const double> values);
Spread describe(std::span<const double> values);  // n = 0 for none

}  // namespace isoline
