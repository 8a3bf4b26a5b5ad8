#include "isoline/image_network/picture_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

namespace isoline {
namespace {

// Its second output gives the first two values of each picture.
class FirstTwo : public TensorModel {
 public:
  FirstTwo() {
    info_.platform = "fake_onnx";
    info_.max_batch = 8;
    info_.inputs = {{"image", ElementType::kFloat32, {3, -1, -1}}};
    info_.outputs = {{"other", ElementType::kFloat32, {7}}, {"vector", ElementType::kFloat32, {2}}};
  }
  const TensorModelInfo& info() const override { return info_; }
  Result<std::unique_ptr<TensorSession>> create_session() const override {
    struct Session : TensorSession {
      Status run(std::span<const InputTensor> in, std::vector<OwnedTensor>& out) override {
        const int64_t n = in[0].shape[0];
        const size_t picture = in[0].data.size() / size_t(n);
        out.resize(2);
        out[0] = {{n, 7}, std::vector<std::byte>(size_t(n) * 28)};
        out[1] = {{n, 2}, {}};
        for (size_t i = 0; i < size_t(n); ++i) {
          const std::byte* v = in[0].data.data() + i * picture;
          out[1].data.insert(out[1].data.end(), v, v + 2 * sizeof(float));
        }
        return {};
      }
    };
    return std::unique_ptr<TensorSession>(std::make_unique<Session>());
  }

 private:
  TensorModelInfo info_;
};

ImageModelSpec spec() {
  ImageModelSpec s;
  s.onnx_file = "model.onnx";
  s.output_name = "vector";
  s.l2_normalize = true;
  s.preprocess.size = {1, 1};
  s.preprocess.mean = {0, 0, 0};
  s.preprocess.std_dev = {1, 1, 1};
  return s;
}

TEST(PictureModel, LooksLikeAPictureInAndAVectorOut) {
  const auto model = make_picture_model(spec(), std::make_unique<FirstTwo>(), {});
  ASSERT_TRUE(model.ok()) << model.error().to_string();
  const TensorModelInfo& info = (*model)->info();
  EXPECT_EQ(info.platform, "isoline_image");
  EXPECT_EQ(info.max_batch, 8);
  EXPECT_EQ(info.inputs[0].shape, (std::vector<int64_t>{3, 1, 1}));
  ASSERT_EQ(info.outputs.size(), 1u);
  EXPECT_EQ(info.outputs[0].name, "vector");
  EXPECT_EQ((*model)->decoder()->bytes_per_sample(), 12u);
  ImageModelSpec wrong = spec();
  wrong.output_name = "none";
  EXPECT_FALSE(make_picture_model(wrong, std::make_unique<FirstTwo>(), {}).ok());
}

TEST(PictureModel, FinishesEachVectorAndSparesTheNeighboursOfAStrangeOne) {
  const auto model = make_picture_model(spec(), std::make_unique<FirstTwo>(), {});
  ASSERT_TRUE(model.ok());
  auto session = (*model)->create_session();
  ASSERT_TRUE(session.ok());
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> pictures{3, 4, 9, nan, 2, 9, 0, 5, 9};
  const InputTensor in{{3, 3, 1, 1}, std::as_bytes(std::span(pictures))};
  for (int repeat = 0; repeat < 2; ++repeat) {
    std::vector<OwnedTensor> out;
    ASSERT_TRUE((*session)->run({&in, 1}, out).ok());
    ASSERT_EQ(out.size(), 1u);
    EXPECT_EQ(out[0].shape, (std::vector<int64_t>{3, 2}));
    float v[6];
    ASSERT_EQ(out[0].data.size(), sizeof v);
    std::memcpy(v, out[0].data.data(), sizeof v);
    EXPECT_EQ(v[0], 0.6f);
    EXPECT_EQ(v[1], 0.8f);
    EXPECT_TRUE(std::isnan(v[2]));
    EXPECT_EQ(v[3], 2);
    EXPECT_EQ(v[4], 0);
    EXPECT_EQ(v[5], 1);
  }
}

}  // namespace
}  // namespace isoline
