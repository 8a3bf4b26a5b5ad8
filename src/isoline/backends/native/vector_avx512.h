// V and Sum for AVX-512; see kernels_impl.h. Included inside an unnamed namespace.
struct V {
  __m512 v;
};
#define ISOLINE_V inline __attribute__((always_inline))
ISOLINE_V V zero() {
  return {_mm512_setzero_ps()};
}
ISOLINE_V V set1(float x) {
  return {_mm512_set1_ps(x)};
}
ISOLINE_V V load(const float* p) {
  return {_mm512_loadu_ps(p)};
}
ISOLINE_V void store(float* p, V a) {
  _mm512_storeu_ps(p, a.v);
}
ISOLINE_V V add(V a, V b) {
  return {_mm512_add_ps(a.v, b.v)};
}
ISOLINE_V V sub(V a, V b) {
  return {_mm512_sub_ps(a.v, b.v)};
}
ISOLINE_V V mul(V a, V b) {
  return {_mm512_mul_ps(a.v, b.v)};
}
ISOLINE_V V fma(V a, V b, V c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
ISOLINE_V V fnma(V a, V b, V c) {
  return {_mm512_fnmadd_ps(a.v, b.v, c.v)};
}
ISOLINE_V V max(V a, V b) {
  return {_mm512_max_ps(a.v, b.v)};
}

struct Sum {
  __m512d lo, hi;
  void clear() { lo = hi = _mm512_setzero_pd(); }
  void add(V a) {
    lo = _mm512_add_pd(lo, _mm512_cvtps_pd(_mm512_castps512_ps256(a.v)));
    hi = _mm512_add_pd(hi, _mm512_cvtps_pd(_mm512_extractf32x8_ps(a.v, 1)));
  }
  void store_add(double* p) const {
    _mm512_storeu_pd(p, _mm512_add_pd(_mm512_loadu_pd(p), lo));
    _mm512_storeu_pd(p + 8, _mm512_add_pd(_mm512_loadu_pd(p + 8), hi));
  }
};

// 28 accumulators, the weights and one broadcast fill the 32 registers.
template <int Vecs>
constexpr int max_rows() {
  return 14;
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
// Streaming pays where one store fills a cache line.
template <class E>
constexpr bool kCanStream = sizeof(E) == 4;
ISOLINE_V void stream_e(float* p, V a) {
  _mm512_stream_ps(p, a.v);
}
