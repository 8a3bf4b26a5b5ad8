#include "isoline/model/plans.h"

#include <algorithm>
#include <cmath>

#include "isoline/model/architecture.h"
#include "isoline/model/label_spec.h"
#include "isoline/model/printable.h"

namespace isoline {
namespace {

constexpr int kMaxPatch = 4096;

// One configuration with everything it inherits; its own fields win over its ancestors'.
class Configuration {
 public:
  static Result<Configuration> resolve(const JsonField& configurations, std::string name) {
    ISOLINE_RETURN_IF_ERROR(configurations.require_object());
    Configuration out;
    std::vector<std::string> visited;
    while (true) {
      if (!configurations.has(name)) {
        std::string all;
        for (const std::string& key : configurations.keys())
          all += (all.empty() ? "" : ", ") + printable(key);
        return configurations.error(ErrorCode::kNotFound, "has no configuration '" + printable(name) + "'",
                                    "It has: " + all);
      }
      ISOLINE_ASSIGN(const JsonField level, configurations.at(name));
      ISOLINE_RETURN_IF_ERROR(level.require_object());
      out.levels_.push_back(level);
      if (!level.has("inherits_from")) return out;
      ISOLINE_ASSIGN(const JsonField parent, level.at("inherits_from"));
      visited.push_back(name);
      ISOLINE_ASSIGN(name, parent.as_string());
      if (std::find(visited.begin(), visited.end(), name) != visited.end() || visited.size() > 64)
        return parent.corrupt("closes a cycle of inheritance at '" + printable(name) + "'");
    }
  }
  bool has(std::string_view key) const {
    return std::any_of(levels_.begin(), levels_.end(), [&](const JsonField& l) { return l.has(key); });
  }
  Result<JsonField> at(std::string_view key) const {
    for (const JsonField& level : levels_)
      if (level.has(key)) return level.at(key);
    return levels_.front().corrupt("lacks '" + std::string(key) + "'");
  }

 private:
  std::vector<JsonField> levels_;  // the configuration itself first
};

Result<Normalization> parse_normalization(const JsonField& field) {
  ISOLINE_ASSIGN(const std::string name, field.as_string());
  if (name == "CTNormalization") return Normalization::kCt;
  if (name == "ZScoreNormalization") return Normalization::kZScore;
  if (name == "NoNormalization") return Normalization::kNone;
  if (name == "RescaleTo01Normalization") return Normalization::kRescaleTo01;
  if (name == "RGBTo01Normalization") return Normalization::kRgbTo01;
  return field.unsupported("is '" + printable(name) +
                           "'; supported: CTNormalization, ZScoreNormalization, NoNormalization, "
                           "RescaleTo01Normalization, RGBTo01Normalization");
}

Result<std::vector<ChannelSpec>> parse_channels(const JsonField& plans, const JsonField& dataset,
                                                const Configuration& config,
                                                std::vector<std::string>& warnings) {
  // The older key wins, as in determine_num_input_channels.
  ISOLINE_ASSIGN(const JsonField names, dataset.at(dataset.has("modality") ? "modality" : "channel_names"));
  ISOLINE_RETURN_IF_ERROR(names.require_object());
  const size_t n = names.size();
  if (n == 0 || n > 1000) return names.corrupt("has " + std::to_string(n) + " channels");
  ISOLINE_ASSIGN(const JsonField schemes_field, config.at("normalization_schemes"));
  ISOLINE_ASSIGN(const auto schemes, schemes_field.as_array());
  ISOLINE_ASSIGN(const JsonField masks_field, config.at("use_mask_for_norm"));
  ISOLINE_ASSIGN(const auto masks, masks_field.as_array());
  for (const auto* list : {&schemes, &masks}) {
    const JsonField& field = list == &schemes ? schemes_field : masks_field;
    if (list->size() < n)
      return field.corrupt("has " + std::to_string(list->size()) + " entries for " + std::to_string(n) +
                           " channels");
    if (list->size() > n)
      warnings.push_back(field.where() + " has more entries than there are channels; the rest is not used");
  }
  const char* key = plans.has("foreground_intensity_properties_per_channel") ||
                            !plans.has("foreground_intensity_properties_by_modality")
                        ? "foreground_intensity_properties_per_channel"
                        : "foreground_intensity_properties_by_modality";
  std::vector<ChannelSpec> out;
  for (size_t c = 0; c < n; ++c) {
    ChannelSpec channel;
    // Channel c is file _000c; names are keyed by that number, in whatever order they were written.
    ISOLINE_ASSIGN(const JsonField name,
                   names.has(std::to_string(c)) ? names.at(std::to_string(c)) : names.item(c));
    ISOLINE_ASSIGN(channel.name, name.as_string());
    ISOLINE_ASSIGN(channel.normalization, parse_normalization(schemes[c]));
    if (!masks[c].is_null()) {
      ISOLINE_ASSIGN(channel.use_mask, masks[c].as_bool());
    }
    if (channel.normalization == Normalization::kCt) {
      ISOLINE_ASSIGN(const JsonField all, plans.at(key));
      ISOLINE_ASSIGN(const JsonField properties, all.at(std::to_string(c)));
      const auto read = [&](const char* what, double& to) -> Status {
        ISOLINE_ASSIGN(const JsonField f, properties.at(what));
        ISOLINE_ASSIGN(to, f.as_number());
        return {};
      };
      ISOLINE_RETURN_IF_ERROR(read("mean", channel.mean));
      ISOLINE_RETURN_IF_ERROR(read("std", channel.std_dev));
      ISOLINE_RETURN_IF_ERROR(read("percentile_00_5", channel.percentile_00_5));
      ISOLINE_RETURN_IF_ERROR(read("percentile_99_5", channel.percentile_99_5));
    }
    out.push_back(std::move(channel));
  }
  return out;
}

enum class Role { kData, kSegmentation, kProbabilities };

Result<std::optional<bool>> parse_force_separate_z(const JsonField& kwargs, std::optional<bool> absent) {
  if (!kwargs.has("force_separate_z")) return absent;
  ISOLINE_ASSIGN(const JsonField f, kwargs.at("force_separate_z"));
  if (f.is_null()) return std::optional<bool>();
  ISOLINE_ASSIGN(const bool v, f.as_bool());
  return std::optional<bool>(v);
}

Status parse_is_seg(const JsonField& kwargs, Role role, bool cascade, ResampleSpec& spec) {
  spec.is_segmentation = false;
  JsonField where = kwargs;
  if (kwargs.has("is_seg")) {
    ISOLINE_ASSIGN(where, kwargs.at("is_seg"));
    ISOLINE_ASSIGN(spec.is_segmentation, where.as_bool());
  }
  // Labels are resampled in cascades only; elsewhere the setting is not used.
  if (role == Role::kSegmentation ? cascade && !spec.is_segmentation : spec.is_segmentation)
    return where.unsupported(role == Role::kSegmentation ? "resamples labels as if they were an image"
                                                         : "resamples an image as if it were labels");
  return {};
}

Status parse_threshold(const JsonField& kwargs) {
  if (!kwargs.has("separate_z_anisotropy_threshold")) return {};
  ISOLINE_ASSIGN(const JsonField f, kwargs.at("separate_z_anisotropy_threshold"));
  ISOLINE_ASSIGN(const double v, f.as_number());
  return v == 3.0 ? Status() : f.unsupported("is not 3");
}

Result<ResampleSpec> parse_resampling(const Configuration& config, const std::string& key, Role role,
                                      bool cascade) {
  ISOLINE_ASSIGN(const JsonField function, config.at(key));
  ISOLINE_ASSIGN(const std::string name, function.as_string());
  ISOLINE_ASSIGN(const JsonField kwargs, config.at(key + "_kwargs"));
  ResampleSpec spec;
  if (name == "resample_data_or_seg_to_shape") {
    spec.function = ResampleFunction::kDefault;
    ISOLINE_RETURN_IF_ERROR(kwargs.refuse_unknown_keys(
        {"is_seg", "order", "order_z", "force_separate_z", "separate_z_anisotropy_threshold"}));
    ISOLINE_RETURN_IF_ERROR(parse_is_seg(kwargs, role, cascade, spec));
    ISOLINE_RETURN_IF_ERROR(parse_threshold(kwargs));
    ISOLINE_ASSIGN(spec.force_separate_z, parse_force_separate_z(kwargs, false));
    spec.order = 3;  // the function's defaults
    spec.order_z = 0;
    if (kwargs.has("order")) {
      ISOLINE_ASSIGN(const JsonField f, kwargs.at("order"));
      ISOLINE_ASSIGN(spec.order, f.as_int(0, 5));
      if (spec.order != 0 && spec.order != 1 && spec.order != 3)
        return f.unsupported("is " + std::to_string(spec.order) + "; supported: 0, 1, 3");
      if (role == Role::kSegmentation && cascade && spec.order != 1)
        return f.unsupported("is " + std::to_string(spec.order) + "; supported for labels: 1");
    }
    if (kwargs.has("order_z")) {
      ISOLINE_ASSIGN(const JsonField f, kwargs.at("order_z"));
      ISOLINE_ASSIGN(spec.order_z, f.as_int(0, 5));
      if (spec.order_z != 0) return f.unsupported("is " + std::to_string(spec.order_z) + "; supported: 0");
    }
    return spec;
  }
  if (name == "resample_torch_fornnunet") {
    spec.function = ResampleFunction::kTorch;
    // num_threads and device do not change the result.
    ISOLINE_RETURN_IF_ERROR(kwargs.refuse_unknown_keys(
        {"is_seg", "num_threads", "device", "force_separate_z", "memefficient_seg_resampling", "mode",
         "aniso_axis_mode", "separate_z_anisotropy_threshold"}));
    ISOLINE_RETURN_IF_ERROR(parse_is_seg(kwargs, role, cascade, spec));
    ISOLINE_RETURN_IF_ERROR(parse_threshold(kwargs));
    ISOLINE_ASSIGN(spec.force_separate_z, parse_force_separate_z(kwargs, std::nullopt));
    spec.order = 1;
    if (role == Role::kSegmentation && cascade)
      return function.unsupported(
          "is resample_torch_fornnunet; supported for labels: resample_data_or_seg_to_shape");
    if (kwargs.has("mode")) {
      ISOLINE_ASSIGN(const JsonField f, kwargs.at("mode"));
      ISOLINE_ASSIGN(spec.torch_mode, f.as_string());
      if (spec.torch_mode != "linear")
        return f.unsupported("is '" + printable(spec.torch_mode) + "'; supported: linear");
    }
    if (kwargs.has("aniso_axis_mode")) {
      ISOLINE_ASSIGN(const JsonField f, kwargs.at("aniso_axis_mode"));
      ISOLINE_ASSIGN(const std::string mode, f.as_string());
      if (mode != "nearest-exact")
        return f.unsupported("is '" + printable(mode) + "'; supported: nearest-exact");
    }
    return spec;
  }
  if (name == "no_resampling_hack") {
    spec.function = ResampleFunction::kNone;
    spec.order = 0;
    ISOLINE_RETURN_IF_ERROR(kwargs.refuse_unknown_keys({}));
    return spec;
  }
  return function.unsupported("is '" + printable(name) +
                              "'; supported: resample_data_or_seg_to_shape, resample_torch_fornnunet, "
                              "no_resampling_hack");
}

}  // namespace

Result<ReaderKind> parse_reader(const JsonField& field) {
  ISOLINE_ASSIGN(const std::string name, field.as_string());
  if (const auto kind = find_reader_kind(name)) return *kind;
  return field.unsupported(
      "is '" + printable(name) +
          "'; supported: SimpleITKIO, SimpleITKIOWithReorient, NibabelIO, NibabelIOWithReorient",
      "Isoline reads NIfTI files only");
}

Status check_spec(const ModelSpec& spec, const std::string& where) {
  const auto bad = [&](const std::string& message) { return Error{ErrorCode::kCorrupt, message, where, ""}; };
  for (const auto* t : {&spec.transpose_forward, &spec.transpose_backward}) {
    std::vector<int> sorted = *t;
    std::sort(sorted.begin(), sorted.end());
    if (sorted != std::vector<int>{0, 1, 2})
      return bad(t == &spec.transpose_forward ? "transpose_forward is no order of the axes 0, 1, 2"
                                              : "transpose_backward is no order of the axes 0, 1, 2");
  }
  for (size_t i = 0; i < 3; ++i)
    if (spec.transpose_backward[size_t(spec.transpose_forward[i])] != int(i))
      return bad("transpose_backward does not undo transpose_forward");
  const size_t dims = spec.patch_size.size();
  if (dims != 2 && dims != 3) return bad("patch_size has " + std::to_string(dims) + " entries, not 2 or 3");
  if (spec.spacing_mm.size() != dims)
    return bad("spacing has " + std::to_string(spec.spacing_mm.size()) + " entries and patch_size " +
               std::to_string(dims));
  for (double s : spec.spacing_mm)
    if (!(s > 0) || !std::isfinite(s)) return bad("spacing is not positive");
  for (int p : spec.patch_size)
    if (p < 1 || p > kMaxPatch)
      return bad("patch_size has an entry that is not between 1 and " + std::to_string(kMaxPatch));
  if (spec.mirror_axes)
    for (int a : *spec.mirror_axes)
      if (a < 0 || a >= int(dims))
        return bad("mirror axis " + std::to_string(a) + " in a " + std::to_string(dims) + "-D model");
  if (spec.architecture) {
    const ArchitectureSpec& arch = *spec.architecture;
    if (arch.spatial_dims != int(dims))
      return bad("patch_size has " + std::to_string(dims) + " entries for a " +
                 std::to_string(arch.spatial_dims) + "-D network");
    for (size_t a = 0; a < dims; ++a) {
      int64_t divisor = 1;
      for (const auto& stride : arch.strides) {
        divisor *= stride[a];
        if (divisor > kMaxPatch || spec.patch_size[a] % divisor != 0)
          return bad("patch_size entry " + std::to_string(spec.patch_size[a]) +
                     " is not divisible by the network's strides");
      }
    }
  }
  return {};
}

Result<ModelSpec> parse_plans(const JsonField& plans, const JsonField& dataset,
                              const std::string& configuration, std::vector<std::string>& warnings) {
  ModelSpec spec;
  spec.configuration = configuration;
  ISOLINE_ASSIGN(const JsonField dataset_name, plans.at("dataset_name"));
  ISOLINE_ASSIGN(spec.dataset_name, dataset_name.as_string());
  ISOLINE_ASSIGN(const JsonField plans_name, plans.at("plans_name"));
  ISOLINE_ASSIGN(spec.plans_name, plans_name.as_string());
  ISOLINE_ASSIGN(const JsonField reader, plans.at("image_reader_writer"));
  ISOLINE_ASSIGN(spec.reader, parse_reader(reader));
  if (plans.has("label_manager")) {
    ISOLINE_ASSIGN(const JsonField manager, plans.at("label_manager"));
    ISOLINE_ASSIGN(const std::string name, manager.as_string());
    if (name != "LabelManager")
      return manager.unsupported("is '" + printable(name) + "'; supported: LabelManager");
  }
  ISOLINE_ASSIGN(const JsonField forward, plans.at("transpose_forward"));
  ISOLINE_ASSIGN(spec.transpose_forward, forward.as_ints(0, 2));
  ISOLINE_ASSIGN(const JsonField backward, plans.at("transpose_backward"));
  ISOLINE_ASSIGN(spec.transpose_backward, backward.as_ints(0, 2));

  ISOLINE_ASSIGN(const JsonField ending, dataset.at("file_ending"));
  ISOLINE_ASSIGN(spec.file_ending, ending.as_string());
  ISOLINE_ASSIGN(spec.labels, parse_labels(dataset));
  if (!spec.labels.has_regions && spec.labels.all_labels.back() + 1 != int(spec.labels.all_labels.size()))
    warnings.push_back(dataset.where() +
                       ": labels are not consecutive; channel numbers are written, as nnU-Net does");

  ISOLINE_ASSIGN(const JsonField configurations, plans.at("configurations"));
  ISOLINE_ASSIGN(const Configuration config, Configuration::resolve(configurations, configuration));
  ISOLINE_ASSIGN(const JsonField preprocessor, config.at("preprocessor_name"));
  ISOLINE_ASSIGN(const std::string preprocessor_name, preprocessor.as_string());
  if (preprocessor_name != "DefaultPreprocessor")
    return preprocessor.unsupported("is '" + printable(preprocessor_name) +
                                    "'; supported: DefaultPreprocessor");
  if (config.has("previous_stage")) {
    ISOLINE_ASSIGN(const JsonField previous, config.at("previous_stage"));
    if (!previous.is_null()) {
      ISOLINE_ASSIGN(spec.previous_stage, previous.as_string());
    }
  }
  ISOLINE_ASSIGN(const JsonField spacing, config.at("spacing"));
  ISOLINE_ASSIGN(spec.spacing_mm, spacing.as_numbers());
  ISOLINE_ASSIGN(const JsonField patch, config.at("patch_size"));
  ISOLINE_ASSIGN(spec.patch_size, patch.as_ints(1, kMaxPatch));
  ISOLINE_ASSIGN(spec.channels, parse_channels(plans, dataset, config, warnings));
  const bool cascade = spec.previous_stage.has_value();
  ISOLINE_ASSIGN(spec.resample_data, parse_resampling(config, "resampling_fn_data", Role::kData, cascade));
  ISOLINE_ASSIGN(spec.resample_segmentation,
                 parse_resampling(config, "resampling_fn_seg", Role::kSegmentation, cascade));
  ISOLINE_ASSIGN(spec.resample_probabilities,
                 parse_resampling(config, "resampling_fn_probabilities", Role::kProbabilities, cascade));
  if (config.has("architecture")) {
    ISOLINE_ASSIGN(const JsonField architecture, config.at("architecture"));
    ISOLINE_ASSIGN(spec.architecture, parse_architecture(architecture));
  } else {
    const FieldLookup lookup = [&](const char* key) { return config.at(key); };
    ISOLINE_ASSIGN(spec.architecture, parse_old_architecture(lookup, int(spec.patch_size.size())));
  }
  ISOLINE_RETURN_IF_ERROR(check_spec(spec, plans.where() + ": configurations." + printable(configuration)));
  return spec;
}

}  // namespace isoline
