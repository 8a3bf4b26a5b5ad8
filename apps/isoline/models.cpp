#include <cstdio>
#include <iostream>

#include "cli.h"
#include "isoline/model/load_model.h"
#include "isoline/network/build_network.h"
#include "isoline/tile/tile_plan.h"

namespace isoline::cli {
namespace {

const char* name_of(Normalization n) {
  switch (n) {
    case Normalization::kCt:
      return "CTNormalization";
    case Normalization::kZScore:
      return "ZScoreNormalization";
    case Normalization::kNone:
      return "NoNormalization";
    case Normalization::kRescaleTo01:
      return "RescaleTo01Normalization";
    case Normalization::kRgbTo01:
      return "RGBTo01Normalization";
  }
  return "unknown";
}

const char* name_of(ResampleFunction f) {
  switch (f) {
    case ResampleFunction::kDefault:
      return "resample_data_or_seg_to_shape";
    case ResampleFunction::kTorch:
      return "resample_torch_fornnunet";
    case ResampleFunction::kNone:
      return "no_resampling_hack";
  }
  return "unknown";
}

Json describe(const LoadedModel& model) {
  const ModelSpec& s = model.spec;
  Json channels = Json::array();
  for (const ChannelSpec& c : s.channels)
    channels.push_back(
        {{"name", c.name}, {"normalization", name_of(c.normalization)}, {"use_mask", c.use_mask}});
  Json labels = Json::array();
  for (const Region& r : s.labels.foreground) labels.push_back({{"name", r.name}, {"labels", r.labels}});
  Json j = {{"folder", s.folder},
            {"dataset", s.dataset_name},
            {"configuration", s.configuration},
            {"trainer", s.trainer_name},
            {"folds", s.folds},
            {"file_ending", s.file_ending},
            {"channels", channels},
            {"output", s.labels.has_regions ? "regions, sigmoid > 0.5" : "labels, argmax"},
            {"foreground", labels},
            {"regions_class_order", s.labels.regions_class_order},
            {"ignore_label", s.labels.ignore_label ? Json(*s.labels.ignore_label) : Json(nullptr)},
            {"spacing_mm", s.spacing_mm},
            {"patch_size", s.patch_size},
            {"transpose_forward", s.transpose_forward},
            {"resampling",
             {{"data", name_of(s.resample_data.function)},
              {"data_order", s.resample_data.order},
              {"logits", name_of(s.resample_probabilities.function)},
              {"logits_order", s.resample_probabilities.order}}},
            {"mirror_axes", s.mirror_axes ? Json(*s.mirror_axes) : Json(nullptr)},
            {"previous_stage", s.previous_stage ? Json(*s.previous_stage) : Json(nullptr)}};
  return j;
}

}  // namespace

Action add_models(CLI::App& app) {
  struct Options {
    Output output;
    std::string folder, checkpoint = "checkpoint_final.pth", folds;
  };
  auto o = std::make_shared<Options>();
  app.require_subcommand(1);
  CLI::App* inspect = app.add_subcommand("inspect", "What a model is and what Isoline will do with it");
  inspect->add_option("model", o->folder, "nnU-Net results folder or ONNX bundle")->required();
  inspect->add_option("--checkpoint", o->checkpoint, "Checkpoint file inside each fold")
      ->capture_default_str();
  inspect->add_option("--folds", o->folds, "Folds, e.g. 0,1; default: all there are");
  add_output_options(*inspect, o->output);
  return [o]() -> Status {
    ISOLINE_ASSIGN(const LoadedModel model, load_model(o->folder, {split_commas(o->folds), o->checkpoint}));
    const ModelSpec& spec = model.spec;
    Json j = describe(model);
    if (spec.architecture) {
      ISOLINE_ASSIGN(const NetworkGraph graph, build_network(*spec.architecture, spec.input_channels(),
                                                             spec.labels.heads, model.folds[0]));
      Shape3 patch{1, 1, 1};
      for (size_t a = 0; a < spec.patch_size.size(); ++a)
        patch[a + 3 - spec.patch_size.size()] = spec.patch_size[a];
      const int64_t macs = graph.macs(patch);
      j["network"] = {{"architecture", spec.architecture->kind == ArchitectureKind::kPlainConvUNet
                                           ? "PlainConvUNet"
                                           : "ResidualEncoderUNet"},
                      {"features", spec.architecture->features},
                      {"operations", graph.ops.size()},
                      {"parameters", graph.parameters()},
                      {"gflop_per_patch", double(macs) * 2e-9}};
    } else {
      j["network"] = {{"onnx_file", spec.onnx_file}};
    }
    j["warnings"] = model.warnings;
    if (o->output.json) {
      print(j);
      return {};
    }
    for (const auto& [key, value] : j.items()) {
      std::string text = value.is_string() ? value.get<std::string>() : value.dump();
      std::printf("%-20s %s\n", key.c_str(), text.c_str());
    }
    return {};
  };
}

}  // namespace isoline::cli
