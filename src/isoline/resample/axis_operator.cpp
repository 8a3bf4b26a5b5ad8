#include "isoline/resample/axis_operator.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace isoline {
namespace {

// scipy's zoom pads by 12 before a spline prefilter with mode 'nearest' (_prepad_for_spline_filter).
constexpr int64_t kSplinePad = 12;

// Input coordinate of output sample k (NI_ZoomShift, grid_mode).
double zoom_coordinate(int64_t k, double zoom) {
  return (double(k) + 0.5) * zoom - 0.5;
}

}  // namespace

LinearTaps make_linear_taps(int64_t n_in, int64_t n_out, int order, GridRule rule) {
  if (order != 0 && order != 1) throw std::invalid_argument("linear taps have order 0 or 1");
  LinearTaps t;
  t.lo.resize(size_t(n_out));
  t.hi.resize(size_t(n_out));
  t.w_lo.assign(size_t(n_out), 1.0);
  t.w_hi.assign(size_t(n_out), 0.0);
  const double zoom = double(n_in) / double(n_out);
  const float zoom_f = float(n_in) / float(n_out);
  for (int64_t k = 0; k < n_out; ++k) {
    int64_t lo = 0, hi = 0;
    double w = 0, w_lo = -1;  // w_lo < 0: one minus w
    if (rule == GridRule::kTorch) {
      if (order == 0) {  // nearest-exact: floor((k + 0.5) * scale), in float
        lo = hi = std::min(n_in - 1, int64_t(std::floor((float(k) + 0.5f) * zoom_f)));
      } else {  // area_pixel_compute_source_index, in float, clamped at 0
        const float c = std::max(0.0f, std::fma(zoom_f, float(k) + 0.5f, -0.5f));
        lo = std::min(n_in - 1, int64_t(c));
        hi = std::min(n_in - 1, lo + 1);
        w = double(std::min(1.0f, std::max(0.0f, c - float(lo))));
      }
    } else if (order == 0) {
      lo = hi = std::clamp<int64_t>(int64_t(std::floor(zoom_coordinate(k, zoom) + 0.5)), 0, n_in - 1);
    } else {
      // Not the coordinate but the sample index is clamped: beyond the edge both weights fall on one sample.
      const double c = zoom_coordinate(k, zoom), f = std::floor(c);
      lo = std::clamp<int64_t>(int64_t(f), 0, n_in - 1);
      hi = std::clamp<int64_t>(int64_t(f) + 1, 0, n_in - 1);
      w_lo = 1.0 - (c - f);
      w = 1.0 - w_lo;
    }
    if (w == 0) hi = lo;  // the other sample does not count
    t.lo[size_t(k)] = int32_t(lo);
    t.hi[size_t(k)] = int32_t(hi);
    t.w_lo[size_t(k)] = w_lo < 0 ? 1.0 - w : w_lo;
    t.w_hi[size_t(k)] = w;
  }
  return t;
}

AxisOperator make_axis_operator(int64_t n_in, int64_t n_out, int order, GridRule rule) {
  AxisOperator op;
  op.n_in = n_in;
  op.n_out = n_out;
  op.first.resize(size_t(n_out));
  if (order == 0 || order == 1) {
    const LinearTaps t = make_linear_taps(n_in, n_out, order, rule);
    op.taps = order + 1;
    op.pad = order;  // linear reads one sample past the end, with weight 0 there
    op.weight.resize(size_t(n_out) * size_t(op.taps));
    for (size_t k = 0; k < size_t(n_out); ++k) {
      op.first[k] = t.lo[k] + int32_t(op.pad);
      const bool one_sample = t.lo[k] == t.hi[k];
      op.weight[k * size_t(op.taps)] = one_sample ? 1.0 : t.w_lo[k];
      if (order == 1) op.weight[k * 2 + 1] = one_sample ? 0.0 : t.w_hi[k];
    }
    return op;
  }
  if (order != 3) throw std::invalid_argument("spline order must be 0, 1 or 3");
  op.taps = 4;
  op.pad = kSplinePad;
  op.prefilter = true;
  op.weight.resize(size_t(n_out) * 4);
  const double zoom = double(n_in) / double(n_out);
  for (int64_t k = 0; k < n_out; ++k) {
    // Not clamped to the input: the padded spline itself is evaluated outside, as scipy does.
    const double c = zoom_coordinate(k, zoom) + double(kSplinePad);
    const double f = std::floor(c), t = c - f, u = 1 - t;
    double* w = &op.weight[size_t(k) * 4];
    w[1] = (t * t * (t - 2) * 3 + 4) / 6;
    w[2] = (u * u * (u - 2) * 3 + 4) / 6;
    w[0] = u * u * u / 6;
    w[3] = 1 - w[0] - w[1] - w[2];
    op.first[size_t(k)] = int32_t(f) - 1;
  }
  return op;
}

}  // namespace isoline
