#include "isoline/postprocess/components.h"

#include <algorithm>

namespace isoline {

void keep_largest_component(LabelMap& map, const std::vector<int>& labels, uint16_t background) {
  const Shape3 s = map.shape;
  const int64_t n = voxels(s);
  std::vector<uint8_t> wanted(65536, 0);
  for (int l : labels)
    if (l >= 0 && l < 65536) wanted[size_t(l)] = 1;
  // Component number per voxel, 0 outside the mask; flood fill with an explicit stack.
  std::vector<int32_t> component(size_t(n), 0);
  std::vector<int64_t> sizes{0}, stack;
  for (int64_t start = 0; start < n; ++start) {
    if (component[size_t(start)] || !wanted[map.data[size_t(start)]]) continue;
    const auto id = int32_t(sizes.size());
    sizes.push_back(0);
    component[size_t(start)] = id;
    stack.push_back(start);
    while (!stack.empty()) {
      const int64_t i = stack.back();
      stack.pop_back();
      ++sizes.back();
      const int64_t z = i / (s[1] * s[2]), y = i / s[2] % s[1], x = i % s[2];
      for (int64_t dz = std::max<int64_t>(0, z - 1); dz <= std::min(s[0] - 1, z + 1); ++dz)
        for (int64_t dy = std::max<int64_t>(0, y - 1); dy <= std::min(s[1] - 1, y + 1); ++dy)
          for (int64_t dx = std::max<int64_t>(0, x - 1); dx <= std::min(s[2] - 1, x + 1); ++dx) {
            const auto j = size_t((dz * s[1] + dy) * s[2] + dx);
            if (component[j] || !wanted[map.data[j]]) continue;
            component[j] = id;
            stack.push_back(int64_t(j));
          }
    }
  }
  if (sizes.size() == 1) return;
  const int64_t top = *std::max_element(sizes.begin() + 1, sizes.end());
  for (int64_t i = 0; i < n; ++i)
    if (const int32_t c = component[size_t(i)]; c && sizes[size_t(c)] != top)
      map.data[size_t(i)] = background;
}

}  // namespace isoline
