// How waiting requests become batches: when to run, gathering inputs, splitting outputs. Pure functions.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "isoline/base/buffer.h"
#include "isoline/base/result.h"
#include "isoline/engine/tensor_model.h"
#include "isoline/serve/model_config.h"

namespace isoline::serve {

// What a batcher sees: sizes of the requests that could run together, oldest first.
struct Waiting {
  std::span<const int64_t> samples;  // of each request, in the order they would be taken
  bool blocked = false;              // the next one cannot join: other shapes, or beyond max_batch
  uint64_t oldest_us = 0;            // how long the first has waited
};
struct BatchDecision {
  size_t take = 0;       // so many requests now; 0: wait
  uint64_t wait_us = 0;  // at most so long (meaningful when take == 0)
};
// A full or blocked batch runs at once; so does the largest preferred size that the requests reach. Else the
// oldest waits max_queue_delay_us for company and then everything runs. No batching: requests run one by one.
BatchDecision decide_batch(const std::optional<DynamicBatching>& batching, int64_t max_batch,
                           const Waiting& waiting);

// Inputs of several requests one behind the other, in `memory` (grown as needed, kept between calls).
// requests[r][i]: input i of request r. All of the same shape but for axis 0.
std::vector<InputTensor> gather(std::span<const std::vector<InputTensor>> requests,
                                std::vector<Buffer<std::byte>>& memory);

// One output of a batch cut into parts of so many samples. kInternal if the output has not as many.
Result<std::vector<InputTensor>> split(const OwnedTensor& output, ElementType type,
                                       std::span<const int64_t> samples);

}  // namespace isoline::serve
