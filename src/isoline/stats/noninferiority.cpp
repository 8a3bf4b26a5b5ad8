#include "isoline/stats/noninferiority.h"

#include <algorithm>
#include <boost/math/distributions/normal.hpp>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "isoline/stats/describe.h"

namespace isoline {
namespace {

// A resample's spread counts as at least this fraction of the sample's. Without it, values that are nearly
// all equal give resamples of one repeated value, an infinite deviation and no bound at all.
constexpr double kLeastSpread = 0.1;

std::string number(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", v);
  return text;
}

// Studentised deviations of `resamples` bootstrap means from the mean, ascending.
std::vector<double> bootstrap_t(std::span<const double> values, double center,
                                const BootstrapOptions& options) {
  const size_t n = values.size();
  std::mt19937_64 random(options.seed);
  const double least_error = kLeastSpread * standard_deviation(values) / std::sqrt(double(n));
  std::vector<double> t(size_t(options.resamples), 0.0);
  for (double& out : t) {
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; ++i) {
      // Multiply-shift instead of std::uniform_int_distribution, whose results differ between libraries.
      const size_t pick = size_t((static_cast<unsigned __int128>(random()) * n) >> 64);
      const double d = values[pick] - center;
      sum += d;
      squares += d * d;
    }
    const double m = sum / double(n);
    const double variance = (squares - sum * m) / double(n - 1);
    out = m / std::max(std::sqrt(std::max(variance, 0.0) / double(n)), least_error);
  }
  std::sort(t.begin(), t.end());
  return t;
}

// Order statistic at or above q: never less cautious than an interpolation.
double at_level(const std::vector<double>& sorted, double q) {
  const auto i = size_t(std::ceil(q * double(sorted.size())));
  return sorted[std::clamp<size_t>(i, 1, sorted.size()) - 1];
}

}  // namespace

const char* to_string(Verdict v) {
  switch (v) {
    case Verdict::kPreserved:
      return "preserved";
    case Verdict::kNotPreserved:
      return "not preserved";
    case Verdict::kInconclusive:
      break;
  }
  return "inconclusive";
}

std::string bound_method(const BootstrapOptions& options) {
  return "the more cautious of Student's t (95 %) and bootstrap-t (97.5 %, " +
         std::to_string(options.resamples) + " resamples, seed " + std::to_string(options.seed) + ")";
}

std::optional<MeanBounds> mean_bounds(std::span<const double> values, const BootstrapOptions& options) {
  if (values.size() < 2) return std::nullopt;
  MeanBounds b;
  b.n = int(values.size());
  b.mean = mean(values);
  b.sd = standard_deviation(values);
  const double error = b.sd / std::sqrt(double(b.n));
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  if (*least == *most) {
    b.mean = b.lower = b.upper = b.low = b.high = *least;
    b.sd = 0;
    return b;
  }
  const boost::math::students_t student(b.n - 1);
  const double t95 = boost::math::quantile(student, 0.95), t975 = boost::math::quantile(student, 0.975);
  const std::vector<double> t = bootstrap_t(values, b.mean, options);
  const double right = at_level(t, 0.975), left = at_level(t, 0.025);
  b.lower = b.mean - error * std::max(t95, right);
  b.upper = b.mean + error * std::max(t95, -left);
  b.low = b.mean - error * std::max(t975, right);
  b.high = b.mean + error * std::max(t975, -left);
  return b;
}

int cases_needed(double sd, double delta, double power) {
  const boost::math::normal normal;
  const double z = boost::math::quantile(normal, 0.95) + boost::math::quantile(normal, power);
  const double n = std::ceil(std::pow(z * sd / delta, 2));
  return std::max(kMinimumCases, n < 1e9 ? int(n) : int(1e9));
}

Decision decide_noninferiority(std::span<const double> differences, double delta,
                               const BootstrapOptions& options) {
  Decision d;
  d.bounds = mean_bounds(differences, options);
  if (!d.bounds) {
    d.why = std::to_string(differences.size()) + " case(s): no bound can be computed";
    return d;
  }
  const MeanBounds& b = *d.bounds;
  d.n_needed_80 = cases_needed(b.sd, delta, 0.80);
  d.n_needed_90 = cases_needed(b.sd, delta, 0.90);
  if (b.upper < -delta) {
    d.verdict = Verdict::kNotPreserved;
    d.why = "the mean change is " + number(b.mean) + " and, at 95 %, at most " + number(b.upper) +
            ", below -" + number(delta);
  } else if (b.lower > -delta && b.n >= kMinimumCases) {
    d.verdict = Verdict::kPreserved;
    d.why = "the mean change is " + number(b.mean) + " and, at 95 %, at least " + number(b.lower) +
            ", above -" + number(delta);
  } else if (b.lower > -delta) {
    d.why = std::to_string(b.n) + " cases are too few to say preserved (at least " +
            std::to_string(kMinimumCases) + ")";
  } else {
    d.why = "the mean change is " + number(b.mean) + ", between " + number(b.lower) + " and " +
            number(b.upper) + " at 95 %: -" + number(delta) + " lies between";
  }
  return d;
}

}  // namespace isoline
