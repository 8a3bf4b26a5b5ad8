// Passing over background quickly. Internal to metrics.
#pragma once

#include <cstdint>
#include <cstring>

namespace isoline::metrics {

// True if all n labels are 0.
inline bool all_zero(const uint16_t* labels, int64_t n) {
  uint64_t seen = 0;
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    uint64_t four;
    std::memcpy(&four, labels + i, sizeof four);
    seen |= four;
  }
  for (; i < n; ++i) seen |= labels[i];
  return seen == 0;
}

}  // namespace isoline::metrics
