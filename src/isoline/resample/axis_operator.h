// One axis of a separable resampling: which input samples make each output sample, with what weights.
#pragma once

#include <cstdint>
#include <vector>

namespace isoline {

// Whose coordinate rule is followed.
//   kZoom:  scipy.ndimage.zoom(mode='nearest', grid_mode=True), as called by skimage.transform.resize
//           (and map_coordinates in nnU-Net's separate-z branch, which uses the same formula).
//   kTorch: torch.nn.functional.interpolate(align_corners=False) on a CPU: 'linear', and 'nearest-exact' for
//   order 0.
enum class GridRule { kZoom, kTorch };

// out[o] = sum_t weight[o * taps + t] * c[first[o] + t], where c is the input extended by `pad` copies of its
// edge samples on either side (index 0 = first copy) and, for cubic splines, prefiltered.
struct AxisOperator {
  int64_t n_in = 0, n_out = 0;
  int taps = 1;            // 1 nearest, 2 linear, 4 cubic spline
  int64_t pad = 0;         // edge copies on either side
  bool prefilter = false;  // cubic B-spline prefilter, half-sample symmetric (scipy 'nearest' = 'reflect')
  std::vector<int32_t> first;
  std::vector<double> weight;

  bool identity() const { return n_in == n_out; }
};

// order: 0, 1 or 3 (others throw std::invalid_argument: callers refuse them by name beforehand).
AxisOperator make_axis_operator(int64_t n_in, int64_t n_out, int order, GridRule rule);

// Linear taps without padding, for exact arithmetic on the raw samples: lo/hi in [0, n_in), weights w_lo,
// w_hi as scipy computes them in double. Order 0 gives w_hi = 0 and hi = lo.
struct LinearTaps {
  std::vector<int32_t> lo, hi;
  std::vector<double> w_lo, w_hi;
};
LinearTaps make_linear_taps(int64_t n_in, int64_t n_out, int order, GridRule rule);

}  // namespace isoline
