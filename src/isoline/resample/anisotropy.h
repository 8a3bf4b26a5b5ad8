// Which grid a volume is resampled to, and whether one coarse axis is treated apart.
// Source: nnunetv2 preprocessing/resampling/default_resampling.py.
#pragma once

#include <optional>

#include "isoline/base/shape.h"

namespace isoline {

// compute_new_shape: int(round(old / new * n)) per axis, half to even.
Shape3 compute_new_shape(const Shape3& old_shape, const Vec3<double>& old_spacing_mm,
                         const Vec3<double>& new_spacing_mm);

// determine_do_sep_z_and_axis with ANISO_THRESHOLD 3: the coarse axis to resample apart, if any.
// `force` unset lets the current spacing decide, then the new one; two or three equal coarse axes mean none.
std::optional<int> separate_axis(std::optional<bool> force, const Vec3<double>& current_spacing_mm,
                                 const Vec3<double>& new_spacing_mm);

}  // namespace isoline
