#include "isoline/model_loader/model_loader.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace isoline {
namespace {

namespace fs = std::filesystem;

class FakeModel : public TensorModel {
 public:
  explicit FakeModel(TensorModelInfo info) : info_(std::move(info)) {}
  const TensorModelInfo& info() const override { return info_; }
  Result<std::unique_ptr<TensorSession>> create_session() const override {
    return Error{ErrorCode::kInternal, "not part of these tests", "", ""};
  }

 private:
  TensorModelInfo info_;
};

// Opens any file and remembers how it was asked to.
class FakeBackend : public Backend {
 public:
  FakeBackend(std::string name, bool onnx) : name_(std::move(name)), onnx_(onnx) {}
  std::string name() const override { return name_; }
  std::string device_description() const override { return name_; }
  Status supports(const NetworkGraph&, const SessionOptions&) const override { return refusal(); }
  Result<std::unique_ptr<Session>> create(const NetworkGraph&, const SessionOptions&) const override {
    return refusal();
  }
  Status supports_tensor_model(const TensorModelOptions&) const override {
    return onnx_ ? Status() : Status(refusal());
  }
  Result<std::unique_ptr<TensorModel>> open_tensor_model(const std::string& file,
                                                         const TensorModelOptions& options) const override {
    opened = file;
    asked = options;
    return std::unique_ptr<TensorModel>(
        std::make_unique<FakeModel>(TensorModelInfo{name_ + "_onnx",
                                                    options.max_batch,
                                                    {{"in", ElementType::kFloat32, {3, 2, 2}}},
                                                    {{"out", ElementType::kFloat32, {5}}},
                                                    ""}));
  }
  mutable std::string opened;
  mutable TensorModelOptions asked;

 private:
  Error refusal() const { return {ErrorCode::kUnsupported, name_ + " runs no ONNX files", "", ""}; }
  const std::string name_;
  const bool onnx_;
};

class ModelLoader : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("isoline_loader_" + std::to_string(::getpid()) + "_" +
                                           testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::create_directories(folder_);
    registry_.add(std::make_unique<FakeBackend>("slow", false));
    auto backend = std::make_unique<FakeBackend>("openvino", true);
    backend_ = backend.get();
    registry_.add(std::move(backend));
  }
  void TearDown() override { fs::remove_all(folder_); }
  void write(const std::string& name, const std::string& text) { std::ofstream(folder_ / name) << text; }
  void write_image_model() {
    write("net.onnx", "");
    write("isoline_image.json", R"({"isoline_image_model": 1, "name": "n", "onnx": "net.onnx",
      "input": {"type": "FP32", "layout": "NCHW", "colors": "RGB"},
      "resize": {"mode": "stretch", "size": [2, 2], "filter": "bilinear"},
      "normalization": {"divide_by": 255, "mean": [0, 0, 0], "std": [1, 1, 1]}, "output": {}})");
  }
  Result<std::unique_ptr<TensorModel>> open(const std::string& config) {
    auto parsed = serve::parse_model_config(config);
    EXPECT_TRUE(parsed.ok()) << parsed.error().to_string();
    config_ = *parsed;
    return make_model_factory(registry_, {})({"m", 1, folder_.string(), folder_.string(), !config.empty()},
                                             config_);
  }
  std::string refusal(const std::string& config) {
    const auto model = open(config);
    EXPECT_FALSE(model.ok()) << config;
    return model.ok() ? "" : model.error().to_string();
  }

  fs::path folder_;
  BackendRegistry registry_;
  const FakeBackend* backend_ = nullptr;
  serve::ModelConfig config_;
};

TEST_F(ModelLoader, NothingConfiguredMeansBatchesOfWhatIsThere) {
  write("model.onnx", "");
  const auto model = open("");
  ASSERT_TRUE(model.ok()) << model.error().to_string();
  EXPECT_EQ(backend_->opened, (folder_ / "model.onnx").string());
  EXPECT_EQ(backend_->asked.max_batch, 32);
  EXPECT_EQ(backend_->asked.instances, 1);
  ASSERT_TRUE(config_.dynamic_batching);
  EXPECT_EQ(config_.dynamic_batching->max_queue_delay_us, 0u);
  EXPECT_EQ(config_.backend, "openvino");
  EXPECT_EQ((*model)->decoder(), nullptr);
}

TEST_F(ModelLoader, TheConfigurationDecides) {
  write("net.onnx", "");
  const auto model = open(R"(platform: "onnxruntime_onnx" max_batch_size: 5 default_model_filename: "net.onnx"
    instance_group [ { count: 2 }, { count: 1 } ]
    parameters { key: "precision" value { string_value: "bf16" } }
    parameters { key: "threads" value { string_value: "3" } })");
  ASSERT_TRUE(model.ok()) << model.error().to_string();
  EXPECT_EQ(backend_->opened, (folder_ / "net.onnx").string());
  EXPECT_EQ(backend_->asked.max_batch, 5);
  EXPECT_EQ(backend_->asked.instances, 3);
  EXPECT_EQ(backend_->asked.threads, 3);
  EXPECT_EQ(backend_->asked.precision, Precision::kBFloat16);
  EXPECT_FALSE(config_.dynamic_batching);
  ASSERT_TRUE(open(R"(backend: "openvino" default_model_filename: "net.onnx" max_batch_size: 0)").ok());
  EXPECT_EQ(backend_->asked.max_batch, 0);
}

TEST_F(ModelLoader, AnImageNetworkIsKnownByItsFile) {
  write_image_model();
  const auto model = open("");
  ASSERT_TRUE(model.ok()) << model.error().to_string();
  EXPECT_EQ((*model)->info().platform, "isoline_image");
  EXPECT_EQ((*model)->info().max_batch, 32);
  ASSERT_NE((*model)->decoder(), nullptr);
  EXPECT_EQ((*model)->decoder()->bytes_per_sample(), 3 * 2 * 2 * sizeof(float));
  EXPECT_TRUE(config_.dynamic_batching);
  ASSERT_TRUE(open(R"(platform: "isoline_image" max_batch_size: 4)").ok());
  EXPECT_EQ(backend_->asked.max_batch, 4);
  EXPECT_NE(refusal(R"(platform: "onnxruntime_onnx")").find("image network"), std::string::npos);
}

TEST_F(ModelLoader, RefusalsNameWhatIsWrong) {
  EXPECT_NE(refusal("").find("model.onnx"), std::string::npos);
  EXPECT_NE(refusal(R"(platform: "isoline_image")").find("isoline_image.json"), std::string::npos);
  write("model.onnx", "");
  const std::pair<const char*, const char*> cases[] = {
      {R"(default_model_filename: "../model.onnx")", "../model.onnx"},
      {R"(default_model_filename: "other.onnx")", "other.onnx"},
      {R"(platform: "tensorflow_savedmodel")", "tensorflow_savedmodel"},
      {R"(backend: "slow")", "slow runs no ONNX"},
      {R"(backend: "nothing")", "nothing"},
      {R"(platform: "onnxruntime_onnx" backend: "openvino")", "belong together"},
      {R"(parameters { key: "threads" value { string_value: "2x" } })", "2x"},
      {R"(parameters { key: "threads" value { string_value: "0" } })", "threads"},
      {R"(parameters { key: "precision" value { string_value: "int3" } })", "int3"},
      {R"(parameters { key: "speed" value { string_value: "9" } })", "speed"},
      {R"(instance_group { kind: KIND_GPU })", "GPU"}};
  for (const auto& [config, want] : cases) EXPECT_NE(refusal(config).find(want), std::string::npos) << config;
}

}  // namespace
}  // namespace isoline
