#include "isoline/image/preprocess_spec.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "isoline/image/preprocessor.h"
#include "isoline/model/json_value.h"

namespace isoline {
namespace {

using Json = nlohmann::ordered_json;

Json good() {
  return Json::parse(R"({
    "isoline_image_model": 1, "name": "n", "onnx": "model.onnx",
    "input": {"name": "image", "type": "FP32", "layout": "NCHW", "colors": "RGB"},
    "resize": {"mode": "shortest_side", "shortest_side": 256, "crop": [224, 200], "filter": "bicubic"},
    "normalization": {"divide_by": 255, "mean": [0.5, 0.25, 0], "std": [1, 2, 4]},
    "output": {"name": "embedding", "l2_normalize": true, "softmax": false}})");
}
Result<ImageModelSpec> parse(const Json& json) {
  const std::string text = json.dump();
  ISOLINE_ASSIGN(const JsonValue root, parse_json(std::as_bytes(std::span(text))));
  return parse_image_model(JsonField(root, "test"), "/folder");
}

TEST(ImageModelSpec, EveryFieldIsRead) {
  const auto spec = parse(good());
  ASSERT_TRUE(spec.ok()) << spec.error().to_string();
  EXPECT_EQ(spec->name, "n");
  EXPECT_EQ(spec->onnx_file, "/folder/model.onnx");
  EXPECT_EQ(spec->input_name, "image");
  EXPECT_EQ(spec->output_name, "embedding");
  EXPECT_TRUE(spec->l2_normalize);
  EXPECT_FALSE(spec->softmax);
  const PreprocessSpec& p = spec->preprocess;
  EXPECT_EQ(p.mode, ResizeMode::kShortestSide);
  EXPECT_EQ(p.shortest_side, 256);
  EXPECT_EQ(p.size, (Size2{224, 200}));
  EXPECT_EQ(p.filter, ResizeFilter::kBicubic);
  EXPECT_EQ(p.divide_by, 255);
  EXPECT_EQ(p.mean, (std::vector<float>{0.5f, 0.25f, 0}));
  EXPECT_EQ(p.std_dev, (std::vector<float>{1, 2, 4}));
  EXPECT_EQ(p.shape(), (std::vector<int64_t>{3, 224, 200}));
  EXPECT_EQ(p.byte_size(), size_t(3 * 224 * 200 * 4));
}

TEST(ImageModelSpec, UnknownKeysAreNamedAtEveryLevel) {
  for (const char* parent : {"", "input", "resize", "normalization", "output"}) {
    Json j = good();
    (*parent ? j[parent] : j)["colour_space"] = 1;
    const auto spec = parse(j);
    ASSERT_FALSE(spec.ok()) << parent;
    EXPECT_EQ(spec.error().code, ErrorCode::kUnsupported);
    EXPECT_NE(spec.error().to_string().find("colour_space"), std::string::npos) << spec.error().to_string();
  }
}

TEST(ImageModelSpec, WhatDecidesMustBeSaid) {
  for (const auto& [parent, key] :
       std::vector<std::pair<std::string, std::string>>{{"", "isoline_image_model"},
                                                        {"", "name"},
                                                        {"", "onnx"},
                                                        {"", "input"},
                                                        {"", "resize"},
                                                        {"", "normalization"},
                                                        {"", "output"},
                                                        {"input", "type"},
                                                        {"input", "layout"},
                                                        {"input", "colors"},
                                                        {"resize", "mode"},
                                                        {"resize", "filter"},
                                                        {"resize", "shortest_side"},
                                                        {"resize", "crop"},
                                                        {"normalization", "divide_by"},
                                                        {"normalization", "mean"},
                                                        {"normalization", "std"}}) {
    Json j = good();
    (parent.empty() ? j : j[parent]).erase(key);
    const auto spec = parse(j);
    ASSERT_FALSE(spec.ok()) << parent << "." << key;
    EXPECT_NE(spec.error().to_string().find(key), std::string::npos) << spec.error().to_string();
  }
}

TEST(ImageModelSpec, ValuesThatMakeNoSenseAreRefused) {
  const auto refused = [](const char* path, const Json& value) {
    Json j = good();
    j[Json::json_pointer(path)] = value;
    const auto spec = parse(j);
    EXPECT_FALSE(spec.ok()) << path << " = " << value;
    if (!spec.ok()) {
      EXPECT_FALSE(spec.error().message.empty());
    }
  };
  refused("/isoline_image_model", 2);
  for (const char* name : {"", ".", "..", "../model.onnx", "/etc/passwd"}) refused("/onnx", name);
  refused("/input/type", "FP8");
  refused("/input/layout", "CHW");
  refused("/input/colors", "rgb");
  refused("/resize/mode", "crop");
  refused("/resize/filter", "nearest");
  refused("/resize/crop", {257, 224});
  refused("/resize/crop", {224});
  refused("/resize/crop", {0, 224});
  refused("/resize/size", {224, 224});  // not of this mode
  refused("/normalization/mean", {0.5});
  refused("/normalization/std", {1, 0, 1});
  refused("/normalization/divide_by", 0);
  refused("/output/softmax", true);  // and l2_normalize
  Json bytes = good();
  bytes["input"]["type"] = "UINT8";
  EXPECT_FALSE(parse(bytes).ok());  // normalization has no meaning
  bytes.erase("normalization");
  EXPECT_TRUE(parse(bytes).ok());
}

TEST(ImageModelSpec, FolderFileAndNetworkNameTheSame) {
  const std::filesystem::path folder = std::filesystem::path(testing::TempDir()) / "image_model";
  std::filesystem::create_directories(folder);
  std::ofstream(folder / kImageModelFile) << good();
  for (const std::filesystem::path& p : {folder, folder / kImageModelFile, folder / "model.onnx"}) {
    const auto spec = read_image_model(p.string());
    ASSERT_TRUE(spec.ok()) << spec.error().to_string();
    EXPECT_EQ(spec->onnx_file, (folder / "model.onnx").string());
  }
  EXPECT_TRUE(is_image_model(folder.string()));
  EXPECT_FALSE(is_image_model(folder.parent_path().string()));
  EXPECT_EQ(read_image_model((folder / "other.onnx").string()).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(read_image_model("/no/such/folder").error().code, ErrorCode::kNotFound);
}

TEST(PlacePicture, FollowsTorchvisionAndPillow) {
  PreprocessSpec spec;
  spec.mode = ResizeMode::kShortestSide;
  spec.shortest_side = 256;
  spec.size = {224, 224};
  // Resize(256) of 500 x 333 gives 384 x 256 (384.38 truncated); the crop is at round(16), round(80).
  Placement p = place_picture(spec, {333, 500});
  EXPECT_EQ(p.plan.scaled, (Size2{256, 384}));
  EXPECT_EQ(p.plan.top, 16);
  EXPECT_EQ(p.plan.left, 80);
  spec.size = {223, 221};  // 16.5 and 17.5: halves go to the even number
  p = place_picture(spec, {256, 256});
  EXPECT_EQ(p.plan.top, 16);
  EXPECT_EQ(p.plan.left, 18);
  spec.mode = ResizeMode::kPad;
  spec.size = {100, 100};
  p = place_picture(spec, {1, 100000});  // never nothing
  EXPECT_EQ(p.plan.scaled, (Size2{1, 100}));
  EXPECT_EQ(p.top, 50);
}

}  // namespace
}  // namespace isoline
