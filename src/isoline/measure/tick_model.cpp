#include "isoline/measure/tick_model.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace isoline::measure {
namespace {

constexpr size_t kRun = 5;
constexpr double kSmallestHalf = 1e5;  // 0.1 ms: no clock or bus is trusted further

}  // namespace

void TickModel::reset() {
  valid_ = false;
  run_.clear();
  widest_half_ = jitter_ = 0;
}

void TickModel::observe(int64_t lo_ns, int64_t hi_ns) {
  const double lo = double(lo_ns), hi = double(hi_ns), middle = (lo + hi) / 2;
  const double observed_half = std::max((hi - lo) / 2, kSmallestHalf);
  if (!valid_) {
    if (run_.size() >= 2) {
      const double first = run_[1] - run_[0], now = middle - run_.back();
      if (std::abs(now - first) > first / 4 + observed_half + widest_half_)
        run_.erase(run_.begin(), run_.end() - 1);
    }
    run_.push_back(middle);
    widest_half_ = std::max(run_.size() == 1 ? 0 : widest_half_, observed_half);
    if (run_.size() < kRun) return;
    valid_ = true;
    index_ = kRun - 1;
    ref_ = run_.back();
    first_ = run_.front();
    half_ = first_half_ = widest_half_;
    period_ = (ref_ - first_) / double(index_);
    period_error_ = (half_ + first_half_) / double(index_);
    jitter_ = 0;
    run_.clear();
    return;
  }
  const int64_t steps = int64_t(std::llround((middle - ref_) / period_));
  const double expected = ref_ + double(steps) * period_;
  if (steps <= 0 || std::abs(middle - expected) > period_ / 4) {
    reset();
    run_.push_back(middle);
    widest_half_ = observed_half;
    return;
  }
  // Both intervals hold the tick, so their intersection does. No intersection: the counter is not strictly
  // periodic.
  const double expected_half = half_ + double(steps) * period_error_;
  const double low = std::max(lo, expected - expected_half), high = std::min(hi, expected + expected_half);
  jitter_ = low <= high ? jitter_ * 0.98 : std::max(jitter_, low - high);
  ref_ = (low + high) / 2;
  half_ = std::max(std::abs(high - low) / 2, kSmallestHalf);
  index_ += steps;
  period_ = (ref_ - first_) / double(index_);
  period_error_ = (half_ + first_half_ + jitter_) / double(index_);
}

TickModel::Tick TickModel::tick(int64_t index) const {
  const double at = ref_ + double(index - index_) * period_;
  return {std::llround(at), int64_t(half_ + jitter_ + double(std::llabs(index - index_)) * period_error_)};
}

TickModel::Tick TickModel::last_before(int64_t t_ns) const {
  return tick(index_ + int64_t(std::floor((double(t_ns) - ref_) / period_)));
}

TickModel::Tick TickModel::known_until(int64_t half_ns) const {
  const double room = (double(half_ns) - half_ - jitter_) / std::max(period_error_, 1.0);
  return tick(index_ + int64_t(std::clamp(room, 0.0, 1e6)));
}

TickModel::Tick TickModel::next_after(int64_t t_ns) const {
  return tick(index_ + int64_t(std::floor((double(t_ns) - ref_) / period_)) + 1);
}

}  // namespace isoline::measure
