// torch.sigmoid on float32.
#pragma once

#include <cmath>

namespace isoline {

inline float sigmoid(float v) {
  return 1.0f / (1.0f + std::exp(-v));
}

}  // namespace isoline
