// Passing over runs of one label quickly. Internal to metrics.
#pragma once

#include <cstdint>
#include <cstring>

namespace isoline::metrics {

// True if all n labels are `label`.
inline bool all_are(const uint16_t* labels, int64_t n, uint16_t label) {
  const uint64_t four_labels = uint64_t(label) * 0x0001000100010001u;
  uint64_t difference = 0;
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    uint64_t four;
    std::memcpy(&four, labels + i, sizeof four);
    difference |= four ^ four_labels;
  }
  for (; i < n; ++i) difference |= uint64_t(labels[i] ^ label);
  return difference == 0;
}

}  // namespace isoline::metrics
