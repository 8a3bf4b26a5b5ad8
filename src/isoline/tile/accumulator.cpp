#include "isoline/tile/accumulator.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "isoline/base/simd.h"
#include "isoline/tile/gaussian.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace isoline {
namespace {

// Row kernels, scalar: what they compute, and what every other version must equal bit for bit.
void add_row_scalar(half_t* sum, const float* pred, const float* g, int64_t n) {
  for (int64_t i = 0; i < n; ++i) sum[i] = float_to_half(half_to_float(sum[i]) + pred[i] * g[i]);
}
void add_half_row_scalar(half_t* sum, const half_t* g, int64_t n) {
  for (int64_t i = 0; i < n; ++i) sum[i] = float_to_half(half_to_float(sum[i]) + half_to_float(g[i]));
}
bool divide_row_scalar(half_t* sum, const half_t* weight, int64_t n) {
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) {
    sum[i] = float_to_half(half_to_float(sum[i]) / half_to_float(weight[i]));
    finite &= (sum[i] & 0x7c00) != 0x7c00;
  }
  return finite;
}

#if defined(__x86_64__)
#define ISOLINE_F16C __attribute__((target("avx2,f16c")))
ISOLINE_F16C inline __m256 load8(const half_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
ISOLINE_F16C inline __m128i round8(__m256 v) {
  return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT);
}
ISOLINE_F16C inline void store8(half_t* p, __m256 v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), round8(v));
}

ISOLINE_F16C void add_row_f16c(half_t* sum, const float* pred, const float* g, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    store8(sum + i,
           _mm256_add_ps(load8(sum + i), _mm256_mul_ps(_mm256_loadu_ps(pred + i), _mm256_loadu_ps(g + i))));
  add_row_scalar(sum + i, pred + i, g + i, n - i);
}
ISOLINE_F16C void add_half_row_f16c(half_t* sum, const half_t* g, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) store8(sum + i, _mm256_add_ps(load8(sum + i), load8(g + i)));
  add_half_row_scalar(sum + i, g + i, n - i);
}
ISOLINE_F16C bool divide_row_f16c(half_t* sum, const half_t* weight, int64_t n) {
  int64_t i = 0;
  const __m128i exponent = _mm_set1_epi16(0x7c00);
  __m128i bad = _mm_setzero_si128();
  for (; i + 8 <= n; i += 8) {
    const __m128i h = round8(_mm256_div_ps(load8(sum + i), load8(weight + i)));
    bad = _mm_or_si128(bad, _mm_cmpeq_epi16(_mm_and_si128(h, exponent), exponent));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(sum + i), h);
  }
  return divide_row_scalar(sum + i, weight + i, n - i) && _mm_testz_si128(bad, bad);
}
#else
#define add_row_f16c add_row_scalar
#define add_half_row_f16c add_half_row_scalar
#define divide_row_f16c divide_row_scalar
#endif

void add_row(half_t* sum, const float* pred, const float* g, int64_t n) {
  has_f16c() ? add_row_f16c(sum, pred, g, n) : add_row_scalar(sum, pred, g, n);
}
void add_half_row(half_t* sum, const half_t* g, int64_t n) {
  has_f16c() ? add_half_row_f16c(sum, g, n) : add_half_row_scalar(sum, g, n);
}
bool divide_row(half_t* sum, const half_t* weight, int64_t n) {
  return has_f16c() ? divide_row_f16c(sum, weight, n) : divide_row_scalar(sum, weight, n);
}

}  // namespace

Accumulator::Accumulator(const TilePlan& plan, int64_t heads, ThreadPool& pool)
    : plan_(plan),
      heads_(heads),
      pool_(pool),
      gaussian_(gaussian_weights(plan.patch, plan.spatial_dims)),
      gaussian_float_(gaussian_.size()),
      sums_(zeroed<half_t>(size_t(heads * plan.patch[0] * plan.padded[1] * plan.padded[2]))) {
  convert(gaussian_.data(), gaussian_float_.data(), gaussian_.size());
}

Status Accumulator::add(int64_t index, const float* prediction, const LogitSink& sink) {
  if (index != next_tile_) throw std::logic_error("tiles must be added in order");
  const Index3 at = plan_.origin(index);
  const Shape3 p = plan_.patch;
  const int64_t plane = plan_.padded[1] * plan_.padded[2];
  pool_.for_each(heads_ * p[0], 4, [&](int64_t begin, int64_t end) {
    for (int64_t hz = begin; hz < end; ++hz) {
      const int64_t h = hz / p[0], z = hz % p[0];
      for (int64_t y = 0; y < p[1]; ++y)
        add_row(sums_.data() + (h * p[0] + z + at[0] - base_) * plane + (y + at[1]) * plan_.padded[2] + at[2],
                prediction + (hz * p[1] + y) * p[2], gaussian_float_.data() + (z * p[1] + y) * p[2], p[2]);
    }
  });
  ++next_tile_;
  if (next_tile_ % plan_.tiles_per_row() != 0) return {};
  const bool last = next_tile_ == plan_.tiles();
  return flush(last ? plan_.padded[0] : plan_.origin(next_tile_)[0], sink);
}

// The binary16 sum of all Gaussian weights over one padded row, in tile order.
void Accumulator::weight_row(int64_t z, int64_t y, half_t* row) const {
  const Shape3 p = plan_.patch;
  std::memset(row, 0, size_t(plan_.padded[2]) * sizeof(half_t));
  for (int64_t sz : plan_.steps[0]) {
    if (z < sz || z >= sz + p[0]) continue;
    for (int64_t sy : plan_.steps[1]) {
      if (y < sy || y >= sy + p[1]) continue;
      const half_t* g = gaussian_.data() + ((z - sz) * p[1] + (y - sy)) * p[2];
      for (int64_t sx : plan_.steps[2]) add_half_row(row + sx, g, p[2]);
    }
  }
}

Status Accumulator::flush(int64_t until, const LogitSink& sink) {
  const Shape3 p = plan_.patch, padded = plan_.padded;
  const int64_t plane = padded[1] * padded[2], head = p[0] * plane;
  const int64_t z0 = std::max(base_, plan_.pad_below[0]);
  const int64_t z1 = std::min(until, plan_.pad_below[0] + plan_.shape[0]);
  if (z1 > z0) {
    std::atomic<bool> finite{true};
    pool_.for_each((z1 - z0) * plan_.shape[1], 16, [&](int64_t begin, int64_t end) {
      Buffer<half_t> weight{static_cast<size_t>(padded[2])};
      for (int64_t r = begin; r < end; ++r) {
        const int64_t z = z0 + r / plan_.shape[1], y = plan_.pad_below[1] + r % plan_.shape[1];
        weight_row(z, y, weight.data());
        for (int64_t h = 0; h < heads_; ++h)
          if (!divide_row(sums_.data() + h * head + (z - base_) * plane + y * padded[2] + plan_.pad_below[2],
                          weight.data() + plan_.pad_below[2], plan_.shape[2]))
            finite = false;
      }
    });
    if (!finite)
      return Error{
          ErrorCode::kCorrupt, "the network's output is infinite or NaN in binary16", "logits",
          "Check the model's weights and the scan's intensities; with bf16 or fp16, try --precision fp32."};
    LogitSlab slab;
    slab.z_begin = z0 - plan_.pad_below[0];
    slab.z_end = z1 - plan_.pad_below[0];
    slab.shape = plan_.shape;
    slab.heads = heads_;
    slab.data = sums_.data() + (z0 - base_) * plane + plan_.pad_below[1] * padded[2] + plan_.pad_below[2];
    slab.head_stride = head;
    slab.plane_stride = plane;
    slab.row_stride = padded[2];
    ISOLINE_RETURN_IF_ERROR(sink(slab));
  }
  // Move what later tiles still add to up to the front.
  const int64_t keep = std::max<int64_t>(0, base_ + p[0] - until);
  pool_.for_each(heads_, 1, [&](int64_t begin, int64_t end) {
    for (int64_t h = begin; h < end; ++h) {
      half_t* at = sums_.data() + h * head;
      std::memmove(at, at + (p[0] - keep) * plane, size_t(keep * plane) * sizeof(half_t));
      std::memset(at + keep * plane, 0, size_t((p[0] - keep) * plane) * sizeof(half_t));
    }
  });
  base_ = until;
  return {};
}

}  // namespace isoline
