#include "isoline/model/load_model.h"

#include <algorithm>
#include <filesystem>
#include <string_view>

#include "isoline/model/checkpoint.h"
#include "isoline/model/isoline_json.h"
#include "isoline/model/json_value.h"
#include "isoline/model/plans.h"
#include "isoline/model/printable.h"

namespace isoline {
namespace {

namespace fs = std::filesystem;

// Trainers of nnunetv2 2.8.1 whose network differs from what plans.json says (build_network_architecture).
bool trainer_changes_network(const std::string& name) {
  return name == "nnUNetTrainerBN" || name.starts_with("nnUNet_Primus") || name.starts_with("_Primus") ||
         name == "AbstractPrimus";
}

// Trainers of nnunetv2 2.8.1 that differ in training only (mirror axes, which some change, are in the
// checkpoint).
constexpr std::string_view kKnownTrainers[] = {
    "nnUNetTrainer",
    "nnUNetTrainerAdam",
    "nnUNetTrainerAdam1en3",
    "nnUNetTrainerAdam3en4",
    "nnUNetTrainerAdan",
    "nnUNetTrainerAdan1en1",
    "nnUNetTrainerAdan1en3",
    "nnUNetTrainerAdan3en4",
    "nnUNetTrainerAdanCosAnneal",
    "nnUNetTrainerBenchmark_5epochs",
    "nnUNetTrainerBenchmark_5epochs_noDataLoading",
    "nnUNetTrainerCELoss",
    "nnUNetTrainerCELoss_5epochs",
    "nnUNetTrainerCosAnneal",
    "nnUNetTrainerDA5",
    "nnUNetTrainerDA5Segord0",
    "nnUNetTrainerDA5_10epochs",
    "nnUNetTrainerDA5ord0",
    "nnUNetTrainerDiceCELoss_noSmooth",
    "nnUNetTrainerDiceLoss",
    "nnUNetTrainerDiceTopK10Loss",
    "nnUNetTrainerNoDA",
    "nnUNetTrainerNoDeepSupervision",
    "nnUNetTrainerNoMirroring",
    "nnUNetTrainerTopk10Loss",
    "nnUNetTrainerTopk10LossLS01",
    "nnUNetTrainerVanillaAdam",
    "nnUNetTrainerVanillaAdam1en3",
    "nnUNetTrainerVanillaAdam3en4",
    "nnUNetTrainer_100epochs",
    "nnUNetTrainer_10epochs",
    "nnUNetTrainer_1epoch",
    "nnUNetTrainer_2000epochs",
    "nnUNetTrainer_2000epochs_NoMirroring",
    "nnUNetTrainer_20epochs",
    "nnUNetTrainer_250epochs",
    "nnUNetTrainer_250epochs_NoMirroring",
    "nnUNetTrainer_4000epochs",
    "nnUNetTrainer_4000epochs_NoMirroring",
    "nnUNetTrainer_500epochs",
    "nnUNetTrainer_50epochs",
    "nnUNetTrainer_5epochs",
    "nnUNetTrainer_750epochs",
    "nnUNetTrainer_8000epochs",
    "nnUNetTrainer_8000epochs_NoMirroring",
    "nnUNetTrainer_DASegOrd0",
    "nnUNetTrainer_DASegOrd0_NoMirroring",
    "nnUNetTrainer_noDummy2DDA",
    "nnUNetTrainer_onlyMirror01",
    "nnUNetTrainer_onlyMirror01_1500ep",
    "nnUNetTrainer_onlyMirror01_DA5",
    "nnUNetTrainer_onlyMirror01_DASegOrd0",
    "nnUNetTrainer_probabilisticOversampling",
    "nnUNetTrainer_probabilisticOversampling_010",
    "nnUNetTrainer_probabilisticOversampling_033",
    "nnUNetTrainer_warmup",
    "nnUNet_Trainer_BS8",
};

bool is_number(std::string_view s) {
  return !s.empty() && s.size() <= 6 &&
         std::all_of(s.begin(), s.end(), [](char c) { return c >= '0' && c <= '9'; });
}

Result<std::vector<std::string>> find_folds(const fs::path& folder, const std::string& checkpoint) {
  std::vector<std::string> names;
  std::error_code ec;
  for (fs::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec)) {
    const std::string name = it->path().filename().string();
    std::error_code ignored;
    if (name.starts_with("fold_") && name != "fold_all" &&
        fs::is_regular_file(it->path() / checkpoint, ignored))
      names.push_back(name);
  }
  if (ec) return Error{ErrorCode::kIo, "cannot list the folder: " + ec.message(), folder.string(), ""};
  std::sort(names.begin(), names.end());  // by name, as the reference: fold_10 comes before fold_2
  std::vector<std::string> folds;
  for (const std::string& name : names) {
    const std::string fold = name.substr(5);
    if (!is_number(fold) || (fold.size() > 1 && fold[0] == '0'))
      return Error{ErrorCode::kInvalidArgument, "'" + printable(name) + "' is not named after a fold number",
                   folder.string(), "Name the folds to use"};
    folds.push_back(fold);
  }
  if (folds.empty())
    return Error{ErrorCode::kNotFound, "no fold_<number>/" + printable(checkpoint) + " found",
                 folder.string(), "Name the folds or the checkpoint to use"};
  return folds;
}

Result<LoadedModel> load_results_folder(const fs::path& folder, const LoadOptions& options) {
  if (options.checkpoint_name.empty() || options.checkpoint_name.find('/') != std::string::npos)
    return Error{ErrorCode::kInvalidArgument,
                 "'" + printable(options.checkpoint_name) + "' is not a file name", "checkpoint name", ""};
  std::vector<std::string> folds = options.folds;
  if (folds.empty()) {
    ISOLINE_ASSIGN(folds, find_folds(folder, options.checkpoint_name));
  }
  for (const std::string& fold : folds)
    if (fold != "all" && !is_number(fold))
      return Error{ErrorCode::kInvalidArgument, "'" + printable(fold) + "' is neither a number nor 'all'",
                   "fold", ""};
  const std::string dataset_file = (folder / "dataset.json").string(),
                    plans_file = (folder / "plans.json").string();
  ISOLINE_ASSIGN(const JsonValue dataset, read_json(dataset_file));
  ISOLINE_ASSIGN(const JsonValue plans, read_json(plans_file));

  LoadedModel out;
  Checkpoint first;
  for (size_t i = 0; i < folds.size(); ++i) {
    const std::string file = (folder / ("fold_" + folds[i]) / options.checkpoint_name).string();
    auto checkpoint = read_checkpoint(file);
    if (!checkpoint) {
      Error e = std::move(checkpoint).error();
      if (e.code == ErrorCode::kNotFound) e.remedy = "Name folds and a checkpoint that exist";
      return e;
    }
    for (const std::string& w : checkpoint->warnings) out.warnings.push_back(file + ": " + w);
    out.folds.push_back(std::move(checkpoint->weights));
    if (i > 0) continue;
    first = std::move(checkpoint).value();
    if (trainer_changes_network(first.trainer_name))
      return Error{
          ErrorCode::kUnsupported,
          "trainer '" + printable(first.trainer_name) + "' replaces the network that plans.json describes",
          file, "Export the model to ONNX and describe it in an isoline.json"};
    if (std::find(std::begin(kKnownTrainers), std::end(kKnownTrainers), first.trainer_name) ==
        std::end(kKnownTrainers))
      out.warnings.push_back("trainer '" + printable(first.trainer_name) +
                             "' is not one of nnU-Net's own; the network is built as plans.json says");
  }
  ISOLINE_ASSIGN(out.spec, parse_plans(JsonField(plans, plans_file), JsonField(dataset, dataset_file),
                                       first.configuration, out.warnings));
  ModelSpec& spec = out.spec;
  spec.folder = folder.string();
  spec.trainer_name = first.trainer_name;
  spec.checkpoint_name = options.checkpoint_name;
  spec.folds = std::move(folds);
  spec.mirror_axes = std::move(first.mirror_axes);
  if (spec.mirror_axes && spec.mirror_axes->empty()) {
    spec.mirror_axes.reset();
    out.warnings.push_back("the checkpoint allows mirroring along no axis: there will be none");
  }
  ISOLINE_RETURN_IF_ERROR(check_spec(spec, spec.folder));
  return out;
}

}  // namespace

Result<LoadedModel> load_model(const std::string& path, const LoadOptions& options) {
  const fs::path p(path);
  std::error_code ec;
  const fs::file_status status = fs::status(p, ec);
  if (!fs::exists(status))
    return Error{ErrorCode::kNotFound, "no such model", path, "Give a folder or an .onnx file"};
  const bool is_onnx = fs::is_regular_file(status) && p.extension() == ".onnx";
  if (!fs::is_directory(status) && !is_onnx)
    return Error{ErrorCode::kInvalidArgument, "is neither a folder nor an .onnx file", path,
                 "Give an nnU-Net results folder or an ONNX bundle"};
  const fs::path folder = is_onnx ? (p.has_parent_path() ? p.parent_path() : fs::path(".")) : p;
  const bool has_bundle = fs::is_regular_file(folder / "isoline.json", ec);
  const bool has_plans = fs::is_regular_file(folder / "plans.json", ec);
  if (!is_onnx && has_bundle && has_plans)
    return Error{ErrorCode::kInvalidArgument, "holds both plans.json and isoline.json", path,
                 "Give the .onnx file, or remove one of the two"};
  if (is_onnx || has_bundle) {
    if (!options.folds.empty())
      return Error{ErrorCode::kInvalidArgument, "an ONNX bundle has no folds", path, "Leave the folds out"};
    LoadedModel out;
    ISOLINE_ASSIGN(out.spec, read_isoline_json((folder / "isoline.json").string()));
    if (is_onnx) out.spec.onnx_file = path;
    if (!fs::is_regular_file(out.spec.onnx_file, ec))
      return Error{ErrorCode::kNotFound, "no such file", out.spec.onnx_file, "Put it beside isoline.json"};
    return out;
  }
  if (!has_plans)
    return Error{ErrorCode::kNotFound, "holds neither plans.json nor isoline.json", path,
                 "Give the folder named TRAINER__PLANS__CONFIGURATION"};
  return load_results_folder(p, options);
}

}  // namespace isoline
