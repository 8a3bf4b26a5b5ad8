#include "isoline/model/architecture.h"

#include <algorithm>
#include <cstdint>

#include "isoline/model/printable.h"

namespace isoline {
namespace {

constexpr int kMaxStages = 16, kMaxBlocks = 64, kMaxFeatures = 1 << 16, kMaxKernel = 63, kMaxStride = 64;

// "torch.nn.modules.conv.Conv3d" -> "Conv3d"; empty if the name does not lie in `package`.
std::string class_in(const std::string& package, const std::string& name) {
  if (!name.starts_with(package + ".")) return "";
  return name.substr(name.rfind('.') + 1);
}

Status check_length(const JsonField& field, size_t got, size_t want) {
  if (got == want) return {};
  return field.corrupt("has " + std::to_string(got) + " entries for " + std::to_string(want) + " stages");
}

// An integer for all stages, or a list with one for each.
Result<std::vector<int>> per_stage(const JsonField& field, size_t stages, int lowest, int highest) {
  if (field.is(JsonKind::kInt)) {
    ISOLINE_ASSIGN(const int v, field.as_int(lowest, highest));
    return std::vector<int>(stages, v);
  }
  ISOLINE_ASSIGN(auto v, field.as_ints(lowest, highest));
  ISOLINE_RETURN_IF_ERROR(check_length(field, v.size(), stages));
  return v;
}

// Kernel sizes or strides: an integer, or a list of integers or of one list per stage.
Result<std::vector<std::vector<int>>> per_stage_and_axis(const JsonField& field, size_t stages, int dims,
                                                         int highest) {
  const auto one = [&](const JsonField& f) -> Result<std::vector<int>> {
    if (f.is(JsonKind::kInt)) {
      ISOLINE_ASSIGN(const int v, f.as_int(1, highest));
      return std::vector<int>(size_t(dims), v);
    }
    ISOLINE_ASSIGN(auto v, f.as_ints(1, highest));
    if (v.size() != size_t(dims))
      return f.corrupt("has " + std::to_string(v.size()) + " entries in a " + std::to_string(dims) +
                       "-D network");
    return v;
  };
  std::vector<std::vector<int>> out;
  if (field.is(JsonKind::kInt)) {
    ISOLINE_ASSIGN(const auto v, one(field));
    return std::vector<std::vector<int>>(stages, v);
  }
  ISOLINE_ASSIGN(const auto fields, field.as_array());
  ISOLINE_RETURN_IF_ERROR(check_length(field, fields.size(), stages));
  for (const JsonField& f : fields) {
    ISOLINE_ASSIGN(auto v, one(f));
    out.push_back(std::move(v));
  }
  return out;
}

Status check_kernels_and_strides(const ArchitectureSpec& spec, const JsonField& kernels,
                                 const JsonField& strides) {
  for (const auto& stage : spec.kernel_sizes)
    for (int k : stage)
      if (k % 2 == 0)
        return kernels.unsupported("has the even kernel size " + std::to_string(k),
                                   "Networks with even kernels can be run as ONNX models");
  for (int s : spec.strides[0])
    if (s != 1)
      return strides.unsupported(
          "starts with a stride other than 1: the output would be smaller than the patch");
  return {};
}

Status parse_norm(const JsonField& kwargs, ArchitectureSpec& spec) {
  ISOLINE_ASSIGN(const JsonField op, kwargs.at("norm_op"));
  ISOLINE_ASSIGN(const std::string name, op.as_string());
  const std::string want = "InstanceNorm" + std::to_string(spec.spatial_dims) + "d";
  if (class_in("torch.nn", name) != want)
    return op.unsupported("is '" + printable(name) + "'; supported: torch.nn." + want + " and null");
  spec.norm = NormOp::kInstanceNorm;
  spec.norm_eps = 1e-5;  // torch's defaults
  spec.norm_affine = false;
  if (!kwargs.has("norm_op_kwargs")) return {};
  ISOLINE_ASSIGN(const JsonField options, kwargs.at("norm_op_kwargs"));
  if (options.is_null()) return {};
  ISOLINE_RETURN_IF_ERROR(options.refuse_unknown_keys({"eps", "affine", "momentum", "track_running_stats"}));
  if (options.has("eps")) {
    ISOLINE_ASSIGN(const JsonField eps, options.at("eps"));
    ISOLINE_ASSIGN(spec.norm_eps, eps.as_number());
    if (!(spec.norm_eps >= 0 && spec.norm_eps <= 1)) return eps.corrupt("is not between 0 and 1");
  }
  if (options.has("affine")) {
    ISOLINE_ASSIGN(const JsonField affine, options.at("affine"));
    ISOLINE_ASSIGN(spec.norm_affine, affine.as_bool());
  }
  if (options.has("track_running_stats")) {
    ISOLINE_ASSIGN(const JsonField track, options.at("track_running_stats"));
    ISOLINE_ASSIGN(const bool on, track.as_bool());
    if (on) return track.unsupported("is true: running statistics are not supported");
  }
  return {};  // momentum matters in training only
}

Status parse_nonlinearity(const JsonField& kwargs, ArchitectureSpec& spec) {
  ISOLINE_ASSIGN(const JsonField op, kwargs.at("nonlin"));
  if (op.is_null()) return op.unsupported("is null: networks without nonlinearity are not supported");
  ISOLINE_ASSIGN(const std::string name, op.as_string());
  const std::string cls = class_in("torch.nn", name);
  if (cls == "LeakyReLU")
    spec.nonlinearity = Nonlinearity::kLeakyRelu;
  else if (cls == "ReLU")
    spec.nonlinearity = Nonlinearity::kRelu;
  else
    return op.unsupported("is '" + printable(name) + "'; supported: torch.nn.LeakyReLU, torch.nn.ReLU");
  spec.negative_slope = cls == "ReLU" ? 0.0 : 0.01;
  if (!kwargs.has("nonlin_kwargs")) return {};
  ISOLINE_ASSIGN(const JsonField options, kwargs.at("nonlin_kwargs"));
  if (options.is_null()) return {};
  if (cls == "ReLU") return options.refuse_unknown_keys({"inplace"});
  ISOLINE_RETURN_IF_ERROR(options.refuse_unknown_keys({"inplace", "negative_slope"}));
  if (options.has("negative_slope")) {
    ISOLINE_ASSIGN(const JsonField slope, options.at("negative_slope"));
    ISOLINE_ASSIGN(spec.negative_slope, slope.as_number());
  }
  return {};
}

// Keyword arguments that must have this value, because another one changes the network in a way not
// supported.
Status require_null(const JsonField& kwargs, const char* key) {
  if (!kwargs.has(key)) return {};
  ISOLINE_ASSIGN(const JsonField f, kwargs.at(key));
  return f.is_null() ? Status() : f.unsupported("is set; supported: null");
}

}  // namespace

Result<ArchitectureSpec> parse_architecture(const JsonField& architecture) {
  ISOLINE_RETURN_IF_ERROR(
      architecture.refuse_unknown_keys({"network_class_name", "arch_kwargs", "_kw_requires_import"}));
  ISOLINE_ASSIGN(const JsonField class_field, architecture.at("network_class_name"));
  ISOLINE_ASSIGN(const std::string class_name, class_field.as_string());
  ISOLINE_ASSIGN(const JsonField kwargs, architecture.at("arch_kwargs"));
  const std::string cls = class_in("dynamic_network_architectures", class_name);
  ArchitectureSpec spec;
  if (cls == "PlainConvUNet") {
    spec.kind = ArchitectureKind::kPlainConvUNet;
    ISOLINE_RETURN_IF_ERROR(kwargs.refuse_unknown_keys(
        {"n_stages", "features_per_stage", "conv_op", "kernel_sizes", "strides", "n_conv_per_stage",
         "n_conv_per_stage_decoder", "conv_bias", "norm_op", "norm_op_kwargs", "dropout_op",
         "dropout_op_kwargs", "nonlin", "nonlin_kwargs", "deep_supervision", "nonlin_first"}));
  } else if (cls == "ResidualEncoderUNet") {
    spec.kind = ArchitectureKind::kResidualEncoderUNet;
    ISOLINE_RETURN_IF_ERROR(kwargs.refuse_unknown_keys(
        {"n_stages", "features_per_stage", "conv_op", "kernel_sizes", "strides", "n_blocks_per_stage",
         "n_conv_per_stage_decoder", "conv_bias", "norm_op", "norm_op_kwargs", "dropout_op",
         "dropout_op_kwargs", "nonlin", "nonlin_kwargs", "deep_supervision", "block", "bottleneck_channels",
         "stem_channels"}));
  } else {
    return class_field.unsupported(
        "is '" + printable(class_name) + "'; supported: PlainConvUNet, ResidualEncoderUNet",
        "Export other networks to ONNX and describe them in an isoline.json");
  }

  // Only names listed here become classes in the reference; an unlisted one would make it fail.
  ISOLINE_ASSIGN(const JsonField imports_field, architecture.at("_kw_requires_import"));
  ISOLINE_ASSIGN(const auto import_fields, imports_field.as_array());
  std::vector<std::string> imports;
  for (const JsonField& f : import_fields) {
    ISOLINE_ASSIGN(std::string name, f.as_string());
    if (!kwargs.has(name)) return f.corrupt("names '" + printable(name) + "', which arch_kwargs lacks");
    imports.push_back(std::move(name));
  }
  for (const char* key : {"conv_op", "norm_op", "dropout_op", "nonlin", "block"}) {
    if (!kwargs.has(key)) continue;
    ISOLINE_ASSIGN(const JsonField f, kwargs.at(key));
    if (!f.is_null() && std::find(imports.begin(), imports.end(), key) == imports.end())
      return imports_field.corrupt(std::string("lacks '") + key + "'");
  }

  ISOLINE_ASSIGN(const JsonField conv, kwargs.at("conv_op"));
  ISOLINE_ASSIGN(const std::string conv_name, conv.as_string());
  const std::string conv_class = class_in("torch.nn", conv_name);
  if (conv_class != "Conv2d" && conv_class != "Conv3d")
    return conv.unsupported("is '" + printable(conv_name) + "'; supported: torch.nn.Conv2d, torch.nn.Conv3d");
  spec.spatial_dims = conv_class == "Conv3d" ? 3 : 2;

  ISOLINE_ASSIGN(const JsonField n_stages, kwargs.at("n_stages"));
  ISOLINE_ASSIGN(const int stages, n_stages.as_int(2, kMaxStages));
  ISOLINE_ASSIGN(const JsonField features, kwargs.at("features_per_stage"));
  ISOLINE_ASSIGN(spec.features, per_stage(features, size_t(stages), 1, kMaxFeatures));
  ISOLINE_ASSIGN(const JsonField kernels, kwargs.at("kernel_sizes"));
  ISOLINE_ASSIGN(spec.kernel_sizes,
                 per_stage_and_axis(kernels, size_t(stages), spec.spatial_dims, kMaxKernel));
  ISOLINE_ASSIGN(const JsonField strides, kwargs.at("strides"));
  ISOLINE_ASSIGN(spec.strides, per_stage_and_axis(strides, size_t(stages), spec.spatial_dims, kMaxStride));
  ISOLINE_RETURN_IF_ERROR(check_kernels_and_strides(spec, kernels, strides));
  const bool residual = spec.kind == ArchitectureKind::kResidualEncoderUNet;
  ISOLINE_ASSIGN(const JsonField blocks, kwargs.at(residual ? "n_blocks_per_stage" : "n_conv_per_stage"));
  ISOLINE_ASSIGN(spec.blocks_per_stage, per_stage(blocks, size_t(stages), 1, kMaxBlocks));
  ISOLINE_ASSIGN(const JsonField decoder, kwargs.at("n_conv_per_stage_decoder"));
  ISOLINE_ASSIGN(spec.decoder_convs_per_stage, per_stage(decoder, size_t(stages - 1), 1, kMaxBlocks));

  spec.conv_bias = false;
  if (kwargs.has("conv_bias")) {
    ISOLINE_ASSIGN(const JsonField bias, kwargs.at("conv_bias"));
    ISOLINE_ASSIGN(spec.conv_bias, bias.as_bool());
  }
  bool has_norm = kwargs.has("norm_op");
  if (has_norm) {
    ISOLINE_ASSIGN(const JsonField norm, kwargs.at("norm_op"));
    has_norm = !norm.is_null();
  }
  spec.norm = NormOp::kNone;
  if (has_norm) ISOLINE_RETURN_IF_ERROR(parse_norm(kwargs, spec));
  if (kwargs.has("dropout_op")) {
    ISOLINE_ASSIGN(const JsonField dropout, kwargs.at("dropout_op"));
    if (!dropout.is_null()) {  // the identity at inference
      ISOLINE_ASSIGN(const std::string name, dropout.as_string());
      const std::string dropout_class = class_in("torch.nn", name);
      if (dropout_class != "Dropout" && dropout_class != "Dropout2d" && dropout_class != "Dropout3d")
        return dropout.unsupported("is '" + printable(name) +
                                   "'; supported: torch.nn.Dropout, Dropout2d, Dropout3d, null");
    }
  }
  if (!kwargs.has("nonlin"))
    return kwargs.unsupported("lacks 'nonlin': networks without nonlinearity are not supported");
  ISOLINE_RETURN_IF_ERROR(parse_nonlinearity(kwargs, spec));
  if (kwargs.has("nonlin_first")) {
    ISOLINE_ASSIGN(const JsonField first, kwargs.at("nonlin_first"));
    ISOLINE_ASSIGN(const bool on, first.as_bool());
    if (on)
      return first.unsupported("is true; supported: convolution, normalization, nonlinearity in this order");
  }
  if (kwargs.has("block")) {
    ISOLINE_ASSIGN(const JsonField block, kwargs.at("block"));
    ISOLINE_ASSIGN(const std::string name, block.as_string());
    if (class_in("dynamic_network_architectures", name) != "BasicBlockD")
      return block.unsupported("is '" + printable(name) + "'; supported: BasicBlockD");
  }
  ISOLINE_RETURN_IF_ERROR(require_null(kwargs, "bottleneck_channels"));
  if (kwargs.has("stem_channels")) {
    ISOLINE_ASSIGN(const JsonField stem, kwargs.at("stem_channels"));
    if (!stem.is_null()) {
      ISOLINE_ASSIGN(spec.stem_channels, stem.as_int(1, kMaxFeatures));
    }
  }
  return spec;
}

Result<ArchitectureSpec> parse_old_architecture(const FieldLookup& field, int spatial_dims) {
  ArchitectureSpec spec;
  ISOLINE_ASSIGN(const JsonField class_field, field("UNet_class_name"));
  ISOLINE_ASSIGN(const std::string cls, class_field.as_string());
  if (cls == "PlainConvUNet")
    spec.kind = ArchitectureKind::kPlainConvUNet;
  else if (cls == "ResidualEncoderUNet")
    spec.kind = ArchitectureKind::kResidualEncoderUNet;
  else
    return class_field.unsupported(
        "is '" + printable(cls) + "'; supported: PlainConvUNet, ResidualEncoderUNet",
        "Export other networks to ONNX and describe them in an isoline.json");
  spec.spatial_dims = spatial_dims;
  ISOLINE_ASSIGN(const JsonField encoder, field("n_conv_per_stage_encoder"));
  ISOLINE_ASSIGN(spec.blocks_per_stage, encoder.as_ints(1, kMaxBlocks));
  const size_t stages = spec.blocks_per_stage.size();
  if (stages < 2 || stages > size_t(kMaxStages))
    return encoder.corrupt("has " + std::to_string(stages) + " stages, not 2 to " +
                           std::to_string(kMaxStages));
  ISOLINE_ASSIGN(const JsonField decoder, field("n_conv_per_stage_decoder"));
  ISOLINE_ASSIGN(spec.decoder_convs_per_stage, per_stage(decoder, stages - 1, 1, kMaxBlocks));
  ISOLINE_ASSIGN(const JsonField base, field("UNet_base_num_features"));
  ISOLINE_ASSIGN(const int base_features, base.as_int(1, kMaxFeatures));
  ISOLINE_ASSIGN(const JsonField most, field("unet_max_num_features"));
  ISOLINE_ASSIGN(const int max_features, most.as_int(1, kMaxFeatures));
  for (size_t s = 0; s < stages; ++s)
    spec.features.push_back(int(std::min<int64_t>(int64_t(base_features) << s, max_features)));
  ISOLINE_ASSIGN(const JsonField kernels, field("conv_kernel_sizes"));
  ISOLINE_ASSIGN(spec.kernel_sizes, per_stage_and_axis(kernels, stages, spatial_dims, kMaxKernel));
  ISOLINE_ASSIGN(const JsonField strides, field("pool_op_kernel_sizes"));
  ISOLINE_ASSIGN(spec.strides, per_stage_and_axis(strides, stages, spatial_dims, kMaxStride));
  ISOLINE_RETURN_IF_ERROR(check_kernels_and_strides(spec, kernels, strides));
  return spec;  // conv_bias, InstanceNorm(eps 1e-5, affine) and LeakyReLU(0.01) are the struct's defaults
}

}  // namespace isoline
