// IEEE binary16 and bfloat16 as storage types, and conversions that round to nearest even.
// A single +, -, *, / on binary16 operands equals the float32 operation rounded once to binary16
// (24 >= 2*11 + 2 significand bits), so nothing here needs half arithmetic.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace isoline {

using half_t = uint16_t;  // binary16 bits

inline float half_to_float(half_t h) {
  const uint32_t sign = uint32_t(h & 0x8000u) << 16;
  uint32_t exp = (h >> 10) & 0x1f, man = h & 0x3ffu;
  if (exp == 0) {
    const float mag = std::bit_cast<float>((man | 0x4b000000u)) - 8388608.0f;  // man as a float, exactly
    return std::bit_cast<float>(std::bit_cast<uint32_t>(mag * 5.9604644775390625e-8f) | sign);
  }
  if (exp == 31) return std::bit_cast<float>(sign | 0x7f800000u | (man << 13));
  return std::bit_cast<float>(sign | ((exp + 112) << 23) | (man << 13));
}

inline half_t float_to_half(float f) {
  const uint32_t x = std::bit_cast<uint32_t>(f);
  const uint32_t sign = (x >> 16) & 0x8000u;
  const uint32_t a = x & 0x7fffffffu;
  if (a > 0x7f800000u) return half_t(sign | 0x7e00u | ((a >> 13) & 0x3ffu));  // NaN stays NaN
  if (a >= 0x477ff000u) return half_t(sign | 0x7c00u);                        // rounds to infinity
  if (a < 0x38800000u) {                                                      // subnormal: add the magic 0.5
    const float r = std::bit_cast<float>(a) + 0.5f;
    return half_t(sign | (std::bit_cast<uint32_t>(r) - 0x3f000000u));
  }
  return half_t(sign | ((a - 0x38000000u + 0xfffu + ((a >> 13) & 1)) >> 13));
}

inline float bfloat16_to_float(uint16_t b) {
  return std::bit_cast<float>(uint32_t(b) << 16);
}

// Whether this processor converts binary16 in hardware (and has AVX2).
bool has_f16c();

// Bulk conversions, vectorised where the processor has F16C; `n` values, arrays must not overlap.
void convert(const half_t* from, float* to, size_t n);
void convert(const float* from, half_t* to, size_t n);

}  // namespace isoline
