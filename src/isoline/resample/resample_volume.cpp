#include "isoline/resample/resample_volume.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <vector>

#include "isoline/base/buffer.h"
#include "isoline/base/simd.h"

namespace isoline {
namespace {

// Lanes filtered together. Rows across x go 16 at a time (they are transposed in), columns 64 at a time.
constexpr int64_t kRowLanes = 16;
constexpr int64_t kColumnLanes = 64;

// An AxisOperator with float weights, ready for the hot loops.
struct FloatOperator {
  explicit FloatOperator(const AxisOperator& op)
      : n_in(op.n_in),
        n_out(op.n_out),
        pad(op.pad),
        taps(op.taps),
        prefilter(op.prefilter),
        first(op.first),
        weight(op.weight.begin(), op.weight.end()) {}
  int64_t n_in, n_out, pad;
  int taps;
  bool prefilter;
  std::vector<int32_t> first;
  std::vector<float> weight;
  size_t scratch(int64_t lanes) const { return size_t((n_in + 2 * pad) * lanes); }
};

// Cubic B-spline prefilter along n samples of L lanes each, in place (Unser 1993; scipy's spline_filter1d
// with mode 'nearest', whose boundary is half-sample symmetric). The pole's powers vanish in float after 32
// samples.
template <int64_t L>
[[gnu::always_inline]] inline void prefilter_lanes(float* s, int64_t n) {
  constexpr float pole = -0.26794919243112270647f;  // sqrt(3) - 2
  constexpr float gain = 6.0f;                      // (1 - pole) * (1 - 1 / pole)
  float start[L];
  for (int64_t l = 0; l < L; ++l) start[l] = 0;
  float power = pole;
  for (int64_t i = 0; i < std::min<int64_t>(n, 32); ++i, power *= pole)
    for (int64_t l = 0; l < L; ++l) start[l] += power * s[i * L + l];
  for (int64_t l = 0; l < L; ++l) s[l] = gain * (s[l] + start[l]);
  for (int64_t i = 1; i < n; ++i)
    for (int64_t l = 0; l < L; ++l) s[i * L + l] = gain * s[i * L + l] + pole * s[(i - 1) * L + l];
  constexpr float last = pole / (pole - 1.0f);
  for (int64_t l = 0; l < L; ++l) s[(n - 1) * L + l] *= last;
  for (int64_t i = n - 2; i >= 0; --i)
    for (int64_t l = 0; l < L; ++l) s[i * L + l] = pole * (s[(i + 1) * L + l] - s[i * L + l]);
}
ISOLINE_MULTIVERSION void prefilter16(float* s, int64_t n) {
  prefilter_lanes<kRowLanes>(s, n);
}
ISOLINE_MULTIVERSION void prefilter64(float* s, int64_t n) {
  prefilter_lanes<kColumnLanes>(s, n);
}

// out[l] = clamp(sum over taps, lo, hi) for L lanes.
template <int64_t L>
[[gnu::always_inline]] inline void combine_lanes(const float* c, const float* w, int taps, float lo, float hi,
                                                 float* out) {
  if (taps == 4) {
    for (int64_t l = 0; l < L; ++l) {
      const float v = w[0] * c[l] + w[1] * c[L + l] + w[2] * c[2 * L + l] + w[3] * c[3 * L + l];
      out[l] = std::min(std::max(v, lo), hi);
    }
  } else if (taps == 2) {
    for (int64_t l = 0; l < L; ++l) out[l] = w[0] * c[l] + w[1] * c[L + l];
  } else {
    for (int64_t l = 0; l < L; ++l) out[l] = c[l];
  }
}

// All outputs of one column strip: scratch [n][64] -> rows of dst, `stride` floats apart, `width` lanes kept.
ISOLINE_MULTIVERSION void combine_columns(const FloatOperator& op, const float* s, float lo, float hi,
                                          float* dst, int64_t stride, int64_t width) {
  constexpr int64_t L = kColumnLanes;
  float out[L];
  for (int64_t o = 0; o < op.n_out; ++o) {
    const float* c = s + op.first[size_t(o)] * L;
    const float* w = &op.weight[size_t(o * op.taps)];
    if (width == L) {
      combine_lanes<L>(c, w, op.taps, lo, hi, dst + o * stride);
    } else {
      combine_lanes<L>(c, w, op.taps, lo, hi, out);
      std::memcpy(dst + o * stride, out, size_t(width) * sizeof(float));
    }
  }
}

// Sixteen rows at a time: transposed scratch [n][16] -> out rows.
ISOLINE_MULTIVERSION void combine_rows(const FloatOperator& op, const float* s, float lo, float hi,
                                       float* dst, int64_t rows) {
  constexpr int64_t L = kRowLanes;
  float block[L * L];
  for (int64_t o = 0; o < op.n_out; o += L) {
    const int64_t count = std::min<int64_t>(L, op.n_out - o);
    for (int64_t k = 0; k < count; ++k)
      combine_lanes<L>(s + op.first[size_t(o + k)] * L, &op.weight[size_t((o + k) * op.taps)], op.taps, lo,
                       hi, block + k * L);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t k = 0; k < count; ++k) dst[r * op.n_out + o + k] = block[k * L + r];
  }
}

template <int64_t L>
void extend_edges(float* s, int64_t n, int64_t pad) {
  for (int64_t p = 0; p < pad; ++p) {
    std::memcpy(s + p * L, s + pad * L, L * sizeof(float));
    std::memcpy(s + (pad + n + p) * L, s + (pad + n - 1) * L, L * sizeof(float));
  }
}

// src [rows][n_in] -> dst [rows][n_out].
void resample_x(const FloatOperator& op, const float* src, int64_t rows, float lo, float hi, float* scratch,
                float* dst) {
  constexpr int64_t L = kRowLanes;
  for (int64_t r0 = 0; r0 < rows; r0 += L) {
    const int64_t count = std::min<int64_t>(L, rows - r0);
    float* body = scratch + op.pad * L;
    for (int64_t r = 0; r < L; ++r) {
      const float* row = src + (r0 + std::min(r, count - 1)) * op.n_in;
      for (int64_t x = 0; x < op.n_in; ++x) body[x * L + r] = row[x];
    }
    extend_edges<L>(scratch, op.n_in, op.pad);
    if (op.prefilter) prefilter16(scratch, op.n_in + 2 * op.pad);
    combine_rows(op, scratch, lo, hi, dst + r0 * op.n_out, count);
  }
}

// Columns [begin, end) of src [n_in][inner] -> dst [n_out][inner].
void resample_columns(const FloatOperator& op, const float* src, int64_t inner, int64_t begin, int64_t end,
                      float lo, float hi, float* scratch, float* dst) {
  constexpr int64_t L = kColumnLanes;
  for (int64_t c0 = begin; c0 < end; c0 += L) {
    const int64_t width = std::min<int64_t>(L, end - c0);
    float* body = scratch + op.pad * L;
    if (width < L) std::memset(scratch, 0, op.scratch(L) * sizeof(float));
    for (int64_t i = 0; i < op.n_in; ++i)
      std::memcpy(body + i * L, src + i * inner + c0, size_t(width) * sizeof(float));
    extend_edges<L>(scratch, op.n_in, op.pad);
    if (op.prefilter) prefilter64(scratch, op.n_in + 2 * op.pad);
    combine_columns(op, scratch, lo, hi, dst + c0, inner, width);
  }
}

ISOLINE_MULTIVERSION void min_max(const float* v, int64_t n, float* lo, float* hi) {
  float a = *lo, b = *hi;
  for (int64_t i = 0; i < n; ++i) {
    a = v[i] < a ? v[i] : a;
    b = v[i] > b ? v[i] : b;
  }
  *lo = a;
  *hi = b;
}

constexpr float kInfinity = std::numeric_limits<float>::infinity();

}  // namespace

void resample_rows(const RowLoader& load, const ResampleRequest& rq, float* dst, ThreadPool& pool) {
  const Shape3 in = rq.in, out = rq.out;
  if (in == out) {
    pool.for_each(in[0] * in[1], 64, [&](int64_t b, int64_t e) {
      for (int64_t r = b; r < e; ++r) load(r / in[1], r % in[1], dst + r * in[2]);
    });
    return;
  }
  const FloatOperator along_x(make_axis_operator(in[2], out[2], rq.order, rq.rule));
  const FloatOperator along_y(make_axis_operator(in[1], out[1], rq.order, rq.rule));
  const FloatOperator along_z(make_axis_operator(in[0], out[0], rq.separate_z ? 0 : rq.order, rq.rule));
  const int64_t plane_out = out[1] * out[2];
  const bool z_changes = in[0] != out[0];
  const bool clip = rq.order > 1;

  // In-plane first: every source slice is loaded once, and both passes stay in cache.
  Buffer<float> between(z_changes ? size_t(in[0] * plane_out) : 0);
  float* planes = z_changes ? between.data() : dst;
  std::mutex range_mutex;
  float range_lo = kInfinity, range_hi = -kInfinity;
  pool.for_each(in[0], 1, [&](int64_t begin, int64_t end) {
    Buffer<float> slice(size_t(in[1] * in[2])), half(size_t(in[1] * out[2]));
    Buffer<float> scratch(std::max(along_x.scratch(kRowLanes), along_y.scratch(kColumnLanes)));
    for (int64_t z = begin; z < end; ++z) {
      for (int64_t y = 0; y < in[1]; ++y) load(z, y, slice.data() + y * in[2]);
      float lo = -kInfinity, hi = kInfinity;
      if (clip) {
        float a = kInfinity, b = -kInfinity;
        min_max(slice.data(), in[1] * in[2], &a, &b);
        if (rq.separate_z) {
          lo = a, hi = b;
        } else {
          std::lock_guard lock(range_mutex);
          range_lo = std::min(range_lo, a);
          range_hi = std::max(range_hi, b);
        }
      }
      // The clip belongs after the last in-plane pass only: between passes values may overshoot.
      const float* rows = slice.data();
      float* target = planes + z * plane_out;
      const bool y_changes = in[1] != out[1];
      if (in[2] != out[2]) {
        float* to = y_changes ? half.data() : target;
        const bool last = !y_changes && rq.separate_z;
        resample_x(along_x, rows, in[1], last ? lo : -kInfinity, last ? hi : kInfinity, scratch.data(), to);
        rows = to;
      }
      if (y_changes)
        resample_columns(along_y, rows, out[2], 0, out[2], lo, hi, scratch.data(), target);
      else if (rows != target)
        std::memcpy(target, rows, size_t(plane_out) * sizeof(float));
    }
  });

  if (!z_changes) {
    if (clip && !rq.separate_z)
      pool.for_each(out[0], 1, [&](int64_t begin, int64_t end) {
        for (float *v = dst + begin * plane_out, *stop = dst + end * plane_out; v != stop; ++v)
          *v = std::min(std::max(*v, range_lo), range_hi);
      });
    return;
  }
  if (rq.separate_z || rq.order == 0) {  // order 0 along z: whole planes are copied
    pool.for_each(out[0], 1, [&](int64_t begin, int64_t end) {
      for (int64_t z = begin; z < end; ++z)
        std::memcpy(dst + z * plane_out, planes + along_z.first[size_t(z)] * plane_out,
                    size_t(plane_out) * sizeof(float));
    });
    return;
  }
  const float lo = clip ? range_lo : -kInfinity, hi = clip ? range_hi : kInfinity;
  pool.for_each(plane_out, 16 * kColumnLanes, [&](int64_t begin, int64_t end) {
    Buffer<float> scratch(along_z.scratch(kColumnLanes));
    resample_columns(along_z, planes, plane_out, begin, end, lo, hi, scratch.data(), dst);
  });
}

}  // namespace isoline
