// Resamples a label map by its labels' linearly interpolated indicators (nnU-Net's previous-stage input).
#pragma once

#include <cstdint>
#include <optional>

#include "isoline/base/parallel.h"
#include "isoline/base/shape.h"
#include "isoline/resample/axis_operator.h"

namespace isoline {

// src: labels [z, y, x] of `in`; dst: [z, y, x] of `out`. Per output voxel the label with the largest
// indicator, interpolated in double as scipy does; an exact tie goes to the nearest neighbour's label if that
// is among the tied ones, else to the smallest. `coarse_axis`: that axis is resampled with order 0 after the
// other two. Source: batchgenerators 0.25.5 resize_segmentation (order 1) and nnunetv2
// resample_data_or_seg(is_seg=True).
void resample_labels(const int16_t* src, const Shape3& in, const Shape3& out, std::optional<int> coarse_axis,
                     int16_t* dst, ThreadPool& pool);

}  // namespace isoline
