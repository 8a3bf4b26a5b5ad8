// Observer: what server and meters say at the boundaries of windows, read by a thread of its own so that the
// load is not disturbed.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "isoline/load/channel.h"
#include "isoline/measure/meter.h"

namespace isoline::load {

class Observer {
 public:
  // Both must outlive this; `meter` may be null. `span`: windows behind one meter report.
  Observer(Target& target, measure::Meter* meter, size_t span);
  ~Observer();
  Observer(const Observer&) = delete;
  Observer& operator=(const Observer&) = delete;

  // A boundary is now. Does not block.
  void mark();
  // Waits until all boundaries are read; no mark() may follow.
  void finish();

  // After finish(), of the `windows` last windows (at most `span` with a meter): the difference of the
  // counts, and the meter's report.
  Result<ServerCounts> counts(size_t windows) const;
  const std::optional<measure::WindowReport>& metered() const { return report_; }

 private:
  void work();
  void read();

  Target& target_;
  measure::Meter* const meter_;
  const size_t span_;
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t marked_ = 0;
  bool finishing_ = false;
  // Of the thread until finish().
  std::vector<Result<ServerCounts>> counts_;
  std::vector<int64_t> tokens_;  // of meter windows that began at each boundary
  size_t closed_ = 0;            // of them
  std::optional<measure::WindowReport> report_;
  std::thread thread_;
};

ServerCounts difference(const ServerCounts& later, const ServerCounts& earlier);

}  // namespace isoline::load
