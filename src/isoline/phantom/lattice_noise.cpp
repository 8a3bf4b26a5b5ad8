#include "isoline/phantom/lattice_noise.h"

#include <algorithm>
#include <cmath>

#include "isoline/base/simd.h"
#include "isoline/phantom/counter_random.h"

namespace isoline::phantom_detail {
namespace {

ISOLINE_MULTIVERSION
void combine_rows(const float* const* rows, const float* w, size_t n, float* out) {
  for (size_t i = 0; i < n; ++i) {
    float sum = 0;
    for (int k = 0; k < 16; ++k) sum += w[k] * rows[k][i];
    out[i] = sum;
  }
}

ISOLINE_MULTIVERSION
void spread_row(const float* lattice, const int32_t* first, const float* w0, const float* w1, const float* w2,
                const float* w3, size_t n, float* out) {
  for (size_t i = 0; i < n; ++i) {
    const float* p = lattice + first[i];
    out[i] = (w0[i] * p[0] + w1[i] * p[1]) + (w2[i] * p[2] + w3[i] * p[3]);
  }
}

}  // namespace

LatticeNoise::LatticeNoise(uint64_t key, double cell_mm, const Grid& grid) {
  Vec3<int64_t> lowest{};
  for (size_t axis = 0; axis < 3; ++axis) {
    const int64_t n = grid.shape[axis];
    std::vector<int64_t> first;
    first.resize(size_t(n));
    taps_[axis].resize(size_t(n));
    for (int64_t i = 0; i < n; ++i) {
      const double t = grid.position_mm(int(axis), i) / cell_mm;
      const double base = std::floor(t);
      const float u = float(t - base), v = 1 - u;
      first[size_t(i)] = int64_t(base) - 1;
      float* w = taps_[axis][size_t(i)].weight;  // uniform cubic B-spline
      w[0] = v * v * v / 6;
      w[1] = (3 * u * u * u - 6 * u * u + 4) / 6;
      w[2] = (3 * v * v * v - 6 * v * v + 4) / 6;
      w[3] = u * u * u / 6;
    }
    lowest[axis] = first.front();  // positions grow with the index
    size_[axis] = first.back() + 4 - lowest[axis];
    for (int64_t i = 0; i < n; ++i) taps_[axis][size_t(i)].first = int32_t(first[size_t(i)] - lowest[axis]);
  }
  for (const Taps& t : taps_[2]) {
    first_x_.push_back(t.first);
    for (int k = 0; k < 4; ++k) weights_x_[k].push_back(t.weight[k]);
  }
  // The spline averages: mean over the cell of sum(w^2) is 151/315 an axis, hence (315/151)^1.5.
  const float scale = 3.013f;
  values_.resize(size_t(voxels(size_)));
  size_t i = 0;
  for (int64_t z = 0; z < size_[0]; ++z)
    for (int64_t y = 0; y < size_[1]; ++y) {
      const uint64_t row_key = hash2(hash2(key, uint64_t(lowest[0] + z)), uint64_t(lowest[1] + y));
      for (int64_t x = 0; x < size_[2]; ++x)
        values_[i++] = scale * normal_from(hash2(row_key, uint64_t(lowest[2] + x)));
    }
}

void LatticeNoise::row(int64_t z, int64_t y, int64_t x_begin, int64_t x_end, float* scratch,
                       float* out) const {
  if (x_begin >= x_end) return;
  const Taps& tz = taps_[0][size_t(z)];
  const Taps& ty = taps_[1][size_t(y)];
  const float* rows[16];
  float w[16];
  for (int a = 0; a < 4; ++a)
    for (int b = 0; b < 4; ++b) {
      rows[a * 4 + b] = values_.data() + ((tz.first + a) * size_[1] + ty.first + b) * size_[2];
      w[a * 4 + b] = tz.weight[a] * ty.weight[b];
    }
  combine_rows(rows, w, size_t(size_[2]), scratch);
  const size_t x0 = size_t(x_begin);
  spread_row(scratch, first_x_.data() + x0, weights_x_[0].data() + x0, weights_x_[1].data() + x0,
             weights_x_[2].data() + x0, weights_x_[3].data() + x0, size_t(x_end - x_begin), out);
}

}  // namespace isoline::phantom_detail
