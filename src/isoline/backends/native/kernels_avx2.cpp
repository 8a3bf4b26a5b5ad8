// AVX2 with FMA, float32: sixteen lanes are two registers.
#include "isoline/backends/native/kernels.h"

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>

namespace isoline::native {
namespace {
struct V {
  __m256 a, b;
};
#define ISOLINE_V inline __attribute__((always_inline))
ISOLINE_V V zero() {
  return {_mm256_setzero_ps(), _mm256_setzero_ps()};
}
ISOLINE_V V set1(float x) {
  return {_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
ISOLINE_V V load(const float* p) {
  return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
ISOLINE_V void store(float* p, V x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
ISOLINE_V V add(V x, V y) {
  return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
}
ISOLINE_V V sub(V x, V y) {
  return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)};
}
ISOLINE_V V mul(V x, V y) {
  return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
}
ISOLINE_V V fma(V x, V y, V z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
ISOLINE_V V fnma(V x, V y, V z) {
  return {_mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b)};
}
ISOLINE_V V max(V x, V y) {
  return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)};
}

struct Sum {
  __m256d s[4];
  void clear() {
    for (auto& x : s) x = _mm256_setzero_pd();
  }
  void add(V x) {
    s[0] = _mm256_add_pd(s[0], _mm256_cvtps_pd(_mm256_castps256_ps128(x.a)));
    s[1] = _mm256_add_pd(s[1], _mm256_cvtps_pd(_mm256_extractf128_ps(x.a, 1)));
    s[2] = _mm256_add_pd(s[2], _mm256_cvtps_pd(_mm256_castps256_ps128(x.b)));
    s[3] = _mm256_add_pd(s[3], _mm256_cvtps_pd(_mm256_extractf128_ps(x.b, 1)));
  }
  void store_add(double* p) const {
    for (int i = 0; i < 4; ++i) _mm256_storeu_pd(p + 4 * i, _mm256_add_pd(_mm256_loadu_pd(p + 4 * i), s[i]));
  }
};

// Of sixteen registers: 12 accumulators, 2 of weights and a broadcast, or 8, 4 and one. (Three rows of two
// would need 17: a third slower, measured.)
template <int Vecs>
constexpr int max_rows() {
  return Vecs == 1 ? 6 : 2;
}

template <class E>
struct ElementTraits;
template <>
struct ElementTraits<float> {
  static constexpr int kPerStep = 1;
  using Operand = V;
};
ISOLINE_V V load_e(const float* p) {
  return load(p);
}
ISOLINE_V void store_e(float* p, V a) {
  store(p, a);
}
ISOLINE_V V load_weights(const float* p) {
  return load(p);
}
ISOLINE_V V broadcast(const float* p) {
  return set1(*p);
}
ISOLINE_V V multiply_step(V x, V w, V c) {
  return fma(x, w, c);
}

template <class E>
constexpr bool kCanStream = true;
ISOLINE_V void stream_e(float* p, V x) {
  _mm256_stream_ps(p, x.a);
  _mm256_stream_ps(p + 8, x.b);
}

#include "isoline/backends/native/kernels_impl.h"
}  // namespace

const KernelTable* avx2_table() {
  static constinit const KernelTable table = make_table<float>("AVX2");
  return &table;
}
}  // namespace isoline::native
#else
namespace isoline::native {
const KernelTable* avx2_table() {
  return nullptr;
}
}  // namespace isoline::native
#endif
