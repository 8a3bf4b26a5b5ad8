#include "isoline/volume/same_grid.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace isoline {
namespace {

template <size_t N>
std::string list(const std::array<double, N>& v) {
  std::string out;
  for (double x : v) {
    char text[32];
    std::snprintf(text, sizeof text, "%.7g", x + 0.0);  // no "-0"
    out += (out.empty() ? "" : " ") + std::string(text);
  }
  return out;
}

// Written so that a NaN is a difference.
bool near(double a, double b, double limit) {
  return std::abs(a - b) <= limit;
}

}  // namespace

Status same_grid(const Shape3& shape_a, const Geometry& a, const Shape3& shape_b, const Geometry& b,
                 const std::string& name_a, const std::string& name_b, const GridTolerance& tolerance) {
  const auto differ = [&](const std::string& what, const std::string& value_a, const std::string& value_b) {
    return Error{ErrorCode::kInvalidArgument,
                 "its " + what + " is " + value_b + ", that of " + name_a + " is " + value_a, name_b,
                 "Bring both onto one grid; nothing is resampled here."};
  };
  if (shape_a != shape_b) return differ("shape [z y x]", to_string(shape_a), to_string(shape_b));
  for (size_t i = 0; i < 3; ++i)
    if (!near(a.spacing_mm[i], b.spacing_mm[i], tolerance.spacing * std::abs(a.spacing_mm[i])))
      return differ("spacing [z y x] in mm", list(a.spacing_mm), list(b.spacing_mm));
  if (!tolerance.origin_and_direction) return {};
  const double smallest = *std::min_element(a.spacing_mm.begin(), a.spacing_mm.end());
  for (size_t i = 0; i < 3; ++i)
    if (!near(a.origin_mm[i], b.origin_mm[i],
              tolerance.origin_voxels * smallest + 1e-6 * std::abs(a.origin_mm[i])))
      return differ("origin [x y z] in mm", list(a.origin_mm), list(b.origin_mm));
  for (size_t r = 0; r < 3; ++r)
    for (size_t c = 0; c < 3; ++c)
      if (!near(a.direction[r][c], b.direction[r][c], tolerance.direction)) {
        const auto rows = [](const Geometry& g) {
          return "(" + list(g.direction[0]) + "; " + list(g.direction[1]) + "; " + list(g.direction[2]) + ")";
        };
        return differ("direction", rows(a), rows(b));
      }
  return {};
}

}  // namespace isoline
