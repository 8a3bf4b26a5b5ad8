// One inference as the server's core sees it: named tensors in, named tensors out, no wire format.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/engine/tensor_model.h"

namespace isoline::serve {

using Clock = std::chrono::steady_clock;

// A tensor whose bytes belong to the request or response that holds it. Layout as InputTensor.
struct NamedTensor {
  std::string name;
  ElementType type = ElementType::kFloat32;
  std::vector<int64_t> shape;  // with the batch axis, where the model has one
  std::span<const std::byte> data;
};

struct InferRequest {
  std::string model;
  std::string version;  // empty: the newest that is ready
  std::string id;       // echoed
  std::vector<NamedTensor> inputs;
  std::vector<std::string> outputs;           // empty: all, in the model's order
  uint64_t priority = 0;                      // 1 is served first; 0: the model's default
  uint64_t timeout_us = 0;                    // longest wait in the queue; 0: the model's default
  std::optional<Clock::time_point> deadline;  // dropped from the queue when this passes
  Clock::time_point received = Clock::now();
  uint64_t decode_ns = 0;  // spent on making the inputs from encoded files; counted as compute_input
  std::shared_ptr<const void> memory;  // keeps the bytes of `inputs` alive
};

struct InferResponse {
  std::string model, version, id;
  std::vector<NamedTensor> outputs;
  std::shared_ptr<const void> memory;  // keeps the bytes of `outputs` alive
};

// Called exactly once, from whichever thread ends the request; must not block.
using InferDone = std::function<void(Result<InferResponse>)>;

}  // namespace isoline::serve
