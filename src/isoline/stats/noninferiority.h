// Intervals for means of few, oddly distributed values, and the decision built on them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace isoline {

struct BootstrapOptions {
  int resamples = 10'000;
  uint64_t seed = 1;  // same seed, same bounds, on every machine
};

// Bounds of the mean of independent values. Each bound is the more cautious of two:
//   Student's t at level L, and bootstrap-t (studentised bootstrap, Efron & Tibshirani 1993, ch. 12.5) at the
//   stated level. Student's t alone says too much where the values are skewed, the bootstrap alone where they
//   have heavy tails and are few (a resample's spread counts as at least a tenth of the sample's, so that
//   values which are nearly all equal have bounds too); docs/guides/statistics.md has the simulated error
//   rates of both and of this rule.
struct MeanBounds {
  int n = 0;
  double mean = 0, sd = 0;
  // One-sided, 95 % each: t at 95 %, bootstrap-t at 97.5 %.
  double lower = 0, upper = 0;
  // Two-sided, 95 %: t and bootstrap-t at 97.5 % on either side.
  double low = 0, high = 0;
};
// At least two finite values; with fewer there are no bounds (unset). All values equal: bounds are that
// value.
std::optional<MeanBounds> mean_bounds(std::span<const double> values, const BootstrapOptions& options = {});

// Name of the rule, to stand beside every bound.
std::string bound_method(const BootstrapOptions& options = {});

enum class Verdict { kPreserved, kNotPreserved, kInconclusive };
const char* to_string(Verdict v);  // "preserved" | "not preserved" | "inconclusive"

// Fewer cases than this are never enough for "preserved", whatever they say.
inline constexpr int kMinimumCases = 6;

struct Decision {
  Verdict verdict = Verdict::kInconclusive;
  std::optional<MeanBounds> bounds;
  std::string why;  // one sentence with the figures it rests on
  // Cases that would be needed for 80 and 90 % power if nothing is lost in truth, at the spread seen here;
  // unset with fewer than two cases.
  std::optional<int> n_needed_80, n_needed_90;
};

// Non-inferiority of paired differences (setting - baseline, positive: better) at the margin delta > 0:
// preserved if the one-sided 95 % lower bound of their mean is above -delta and there are kMinimumCases;
// not preserved if the upper bound is below -delta; else inconclusive.
Decision decide_noninferiority(std::span<const double> differences, double delta,
                               const BootstrapOptions& options = {});

// Cases needed so that, with no true loss, a one-sided test at 5 % rejects a loss of delta with this power:
// ceil(((z_.95 + z_power) sd / delta)^2), normal approximation, at least kMinimumCases.
int cases_needed(double sd, double delta, double power);

}  // namespace isoline
