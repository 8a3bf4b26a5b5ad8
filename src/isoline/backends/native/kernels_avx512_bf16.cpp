// AVX-512 with BF16: bfloat16 storage and products, float32 sums.
#include "isoline/backends/native/kernels.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>

namespace isoline::native {
namespace {
#include "isoline/backends/native/vector_avx512.h"

struct BFloat16 {
  uint16_t bits;
};
template <>
struct ElementTraits<BFloat16> {
  static constexpr int kPerStep = 2;
  using Operand = __m512bh;
};
ISOLINE_V V load_e(const BFloat16* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
ISOLINE_V void store_e(BFloat16* p, V a) {
  const __m256bh h = _mm512_cvtneps_pbh(a.v);
  __builtin_memcpy(p, &h, 32);
}
ISOLINE_V __m512bh load_weights(const BFloat16* p) {
  return (__m512bh)_mm512_loadu_si512(p);
}
ISOLINE_V __m512bh broadcast(const BFloat16* p) {
  int pair;
  __builtin_memcpy(&pair, p, 4);
  return (__m512bh)_mm512_set1_epi32(pair);
}
ISOLINE_V V multiply_step(__m512bh x, __m512bh w, V c) {
  return {_mm512_dpbf16_ps(c.v, x, w)};
}

#include "isoline/backends/native/kernels_impl.h"
}  // namespace

const KernelTable* avx512_bf16_table() {
  static constinit const KernelTable table = make_table<BFloat16>("AVX-512 BF16");
  return &table;
}
}  // namespace isoline::native
#else
namespace isoline::native {
const KernelTable* avx512_bf16_table() {
  return nullptr;
}
}  // namespace isoline::native
#endif
