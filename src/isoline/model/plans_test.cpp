#include "isoline/model/plans.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "isoline/model/label_spec.h"

namespace isoline {
namespace {

using Json = nlohmann::ordered_json;
using Edit = std::function<void(Json& plans, Json& dataset)>;

Json load(const std::string& path) {
  return Json::parse(std::ifstream(path));
}

struct Parsed {
  std::string error;  // empty if it was accepted
  ErrorCode code = ErrorCode::kInternal;
  ModelSpec spec;
  std::vector<std::string> warnings;
};

// The plans of a stored model, edited, as a spec or an error.
Parsed parse(const Edit& edit = {}, const std::string& model = "network/plain3d",
             const std::string& configuration = "small") {
  const std::string folder = ISOLINE_SOURCE_DIR "/tests/goldens/" + model;
  Json plans = load(folder + "/plans.json"), dataset = load(folder + "/dataset.json");
  if (edit) edit(plans, dataset);
  const std::string plans_text = plans.dump(), dataset_text = dataset.dump();
  const auto a = parse_json(std::as_bytes(std::span(plans_text)));
  const auto b = parse_json(std::as_bytes(std::span(dataset_text)));
  Parsed out;
  auto spec =
      parse_plans(JsonField(*a, "plans.json"), JsonField(*b, "dataset.json"), configuration, out.warnings);
  if (spec)
    out.spec = std::move(spec).value();
  else
    out.error = spec.error().to_string(), out.code = spec.error().code;
  return out;
}
Json& config(Json& plans) {
  return plans["configurations"]["small"];
}
Json& kwargs(Json& plans) {
  return config(plans)["architecture"]["arch_kwargs"];
}

TEST(Plans, GivesEveryField) {
  const Parsed p = parse();
  ASSERT_EQ(p.error, "");
  EXPECT_EQ(p.spec.dataset_name, "Dataset998_Network");
  EXPECT_EQ(p.spec.configuration, "small");
  EXPECT_EQ(p.spec.patch_size, (std::vector<int>{8, 12, 8}));
  EXPECT_EQ(p.spec.spacing_mm, (std::vector<double>{1, 1, 1}));
  ASSERT_EQ(p.spec.channels.size(), 2u);
  EXPECT_EQ(p.spec.channels[1].name, "c1");
  EXPECT_EQ(p.spec.channels[1].normalization, Normalization::kZScore);
  EXPECT_EQ(p.spec.labels.heads, 3);
  EXPECT_EQ(p.spec.resample_data.order, 3);
  EXPECT_FALSE(p.spec.resample_data.force_separate_z.has_value());
  EXPECT_TRUE(p.spec.resample_segmentation.is_segmentation);
  EXPECT_EQ(p.spec.resample_probabilities.order, 1);
  const ArchitectureSpec& a = *p.spec.architecture;
  EXPECT_EQ(a.features, (std::vector<int>{3, 4, 5}));
  EXPECT_EQ(a.strides[1], (std::vector<int>{2, 2, 2}));
  EXPECT_EQ(a.blocks_per_stage, (std::vector<int>{2, 1, 2}));
  EXPECT_EQ(a.decoder_convs_per_stage, (std::vector<int>{1, 2}));
  EXPECT_TRUE(a.conv_bias && a.norm_affine);
}

TEST(Plans, TorchDefaultsWhereKeysAreMissing) {
  const Parsed p = parse([](Json& plans, Json&) {
    for (const char* key : {"conv_bias", "norm_op_kwargs", "nonlin_kwargs", "dropout_op_kwargs"})
      kwargs(plans).erase(key);
    config(plans)["resampling_fn_data_kwargs"] = Json::object();
  });
  ASSERT_EQ(p.error, "");
  EXPECT_FALSE(p.spec.architecture->conv_bias);
  EXPECT_FALSE(p.spec.architecture->norm_affine);
  EXPECT_EQ(p.spec.architecture->negative_slope, 0.01);
  // The function's own default is False, not None.
  EXPECT_EQ(p.spec.resample_data.force_separate_z, std::optional<bool>(false));
}

TEST(Plans, InheritsAndRefusesCycles) {
  const auto inherit = [](Json& plans, const char* from) {
    plans["configurations"]["child"] = {
        {"inherits_from", from}, {"patch_size", {16, 16, 16}}, {"previous_stage", "x"}};
  };
  Parsed p = parse([&](Json& plans, Json&) { inherit(plans, "small"); }, "network/plain3d", "child");
  ASSERT_EQ(p.error, "");
  EXPECT_EQ(p.spec.patch_size, (std::vector<int>{16, 16, 16}));
  EXPECT_EQ(p.spec.previous_stage, "x");
  EXPECT_EQ(p.spec.input_channels(), 4);  // two images and two foreground labels
  p = parse([&](Json& plans, Json&) { inherit(plans, "child"); }, "network/plain3d", "child");
  EXPECT_EQ(p.error,
            "plans.json: configurations.child.inherits_from: closes a cycle of inheritance at 'child'");
  p = parse(
      [&](Json& plans, Json&) {
        inherit(plans, "small");
        config(plans)["inherits_from"] = "child";
      },
      "network/plain3d", "child");
  EXPECT_NE(p.error.find("cycle"), std::string::npos) << p.error;
  p = parse({}, "network/plain3d", "3d_lowres");
  EXPECT_EQ(p.code, ErrorCode::kNotFound);
  EXPECT_EQ(p.error, "plans.json: configurations: has no configuration '3d_lowres'. It has: small");
}

TEST(Plans, OldPlansWithoutArchitecture) {
  const Parsed p = parse([](Json& plans, Json&) {
    config(plans).erase("architecture");
    config(plans).update({{"UNet_class_name", "PlainConvUNet"},
                          {"UNet_base_num_features", 32},
                          {"unet_max_num_features", 100},
                          {"n_conv_per_stage_encoder", {2, 2, 2}},
                          {"n_conv_per_stage_decoder", {2, 1}},
                          {"num_pool_per_axis", {2, 2, 2}},
                          {"pool_op_kernel_sizes", {{1, 1, 1}, {2, 2, 2}, {1, 2, 2}}},
                          {"conv_kernel_sizes", {{1, 3, 3}, {3, 3, 3}, {3, 3, 3}}}});
    plans["foreground_intensity_properties_by_modality"] = {
        {"0", {{"mean", 1.5}, {"std", 2}, {"percentile_00_5", -3}, {"percentile_99_5", 4}}}};
    plans.erase("foreground_intensity_properties_per_channel");
    config(plans)["normalization_schemes"] = {"CTNormalization", "NoNormalization"};
  });
  ASSERT_EQ(p.error, "");
  const ArchitectureSpec& a = *p.spec.architecture;
  EXPECT_EQ(a.features, (std::vector<int>{32, 64, 100}));
  EXPECT_EQ(a.kernel_sizes[0], (std::vector<int>{1, 3, 3}));
  EXPECT_EQ(a.decoder_convs_per_stage, (std::vector<int>{2, 1}));
  EXPECT_TRUE(a.conv_bias && a.norm == NormOp::kInstanceNorm && a.norm_affine);
  EXPECT_EQ(p.spec.channels[0].mean, 1.5);
  EXPECT_EQ(p.spec.channels[0].percentile_00_5, -3);
}

TEST(Plans, ChannelsAreNumberedNotListed) {
  const Parsed p = parse([](Json&, Json& dataset) {
    dataset["modality"] = {{"1", "second"}, {"0", "first"}};  // wins over channel_names
  });
  ASSERT_EQ(p.error, "");
  EXPECT_EQ(p.spec.channels[0].name, "first");
  EXPECT_EQ(p.spec.channels[1].name, "second");
}

TEST(Plans, RefusesByNameAndField) {
  struct Case {
    Edit edit;
    const char* expected;  // part of the message
    ErrorCode code = ErrorCode::kUnsupported;
  };
  const Case cases[] = {
      {[](Json& p, Json&) { p["image_reader_writer"] = "Tiff3DIO"; },
       "plans.json: image_reader_writer: is 'Tiff3DIO'"},
      {[](Json& p, Json&) { p["label_manager"] = "MyManager"; }, "plans.json: label_manager: is 'MyManager'"},
      {[](Json& p, Json&) { config(p)["preprocessor_name"] = "MyPre"; },
       "configurations.small.preprocessor_name: is 'MyPre'"},
      {[](Json& p, Json&) { config(p)["normalization_schemes"][1] = "Foo"; },
       "normalization_schemes[1]: is 'Foo'"},
      {[](Json& p, Json&) { config(p)["resampling_fn_data"] = "my_fn"; }, "resampling_fn_data: is 'my_fn'"},
      {[](Json& p, Json&) { config(p)["resampling_fn_data_kwargs"]["blur"] = 1; },
       "resampling_fn_data_kwargs: has the unknown key 'blur'"},
      {[](Json& p, Json&) { config(p)["resampling_fn_probabilities_kwargs"]["order"] = 2; },
       "resampling_fn_probabilities_kwargs.order: is 2; supported: 0, 1, 3"},
      {[](Json& p, Json&) { config(p)["resampling_fn_data_kwargs"]["order_z"] = 1; },
       "order_z: is 1; supported: 0"},
      {[](Json& p, Json&) { config(p)["resampling_fn_data_kwargs"]["is_seg"] = true; },
       "is_seg: resamples an image"},
      {[](Json& p, Json&) { config(p)["architecture"]["network_class_name"] = "x.SwinUNETR"; },
       "architecture.network_class_name: is 'x.SwinUNETR'"},
      {[](Json& p, Json&) {
         config(p)["architecture"]["network_class_name"] =
             "dynamic_network_architectures.architectures.unet.ResidualUNet";
       },
       "ResidualUNet'; supported: PlainConvUNet, ResidualEncoderUNet"},
      {[](Json& p, Json&) { kwargs(p)["squeeze_excitation"] = true; },
       "arch_kwargs: has the unknown key 'squeeze_excitation'"},
      {[](Json& p, Json&) { kwargs(p)["norm_op"] = "torch.nn.BatchNorm3d"; },
       "norm_op: is 'torch.nn.BatchNorm3d'"},
      {[](Json& p, Json&) { kwargs(p)["norm_op"] = "torch.nn.InstanceNorm2d"; },
       "supported: torch.nn.InstanceNorm3d"},
      {[](Json& p, Json&) { kwargs(p)["norm_op_kwargs"]["track_running_stats"] = true; },
       "track_running_stats: is true"},
      {[](Json& p, Json&) { kwargs(p)["nonlin"] = "torch.nn.GELU"; }, "nonlin: is 'torch.nn.GELU'"},
      {[](Json& p, Json&) { kwargs(p)["nonlin_kwargs"]["upper"] = 1; },
       "nonlin_kwargs: has the unknown key 'upper'"},
      {[](Json& p, Json&) { kwargs(p)["nonlin_first"] = true; }, "nonlin_first: is true"},
      {[](Json& p, Json&) {
         kwargs(p)["kernel_sizes"][1] = {2, 3, 3};
       },
       "kernel_sizes: has the even kernel size 2"},
      {[](Json& p, Json&) {
         kwargs(p)["strides"][0] = {1, 2, 2};
       },
       "strides: starts with a stride other than 1"},
      {[](Json& p, Json&) { kwargs(p)["dropout_op"] = "torch.nn.AlphaDropout"; },
       "dropout_op: is 'torch.nn.AlphaDropout'"},
      {[](Json& p, Json&) { kwargs(p)["conv_op"] = "torch.nn.Conv1d"; }, "conv_op: is 'torch.nn.Conv1d'"},
      {[](Json& p, Json&) {
         kwargs(p)["features_per_stage"] = {3, 4};
       },
       "features_per_stage: has 2 entries for 3 stages", ErrorCode::kCorrupt},
      {[](Json& p, Json&) { kwargs(p)["n_stages"] = 1e300; }, "n_stages: is a number, not an integer",
       ErrorCode::kCorrupt},
      {[](Json& p, Json&) { kwargs(p).erase("strides"); }, "arch_kwargs: lacks 'strides'",
       ErrorCode::kCorrupt},
      {[](Json& p, Json&) { config(p)["architecture"]["_kw_requires_import"] = {"conv_op"}; },
       "_kw_requires_import: lacks 'norm_op'", ErrorCode::kCorrupt},
      {[](Json& p, Json&) { config(p)["patch_size"][0] = 10; }, "patch_size entry 10 is not divisible",
       ErrorCode::kCorrupt},
      {[](Json& p, Json&) {
         config(p)["patch_size"] = {8, 8};
       },
       "spacing has 3 entries and patch_size 2", ErrorCode::kCorrupt},
      {[](Json& p, Json&) { config(p)["spacing"][2] = 0; }, "spacing is not positive", ErrorCode::kCorrupt},
      {[](Json& p, Json&) {
         p["transpose_forward"] = {0, 0, 1};
       },
       "no order of the axes", ErrorCode::kCorrupt},
      {[](Json& p, Json&) {
         p["transpose_forward"] = p["transpose_backward"] = {1, 2, 0};
       },
       "does not undo", ErrorCode::kCorrupt},
      {[](Json& p, Json&) { config(p)["normalization_schemes"] = {"NoNormalization"}; },
       "normalization_schemes: has 1 entries for 2 channels", ErrorCode::kCorrupt},
      {[](Json& p, Json&) { config(p)["normalization_schemes"][0] = "CTNormalization"; },
       "foreground_intensity_properties_per_channel: lacks '0'", ErrorCode::kCorrupt},
      {[](Json&, Json& d) { d["labels"].erase("background"); }, "dataset.json: labels: lacks 'background'",
       ErrorCode::kCorrupt},
      {[](Json&, Json& d) { d["labels"]["l2"] = "2"; }, "labels.l2: is a string, not an integer",
       ErrorCode::kCorrupt},
      {[](Json&, Json& d) {
         d["labels"]["l2"] = {1, 2};
       },
       "lacks 'regions_class_order'", ErrorCode::kCorrupt},
      {[](Json&, Json& d) { d["labels"]["ignore"] = 7; },
       "labels.ignore: is 7; the ignore label must be one above", ErrorCode::kCorrupt},
  };
  for (const Case& c : cases) {
    const Parsed p = parse(c.edit);
    EXPECT_NE(p.error.find(c.expected), std::string::npos)
        << "expected: " << c.expected << "\ngot: " << p.error;
    EXPECT_EQ(p.code, c.code) << p.error;
  }
}

LabelSpec labels(const std::string& json) {
  const auto tree = parse_json(std::as_bytes(std::span(json)));
  auto spec = parse_labels(JsonField(*tree, "dataset.json"));
  EXPECT_TRUE(spec.ok()) << spec.error().to_string();
  return std::move(spec).value();
}

TEST(Labels, RegionsKeepTheirOrderAndIgnoreHasNoHead) {
  const LabelSpec s = labels(
      R"({"labels": {"background": 0, "whole": [1, 2, 3], "tumor": 2, "masses": [2, 3], "nothing": [0], "ignore": 4},
          "regions_class_order": [1, 2, 3]})");
  EXPECT_TRUE(s.has_regions);
  EXPECT_EQ(s.heads, 3);
  ASSERT_EQ(s.foreground.size(), 3u);
  EXPECT_EQ(s.foreground[1].name, "tumor");
  EXPECT_EQ(s.foreground[2].labels, (std::vector<int>{2, 3}));
  EXPECT_EQ(s.all_labels, (std::vector<int>{0, 1, 2, 3}));
  EXPECT_EQ(s.ignore_label, 4);
  EXPECT_EQ(s.foreground_label_count(), 3);
}

TEST(Labels, ListsOfOneAreLabels) {
  const LabelSpec s = labels(R"({"labels": {"background": 0, "a": [2], "b": 1, "ignore": null}})");
  EXPECT_FALSE(s.has_regions);
  EXPECT_EQ(s.heads, 3);
  EXPECT_FALSE(s.ignore_label.has_value());
}

TEST(Json, KeepsOrderAndLimits) {
  const auto parse = [](const std::string& text) { return parse_json(std::as_bytes(std::span(text))); };
  auto v = parse(R"({"z": 1, "a": 2, "z": [3]})");
  ASSERT_TRUE(v.ok());
  EXPECT_EQ(v->keys, (std::vector<std::string>{"z", "a"}));
  EXPECT_EQ(v->items[0].items.at(0).integer, 3);  // the last value, at the first place
  EXPECT_EQ(parse("{\"a\": }").error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(parse("").error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(parse(std::string(65, '[') + std::string(65, ']')).error().code, ErrorCode::kResourceExhausted);
  EXPECT_TRUE(parse(std::string(64, '[') + std::string(64, ']')).ok());
  std::string many = "[0";
  for (int i = 0; i < 1'000'000; ++i) many += ",0";
  EXPECT_EQ(parse(many + "]").error().code, ErrorCode::kResourceExhausted);
}

}  // namespace
}  // namespace isoline
