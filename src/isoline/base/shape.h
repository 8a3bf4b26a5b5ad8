// Shapes, indices and boxes in array order [z, y, x]; 2-D data has z = 1.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace isoline {

// Three values, one per axis, in array order [z, y, x].
template <class T>
using Vec3 = std::array<T, 3>;
using Index3 = Vec3<int64_t>;
using Shape3 = Vec3<int64_t>;

inline int64_t voxels(const Shape3& s) {
  return s[0] * s[1] * s[2];
}
inline std::string to_string(const Shape3& s) {
  return std::to_string(s[0]) + "x" + std::to_string(s[1]) + "x" + std::to_string(s[2]);
}

// Half-open box: lo inclusive, hi exclusive.
struct Box3 {
  Index3 lo{0, 0, 0};
  Index3 hi{0, 0, 0};
  Shape3 shape() const { return {hi[0] - lo[0], hi[1] - lo[1], hi[2] - lo[2]}; }
  bool operator==(const Box3&) const = default;
};

}  // namespace isoline
