// Adds weighted tile outputs in binary16, in tile order, and gives planes out as soon as no tile can touch
// them.
#pragma once

#include <functional>

#include "isoline/base/buffer.h"
#include "isoline/base/half.h"
#include "isoline/base/parallel.h"
#include "isoline/base/result.h"
#include "isoline/tile/tile_plan.h"

namespace isoline {

// Finished planes [z_begin, z_end) of the *unpadded* prepared grid, logits in binary16.
// Value of head h at (z, y, x): data[h * head_stride + (z - z_begin) * plane_stride + y * row_stride + x].
// Valid during the call only.
struct LogitSlab {
  int64_t z_begin = 0, z_end = 0;
  Shape3 shape{0, 0, 0};  // of the whole prepared grid
  int64_t heads = 0;
  const half_t* data = nullptr;
  int64_t head_stride = 0, plane_stride = 0, row_stride = 0;
};
using LogitSink = std::function<Status(const LogitSlab&)>;

// The reference keeps two volumes (weighted sums and weights) for the whole scan; this keeps patch[0] planes
// of sums and recomputes the weights' binary16 sums when a plane is finished, with identical bits. Arithmetic
// per voxel, as torch on a CPU: sum = half(float(sum) + float(pred) * float(g)); n = half(n + g); logit =
// half(float(sum) / float(n)). One tile at a time; not thread-safe.
class Accumulator {
 public:
  // The plan must outlive the accumulator.
  Accumulator(const TilePlan& plan, int64_t heads, ThreadPool& pool);
  // prediction: [heads, patch], float32, of tile `index`; tiles must come in order 0, 1, 2, ...
  // Finished planes go to `sink`, ascending. An infinite or NaN logit is an error (the reference raises on
  // infinity).
  Status add(int64_t index, const float* prediction, const LogitSink& sink);

 private:
  Status flush(int64_t until, const LogitSink& sink);
  void weight_row(int64_t z, int64_t y, half_t* row) const;

  const TilePlan& plan_;
  int64_t heads_;
  ThreadPool& pool_;
  Buffer<half_t> gaussian_;
  Buffer<float> gaussian_float_;
  Buffer<half_t> sums_;  // [heads, patch z planes, padded y, padded x]; plane 0 is padded z = base_
  int64_t base_ = 0;     // padded z of the first plane held
  int64_t next_tile_ = 0;
};

}  // namespace isoline
