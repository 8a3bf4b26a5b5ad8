// How many forward passes of a scan run at a time, and when that is worth choosing again: sessions are made
// for one batch. Host code without CUDA.
#pragma once

#include <algorithm>
#include <cstdint>

#include "isoline/backends/cuda/scan_elements.h"

namespace isoline::cuda {

class BatchChooser {
 public:
  explicit BatchChooser(int asked) : most_(std::min(asked > 0 ? asked : kPreferredBatch, kMaxBatch)) {}
  // The batch that a scan of so many forward passes would like: no more than it has.
  int wanted(int64_t units) const { return int(std::min<int64_t>(most_, std::max<int64_t>(units, 1))); }
  // Sessions must be made for this scan: there are none yet, or those were made for scans that had too few
  // forward passes, and passes enough have run since in batches smaller than they could. (Too little memory
  // is no reason to try again.)
  bool due(int64_t units) {
    if (!chosen_for_) return true;
    if (wanted(units) > chosen_for_) missed_ += units;
    return missed_ >= kWorthNewSessions;
  }
  // Sessions were made for a scan that wanted this batch (and may have got a smaller one).
  void chosen(int wanted) { chosen_for_ = wanted, missed_ = 0; }
  // There are no sessions.
  void forget() { chosen_for_ = 0; }
  // No scan can want a larger batch.
  bool settled() const { return chosen_for_ == most_; }

 private:
  static constexpr int kPreferredBatch = 4;
  // A forward pass in batches of 4 saves a tenth, making sessions costs a few dozen passes.
  static constexpr int64_t kWorthNewSessions = 64;
  int most_;
  int chosen_for_ = 0;
  int64_t missed_ = 0;
};

}  // namespace isoline::cuda
