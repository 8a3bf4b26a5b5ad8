// LabelRule: everything that turns logits on the network's grid into labels on the scan's grid, as tables.
#pragma once

#include <vector>

#include "isoline/base/result.h"
#include "isoline/model/model_spec.h"
#include "isoline/preprocess/preprocess.h"
#include "isoline/resample/axis_operator.h"

namespace isoline {

// Axes are transposed ones (CropRecord) unless "file" stands in the name.
struct LabelRule {
  int64_t heads = 0;
  bool regions = false;  // else argmax; ties go to the lowest head
  std::vector<uint16_t>
      region_labels;           // [heads]: painted in this order where a region's probability is > 0.5
  float region_threshold = 0;  // smallest float32 logit whose float32 sigmoid is > 0.5
  bool torch = false;          // float32 fused interpolation, not rounded to binary16
  LinearTaps taps[3];          // of the crop's voxels among the network's
  Shape3 network_shape{0, 0, 0}, crop_shape{0, 0, 0};
  Box3 box;                     // the crop in the scan
  Shape3 file_shape{0, 0, 0};   // of the label map
  Shape3 file_stride{0, 0, 0};  // of each transposed axis in it, in voxels
  uint16_t top_label = 0;       // the largest that can come out

  bool identity() const { return network_shape == crop_shape; }
};

// Source: nnunetv2 export_prediction.py. Errors: resampling of logits that the reference cannot do, or that
// is not supported here.
Result<LabelRule> make_label_rule(const ModelSpec& spec, const CropRecord& crop,
                                  const ResampleRecord& resample);

}  // namespace isoline
