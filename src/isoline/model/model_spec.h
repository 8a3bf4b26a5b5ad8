// ModelSpec: everything there is to know about one frozen model, immutable once read.
// Nothing about a network is hard-coded anywhere else. Field meanings follow nnunetv2 2.8.1 (plans.json,
// dataset.json, checkpoint); file and function names of the reference stand beside the rules they fix.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "isoline/volume/reader_kind.h"

namespace isoline {

// preprocessing/normalization/default_normalization_schemes.py
enum class Normalization { kCt, kZScore, kNone, kRescaleTo01, kRgbTo01 };

struct ChannelSpec {
  std::string name;  // dataset.json channel_names
  Normalization normalization = Normalization::kNone;
  bool use_mask = false;  // use_mask_for_norm: statistics and result inside the nonzero mask only (z-score)
  // foreground_intensity_properties_per_channel; needed by kCt only.
  double mean = 0, std_dev = 1, percentile_00_5 = 0, percentile_99_5 = 0;
};

// preprocessing/resampling/*: function names plans.json may carry.
enum class ResampleFunction {
  kDefault /* resample_data_or_seg_to_shape */,
  kTorch /* resample_torch_fornnunet */,
  kNone /* no_resampling_hack */
};

struct ResampleSpec {
  ResampleFunction function = ResampleFunction::kDefault;
  bool is_segmentation = false;
  int order = 3;                         // spline order, 0..5; 1 and 3 occur in practice
  int order_z = 0;                       // along the coarse axis when resampled separately
  std::optional<bool> force_separate_z;  // unset: decided by spacing (anisotropy > 3)
  // kTorch: interpolation mode "linear" or "nearest" for images; memory and device arguments do not matter
  // here.
  std::string torch_mode = "linear";
};

// utilities/label_handling/label_handling.py
struct Region {
  std::string name;
  std::vector<int> labels;  // one or more
};

struct LabelSpec {
  bool has_regions = false;
  std::vector<Region> foreground;        // in dataset.json order, background and ignore left out
  std::vector<int> regions_class_order;  // label painted for channel i (regions only)
  std::vector<int> all_labels;           // sorted, unique, background included, ignore left out
  std::optional<int> ignore_label;
  int heads = 0;  // channels the network gives: regions: foreground.size(); else all_labels.size()
  int foreground_label_count() const {  // len(LabelManager.foreground_labels)
    int n = 0;
    for (int l : all_labels) n += l != 0;
    return n;
  }
};

enum class ArchitectureKind { kPlainConvUNet, kResidualEncoderUNet };
enum class NormOp { kInstanceNorm, kNone };
enum class Nonlinearity { kLeakyRelu, kRelu };

// dynamic_network_architectures: PlainConvUNet / ResidualEncoderUNet arguments. Lists have spatial_dims
// entries.
struct ArchitectureSpec {
  ArchitectureKind kind = ArchitectureKind::kPlainConvUNet;
  int spatial_dims = 3;  // 2 or 3
  std::vector<int> features;
  std::vector<std::vector<int>> kernel_sizes, strides;
  std::vector<int> blocks_per_stage;  // n_conv_per_stage or n_blocks_per_stage
  std::vector<int> decoder_convs_per_stage;
  bool conv_bias = true;
  NormOp norm = NormOp::kInstanceNorm;
  double norm_eps = 1e-5;
  bool norm_affine = true;
  Nonlinearity nonlinearity = Nonlinearity::kLeakyRelu;
  double negative_slope = 0.01;  // of LeakyReLU
  // ResidualEncoderUNet: "basic" (BasicBlockD) or "bottleneck" is refused by name unless basic; stem
  // channels.
  int stem_channels = 0;  // 0: features[0]
};

struct ModelSpec {
  std::string folder;  // where it was read from, for messages only
  std::string dataset_name, plans_name, trainer_name, configuration;
  std::string checkpoint_name;     // e.g. checkpoint_final.pth
  std::vector<std::string> folds;  // as used, e.g. {"0", "1"} or {"all"}
  std::string file_ending = ".nii.gz";
  ReaderKind reader = ReaderKind::kSimpleItk;
  std::vector<int> transpose_forward{0, 1, 2}, transpose_backward{0, 1, 2};
  std::vector<double> spacing_mm;  // after transpose_forward; 2 entries for 2-D configurations
  std::vector<int> patch_size;     // after transpose_forward; 2 or 3 entries
  std::vector<ChannelSpec> channels;
  ResampleSpec resample_data, resample_segmentation, resample_probabilities;
  std::optional<std::vector<int>>
      mirror_axes;  // inference_allowed_mirroring_axes of the first fold; unset: none
  LabelSpec labels;
  std::optional<ArchitectureSpec> architecture;  // set for results folders
  std::string onnx_file;                         // set for ONNX bundles
  std::optional<std::string> previous_stage;     // cascade: configuration whose labels are appended one-hot
  int input_channels() const {                   // determine_num_input_channels
    return int(channels.size()) + (previous_stage ? labels.foreground_label_count() : 0);
  }
};

}  // namespace isoline
