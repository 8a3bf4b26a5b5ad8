// What requests carry: made once, sent again and again.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/engine/tensor_model.h"

namespace isoline::load {

struct Payload {
  int64_t batch = 1;
  std::vector<OwnedTensor> inputs;  // in the model's order, with the batch axis where the model has one
  std::vector<std::byte> picture;   // an encoded picture instead of tensors
};
using Payloads = std::vector<Payload>;

struct PayloadOptions {
  enum class Fill { kRandom, kZero } fill = Fill::kRandom;
  uint64_t seed = 1;
  int pool = 4;                       // different payloads
  std::string npy_file;               // samples of the only input instead: [n, shape...] or shape
  std::vector<std::string> pictures;  // encoded files instead, one a request
  std::map<std::string, std::vector<int64_t>> shapes;  // of inputs whose extents the model leaves open
  int string_bytes = 16;                               // length of BYTES elements
};

// Floating point in [0, 1), integers in [0, 127], BYTES letters. kInvalidArgument: a batch the model does not
// take, an open extent without a shape, a file of another type or shape.
Result<Payloads> make_payloads(const std::vector<TensorSpec>& inputs, int64_t max_batch, int64_t batch,
                               const PayloadOptions& options);

// Bytes of the tensors (or the picture) of one request.
uint64_t byte_size(const Payload& payload);

}  // namespace isoline::load
