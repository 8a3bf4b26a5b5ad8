// Logits -> LabelMap in one streaming pass: interpolate, round to binary16, decide, undo crop and transpose.
#pragma once

#include <vector>

#include "isoline/base/half.h"
#include "isoline/base/parallel.h"
#include "isoline/base/result.h"
#include "isoline/postprocess/label_rule.h"
#include "isoline/tile/accumulator.h"
#include "isoline/volume/volume.h"

namespace isoline {

// Gives the labels of nnunetv2 convert_predicted_logits_to_segmentation_with_correct_shape, bit for bit,
// without ever holding resampled logits: they are float64 trilinear sums in scipy's order, rounded once to
// binary16, then argmax (ties: lowest channel) or, for regions, float32 sigmoid > 0.5 painted in
// regions_class_order.
//
// Speed comes from not computing them: where all samples around an output voxel agree by more than rounding
// could undo, interpolation cannot change the decision. Only the rest is evaluated.
class LabelExporter {
 public:
  // spec and records are copied; the pool must outlive the exporter.
  // with_probabilities also keeps float32 softmax/sigmoid of every head on the scan's grid (memory: heads *
  // voxels * 4).
  static Result<LabelExporter> create(const ModelSpec& spec, const CropRecord& crop,
                                      const ResampleRecord& resample, ThreadPool& pool,
                                      bool with_probabilities = false);

  // Takes slabs in ascending z without gaps.
  Status add(const LogitSlab& slab);

  struct Output {
    LabelMap labels;               // file order; geometry left at its default
    Buffer<float> probabilities;   // [heads, z, y, x] in file order; empty unless asked for
    int64_t evaluated_voxels = 0;  // how many needed arithmetic, for profiling
  };
  // After the last slab.
  Output finish();

 private:
  LabelExporter(LabelRule rule, ThreadPool& pool, bool with_probabilities);
  // One low-resolution plane: logits [head][y][x] and one decision code per voxel.
  struct Plane {
    Buffer<half_t> logits;
    Buffer<uint16_t> codes;
  };
  void make_codes(const half_t* logits, int64_t head_stride, int64_t row_stride, uint16_t* codes) const;
  void emit(int64_t z, const Plane& lo, const Plane& hi);
  uint16_t decide(const float* values) const;
  void evaluate(const half_t* const* taps, const double* wz, const double* wy, const double* wx,
                float* values) const;

  LabelRule rule_;
  bool with_probabilities_;
  std::vector<uint16_t> label_of_code_;
  ThreadPool* pool_;
  Plane previous_;        // last plane of the slab before
  int64_t next_out_ = 0;  // first output plane not yet written
  Output out_;
};

}  // namespace isoline
