#include "isoline/model/checkpoint.h"

#include <gtest/gtest.h>

#include <cstring>

#include "isoline/base/file.h"
#include "isoline/model/postprocessing_spec.h"

namespace isoline {
namespace {

std::string golden(const std::string& name) {
  return ISOLINE_SOURCE_DIR "/tests/goldens/checkpoint/" + name;
}
bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::vector<float> values(const std::vector<int>& indices) {  // values(n) of make_checkpoint_goldens.py
  std::vector<float> out;
  for (int i : indices) out.push_back(float(i) * 0.25f - 1);
  return out;
}
std::vector<int> range(int from, int to) {
  std::vector<int> out;
  for (int i = from; i < to; ++i) out.push_back(i);
  return out;
}

TEST(Checkpoint, ReadsWhatTheTrainerWrites) {
  for (const char* name : {"trained.pth", "trained_protocol4.pth"}) {
    auto c = read_checkpoint(golden(name));
    ASSERT_TRUE(c.ok()) << c.error().to_string();
    EXPECT_EQ(c->trainer_name, "nnUNetTrainer");
    EXPECT_EQ(c->configuration, "3d_fullres");
    EXPECT_EQ(c->mirror_axes, (std::vector<int>{0, 1, 2}));
    ASSERT_EQ(c->weights.tensors.size(), 2u);
    EXPECT_EQ(c->weights.tensors["weight"].shape, (std::vector<int64_t>{2, 1, 1, 1}));
    EXPECT_EQ(c->weights.tensors["weight"].to_float(), values({0, 1}));
    EXPECT_TRUE(c->warnings.empty());
  }
}

class Views : public testing::TestWithParam<const char*> {};
TEST_P(Views, GivesEveryKindOfTensor) {
  auto c = read_checkpoint(golden(GetParam()));
  ASSERT_TRUE(c.ok()) << c.error().to_string();
  auto& t = c->weights.tensors;
  EXPECT_EQ(t["contiguous"].to_float(), values(range(0, 24)));
  EXPECT_EQ(t["shared"].to_float(), values(range(4, 16)));
  std::vector<int> transposed, channels_last;
  for (int r = 0; r < 6; ++r)
    for (int col = 0; col < 4; ++col) transposed.push_back(col * 6 + r);
  EXPECT_EQ(t["transposed"].shape, (std::vector<int64_t>{6, 4}));
  EXPECT_EQ(t["transposed"].to_float(), values(transposed));
  EXPECT_EQ(t["strided"].to_float(), values({1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23}));
  EXPECT_EQ(t["expanded"].to_float(), values({3, 3, 3, 3, 3, 3}));
  EXPECT_EQ(t["channels_last"].to_float(), values(range(0, 24)));
  EXPECT_EQ(t["scalar"].to_float(), std::vector<float>{2.5f});
  EXPECT_EQ(t["empty"].elements(), 0);
  EXPECT_EQ(t["parameter"].to_float(), values({0, 1, 2}));
  EXPECT_EQ(t["half"].type, TensorType::kFloat16);
  EXPECT_EQ(t["bfloat16"].type, TensorType::kBFloat16);
  EXPECT_EQ(t["double"].type, TensorType::kFloat64);
  for (const char* name : {"half", "bfloat16", "double"})
    EXPECT_EQ(t[name].to_float(), values(range(0, 5))) << name;
  for (const char* name : {"wrapped", "compiled", "both"})
    EXPECT_EQ(t[name].to_float(), values({0, 1})) << name;
  for (auto& [name, view] : t)
    EXPECT_EQ(reinterpret_cast<uintptr_t>(view.data) % (view.type == TensorType::kFloat64 ? 8 : 4), 0u)
        << name;
}
INSTANTIATE_TEST_SUITE_P(Archives, Views,
                         testing::Values("views.pth", "views_deflated.pth", "views_unaligned.pth",
                                         "views_zip64.pth"));

TEST(Checkpoint, MirrorAxesAndMissingChecksums) {
  EXPECT_EQ(read_checkpoint(golden("views.pth"))->mirror_axes, (std::vector<int>{0, 2}));
  EXPECT_FALSE(read_checkpoint(golden("no_mirroring.pth"))->mirror_axes.has_value());
  auto c = read_checkpoint(golden("no_checksums.pth"));
  ASSERT_TRUE(c.ok());
  EXPECT_EQ(c->warnings.size(), 1u);
}

TEST(Checkpoint, RefusesByName) {
  const auto error = [](const char* name) { return read_checkpoint(golden(name)).error(); };
  EXPECT_EQ(error("foreign_class.pth").code, ErrorCode::kUnsupported);
  EXPECT_TRUE(contains(error("foreign_class.pth").to_string(), "'somepackage.trainers.Foreign'"));
  EXPECT_TRUE(contains(error("foreign_class.pth").to_string(), "foreign_class.pth"));
  EXPECT_TRUE(contains(error("legacy.pth").message, "legacy PyTorch file"));
  EXPECT_TRUE(contains(error("torchscript.pth").message, "TorchScript"));
  EXPECT_TRUE(
      contains(error("integer_weights.pth").to_string(), "norm.num_batches_tracked']: has type int64"));
  EXPECT_EQ(error("no_such_file.pth").code, ErrorCode::kNotFound);
  EXPECT_EQ(error("postprocessing_4.pkl").code, ErrorCode::kCorrupt);
}

TEST(Checkpoint, NoticesEveryFlippedBitItUses) {
  auto file = read_whole_file(golden("trained.pth"), 1 << 20);
  ASSERT_TRUE(file.ok());
  // Bytes of data.pkl, then of the first weight.
  for (const char* needle : {"network_weights", "checkpoint", "trained/data/0"}) {
    std::vector<std::byte> bytes(file->begin(), file->end());
    const auto at = std::search(bytes.begin(), bytes.end(), reinterpret_cast<const std::byte*>(needle),
                                reinterpret_cast<const std::byte*>(needle) + std::strlen(needle));
    if (at == bytes.end()) continue;
    *at ^= std::byte{0x20};
    EXPECT_FALSE(read_checkpoint(std::span<const std::byte>(bytes), nullptr).ok()) << needle;
  }
  for (size_t n = 0; n < file->size(); n += 7)
    ASSERT_FALSE(read_checkpoint(std::span<const std::byte>(file->begin(), n), nullptr).ok()) << n;
}

TEST(Postprocessing, ReadsEveryProtocol) {
  for (const char* name : {"postprocessing_2.pkl", "postprocessing_3.pkl", "postprocessing_4.pkl",
                           "postprocessing_5.pkl", "postprocessing_numpy1.pkl"}) {
    auto p = load_postprocessing(golden(name));
    ASSERT_TRUE(p.ok()) << p.error().to_string();
    ASSERT_EQ(p->steps.size(), 3u);
    EXPECT_EQ(p->steps[0].labels, (std::vector<int>{1, 2, 3}));
    EXPECT_EQ(p->steps[0].background_label, 0);
    EXPECT_EQ(p->steps[1].labels, (std::vector<int>{2, 3}));
    EXPECT_EQ(p->steps[2].labels, (std::vector<int>{1, 3, 5}));
    EXPECT_EQ(p->steps[2].background_label, 4);
  }
  auto none = load_postprocessing(golden("postprocessing_none.pkl"));
  ASSERT_TRUE(none.ok());
  EXPECT_TRUE(none->steps.empty());
  EXPECT_TRUE(
      contains(load_postprocessing(golden("postprocessing_other.pkl")).error().to_string(), "'numpy.load'"));
}

}  // namespace
}  // namespace isoline
