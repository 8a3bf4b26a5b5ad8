#include "isoline/resample/resample_labels.h"

#include <algorithm>
#include <cstring>

namespace isoline {

void resample_labels(const int16_t* src, const Shape3& in, const Shape3& out, std::optional<int> coarse_axis,
                     int16_t* dst, ThreadPool& pool) {
  if (in == out) {
    std::memcpy(dst, src, size_t(voxels(in)) * sizeof(int16_t));
    return;
  }
  LinearTaps linear[3], nearest[3];
  for (int a = 0; a < 3; ++a) {
    const auto i = size_t(a);
    // scipy's interpolation is exact on an unchanged axis: weight 1 on the sample itself.
    linear[a] = make_linear_taps(in[i], out[i], coarse_axis == a ? 0 : 1, GridRule::kZoom);
    nearest[a] = make_linear_taps(in[i], out[i], 0, GridRule::kZoom);
  }
  const LinearTaps &tz = linear[0], &ty = linear[1], &tx = linear[2];
  pool.for_each(out[0] * out[1], 8, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const auto z = size_t(row / out[1]), y = size_t(row % out[1]);
      const int16_t* rows[4] = {
          src + (tz.lo[z] * in[1] + ty.lo[y]) * in[2], src + (tz.lo[z] * in[1] + ty.hi[y]) * in[2],
          src + (tz.hi[z] * in[1] + ty.lo[y]) * in[2], src + (tz.hi[z] * in[1] + ty.hi[y]) * in[2]};
      const int16_t* nearest_row = src + (nearest[0].lo[z] * in[1] + nearest[1].lo[y]) * in[2];
      const double wz[2] = {tz.w_lo[z], tz.w_hi[z]}, wy[2] = {ty.w_lo[y], ty.w_hi[y]};
      for (int64_t x = 0; x < out[2]; ++x) {
        const auto xi = size_t(x);
        int16_t label[8];
        double score[8];
        bool uniform = true;
        for (int k = 0; k < 8; ++k) {
          label[k] = rows[k >> 1][k & 1 ? tx.hi[xi] : tx.lo[xi]];
          uniform &= label[k] == label[0];
        }
        int16_t best = label[0];
        if (!uniform) {
          const double wx[2] = {tx.w_lo[xi], tx.w_hi[xi]};
          const int16_t nn = nearest_row[nearest[2].lo[xi]];
          double best_score = -1, nn_score = -1;
          for (int k = 0; k < 8; ++k) {
            score[k] = 0;  // summed in tap order, as scipy sums the indicator's eight products
            for (int j = 0; j < 8; ++j)
              if (label[j] == label[k]) score[k] += wz[j >> 2] * wy[(j >> 1) & 1] * wx[j & 1];
            score[k] = std::min(score[k], 1.0);
            if (score[k] > best_score || (score[k] == best_score && label[k] < best)) {
              best_score = score[k];
              best = label[k];
            }
            if (label[k] == nn) nn_score = score[k];
          }
          if (nn_score == best_score) best = nn;
        }
        dst[row * out[2] + x] = best;
      }
    }
  });
}

}  // namespace isoline
