#include "isoline/model/load_model.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "isoline/base/file.h"
#include "isoline/model/isoline_json.h"

namespace isoline {
namespace {

namespace fs = std::filesystem;

std::string golden(const std::string& name) {
  return ISOLINE_SOURCE_DIR "/tests/goldens/" + name;
}
bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// A results folder of its own for each test.
class LoadModel : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) /
              (std::string("isoline_") + testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    for (const char* f : {"plans.json", "dataset.json"})
      fs::copy_file(golden("network/no_norm/") + f, folder_ / f);
  }
  void TearDown() override { fs::remove_all(folder_); }
  void add_fold(const std::string& fold, const std::string& checkpoint = "checkpoint_final.pth",
                const std::string& from = "network/no_norm/fold_0/checkpoint_final.pth") {
    fs::create_directories(folder_ / ("fold_" + fold));
    fs::copy_file(golden(from), folder_ / ("fold_" + fold) / checkpoint);
  }
  Result<LoadedModel> load(LoadOptions options = {}) { return load_model(folder_.string(), options); }
  // The checkpoint of fold 0 with some bytes of its pickle replaced by as many others (its checksum is taken
  // out).
  void replace_in_fold_0(const std::string& from, const std::string& to) {
    ASSERT_EQ(from.size(), to.size());
    const std::string path = (folder_ / "fold_0/checkpoint_final.pth").string();
    std::ifstream in(path, std::ios::binary);
    std::string bytes((std::istreambuf_iterator<char>(in)), {});
    const size_t at = bytes.find(from);
    ASSERT_NE(at, std::string::npos);
    bytes.replace(at, from.size(), to);
    for (size_t e = bytes.find("PK\x01\x02"); e != std::string::npos; e = bytes.find("PK\x01\x02", e + 4))
      bytes.replace(e + 16, 4, 4, '\0');
    std::ofstream(path, std::ios::binary) << bytes;
  }
  fs::path folder_;
};

TEST_F(LoadModel, DetectsFoldsAsTheReferenceDoes) {
  for (const char* fold : {"0", "2", "10", "all"}) add_fold(fold);
  add_fold("1", "checkpoint_best.pth");
  auto m = load();
  ASSERT_TRUE(m.ok()) << m.error().to_string();
  EXPECT_EQ(m->spec.folds,
            (std::vector<std::string>{"0", "10", "2"}));  // by name, without fold_all and fold_1
  EXPECT_EQ(m->folds.size(), 3u);
  EXPECT_TRUE(m->warnings.empty());
  EXPECT_EQ(m->spec.trainer_name, "nnUNetTrainer");
  EXPECT_EQ(m->spec.configuration, "small");
  EXPECT_FALSE(m->spec.mirror_axes.has_value());
  EXPECT_EQ(load({{"all", "0"}, "checkpoint_final.pth"})->spec.folds, (std::vector<std::string>{"all", "0"}));
  EXPECT_EQ(load({{}, "checkpoint_best.pth"})->spec.folds, (std::vector<std::string>{"1"}));
}

TEST_F(LoadModel, NamesWhatIsMissing) {
  EXPECT_EQ(load().error().code, ErrorCode::kNotFound);
  EXPECT_TRUE(contains(load().error().message, "no fold_<number>/checkpoint_final.pth"));
  add_fold("0");
  Error e = load({{"0", "3"}, "checkpoint_final.pth"}).error();
  EXPECT_EQ(e.code, ErrorCode::kNotFound);
  EXPECT_TRUE(contains(e.context, "fold_3/checkpoint_final.pth")) << e.to_string();
  EXPECT_EQ(load({{"../0"}, "checkpoint_final.pth"}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(load({{"0"}, "../x.pth"}).error().code, ErrorCode::kInvalidArgument);
  fs::remove(folder_ / "dataset.json");
  EXPECT_TRUE(contains(load().error().context, "dataset.json"));
  fs::remove(folder_ / "plans.json");
  EXPECT_TRUE(contains(load().error().message, "neither plans.json nor isoline.json"));
  EXPECT_EQ(load_model((folder_ / "nothing").string()).error().code, ErrorCode::kNotFound);
}

TEST_F(LoadModel, WarnsOfForeignTrainersAndRefusesSome) {
  add_fold("0");
  replace_in_fold_0("nnUNetTrainer", "myFastTrainer");
  auto m = load();
  ASSERT_TRUE(m.ok()) << m.error().to_string();
  ASSERT_EQ(m->warnings.size(), 2u);  // the other one: no checksums
  EXPECT_TRUE(contains(m->warnings[1], "'myFastTrainer'")) << m->warnings[1];
  replace_in_fold_0("myFastTrainer", "_Primus_X_Ttt");
  EXPECT_EQ(load().error().code, ErrorCode::kUnsupported);
  EXPECT_TRUE(contains(load().error().message, "'_Primus_X_Ttt'"));
}

TEST(IsolineJson, RoundTripsEveryStoredModel) {
  for (const char* name :
       {"network/plain3d", "parity/plain3d_iso_regions/model", "parity/residual2d_transposed/model",
        "parity/itk_flips_old_plans/model", "parity/cascade/model", "parity/torch_resampling/model",
        "parity/no_resampling_mixed/model", "parity/zscore_multichannel/model"}) {
    auto m = load_model(golden(name));
    ASSERT_TRUE(m.ok()) << m.error().to_string();
    const std::string text = to_isoline_json(m->spec, "model.onnx");
    const auto tree = parse_json(std::as_bytes(std::span(text)));
    ASSERT_TRUE(tree.ok());
    auto spec = parse_isoline_json(JsonField(*tree, "isoline.json"), "some/folder");
    ASSERT_TRUE(spec.ok()) << spec.error().to_string();
    EXPECT_EQ(spec->onnx_file, "some/folder/model.onnx");
    EXPECT_EQ(to_isoline_json(*spec, "model.onnx"), text);
    EXPECT_EQ(spec->channels.size(), m->spec.channels.size());
    EXPECT_EQ(spec->channels[0].percentile_99_5, m->spec.channels[0].percentile_99_5);
    EXPECT_EQ(spec->labels.heads, m->spec.labels.heads);
    EXPECT_EQ(spec->labels.regions_class_order, m->spec.labels.regions_class_order);
    EXPECT_EQ(spec->mirror_axes, m->spec.mirror_axes);
    EXPECT_EQ(spec->transpose_forward, m->spec.transpose_forward);
    EXPECT_EQ(spec->spacing_mm, m->spec.spacing_mm);
    EXPECT_EQ(spec->input_channels(), m->spec.input_channels());
    EXPECT_EQ(spec->resample_data.function, m->spec.resample_data.function);
    EXPECT_EQ(spec->resample_data.order, m->spec.resample_data.order);
    EXPECT_EQ(spec->resample_probabilities.force_separate_z, m->spec.resample_probabilities.force_separate_z);
  }
}

TEST_F(LoadModel, ReadsOnnxBundles) {
  add_fold("0");
  const std::string text = to_isoline_json(load()->spec, "model.onnx");
  ASSERT_TRUE(write_file_atomically((folder_ / "isoline.json").string(), text).ok());
  EXPECT_TRUE(contains(load().error().message, "both plans.json and isoline.json"));
  fs::remove(folder_ / "plans.json");
  EXPECT_EQ(load().error().code, ErrorCode::kNotFound);  // model.onnx
  std::ofstream(folder_ / "model.onnx") << "x";
  std::ofstream(folder_ / "other.onnx") << "x";
  auto m = load();
  ASSERT_TRUE(m.ok()) << m.error().to_string();
  EXPECT_EQ(m->spec.onnx_file, (folder_ / "model.onnx").string());
  EXPECT_FALSE(m->spec.architecture.has_value());
  EXPECT_TRUE(m->folds.empty());
  EXPECT_EQ(load_model((folder_ / "other.onnx").string())->spec.onnx_file, (folder_ / "other.onnx").string());

  std::string unknown = text;
  unknown.insert(unknown.find("\"reader\""), "\"colour\": 1, ");
  ASSERT_TRUE(write_file_atomically((folder_ / "isoline.json").string(), unknown).ok());
  EXPECT_TRUE(contains(load().error().to_string(), "isoline.json: has the unknown key 'colour'"));
  std::string outside = text;
  outside.replace(outside.find("model.onnx"), 10, "../m.onnx");
  ASSERT_TRUE(write_file_atomically((folder_ / "isoline.json").string(), outside).ok());
  EXPECT_TRUE(contains(load().error().to_string(), "onnx: is not the name of a file"));
}

}  // namespace
}  // namespace isoline
