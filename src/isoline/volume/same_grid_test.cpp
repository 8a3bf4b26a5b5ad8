#include "isoline/volume/same_grid.h"

#include <gtest/gtest.h>

#include <cmath>

namespace isoline {
namespace {

std::string difference(const LabelMap& a, const LabelMap& b, const GridTolerance& t = {}) {
  const Status s = same_grid(a, b, "a.nii", "b.nii", t);
  return s.ok() ? "" : s.error().to_string();
}

LabelMap map_of(const Shape3& shape) {
  LabelMap m(shape, {});
  m.geometry.spacing_mm = {5, 0.78125, 0.78125};
  m.geometry.origin_mm = {-200, -180.5, 1200};
  return m;
}

TEST(SameGrid, NamesWhatDiffersWithBothValues) {
  const LabelMap a = map_of({3, 4, 5});
  EXPECT_EQ(difference(a, map_of({3, 4, 5})), "");
  EXPECT_NE(
      difference(a, map_of({3, 5, 4})).find("b.nii: its shape [z y x] is 3x5x4, that of a.nii is 3x4x5"),
      std::string::npos);
  LabelMap b = map_of({3, 4, 5});
  b.geometry.spacing_mm[1] = 0.8;
  EXPECT_NE(difference(a, b).find("5 0.8 0.78125, that of a.nii is 5 0.78125 0.78125"), std::string::npos);
  b = map_of({3, 4, 5});
  b.geometry.origin_mm[2] = 1201;
  EXPECT_NE(difference(a, b).find("-200 -180.5 1201, that of a.nii is -200 -180.5 1200"), std::string::npos);
  b = map_of({3, 4, 5});
  b.geometry.direction[0][0] = -1;
  EXPECT_NE(difference(a, b).find("direction is (-1 0 0; 0 1 0; 0 0 1)"), std::string::npos);
  EXPECT_EQ(difference(a, b, {.origin_and_direction = false}), "");
}

TEST(SameGrid, AllowsFloat32RoundingButNoNaN) {
  const LabelMap a = map_of({3, 4, 5});
  LabelMap b = map_of({3, 4, 5});
  b.geometry.spacing_mm[2] = 0.7812501;
  b.geometry.origin_mm[2] = 1200.0001;
  b.geometry.direction[1][0] = 2e-5;
  EXPECT_EQ(difference(a, b), "");
  b.geometry.origin_mm[1] = NAN;
  EXPECT_NE(difference(a, b), "");
  b = map_of({3, 4, 5});
  b.geometry.spacing_mm[0] = NAN;
  EXPECT_NE(difference(a, b), "");
}

}  // namespace
}  // namespace isoline
