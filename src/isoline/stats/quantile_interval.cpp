#include "isoline/stats/quantile_interval.h"

#include <algorithm>
#include <boost/math/distributions/binomial.hpp>
#include <cmath>

#include "isoline/stats/describe.h"

namespace isoline {

QuantileEstimate quantile_with_interval(std::span<const double> sorted, double q) {
  QuantileEstimate out;
  out.value = quantile_sorted(sorted, q);
  const int64_t n = int64_t(sorted.size());
  const boost::math::binomial_distribution<double> below(double(n), q);  // values below the quantile
  const auto at_most = [&](int64_t k) { return k < 0 ? 0.0 : k >= n ? 1.0 : cdf(below, double(k)); };
  // Near the ends by the normal approximation, then exactly.
  const double centre = double(n) * q, half = 1.96 * std::sqrt(double(n) * q * (1 - q));
  int64_t r = std::clamp<int64_t>(int64_t(centre - half), 0, n),
          s = std::clamp<int64_t>(int64_t(centre + half), 0, n);
  while (r > 0 && at_most(r - 1) > .025) --r;
  while (r < n && at_most(r) <= .025) ++r;
  while (s <= n && at_most(s - 1) < .975) ++s;
  while (s > 0 && at_most(s - 2) >= .975) --s;
  if (r >= 1) out.low = sorted[size_t(r - 1)];
  if (s <= n) out.high = sorted[size_t(std::max<int64_t>(s, 1) - 1)];
  return out;
}

}  // namespace isoline
