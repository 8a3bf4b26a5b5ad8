// Volume<T> and Image: voxel arrays with their place in the world.
#pragma once

#include <array>
#include <variant>

#include "isoline/base/buffer.h"
#include "isoline/base/shape.h"

namespace isoline {

// Where voxels are, in millimetres. Array axes are [z, y, x]; world axes are [x, y, z] in the *LPS* frame
// (the DICOM/ITK frame; NIfTI's RAS is converted by the reader).
struct Geometry {
  Vec3<double> spacing_mm{1, 1, 1};  // [z, y, x], always > 0
  Vec3<double> origin_mm{0, 0, 0};   // world [x, y, z] of voxel [0, 0, 0]
  // direction[r][c]: component r (world x, y, z) of the unit vector along *file* axis c (x, y, z).
  std::array<std::array<double, 3>, 3> direction{{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
};

// A dense single-channel array [z, y, x], x fastest.
template <class T>
struct Volume {
  Shape3 shape{0, 0, 0};
  Geometry geometry;
  Buffer<T> data;

  Volume() = default;
  Volume(Shape3 s, Geometry g) : shape(s), geometry(g), data(size_t(voxels(s))) {}
  T& at(int64_t z, int64_t y, int64_t x) { return data[size_t((z * shape[1] + y) * shape[2] + x)]; }
  const T& at(int64_t z, int64_t y, int64_t x) const {
    return data[size_t((z * shape[1] + y) * shape[2] + x)];
  }
};

// A label map: 0 is background. 16 bits hold every label nnU-Net can write.
using LabelMap = Volume<uint16_t>;

// Intensities as they were in the file: int16 when that holds the file's values exactly (most CT), else
// float32.
using Intensities = std::variant<Buffer<int16_t>, Buffer<float>>;

// One scan, [c, z, y, x], x fastest.
struct Image {
  int64_t channels = 0;
  Shape3 shape{0, 0, 0};
  Geometry geometry;
  Intensities data;  // channels * voxels(shape) values
};

}  // namespace isoline
