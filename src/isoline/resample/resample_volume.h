// Resamples one channel from rows the caller produces, so that reading, cropping and normalising cost no pass
// of their own over memory.
#pragma once

#include <functional>

#include "isoline/base/parallel.h"
#include "isoline/base/shape.h"
#include "isoline/resample/axis_operator.h"

namespace isoline {

// Writes row [z, y, :] of the source (in.x values) to `row`. Called once per row, from several threads.
using RowLoader = std::function<void(int64_t z, int64_t y, float* row)>;

struct ResampleRequest {
  Shape3 in{0, 0, 0}, out{0, 0, 0};
  int order = 3;            // 0, 1 or 3
  bool separate_z = false;  // axis 0 is coarse: slices in-plane with `order`, then order 0 along axis 0
  GridRule rule = GridRule::kZoom;
};

// dst: [z, y, x] of request.out, caller-owned, fully overwritten. With equal shapes rows are passed through.
// Cubic results are clipped to the source's range (of the whole channel, or per slice when separate_z), as
// skimage.transform.resize(clip=True) does. Arithmetic is float32; the reference's is float64 rounded to
// float32 (difference < 3e-6 of the value range). Scratch: one float volume of [in.z, out.y, out.x].
void resample_rows(const RowLoader& load, const ResampleRequest& request, float* dst, ThreadPool& pool);

}  // namespace isoline
