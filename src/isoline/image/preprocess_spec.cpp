#include "isoline/image/preprocess_spec.h"

#include <filesystem>

#include "isoline/model/json_names.h"
#include "isoline/model/json_value.h"

namespace isoline {
namespace {

constexpr int kSchema = 1, kMaxSide = 8192;

constexpr Name<PixelType> kTypes[] = {
    {"FP32", PixelType::kFloat32}, {"FP16", PixelType::kFloat16}, {"UINT8", PixelType::kUInt8}};
constexpr Name<PixelLayout> kLayouts[] = {{"NCHW", PixelLayout::kNchw}, {"NHWC", PixelLayout::kNhwc}};
constexpr Name<PixelColors> kColors[] = {
    {"RGB", PixelColors::kRgb}, {"BGR", PixelColors::kBgr}, {"GRAY", PixelColors::kGray}};
constexpr Name<ResizeMode> kModes[] = {{"shortest_side", ResizeMode::kShortestSide},
                                       {"stretch", ResizeMode::kStretch},
                                       {"pad", ResizeMode::kPad}};
constexpr Name<ResizeFilter> kFilters[] = {{"bilinear", ResizeFilter::kBilinear},
                                           {"bicubic", ResizeFilter::kBicubic}};

template <class Enum, size_t N>
Result<Enum> parse_name(const JsonField& parent, const char* key, const Name<Enum> (&names)[N]) {
  ISOLINE_ASSIGN(const JsonField field, parent.at(key));
  return isoline::parse_name(field, names);
}

Result<Size2> parse_size(const JsonField& parent, const char* key) {
  ISOLINE_ASSIGN(const JsonField field, parent.at(key));
  ISOLINE_ASSIGN(const std::vector<int> v, field.as_ints(1, kMaxSide));
  if (v.size() != 2) return field.corrupt("is not [height, width]");
  return Size2{v[0], v[1]};
}

Status parse_input(const JsonField& field, ImageModelSpec& spec) {
  ISOLINE_RETURN_IF_ERROR(field.refuse_unknown_keys({"name", "type", "layout", "colors"}));
  if (field.has("name")) {
    ISOLINE_ASSIGN(const JsonField name, field.at("name"));
    ISOLINE_ASSIGN(spec.input_name, name.as_string());
  }
  ISOLINE_ASSIGN(spec.preprocess.type, parse_name(field, "type", kTypes));
  ISOLINE_ASSIGN(spec.preprocess.layout, parse_name(field, "layout", kLayouts));
  ISOLINE_ASSIGN(spec.preprocess.colors, parse_name(field, "colors", kColors));
  return {};
}

Status parse_resize(const JsonField& field, PreprocessSpec& spec) {
  ISOLINE_ASSIGN(spec.mode, parse_name(field, "mode", kModes));
  ISOLINE_ASSIGN(spec.filter, parse_name(field, "filter", kFilters));
  if (spec.mode == ResizeMode::kShortestSide) {
    ISOLINE_RETURN_IF_ERROR(field.refuse_unknown_keys({"mode", "filter", "shortest_side", "crop"}));
    ISOLINE_ASSIGN(const JsonField side, field.at("shortest_side"));
    ISOLINE_ASSIGN(spec.shortest_side, side.as_int(1, kMaxSide));
    ISOLINE_ASSIGN(spec.size, parse_size(field, "crop"));
    if (spec.size.height > spec.shortest_side || spec.size.width > spec.shortest_side)
      return side.corrupt("is smaller than the crop");
    return {};
  }
  ISOLINE_ASSIGN(spec.size, parse_size(field, "size"));
  if (spec.mode == ResizeMode::kStretch) return field.refuse_unknown_keys({"mode", "filter", "size"});
  ISOLINE_RETURN_IF_ERROR(field.refuse_unknown_keys({"mode", "filter", "size", "fill_rgb"}));
  ISOLINE_ASSIGN(const JsonField fill, field.at("fill_rgb"));
  ISOLINE_ASSIGN(const std::vector<int> rgb, fill.as_ints(0, 255));
  if (rgb.size() != 3) return fill.corrupt("is not [red, green, blue]");
  for (size_t c = 0; c < 3; ++c) spec.fill_rgb[c] = uint8_t(rgb[c]);
  return {};
}

Status parse_normalization(const JsonField& field, PreprocessSpec& spec) {
  if (spec.type == PixelType::kUInt8)
    return field.corrupt("has no meaning for input type UINT8; leave it out");
  ISOLINE_RETURN_IF_ERROR(field.refuse_unknown_keys({"divide_by", "mean", "std"}));
  ISOLINE_ASSIGN(const JsonField divide, field.at("divide_by"));
  ISOLINE_ASSIGN(const double by, divide.as_number());
  const auto list = [&](const char* key) -> Result<std::vector<float>> {
    ISOLINE_ASSIGN(const JsonField f, field.at(key));
    ISOLINE_ASSIGN(const std::vector<double> values, f.as_numbers());
    if (int(values.size()) != spec.channels())
      return f.corrupt("has " + std::to_string(values.size()) + " entries, the network has " +
                       std::to_string(spec.channels()) + (spec.channels() == 1 ? " channel" : " channels"));
    return std::vector<float>(values.begin(), values.end());
  };
  ISOLINE_ASSIGN(spec.mean, list("mean"));
  ISOLINE_ASSIGN(spec.std_dev, list("std"));
  spec.divide_by = float(by);
  if (!(spec.divide_by > 0)) return divide.corrupt("is not above 0");
  for (const float s : spec.std_dev)
    if (!(s > 0)) return field.corrupt("has a std that is not above 0");
  return {};
}

Status parse_output(const JsonField& field, ImageModelSpec& spec) {
  ISOLINE_RETURN_IF_ERROR(field.refuse_unknown_keys({"name", "l2_normalize", "softmax"}));
  if (field.has("name")) {
    ISOLINE_ASSIGN(const JsonField name, field.at("name"));
    ISOLINE_ASSIGN(spec.output_name, name.as_string());
  }
  const auto flag = [&](const char* key, bool& to) -> Status {
    if (!field.has(key)) return {};
    ISOLINE_ASSIGN(const JsonField f, field.at(key));
    ISOLINE_ASSIGN(to, f.as_bool());
    return {};
  };
  ISOLINE_RETURN_IF_ERROR(flag("l2_normalize", spec.l2_normalize));
  ISOLINE_RETURN_IF_ERROR(flag("softmax", spec.softmax));
  if (spec.l2_normalize && spec.softmax) return field.corrupt("asks for l2_normalize and softmax at once");
  return {};
}

}  // namespace

std::vector<int64_t> PreprocessSpec::shape() const {
  if (layout == PixelLayout::kNchw) return {channels(), size.height, size.width};
  return {size.height, size.width, channels()};
}

size_t PreprocessSpec::byte_size() const {
  const size_t element = type == PixelType::kFloat32 ? 4 : type == PixelType::kFloat16 ? 2 : 1;
  return size_t(size.height * size.width * channels()) * element;
}

Result<ImageModelSpec> parse_image_model(const JsonField& root, const std::string& folder) {
  ISOLINE_RETURN_IF_ERROR(root.refuse_unknown_keys(
      {"isoline_image_model", "name", "onnx", "input", "resize", "normalization", "output"}));
  ISOLINE_ASSIGN(const JsonField schema, root.at("isoline_image_model"));
  ISOLINE_ASSIGN(const int version, schema.as_int(0, 1 << 20));
  if (version != kSchema) return schema.unsupported("is " + std::to_string(version) + "; supported: 1");
  ImageModelSpec spec;
  ISOLINE_ASSIGN(const JsonField name, root.at("name"));
  ISOLINE_ASSIGN(spec.name, name.as_string());
  ISOLINE_ASSIGN(const JsonField onnx, root.at("onnx"));
  ISOLINE_ASSIGN(const std::string file, onnx.as_string());
  if (file.empty() || file == "." || file == ".." || file.find('/') != std::string::npos ||
      file.find('\0') != std::string::npos)
    return onnx.corrupt(std::string("is not the name of a file beside ") + kImageModelFile);
  spec.onnx_file = (std::filesystem::path(folder) / file).string();
  ISOLINE_ASSIGN(const JsonField input, root.at("input"));
  ISOLINE_RETURN_IF_ERROR(parse_input(input, spec));
  ISOLINE_ASSIGN(const JsonField resize, root.at("resize"));
  ISOLINE_RETURN_IF_ERROR(parse_resize(resize, spec.preprocess));
  if (spec.preprocess.type != PixelType::kUInt8 || root.has("normalization")) {
    ISOLINE_ASSIGN(const JsonField normalization, root.at("normalization"));
    ISOLINE_RETURN_IF_ERROR(parse_normalization(normalization, spec.preprocess));
  }
  ISOLINE_ASSIGN(const JsonField output, root.at("output"));
  ISOLINE_RETURN_IF_ERROR(parse_output(output, spec));
  return spec;
}

Result<ImageModelSpec> read_image_model(const std::string& path) {
  std::filesystem::path file = path;
  std::error_code ec;
  if (std::filesystem::is_directory(file, ec))
    file /= kImageModelFile;
  else if (file.extension() == ".onnx")
    file.replace_filename(kImageModelFile);
  ISOLINE_ASSIGN(const JsonValue root, read_json(file.string()));
  const std::string folder = file.parent_path().string();
  ISOLINE_ASSIGN(ImageModelSpec spec, parse_image_model(JsonField(root, file.string()), folder));
  // Somebody who names another network than the one described here would get the wrong one.
  if (std::filesystem::path(path).extension() == ".onnx" &&
      std::filesystem::path(path).filename() != std::filesystem::path(spec.onnx_file).filename())
    return Error{ErrorCode::kInvalidArgument,
                 "describes " + std::filesystem::path(spec.onnx_file).filename().string() + ", not " +
                     std::filesystem::path(path).filename().string(),
                 file.string(), "Put each network into a folder of its own."};
  return spec;
}

bool is_image_model(const std::string& folder) {
  std::error_code ec;
  return std::filesystem::is_regular_file(std::filesystem::path(folder) / kImageModelFile, ec);
}

}  // namespace isoline
