#include "isoline/model/weights.h"

#include <cstring>

#include "isoline/base/half.h"

namespace isoline {

std::vector<float> TensorView::to_float() const {
  const size_t n = size_t(elements());
  std::vector<float> out(n);
  switch (type) {
    case TensorType::kFloat32:
      if (n) std::memcpy(out.data(), data, n * sizeof(float));
      break;
    case TensorType::kFloat16:
      convert(static_cast<const half_t*>(data), out.data(), n);
      break;
    case TensorType::kBFloat16: {
      const auto* from = static_cast<const uint16_t*>(data);
      for (size_t i = 0; i < n; ++i) out[i] = bfloat16_to_float(from[i]);
      break;
    }
    case TensorType::kFloat64: {
      const auto* from = static_cast<const double*>(data);
      for (size_t i = 0; i < n; ++i) out[i] = float(from[i]);
      break;
    }
  }
  return out;
}

}  // namespace isoline
