// Tensor elements between JSON text and the protocol's binary layout.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/engine/tensor_model.h"
#include "isoline/oip/json.h"

namespace isoline::oip {

// A request's bytes: where they came from, and what had to be decoded or moved.
struct RequestMemory {
  std::shared_ptr<const void> body;
  std::vector<std::vector<std::byte>> decoded;
};

// A JSON array of elements, flat or nested, as binary; exactly `elements` of them. FP16 and BF16 have no JSON
// form.
Result<std::vector<std::byte>> elements_from_json(std::string_view json, ElementType type, uint64_t elements);

// Writes the elements as a flat array; an error where JSON cannot say them (NaN, infinity, FP16, bytes that
// are not UTF-8): ask for binary data then.
Status write_elements(JsonWriter& out, ElementType type, std::span<const std::byte> data);

// `data` itself, or a copy in `memory` where it does not lie at a multiple of the element's size.
std::span<const std::byte> aligned(std::span<const std::byte> data, ElementType type, RequestMemory& memory);

}  // namespace isoline::oip
