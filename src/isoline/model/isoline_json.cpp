#include "isoline/model/isoline_json.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "isoline/model/json_names.h"
#include "isoline/model/label_spec.h"
#include "isoline/model/plans.h"

namespace isoline {
namespace {

constexpr int kSchema = 1;

constexpr Name<Normalization> kNormalizations[] = {
    {"ct", Normalization::kCt},
    {"zscore", Normalization::kZScore},
    {"none", Normalization::kNone},
    {"rescale_to_0_1", Normalization::kRescaleTo01},
    {"rgb_to_0_1", Normalization::kRgbTo01},
};
constexpr Name<ResampleFunction> kFunctions[] = {
    {"spline", ResampleFunction::kDefault},
    {"torch", ResampleFunction::kTorch},
    {"none", ResampleFunction::kNone},
};

template <class Enum, size_t N>
const char* to_name(Enum value, const Name<Enum> (&names)[N]) {
  for (const auto& n : names)
    if (value == n.value) return n.name;
  return "?";
}

Result<ChannelSpec> parse_channel(const JsonField& field) {
  ISOLINE_RETURN_IF_ERROR(field.refuse_unknown_keys(
      {"name", "normalization", "use_mask", "mean", "std", "percentile_00_5", "percentile_99_5"}));
  ChannelSpec out;
  ISOLINE_ASSIGN(const JsonField name, field.at("name"));
  ISOLINE_ASSIGN(out.name, name.as_string());
  ISOLINE_ASSIGN(const JsonField scheme, field.at("normalization"));
  ISOLINE_ASSIGN(out.normalization, parse_name(scheme, kNormalizations));
  if (field.has("use_mask")) {
    ISOLINE_ASSIGN(const JsonField mask, field.at("use_mask"));
    ISOLINE_ASSIGN(out.use_mask, mask.as_bool());
  }
  const auto read = [&](const char* key, double& to) -> Status {
    const bool needed = out.normalization == Normalization::kCt;
    if (!needed && field.has(key))
      return field.corrupt(std::string("has '") + key + "', which only \"ct\" uses");
    if (!needed) return {};
    ISOLINE_ASSIGN(const JsonField f, field.at(key));
    ISOLINE_ASSIGN(to, f.as_number());
    return {};
  };
  ISOLINE_RETURN_IF_ERROR(read("mean", out.mean));
  ISOLINE_RETURN_IF_ERROR(read("std", out.std_dev));
  ISOLINE_RETURN_IF_ERROR(read("percentile_00_5", out.percentile_00_5));
  ISOLINE_RETURN_IF_ERROR(read("percentile_99_5", out.percentile_99_5));
  return out;
}

Result<ResampleSpec> parse_resampling(const JsonField& parent, const char* key, bool is_segmentation) {
  ISOLINE_ASSIGN(const JsonField field, parent.at(key));
  ISOLINE_ASSIGN(const JsonField function, field.at("function"));
  ResampleSpec out;
  out.is_segmentation = is_segmentation;
  ISOLINE_ASSIGN(out.function, parse_name(function, kFunctions));
  out.order = out.function == ResampleFunction::kTorch ? 1 : 0;
  if (out.function == ResampleFunction::kNone) {
    ISOLINE_RETURN_IF_ERROR(field.refuse_unknown_keys({"function"}));
    return out;
  }
  if (out.function == ResampleFunction::kTorch) {
    if (is_segmentation) return function.unsupported("is 'torch'; supported for labels: spline, none");
    ISOLINE_RETURN_IF_ERROR(field.refuse_unknown_keys({"function", "force_separate_z"}));
  } else {
    ISOLINE_RETURN_IF_ERROR(field.refuse_unknown_keys({"function", "order", "force_separate_z"}));
    ISOLINE_ASSIGN(const JsonField order, field.at("order"));
    ISOLINE_ASSIGN(out.order, order.as_int(0, 3));
    if (out.order == 2 || (is_segmentation && out.order != 1))
      return order.unsupported("is " + std::to_string(out.order) +
                               "; supported: " + (is_segmentation ? "1" : "0, 1, 3"));
  }
  if (field.has("force_separate_z")) {
    ISOLINE_ASSIGN(const JsonField f, field.at("force_separate_z"));
    if (!f.is_null()) {
      ISOLINE_ASSIGN(const bool force, f.as_bool());
      out.force_separate_z = force;
    }
  }
  return out;
}

nlohmann::ordered_json resampling_json(const ResampleSpec& spec) {
  nlohmann::ordered_json out;
  out["function"] = to_name(spec.function, kFunctions);
  if (spec.function == ResampleFunction::kNone) return out;
  if (spec.function == ResampleFunction::kDefault) out["order"] = spec.order;
  out["force_separate_z"] =
      spec.force_separate_z ? nlohmann::ordered_json(*spec.force_separate_z) : nlohmann::ordered_json();
  return out;
}

}  // namespace

Result<ModelSpec> parse_isoline_json(const JsonField& root, const std::string& folder) {
  ISOLINE_RETURN_IF_ERROR(
      root.refuse_unknown_keys({"isoline_model", "name", "onnx", "file_ending", "reader", "transpose_forward",
                                "transpose_backward", "spacing_mm", "patch_size", "channels", "resampling",
                                "mirror_axes", "labels", "regions_class_order", "previous_stage"}));
  ISOLINE_ASSIGN(const JsonField schema, root.at("isoline_model"));
  ISOLINE_ASSIGN(const int version, schema.as_int(0, 1 << 20));
  if (version != kSchema) return schema.unsupported("is " + std::to_string(version) + "; supported: 1");
  ModelSpec spec;
  spec.folder = folder;
  spec.configuration = "onnx";
  ISOLINE_ASSIGN(const JsonField name, root.at("name"));
  ISOLINE_ASSIGN(spec.dataset_name, name.as_string());
  ISOLINE_ASSIGN(const JsonField onnx, root.at("onnx"));
  ISOLINE_ASSIGN(const std::string file, onnx.as_string());
  if (file.empty() || file == "." || file == ".." || file.find('/') != std::string::npos ||
      file.find('\0') != std::string::npos)
    return onnx.corrupt("is not the name of a file beside isoline.json");
  spec.onnx_file = (std::filesystem::path(folder) / file).string();
  if (root.has("file_ending")) {
    ISOLINE_ASSIGN(const JsonField f, root.at("file_ending"));
    ISOLINE_ASSIGN(spec.file_ending, f.as_string());
  }
  ISOLINE_ASSIGN(const JsonField reader, root.at("reader"));
  ISOLINE_ASSIGN(spec.reader, parse_reader(reader));
  ISOLINE_ASSIGN(const JsonField forward, root.at("transpose_forward"));
  ISOLINE_ASSIGN(spec.transpose_forward, forward.as_ints(0, 2));
  ISOLINE_ASSIGN(const JsonField backward, root.at("transpose_backward"));
  ISOLINE_ASSIGN(spec.transpose_backward, backward.as_ints(0, 2));
  ISOLINE_ASSIGN(const JsonField spacing, root.at("spacing_mm"));
  ISOLINE_ASSIGN(spec.spacing_mm, spacing.as_numbers());
  ISOLINE_ASSIGN(const JsonField patch, root.at("patch_size"));
  ISOLINE_ASSIGN(spec.patch_size, patch.as_ints(1, 4096));
  ISOLINE_ASSIGN(const JsonField channels, root.at("channels"));
  ISOLINE_ASSIGN(const auto channel_fields, channels.as_array());
  if (channel_fields.empty() || channel_fields.size() > 1000)
    return channels.corrupt("has " + std::to_string(channel_fields.size()) + " channels");
  for (const JsonField& f : channel_fields) {
    ISOLINE_ASSIGN(ChannelSpec channel, parse_channel(f));
    spec.channels.push_back(std::move(channel));
  }
  ISOLINE_ASSIGN(const JsonField resampling, root.at("resampling"));
  ISOLINE_RETURN_IF_ERROR(resampling.refuse_unknown_keys({"data", "segmentation", "probabilities"}));
  ISOLINE_ASSIGN(spec.resample_data, parse_resampling(resampling, "data", false));
  ISOLINE_ASSIGN(spec.resample_probabilities, parse_resampling(resampling, "probabilities", false));
  spec.resample_segmentation.is_segmentation = true;
  spec.resample_segmentation.order = 1;
  if (resampling.has("segmentation")) {
    ISOLINE_ASSIGN(spec.resample_segmentation, parse_resampling(resampling, "segmentation", true));
  }
  ISOLINE_ASSIGN(const JsonField mirror, root.at("mirror_axes"));
  if (!mirror.is_null()) {
    ISOLINE_ASSIGN(const auto axes, mirror.as_ints(0, 2));
    for (size_t i = 0; i < axes.size(); ++i)
      for (size_t j = 0; j < i; ++j)
        if (axes[i] == axes[j]) return mirror.corrupt("names an axis twice");
    if (!axes.empty()) spec.mirror_axes = axes;
  }
  ISOLINE_ASSIGN(spec.labels, parse_labels(root));
  if (root.has("previous_stage")) {
    ISOLINE_ASSIGN(const JsonField previous, root.at("previous_stage"));
    if (!previous.is_null()) {
      ISOLINE_ASSIGN(spec.previous_stage, previous.as_string());
    }
  }
  ISOLINE_RETURN_IF_ERROR(check_spec(spec, root.where()));
  return spec;
}

Result<ModelSpec> read_isoline_json(const std::string& path) {
  ISOLINE_ASSIGN(const JsonValue root, read_json(path));
  return parse_isoline_json(JsonField(root, path), std::filesystem::path(path).parent_path().string());
}

std::string to_isoline_json(const ModelSpec& spec, const std::string& onnx_file) {
  using Json = nlohmann::ordered_json;
  Json out;
  out["isoline_model"] = kSchema;
  out["name"] = spec.dataset_name;
  out["onnx"] = onnx_file;
  out["file_ending"] = spec.file_ending;
  out["reader"] = reader_kind_name(spec.reader);
  out["transpose_forward"] = spec.transpose_forward;
  out["transpose_backward"] = spec.transpose_backward;
  out["spacing_mm"] = spec.spacing_mm;
  out["patch_size"] = spec.patch_size;
  out["channels"] = Json::array();
  for (const ChannelSpec& c : spec.channels) {
    Json channel;
    channel["name"] = c.name;
    channel["normalization"] = to_name(c.normalization, kNormalizations);
    channel["use_mask"] = c.use_mask;
    if (c.normalization == Normalization::kCt) {
      channel["mean"] = c.mean;
      channel["std"] = c.std_dev;
      channel["percentile_00_5"] = c.percentile_00_5;
      channel["percentile_99_5"] = c.percentile_99_5;
    }
    out["channels"].push_back(std::move(channel));
  }
  out["resampling"]["data"] = resampling_json(spec.resample_data);
  // Labels are resampled in cascades only; what others say about it may be something not supported.
  if (spec.previous_stage) out["resampling"]["segmentation"] = resampling_json(spec.resample_segmentation);
  out["resampling"]["probabilities"] = resampling_json(spec.resample_probabilities);
  out["mirror_axes"] = spec.mirror_axes ? Json(*spec.mirror_axes) : Json();
  Json labels;
  labels["background"] = 0;
  for (const Region& r : spec.labels.foreground)
    labels[r.name] = r.labels.size() == 1 ? Json(r.labels[0]) : Json(r.labels);
  if (spec.labels.ignore_label) labels["ignore"] = *spec.labels.ignore_label;
  out["labels"] = std::move(labels);
  if (spec.labels.has_regions) out["regions_class_order"] = spec.labels.regions_class_order;
  if (spec.previous_stage) out["previous_stage"] = *spec.previous_stage;
  // Names come from files and need not be UTF-8: such bytes are replaced, not fatal.
  return out.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace isoline
