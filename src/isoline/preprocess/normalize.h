// Intensity normalisation, one row at a time, in float32 with the reference's order of operations.
#pragma once

#include <cstdint>

#include "isoline/base/parallel.h"
#include "isoline/base/result.h"
#include "isoline/model/model_spec.h"
#include "isoline/volume/volume.h"

namespace isoline {

// (clip(v, low, high) - subtract) / divide; the identity when `identity`.
// Source: nnunetv2 default_normalization_schemes.py (eps 1e-8 for float32).
struct Normalizer {
  bool identity = true;
  float low = 0, high = 0, subtract = 0, divide = 1;
  bool clip = false;
  const uint8_t* mask = nullptr;  // [z, y, x] of the crop: voxels with 0 keep their value

  // row: n raw values; out: n normalised ones; mask_row: n flags or null.
  void apply(const int16_t* row, const uint8_t* mask_row, int64_t n, float* out) const;
  void apply(const float* row, const uint8_t* mask_row, int64_t n, float* out) const;
};

// Statistics are those of channel `c` inside the crop (z-score: inside the mask if the scheme asks for it;
// sums in double where numpy uses pairwise float32, relative difference < 1e-6).
Result<Normalizer> make_normalizer(const ChannelSpec& channel, const Image& image, int64_t c, const Box3& box,
                                   const uint8_t* mask, ThreadPool& pool);

}  // namespace isoline
