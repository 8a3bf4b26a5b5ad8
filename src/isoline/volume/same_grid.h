// Do two volumes lie on the same voxel grid?
#pragma once

#include "isoline/base/result.h"
#include "isoline/volume/volume.h"

namespace isoline {

// What still counts as the same. Files keep geometry in float32 and readers differ in the last digits.
struct GridTolerance {
  double spacing = 1e-3;  // relative
  double origin_voxels =
      0.01;                 // in units of the smallest spacing (plus float32 rounding of the origin itself)
  double direction = 1e-3;  // per component of the direction vectors
  bool origin_and_direction = true;  // false: shape and spacing only
};

// kInvalidArgument names the first thing that differs (shape, spacing, origin, direction) with both values;
// `name_a` and `name_b` say which is which, e.g. file names.
Status same_grid(const Shape3& shape_a, const Geometry& a, const Shape3& shape_b, const Geometry& b,
                 const std::string& name_a, const std::string& name_b, const GridTolerance& tolerance = {});

template <class A, class B>
Status same_grid(const A& a, const B& b, const std::string& name_a, const std::string& name_b,
                 const GridTolerance& tolerance = {}) {
  return same_grid(a.shape, a.geometry, b.shape, b.geometry, name_a, name_b, tolerance);
}

}  // namespace isoline
