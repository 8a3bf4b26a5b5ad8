// Random numbers as hashes of counters: any of them can be computed at any time by any thread.
#pragma once

#include <cstdint>

namespace isoline::phantom_detail {

// Finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection of 64 bits that passes as random.
inline uint64_t mix64(uint64_t v) {
  v += 0x9e3779b97f4a7c15ull;
  v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9ull;
  v = (v ^ (v >> 27)) * 0x94d049bb133111ebull;
  return v ^ (v >> 31);
}

inline uint64_t hash2(uint64_t key, uint64_t a) {
  return mix64(key ^ mix64(a));
}

// Close to a standard normal: the sum of four 16-bit uniforms, centred and scaled (Irwin-Hall, |value|
// < 3.47). Integer until one multiplication, so it is the same everywhere.
inline float normal_from(uint64_t h) {
  const int32_t sum =
      int32_t(h & 0xffff) + int32_t((h >> 16) & 0xffff) + int32_t((h >> 32) & 0xffff) + int32_t(h >> 48);
  return float(sum - 131070) * 2.6429e-5f;  // 1 / (65536 * sqrt(4 / 12))
}

// A sequence of draws for one organ; `tag` keeps organs independent, so that adding one changes no other.
class Draws {
 public:
  Draws(uint64_t seed, uint64_t tag) : key_(hash2(seed, tag)) {}
  uint64_t bits() { return hash2(key_, counter_++); }
  // Uniform in [lo, hi).
  double uniform(double lo, double hi) { return lo + (hi - lo) * (double(bits() >> 11) * 0x1p-53); }
  double normal() { return double(normal_from(bits())); }
  bool chance(double p) { return uniform(0, 1) < p; }

 private:
  uint64_t key_;
  uint64_t counter_ = 0;
};

}  // namespace isoline::phantom_detail
