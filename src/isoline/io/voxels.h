// Loops over voxels: file types to int16 or float32, byte order, axis maps, extremes. Internal to io.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "isoline/base/parallel.h"
#include "isoline/io/nifti_geometry.h"
#include "isoline/io/nifti_header.h"

namespace isoline {

// value = slope * v + inter, or v where !active. `through_float`: integers become float32 before the (double)
// arithmetic, as ITK does; otherwise float64, as nibabel does. `nonfinite_to_zero`: NaN and infinite voxels
// of floating-point files count as 0 (ITK), instead of going through (nibabel).
struct VoxelScaling {
  bool active = false;
  double slope = 1, inter = 0;
  bool through_float = false;
  bool nonfinite_to_zero = false;
};

// Smallest and largest of n integers of `type` at `raw` (saturated to int64); n > 0.
struct IntegerRange {
  int64_t lowest = 0, highest = 0;
};
IntegerRange integer_range(NiftiType type, bool swap, const std::byte* raw, int64_t n, ThreadPool& pool);

// Integers of at most 64 bits plus `inter` into int16; the caller has checked the range.
void to_int16(NiftiType type, bool swap, const std::byte* raw, int64_t n, int64_t inter, int16_t* out,
              ThreadPool& pool);
// Any type into float32. Returns the index of the first voxel that was not finite in the file or is not
// finite as float32, or -1.
int64_t to_float(NiftiType type, bool swap, const std::byte* raw, int64_t n, const VoxelScaling& scaling,
                 float* out, ThreadPool& pool);

// out[array order] = in[file order] by `map`; shapes in x, y, z order, x fastest.
template <class T>
void remap(const AxisMap& map, const T* in, const std::array<int64_t, 3>& in_shape_xyz, T* out,
           ThreadPool& pool);

// counts[value] += how often it occurs; T is uint8_t or uint16_t. Fast where most neighbours are equal, as in
// label maps.
template <class T>
void count_values(const T* values, int64_t n, int64_t* counts);
// The low bytes; true if no value was 256 or more.
bool low_bytes(const uint16_t* in, int64_t n, std::byte* out);

}  // namespace isoline
