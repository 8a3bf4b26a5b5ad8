#include "isoline/base/half.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace isoline {
namespace {

#if defined(__x86_64__)
__attribute__((target("avx,f16c"))) void to_float_f16c(const half_t* from, float* to, size_t n) {
  size_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
  for (; i < n; ++i) to[i] = half_to_float(from[i]);
}
__attribute__((target("avx,f16c"))) void to_half_f16c(const float* from, half_t* to, size_t n) {
  size_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
  for (; i < n; ++i) to[i] = float_to_half(from[i]);
}
#endif

}  // namespace

bool has_f16c() {
#if defined(__x86_64__)
  static const bool yes = [] {  // clang 14's __builtin_cpu_supports does not know "f16c"
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) && __builtin_cpu_supports("avx2");
  }();
  return yes;
#else
  return false;
#endif
}

void convert(const half_t* from, float* to, size_t n) {
#if defined(__x86_64__)
  if (has_f16c()) return to_float_f16c(from, to, n);
#endif
  for (size_t i = 0; i < n; ++i) to[i] = half_to_float(from[i]);
}

void convert(const float* from, half_t* to, size_t n) {
#if defined(__x86_64__)
  if (has_f16c()) return to_half_f16c(from, to, n);
#endif
  for (size_t i = 0; i < n; ++i) to[i] = float_to_half(from[i]);
}

}  // namespace isoline
