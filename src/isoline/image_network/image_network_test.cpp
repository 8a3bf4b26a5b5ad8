#include "isoline/image_network/image_network.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

namespace isoline {
namespace {

ImageModelSpec spec_of(int64_t h, int64_t w) {
  ImageModelSpec spec;
  spec.onnx_file = "model.onnx";
  spec.preprocess.size = {h, w};
  spec.preprocess.mean = {0, 0, 0};
  spec.preprocess.std_dev = {1, 1, 1};
  return spec;
}
TensorModelInfo info_of(std::vector<int64_t> in, std::vector<int64_t> out, int64_t max_batch = 8) {
  TensorModelInfo info;
  info.max_batch = max_batch;
  info.inputs = {{"image", ElementType::kFloat32, std::move(in)}};
  info.outputs = {{"vector", ElementType::kFloat32, std::move(out)}};
  return info;
}

TEST(MatchPorts, FixedFreeAndUnbatchedShapesFit) {
  const ImageModelSpec spec = spec_of(4, 5);
  auto ports = match_ports(spec, info_of({3, 4, 5}, {7}));
  ASSERT_TRUE(ports.ok()) << ports.error().to_string();
  EXPECT_TRUE(ports->batched);
  EXPECT_EQ(ports->dimensions, 7);
  EXPECT_TRUE(match_ports(spec, info_of({3, -1, -1}, {7, 1, 1})).ok());
  ports = match_ports(spec, info_of({1, 3, 4, 5}, {1, 6}, 0));
  ASSERT_TRUE(ports.ok());
  EXPECT_TRUE(ports->leading_one);
  EXPECT_EQ(ports->dimensions, 6);
  EXPECT_TRUE(match_ports(spec, info_of({3, 4, 5}, {6}, 0)).ok());
}

TEST(MatchPorts, WhatDoesNotFitIsSaid) {
  const auto message = [](const ImageModelSpec& spec, const TensorModelInfo& info) -> std::string {
    const auto ports = match_ports(spec, info);
    EXPECT_FALSE(ports.ok());
    return ports.ok() ? "" : ports.error().to_string();
  };
  ImageModelSpec spec = spec_of(4, 5);
  EXPECT_NE(message(spec, info_of({3, 5, 4}, {7})).find("[3, 5, 4]"), std::string::npos);
  EXPECT_NE(message(spec, info_of({4, 5, 3}, {7})).find("[3, 4, 5]"), std::string::npos);
  EXPECT_NE(message(spec, info_of({3, 4, 5}, {-1})).find("no fixed vector"), std::string::npos);
  EXPECT_NE(message(spec, info_of({2, 3, 4, 5}, {7}, 0)).find("[2, 3, 4, 5]"), std::string::npos);
  TensorModelInfo bytes = info_of({3, 4, 5}, {7});
  bytes.inputs[0].type = ElementType::kUInt8;
  EXPECT_NE(message(spec, bytes).find("UINT8"), std::string::npos);
  TensorModelInfo two = info_of({3, 4, 5}, {7});
  two.outputs.push_back({"scores", ElementType::kFloat32, {3}});
  EXPECT_NE(message(spec, two).find("2 outputs"), std::string::npos);
  spec.output_name = "scores";
  ASSERT_TRUE(match_ports(spec, two).ok());
  EXPECT_EQ(match_ports(spec, two)->output, 1u);
  spec.output_name = "nothing";
  EXPECT_NE(message(spec, two).find("vector, scores"), std::string::npos);
  spec = spec_of(4, 5);
  spec.input_name = "photo";
  EXPECT_NE(message(spec, two).find("'photo'"), std::string::npos);
}

TEST(FinishVectors, NormalisesEachVectorAsAsked) {
  ImageModelSpec spec;
  std::vector<float> v{3, 4, 0, 0, 1, 1};
  spec.l2_normalize = true;
  ASSERT_TRUE(finish_vectors(spec, 2, v).ok());
  EXPECT_FLOAT_EQ(v[0], 0.6f);
  EXPECT_FLOAT_EQ(v[1], 0.8f);
  EXPECT_EQ(v[2], 0);  // no direction to keep
  EXPECT_FLOAT_EQ(v[4], float(std::sqrt(0.5)));
  spec = {};
  spec.softmax = true;
  v = {1000, 1000, 0, std::log(3.0f)};
  ASSERT_TRUE(finish_vectors(spec, 2, v).ok());
  EXPECT_FLOAT_EQ(v[0], 0.5f);
  EXPECT_FLOAT_EQ(v[3], 0.75f);
  v = {1, NAN};
  EXPECT_EQ(finish_vectors(spec, 2, v).error().code, ErrorCode::kCorrupt);
}

// A backend whose network answers the mean of each picture and its first value.
class FakeSession : public TensorSession {
 public:
  Status run(std::span<const InputTensor> inputs, std::vector<OwnedTensor>& outputs) override {
    const InputTensor& in = inputs[0];
    const auto n = size_t(in.shape[0]), values = in.data.size() / sizeof(float) / n;
    std::vector<float> x(n * values), out;
    std::memcpy(x.data(), in.data.data(), in.data.size());
    for (size_t i = 0; i < n; ++i) {
      double sum = 0;
      for (size_t k = 0; k < values; ++k) sum += double(x[i * values + k]);
      out.push_back(float(sum / double(values)));
      out.push_back(x[i * values]);
    }
    outputs.resize(1);
    outputs[0].shape = {int64_t(n), 2};
    outputs[0].data.resize(out.size() * sizeof(float));
    std::memcpy(outputs[0].data.data(), out.data(), outputs[0].data.size());
    return {};
  }
};
class FakeModel : public TensorModel {
 public:
  FakeModel() : info_(info_of({3, -1, -1}, {2}, 4)) {}
  const TensorModelInfo& info() const override { return info_; }
  Result<std::unique_ptr<TensorSession>> create_session() const override {
    return std::unique_ptr<TensorSession>(std::make_unique<FakeSession>());
  }

 private:
  TensorModelInfo info_;
};
class FakeBackend : public Backend {
 public:
  std::string name() const override { return "fake"; }
  std::string device_description() const override { return "none"; }
  Status supports(const NetworkGraph&, const SessionOptions&) const override { return {}; }
  Result<std::unique_ptr<isoline::Session>> create(const NetworkGraph&,
                                                   const SessionOptions&) const override {
    return Error{ErrorCode::kUnsupported, "", "", ""};
  }
  Result<std::unique_ptr<TensorModel>> open_tensor_model(const std::string&,
                                                         const TensorModelOptions&) const override {
    return std::unique_ptr<TensorModel>(std::make_unique<FakeModel>());
  }
};

TEST(ImageNetwork, RunsBatches) {
  auto network = ImageNetwork::open(spec_of(1, 2), FakeBackend(), {});
  ASSERT_TRUE(network.ok()) << network.error().to_string();
  EXPECT_EQ(network->max_batch(), 4);
  EXPECT_EQ(network->dimensions(), 2);
  auto session = network->create_session();
  ASSERT_TRUE(session.ok());
  const std::vector<float> two{1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 7, 7};
  std::vector<float> vectors(4);
  ASSERT_TRUE(session->run(std::as_bytes(std::span(two)), 2, vectors).ok());
  EXPECT_EQ(vectors, (std::vector<float>{3.5f, 1, 7, 7}));
  vectors.resize(10);
  const std::vector<float> five(30);
  EXPECT_FALSE(session->run(std::as_bytes(std::span(five)), 5, vectors).ok());
}

TEST(ImageNetwork, ABackendWithoutOnnxSaysSo) {
  class Plain : public FakeBackend {
    Result<std::unique_ptr<TensorModel>> open_tensor_model(const std::string& file,
                                                           const TensorModelOptions& options) const override {
      return Backend::open_tensor_model(file, options);
    }
  };
  const auto network = ImageNetwork::open(spec_of(1, 2), Plain(), {});
  ASSERT_FALSE(network.ok());
  EXPECT_EQ(network.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(network.error().to_string().find("openvino"), std::string::npos);
}

}  // namespace
}  // namespace isoline
