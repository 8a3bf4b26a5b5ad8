// What becomes of a picture before an image network sees it: plain data with a strict JSON form.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/image/resize.h"

namespace isoline {

class JsonField;

enum class PixelType { kFloat32, kFloat16, kUInt8 };
enum class PixelLayout { kNchw, kNhwc };
enum class PixelColors { kRgb, kBgr, kGray };

enum class ResizeMode {
  kShortestSide,  // torchvision Resize(n) + CenterCrop(crop)
  kStretch,       // to `size`, proportions not kept
  kPad            // Pillow's ImageOps.pad: into `size`, the rest filled
};

// Defaults are never used silently: the JSON form names everything that decides.
struct PreprocessSpec {
  PixelType type = PixelType::kFloat32;
  PixelLayout layout = PixelLayout::kNchw;
  PixelColors colors = PixelColors::kRgb;

  ResizeMode mode = ResizeMode::kStretch;
  int shortest_side = 0;  // kShortestSide
  Size2 size;             // of what the network sees; kShortestSide: the crop
  ResizeFilter filter = ResizeFilter::kBilinear;
  std::array<uint8_t, 3> fill_rgb{0, 0, 0};  // kPad

  // value = (pixel / divide_by - mean) / std, in float32; not for kUInt8. One entry a channel, in the order
  // of `colors`.
  float divide_by = 1;
  std::vector<float> mean, std_dev;

  int channels() const { return colors == PixelColors::kGray ? 1 : 3; }
  // One image, no batch axis.
  std::vector<int64_t> shape() const;
  size_t byte_size() const;
};

// An image network: the ONNX file, what goes in and what comes out. Written as isoline_image.json, whose
// schema is docs/guides/image-models.md.
struct ImageModelSpec {
  std::string name, onnx_file;          // onnx_file: a path
  std::string input_name, output_name;  // empty: the only one
  PreprocessSpec preprocess;
  bool l2_normalize = false, softmax = false;  // what is done to each output vector; at most one of them
};

inline constexpr const char* kImageModelFile = "isoline_image.json";

// `path`: the folder, its isoline_image.json, or the ONNX file beside one. Unknown keys are kUnsupported with
// their name.
Result<ImageModelSpec> read_image_model(const std::string& path);
// The same from a tree; `folder` is put before the ONNX file's name.
Result<ImageModelSpec> parse_image_model(const JsonField& root, const std::string& folder);
// Whether `folder` holds an image network.
bool is_image_model(const std::string& folder);

}  // namespace isoline
