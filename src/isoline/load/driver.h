// Driver: keeps a channel under load, as a closed or an open loop, in windows, until they are stable.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "isoline/bench/figures.h"
#include "isoline/load/arrivals.h"
#include "isoline/load/channel.h"

namespace isoline::load {

struct LoadPlan {
  bool open_loop = false;
  size_t concurrency = 1;  // closed: requests always under way
  double rate = 0;         // open: requests a second
  Arrivals arrivals = Arrivals::kPoisson;
  uint64_t seed = 1;
  size_t payloads = 1;    // sent in turn
  double warmup_s = 1;    // before the first window, not counted
  double window_s = 2;    // a window also waits for kLeastEnded requests, at most ten times as long
  int max_windows = 10;   // then what there is, called not stable
  double stability = .1;  // bench::why_unstable()
  double answer_timeout_s = 30;
  const std::atomic<bool>* cancel = nullptr;
};
inline constexpr uint64_t kLeastEnded = 10;
// Requests kept in memory; a point ends when it holds so many.
inline constexpr size_t kMostSamples = 4'000'000;

// One answered request. `start_ns`: the intended start in an open loop.
struct Sample {
  int64_t start_ns = 0, begun_ns = 0, sent_ns = 0, first_byte_ns = 0, end_ns = 0;
};

// What came of it, everything in order of completion.
struct LoadRecord {
  std::vector<Sample> samples;         // all that were answered, warm-up and the last ones included
  std::vector<int64_t> boundaries_ns;  // of windows: one more than there are windows
  std::vector<int64_t> error_ends_ns;
  uint64_t sent = 0, unanswered = 0;  // still under way when time was up
  std::map<std::string, uint64_t> errors;
  std::map<std::string, std::string> error_examples;
  std::string why_unstable;
};

// `at_boundary` is called at the beginning of the first window and at the end of each; it must not block. An
// error where the server cannot be reached any more, or for kCancelled.
Result<LoadRecord> drive(Channel& channel, const LoadPlan& plan, const std::function<void()>& at_boundary);

}  // namespace isoline::load
