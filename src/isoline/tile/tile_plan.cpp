#include "isoline/tile/tile_plan.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace isoline {

Result<TilePlan> plan_tiles(const Shape3& shape, const std::vector<int>& patch_size, double step) {
  if (!(step > 0 && step <= 1))
    return Error{ErrorCode::kInvalidArgument, "step " + std::to_string(step) + " is outside (0, 1]", "step",
                 "0.5 is nnU-Net's default; larger is faster."};
  if (patch_size.size() != 2 && patch_size.size() != 3)
    return Error{ErrorCode::kUnsupported, "patch_size must have 2 or 3 entries", "patch_size", ""};
  TilePlan plan;
  plan.spatial_dims = int(patch_size.size());
  plan.shape = shape;
  const size_t offset = 3 - patch_size.size();
  plan.patch = {1, 1, 1};
  for (size_t a = 0; a < patch_size.size(); ++a) plan.patch[a + offset] = patch_size[a];
  for (size_t a = 0; a < 3; ++a) {
    if (plan.patch[a] < 1 || shape[a] < 1)
      return Error{ErrorCode::kInvalidArgument, "patch and volume need at least one voxel per axis",
                   "patch_size", ""};
    plan.padded[a] = std::max(shape[a], plan.patch[a]);
    plan.pad_below[a] = (plan.padded[a] - shape[a]) / 2;
    if (plan.spatial_dims == 2 && a == 0) {  // 2-D: slice by slice
      for (int64_t d = 0; d < shape[0]; ++d) plan.steps[0].push_back(d);
      continue;
    }
    const int64_t room = plan.padded[a] - plan.patch[a];
    const double target = double(plan.patch[a]) * step;
    const auto count = int64_t(std::ceil(double(room) / target)) + 1;
    const double actual = count > 1 ? double(room) / double(count - 1) : 0;
    for (int64_t i = 0; i < count; ++i)
      plan.steps[a].push_back(int64_t(std::nearbyint(actual * double(i))));  // np.round: half to even
  }
  return plan;
}

std::vector<Vec3<bool>> mirror_sets(const std::vector<int>& axes, int spatial_dims) {
  std::vector<Vec3<bool>> sets{{false, false, false}};
  const size_t n = axes.size(), offset = size_t(3 - spatial_dims);
  for (size_t size = 1; size <= n; ++size) {
    std::vector<size_t> pick(size);
    for (size_t i = 0; i < size; ++i) pick[i] = i;
    for (;;) {
      Vec3<bool> flags{false, false, false};
      for (size_t i : pick) flags[size_t(axes[i]) + offset] = true;
      sets.push_back(flags);
      size_t i = size;
      while (i > 0 && pick[i - 1] == n - size + i - 1) --i;
      if (i == 0) break;
      ++pick[i - 1];
      for (size_t k = i; k < size; ++k) pick[k] = pick[k - 1] + 1;
    }
  }
  return sets;
}

void extract_tile(const TilePlan& plan, const float* data, int64_t channels, const Index3& origin,
                  const Vec3<bool>& mirror, float* tile) {
  const Shape3 p = plan.patch, s = plan.shape;
  // Valid x range of the tile, before mirroring.
  const int64_t x0 = origin[2] - plan.pad_below[2];
  const int64_t lo = std::clamp<int64_t>(-x0, 0, p[2]), hi = std::clamp<int64_t>(s[2] - x0, lo, p[2]);
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t tz = 0; tz < p[0]; ++tz)
      for (int64_t ty = 0; ty < p[1]; ++ty) {
        const int64_t z = origin[0] - plan.pad_below[0] + (mirror[0] ? p[0] - 1 - tz : tz);
        const int64_t y = origin[1] - plan.pad_below[1] + (mirror[1] ? p[1] - 1 - ty : ty);
        float* out = tile + ((c * p[0] + tz) * p[1] + ty) * p[2];
        if (z < 0 || z >= s[0] || y < 0 || y >= s[1] || lo == hi) {
          std::memset(out, 0, size_t(p[2]) * sizeof(float));
          continue;
        }
        const float* row = data + ((c * s[0] + z) * s[1] + y) * s[2] + x0;
        if (!mirror[2]) {
          std::fill(out, out + lo, 0.0f);
          std::memcpy(out + lo, row + lo, size_t(hi - lo) * sizeof(float));
          std::fill(out + hi, out + p[2], 0.0f);
        } else {
          for (int64_t x = 0; x < p[2]; ++x) {
            const int64_t from = p[2] - 1 - x;
            out[x] = from >= lo && from < hi ? row[from] : 0.0f;
          }
        }
      }
}

}  // namespace isoline
