#include "isoline/tile/gaussian.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace isoline {
namespace {

// The delta at n/2 after scipy's one-dimensional Gaussian filter of sigma n/8.
std::vector<double> filtered_delta(int64_t n) {
  const double sigma = double(n) / 8.0;
  const auto radius = int64_t(4.0 * sigma + 0.5);
  std::vector<double> kernel;
  double sum = 0;
  for (int64_t k = -radius; k <= radius; ++k) {
    kernel.push_back(std::exp(-0.5 / (sigma * sigma) * double(k) * double(k)));
    sum += kernel.back();
  }
  std::vector<double> out(size_t(n), 0.0);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t d = i - n / 2;
    if (d >= -radius && d <= radius) out[size_t(i)] = kernel[size_t(d + radius)] / sum;
  }
  return out;
}

}  // namespace

Buffer<half_t> gaussian_weights(const Shape3& patch, int spatial_dims) {
  const std::vector<double> wz = spatial_dims == 3 ? filtered_delta(patch[0]) : std::vector<double>{1.0};
  const std::vector<double> wy = filtered_delta(patch[1]), wx = filtered_delta(patch[2]);
  Buffer<half_t> g(size_t(voxels(patch)));
  const double top = wz[size_t(patch[0] / 2)] * wy[size_t(patch[1] / 2)] * wx[size_t(patch[2] / 2)];
  const double scale = top / 10.0;
  half_t smallest = 0x7bff;
  size_t i = 0;
  for (double z : wz)
    for (double y : wy)
      for (double x : wx) {
        const half_t h = float_to_half(float(z * y * x / scale));  // torch narrows through float
        if (h) smallest = std::min(smallest, h);
        g[i++] = h;
      }
  for (half_t& h : g)
    if (!h) h = smallest;
  return g;
}

}  // namespace isoline
