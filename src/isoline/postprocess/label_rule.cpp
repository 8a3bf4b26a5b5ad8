#include "isoline/postprocess/label_rule.h"

#include <algorithm>
#include <bit>

#include "isoline/postprocess/sigmoid.h"
#include "isoline/resample/anisotropy.h"

namespace isoline {
namespace {

// The float32 sigmoid grows with its argument, so positive floats can be searched by their bits.
float smallest_above_half() {
  uint32_t below = 0, above = std::bit_cast<uint32_t>(1.0f);
  while (above - below > 1) {
    const uint32_t middle = below + (above - below) / 2;
    (sigmoid(std::bit_cast<float>(middle)) > 0.5f ? above : below) = middle;
  }
  return std::bit_cast<float>(above);
}

}  // namespace

Result<LabelRule> make_label_rule(const ModelSpec& spec, const CropRecord& crop,
                                  const ResampleRecord& resample) {
  const ResampleSpec& r = spec.resample_probabilities;
  if (r.function == ResampleFunction::kDefault && (r.order != 1 && r.order != 0))
    return Error{ErrorCode::kUnsupported, "order " + std::to_string(r.order) + " is not supported for logits",
                 "resampling_fn_probabilities_kwargs.order", "Orders 0 and 1 are."};
  if (r.function == ResampleFunction::kDefault && r.order_z != 0)
    return Error{ErrorCode::kUnsupported,
                 "order_z " + std::to_string(r.order_z) + " is not supported for logits",
                 "resampling_fn_probabilities_kwargs.order_z", "Only order_z 0 is."};
  if (r.function == ResampleFunction::kNone && resample.shape_before != resample.shape_after)
    return Error{ErrorCode::kUnsupported, "logits stay on the network's grid but the data was resampled",
                 "resampling_fn_probabilities", "The reference cannot export this either."};
  LabelRule rule;
  rule.heads = spec.labels.heads;
  rule.regions = spec.labels.has_regions;
  rule.region_threshold = smallest_above_half();
  rule.torch = r.function == ResampleFunction::kTorch;
  rule.network_shape = resample.shape_after;
  rule.crop_shape = resample.shape_before;
  rule.box = crop.box;
  if (rule.regions) {
    for (int label : spec.labels.regions_class_order) rule.region_labels.push_back(uint16_t(label));
    rule.top_label = *std::max_element(rule.region_labels.begin(), rule.region_labels.end());
  } else {
    rule.top_label = uint16_t(rule.heads - 1);
  }
  const auto coarse =
      separate_axis(r.force_separate_z, resample.spacing_after_mm, resample.spacing_before_mm);
  const GridRule grid = rule.torch ? GridRule::kTorch : GridRule::kZoom;
  for (int a = 0; a < 3; ++a) {
    const auto i = size_t(a);
    const int order = coarse == a ? 0 : rule.torch ? 1 : r.order;
    rule.taps[i] = make_linear_taps(rule.network_shape[i], rule.crop_shape[i], order, grid);
  }
  // Transposed axis a is file axis transpose_forward[a].
  for (size_t a = 0; a < 3; ++a) rule.file_shape[size_t(crop.transpose_forward[a])] = crop.shape_before[a];
  const Shape3 stride{rule.file_shape[1] * rule.file_shape[2], rule.file_shape[2], 1};
  for (size_t a = 0; a < 3; ++a) rule.file_stride[a] = stride[size_t(crop.transpose_forward[a])];
  return rule;
}

}  // namespace isoline
