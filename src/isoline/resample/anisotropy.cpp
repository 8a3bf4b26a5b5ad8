#include "isoline/resample/anisotropy.h"

#include <algorithm>
#include <cmath>

namespace isoline {
namespace {

constexpr double kAnisotropyThreshold = 3;

bool is_anisotropic(const Vec3<double>& s) {
  return *std::max_element(s.begin(), s.end()) / *std::min_element(s.begin(), s.end()) > kAnisotropyThreshold;
}

// The axis whose spacing is the largest; none when two or three share it.
std::optional<int> coarse_axis(const Vec3<double>& s) {
  const double top = *std::max_element(s.begin(), s.end());
  std::optional<int> axis;
  for (int a = 0; a < 3; ++a) {
    if (top / s[size_t(a)] != 1) continue;
    if (axis) return std::nullopt;
    axis = a;
  }
  return axis;
}

}  // namespace

Shape3 compute_new_shape(const Shape3& old_shape, const Vec3<double>& old_spacing_mm,
                         const Vec3<double>& new_spacing_mm) {
  Shape3 out{};
  for (size_t a = 0; a < 3; ++a)  // the default rounding mode is to nearest even, as Python's round()
    out[a] = int64_t(std::nearbyint(old_spacing_mm[a] / new_spacing_mm[a] * double(old_shape[a])));
  return out;
}

std::optional<int> separate_axis(std::optional<bool> force, const Vec3<double>& current_spacing_mm,
                                 const Vec3<double>& new_spacing_mm) {
  if (force) return *force ? coarse_axis(current_spacing_mm) : std::nullopt;
  if (is_anisotropic(current_spacing_mm)) return coarse_axis(current_spacing_mm);
  if (is_anisotropic(new_spacing_mm)) return coarse_axis(new_spacing_mm);
  return std::nullopt;
}

}  // namespace isoline
