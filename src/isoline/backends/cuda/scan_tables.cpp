#include "isoline/backends/cuda/scan_tables.h"

namespace isoline::cuda {

std::vector<BatchPlan> plan_batches(const TilePlan& plan, std::span<const Vec3<bool>> mirrors, int size,
                                    bool break_rows) {
  const int64_t each = int64_t(mirrors.size()), units = plan.tiles() * each;
  std::vector<BatchPlan> batches;
  const int64_t row = break_rows ? plan.tiles_per_row() * each : units;
  for (int64_t unit = 0; unit < units; unit += batches.back().count) {
    BatchPlan b;
    b.first_unit = unit;
    b.count = int(std::min<int64_t>({size, units - unit, row - unit % row}));
    for (int i = 0; i < b.count; ++i) {
      const int64_t tile = (unit + i) / each, mirror = (unit + i) % each;
      const Index3 at = plan.origin(tile);
      const Vec3<bool>& flip = mirrors[size_t(mirror)];
      b.windows.at[i] = {int(at[0]), int(at[1]), int(at[2]), flip[0], flip[1], flip[2]};
      if (b.parts.empty() || b.parts.back().tile != tile)
        b.parts.push_back({tile, i, 0, mirror == 0, false, {}});
      BatchPart& part = b.parts.back();
      part.windows.at[part.count++] = b.windows.at[i];
      part.last = mirror + 1 == each;
    }
    batches.push_back(std::move(b));
  }
  return batches;
}

}  // namespace isoline::cuda
