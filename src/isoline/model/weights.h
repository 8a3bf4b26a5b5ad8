// Tensors of one checkpoint, by their state-dict names.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "isoline/base/result.h"

namespace isoline {

enum class TensorType { kFloat32, kFloat16, kBFloat16, kFloat64 };

// A contiguous, row-major tensor inside storage that `Weights` keeps alive.
struct TensorView {
  std::vector<int64_t> shape;
  TensorType type = TensorType::kFloat32;
  const void* data = nullptr;
  int64_t elements() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
  // Copies all elements to float32 (binary64 is rounded).
  std::vector<float> to_float() const;
};

// Immutable after reading; safe to read from several threads.
struct Weights {
  std::map<std::string, TensorView> tensors;
  std::shared_ptr<const void> storage;  // owns every byte `tensors` points at
};

}  // namespace isoline
