#include "isoline/postprocess/components.h"

#include <algorithm>

#include "isoline/volume/components.h"

namespace isoline {

void keep_largest_component(LabelMap& map, const std::vector<int>& labels, uint16_t background) {
  std::vector<uint8_t> wanted(65536, 0);
  for (int l : labels)
    if (l >= 0 && l < 65536) wanted[size_t(l)] = 1;
  const int64_t nx = map.shape[2];
  const Components components = connected_components(map.shape, [&](int64_t z, int64_t y, uint8_t* inside) {
    const uint16_t* row = &map.at(z, y, 0);
    uint8_t any = 0;
    for (int64_t x = 0; x < nx; ++x) any |= inside[x] = wanted[row[x]];
    return any != 0;
  });
  if (components.size() == 0) return;
  const int64_t top = *std::max_element(components.voxels.begin(), components.voxels.end());
  for (int64_t z = 0; z < map.shape[0]; ++z)
    for (int64_t y = 0; y < map.shape[1]; ++y)
      for (const Components::Run& run : components.row(z, y))
        if (components.voxels[size_t(run.component)] != top)
          std::fill(&map.at(z, y, 0) + run.x_begin, &map.at(z, y, 0) + run.x_end, background);
}

}  // namespace isoline
