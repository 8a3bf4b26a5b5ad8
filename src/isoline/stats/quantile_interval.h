// Quantiles with intervals from order statistics.
#pragma once

#include <optional>
#include <span>

namespace isoline {

struct QuantileEstimate {
  double value = 0;
  std::optional<double> low, high;  // 95 %; unset where the sample is too small to hold such a bound
};

// Quantile q of `sorted` (ascending, not empty; 0 < q < 1) as quantile_sorted() gives it. The bounds are the
// order statistics X_(r), X_(s) with P(r <= B < s) >= .95 for B ~ Binomial(n, q), at most .025 on either
// side: exact for independent values of any distribution, too narrow for values that depend on their
// neighbours.
QuantileEstimate quantile_with_interval(std::span<const double> sorted, double q);

}  // namespace isoline
