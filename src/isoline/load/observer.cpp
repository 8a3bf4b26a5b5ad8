#include "isoline/load/observer.h"

#include <algorithm>

namespace isoline::load {

Observer::Observer(Target& target, measure::Meter* meter, size_t span)
    : target_(target), meter_(meter), span_(span), thread_([this] { work(); }) {}

Observer::~Observer() {
  finish();
}

void Observer::mark() {
  {
    std::lock_guard lock(mutex_);
    ++marked_;
  }
  changed_.notify_one();
}

void Observer::finish() {
  {
    std::lock_guard lock(mutex_);
    finishing_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void Observer::work() {
  size_t seen = 0;
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return finishing_ || marked_ > seen; });
    if (marked_ == seen) break;
    ++seen;
    lock.unlock();
    read();
    lock.lock();
  }
  lock.unlock();
  // Where there were fewer windows than a report spans, it covers those there were.
  if (meter_)
    for (; closed_ < tokens_.size(); ++closed_) {
      auto report = meter_->end(tokens_[closed_]);
      if (!report_ && closed_ + 1 < tokens_.size() && report.ok()) report_ = std::move(*report);
    }
}

void Observer::read() {
  if (meter_) {
    tokens_.push_back(meter_->begin(measure::Phase::kAny));
    if (tokens_.size() > span_) {
      auto report = meter_->end(tokens_[closed_++]);  // waits for the counter's next tick
      if (report.ok())
        report_ = std::move(*report);
      else
        report_.reset();
    }
  }
  counts_.push_back(target_.counts());
}

Result<ServerCounts> Observer::counts(size_t windows) const {
  if (windows == 0 || counts_.size() <= windows)
    return Error{ErrorCode::kInternal, "there were no windows", "statistics", ""};
  const auto& later = counts_.back();
  const auto& earlier = counts_[counts_.size() - 1 - windows];
  if (!later.ok()) return later.error();
  if (!earlier.ok()) return earlier.error();
  return difference(*later, *earlier);
}

ServerCounts difference(const ServerCounts& later, const ServerCounts& earlier) {
  ServerCounts d = later;
  d.inferences -= earlier.inferences;
  d.executions -= earlier.executions;
  const auto less = [](ServerCounts::Duration& a, const ServerCounts::Duration& b) {
    a.count -= b.count;
    a.ns -= b.ns;
  };
  less(d.success, earlier.success), less(d.fail, earlier.fail), less(d.queue, earlier.queue);
  less(d.compute_input, earlier.compute_input), less(d.compute_infer, earlier.compute_infer);
  less(d.compute_output, earlier.compute_output);
  return d;
}

}  // namespace isoline::load
