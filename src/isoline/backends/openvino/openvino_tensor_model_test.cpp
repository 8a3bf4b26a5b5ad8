#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <thread>

#include "isoline/backends/openvino/openvino_backend.h"

namespace isoline {
namespace {

std::string golden(const std::string& name) {
  return std::string(ISOLINE_SOURCE_DIR) + "/tests/goldens/tensor/" + name + ".onnx";
}
std::unique_ptr<TensorModel> open(const std::string& name, TensorModelOptions options = {}) {
  auto model = make_openvino_backend()->open_tensor_model(golden(name), options);
  EXPECT_TRUE(model.ok()) << model.error().to_string();
  return std::move(model).value();
}
template <class T>
InputTensor view(const std::vector<T>& values, std::vector<int64_t> shape) {
  return {std::move(shape), std::as_bytes(std::span(values))};
}
template <class T>
std::vector<T> values(const OwnedTensor& tensor) {
  std::vector<T> out(tensor.data.size() / sizeof(T));
  std::memcpy(out.data(), tensor.data.data(), out.size() * sizeof(T));
  return out;
}

TEST(OpenVinoTensorModel, InfoNamesInputsOutputsAndTheBatch) {
  TensorModelOptions options;
  options.max_batch = 12;
  const auto model = open("two_inputs", options);
  const TensorModelInfo& info = model->info();
  EXPECT_EQ(info.platform, "openvino_onnx");
  EXPECT_EQ(info.max_batch, 12);
  ASSERT_EQ(info.inputs.size(), 2u);
  ASSERT_EQ(info.outputs.size(), 2u);
  EXPECT_EQ(info.inputs[0].name, "values");
  EXPECT_EQ(info.inputs[0].type, ElementType::kFloat32);
  EXPECT_EQ(info.inputs[0].shape, (std::vector<int64_t>{3}));
  EXPECT_EQ(info.inputs[1].name, "ids");
  EXPECT_EQ(info.inputs[1].type, ElementType::kInt64);
  EXPECT_EQ(info.outputs[0].name, "tripled");
  EXPECT_EQ(info.outputs[1].name, "doubled");
  EXPECT_EQ(info.outputs[1].shape, (std::vector<int64_t>{2}));
  EXPECT_NE(info.description.find("fp32"), std::string::npos) << info.description;
}

TEST(OpenVinoTensorModel, RunsAnyBatchInAnyOrder) {
  const auto model = open("two_inputs");
  auto session = model->create_session();
  ASSERT_TRUE(session.ok());
  std::vector<OwnedTensor> out;
  for (const int64_t batch : {1, 5, 2, 32, 1}) {
    std::vector<float> a;
    std::vector<int64_t> ids;
    for (int64_t i = 0; i < batch * 3; ++i) a.push_back(float(i) - 4.5f);
    for (int64_t i = 0; i < batch * 2; ++i) ids.push_back((int64_t{1} << 30) - 1 - i);
    const std::vector<InputTensor> in{view(a, {batch, 3}), view(ids, {batch, 2})};
    const Status status = (*session)->run(in, out);
    ASSERT_TRUE(status.ok()) << status.error().to_string();
    ASSERT_EQ(out.size(), 2u);
    EXPECT_EQ(out[0].shape, (std::vector<int64_t>{batch, 3}));
    EXPECT_EQ(out[1].shape, (std::vector<int64_t>{batch, 2}));
    for (float& v : a) v *= 3;
    for (int64_t& v : ids) v *= 2;
    EXPECT_EQ(values<float>(out[0]), a);
    EXPECT_EQ(values<int64_t>(out[1]), ids);
  }
}

TEST(OpenVinoTensorModel, InputsNeedNoAlignment) {
  const auto model = open("two_inputs");
  auto session = model->create_session();
  ASSERT_TRUE(session.ok());
  const std::vector<float> a{1, 2, 3};
  const std::vector<int64_t> ids{7, 8};
  std::vector<std::byte> bytes(1 + 12 + 16);
  std::memcpy(bytes.data() + 1, a.data(), 12);
  std::memcpy(bytes.data() + 13, ids.data(), 16);
  const std::vector<InputTensor> in{{{1, 3}, std::span(bytes).subspan(1, 12)},
                                    {{1, 2}, std::span(bytes).subspan(13, 16)}};
  std::vector<OwnedTensor> out;
  ASSERT_TRUE((*session)->run(in, out).ok());
  EXPECT_EQ(values<float>(out[0]), (std::vector<float>{3, 6, 9}));
  EXPECT_EQ(values<int64_t>(out[1]), (std::vector<int64_t>{14, 16}));
}

TEST(OpenVinoTensorModel, FreeExtentsAndBytesPass) {
  const auto model = open("free_size");
  EXPECT_EQ(model->info().inputs[0].type, ElementType::kUInt8);
  EXPECT_EQ(model->info().inputs[0].shape, (std::vector<int64_t>{-1, -1, 3}));
  auto session = model->create_session();
  ASSERT_TRUE(session.ok());
  std::vector<OwnedTensor> out;
  for (const int64_t width : {1, 4, 2}) {
    std::vector<uint8_t> photo;
    for (int64_t i = 0; i < width * 2; ++i)
      for (const int c : {10, 20, 30}) photo.push_back(uint8_t(c));
    const std::vector<InputTensor> in{view(photo, {1, 2, width, 3})};
    ASSERT_TRUE((*session)->run(in, out).ok());
    EXPECT_EQ(values<float>(out[0]), (std::vector<float>{10, 20, 30}));
  }
}

TEST(OpenVinoTensorModel, AFixedFirstAxisIsNoBatch) {
  const auto model = open("fixed_batch");
  EXPECT_EQ(model->info().max_batch, 0);
  EXPECT_EQ(model->info().inputs[0].shape, (std::vector<int64_t>{1, 4}));
  auto session = model->create_session();
  ASSERT_TRUE(session.ok());
  const std::vector<float> x{-1, 2, -3, 4};
  std::vector<OwnedTensor> out;
  const std::vector<InputTensor> in{view(x, {1, 4})};
  ASSERT_TRUE((*session)->run(in, out).ok());
  EXPECT_EQ(values<float>(out[0]), (std::vector<float>{0, 2, 0, 4}));
}

TEST(OpenVinoTensorModel, SessionsRunAtTheSameTime) {
  TensorModelOptions options;
  options.instances = 2;
  const auto model = open("two_inputs", options);
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0}, runs{0};
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      auto session = model->create_session();
      std::vector<OwnedTensor> out;
      for (int round = 0; round < 200; ++round) {
        const std::vector<float> a{float(t), float(round), 1};
        const std::vector<int64_t> ids{t, round};
        const std::vector<InputTensor> in{view(a, {1, 3}), view(ids, {1, 2})};
        if (!(*session)->run(in, out).ok() ||
            values<float>(out[0]) != std::vector<float>{3 * float(t), 3 * float(round), 3})
          ++wrong;
        ++runs;
      }
    });
  for (auto& t : threads) t.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(runs, 800);
}

TEST(OpenVinoTensorModel, WhatDoesNotFitIsRefused) {
  const auto model = open("two_inputs");
  auto session = model->create_session();
  ASSERT_TRUE(session.ok());
  const std::vector<float> a{1, 2, 3};
  const std::vector<int64_t> ids{7, 8};
  std::vector<OwnedTensor> out;
  const std::vector<InputTensor> one{view(a, {1, 3})};
  EXPECT_EQ((*session)->run(one, out).error().code, ErrorCode::kInvalidArgument);
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{2, 3}, {-1, 3}, {INT64_MAX, INT64_MAX}, {1, int64_t{1} << 62}}) {
    const std::vector<InputTensor> in{view(a, shape), view(ids, {1, 2})};
    const Status status = (*session)->run(in, out);
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(status.error().message.find("'values'"), std::string::npos) << status.error().to_string();
  }
}

// The plugin would answer 0 for 2 * 2^40.
TEST(OpenVinoTensorModel, IntegersItWouldComputeWronglyAreRefused) {
  const auto model = open("two_inputs");
  auto session = model->create_session();
  ASSERT_TRUE(session.ok());
  const std::vector<float> a{1, 2, 3};
  std::vector<OwnedTensor> out;
  for (const int64_t large : {int64_t{1} << 40, int64_t{1} << 31, -(int64_t{1} << 31) - 1}) {
    const std::vector<int64_t> ids{7, large};
    const std::vector<InputTensor> in{view(a, {1, 3}), view(ids, {1, 2})};
    const Status status = (*session)->run(in, out);
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, ErrorCode::kUnsupported);
    EXPECT_NE(status.error().message.find("'ids'"), std::string::npos) << status.error().to_string();
  }
}

TEST(OpenVinoTensorModel, BadFilesAndOptionsAreNamed) {
  const auto backend = make_openvino_backend();
  EXPECT_EQ(backend->open_tensor_model("/no/such/model.onnx", {}).error().code, ErrorCode::kNotFound);
  const std::string broken = testing::TempDir() + "broken.onnx";
  std::ofstream(broken) << "this is no network";
  EXPECT_EQ(backend->open_tensor_model(broken, {}).error().code, ErrorCode::kCorrupt);
  const auto strings = backend->open_tensor_model(golden("strings"), {});
  ASSERT_FALSE(strings.ok());
  EXPECT_EQ(strings.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(strings.error().to_string().find("'text'"), std::string::npos) << strings.error().to_string();
  TensorModelOptions half;
  half.precision = Precision::kFloat16;
  EXPECT_EQ(backend->open_tensor_model(golden("two_inputs"), half).error().code, ErrorCode::kUnsupported);
  TensorModelOptions none;
  none.instances = 0;
  EXPECT_EQ(backend->open_tensor_model(golden("two_inputs"), none).error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace isoline
