// Areas of the marching-cubes contours of the 256 patterns of eight voxels around a corner.
#pragma once

#include <array>
#include <cstdint>

#include "isoline/base/shape.h"

namespace isoline {

// Bit of the voxel at offset (z, y, x), each 0 (before the corner) or 1 (behind it): 128 for (0, 0, 0) down
// to 1 for (1, 1, 1). A pattern ("code") is the sum of the bits of the voxels inside.
constexpr uint32_t corner_bit(int z, int y, int x) {
  return 128u >> (4 * z + 2 * y + x);
}

// Area in mm2 by code; 0 for codes 0 and 255. Derived here, not tabulated:
// - The contour crosses an edge of the cell (the box between the eight voxel centres) halfway, where one end
// is
//   inside and the other is not. On each face the crossings are joined in pairs. A face with four crossings
//   is ambiguous: the corners of the rarer kind (inside, if at most four of the eight are) are cut off one by
//   one.
// - The segments close to loops of 3 to 6 points, filled with triangles whose areas add up, each at the given
//   spacing. Loops of 3 and 4 points are flat. Of a loop of 5 that fan of triangles is taken whose area is
//   largest in the unit cube; of 6, the triangle of every other point and the three left over. (Either choice
//   of "every other" gives the same areas.)
// These rules reproduce the areas of google-deepmind/surface-distance for every code and spacing. With
// spacing 1 along z, patterns that are the same before and behind the corner (code = 17 * four bits) have as
// areas the lengths of its contours in 2-D.
std::array<double, 256> surfel_areas_mm2(const Vec3<double>& spacing_mm);

}  // namespace isoline
