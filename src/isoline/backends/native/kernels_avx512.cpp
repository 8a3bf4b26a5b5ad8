// AVX-512 (F, BW, DQ, VL), float32.
#include "isoline/backends/native/kernels.h"

#if defined(__AVX512F__)
#include <immintrin.h>

namespace isoline::native {
namespace {
// clang-format off
// The kernels need the vector type first.
#include "isoline/backends/native/vector_avx512.h"
#include "isoline/backends/native/kernels_impl.h"
// clang-format on
}  // namespace

const KernelTable* avx512_table() {
  static constinit const KernelTable table = make_table<float>("AVX-512");
  return &table;
}
}  // namespace isoline::native
#else
namespace isoline::native {
const KernelTable* avx512_table() {
  return nullptr;
}
}  // namespace isoline::native
#endif
