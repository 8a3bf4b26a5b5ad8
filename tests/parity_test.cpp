// Every stage against what official nnU-Net computed (tests/goldens/parity, see its README).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include <nlohmann/json.hpp>

#include "isoline/backends/registry/registry.h"
#include "isoline/io/npy.h"
#include "isoline/pipeline/segment_case.h"
#include "isoline/postprocess/label_exporter.h"

namespace isoline {
namespace {

namespace fs = std::filesystem;

struct Golden {
  fs::path folder;
  nlohmann::json manifest;
  std::string file(const std::string& name) const { return (folder / name).string(); }
  bool has(const std::string& name) const { return fs::exists(folder / name); }
  std::vector<std::string> images() const {
    std::vector<std::string> out;
    for (const auto& i : manifest["images"]) out.push_back(file(i));
    return out;
  }
  LoadedModel model() const {
    LoadOptions options;
    for (int f : manifest["folds"]) options.folds.push_back(std::to_string(f));
    options.checkpoint_name = manifest["checkpoint"];
    auto m = load_model(file(manifest["model"]), options);
    EXPECT_TRUE(m.ok()) << (m.ok() ? "" : m.error().to_string());
    return m.ok() ? std::move(m).value() : LoadedModel{};
  }
  SegmenterOptions options() const {
    SegmenterOptions o;
    o.step = manifest["step"];
    if (!manifest["tta"].get<bool>()) o.mirror_axes = std::vector<int>{};
    o.threads = 2;
    return o;
  }
};

std::vector<std::string> golden_names() {
  std::vector<std::string> names;
  for (const auto& e : fs::directory_iterator(fs::path(ISOLINE_SOURCE_DIR) / "tests/goldens/parity"))
    if (e.is_directory()) names.push_back(e.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

// Collects slabs into [heads, z, y, x].
struct Collector {
  std::vector<half_t> all;
  Status operator()(const LogitSlab& s) {
    all.resize(size_t(s.heads * voxels(s.shape)));
    for (int64_t h = 0; h < s.heads; ++h)
      for (int64_t z = s.z_begin; z < s.z_end; ++z)
        for (int64_t y = 0; y < s.shape[1]; ++y)
          std::memcpy(all.data() + ((h * s.shape[0] + z) * s.shape[1] + y) * s.shape[2],
                      s.data + h * s.head_stride + (z - s.z_begin) * s.plane_stride + y * s.row_stride,
                      size_t(s.shape[2]) * sizeof(half_t));
    return {};
  }
};

class Parity : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    golden_.folder = fs::path(ISOLINE_SOURCE_DIR) / "tests/goldens/parity" / GetParam();
    std::ifstream in(golden_.folder / "manifest.json");
    golden_.manifest = nlohmann::json::parse(in);
    registry_ = builtin_backends();
  }
  Result<Segmenter> open(const std::string& backend) {
    const auto b = registry_.find(backend);
    if (!b.ok()) return b.error();
    return Segmenter::create(golden_.model(), **b, golden_.options());
  }
  Result<Prepared> prepare(Segmenter& s, Scan& scan) {
    LabelMap previous;
    if (!golden_.manifest["prev"].is_null()) {
      ISOLINE_ASSIGN(previous,
                     read_labels(golden_.file(golden_.manifest["prev"]), s.spec().reader, {}, s.pool()));
    }
    return s.preprocess(scan.image, previous.data.empty() ? nullptr : &previous);
  }
  void end_to_end(const std::string& backend);
  Golden golden_;
  BackendRegistry registry_;
};

#define ASSERT_OK(expr) ASSERT_TRUE((expr).ok()) << (expr).error().to_string()

TEST_P(Parity, PreprocessedWithin1e5) {
  auto s = open("reference");
  ASSERT_OK(s);
  auto scan = read_case(golden_.images(), s->spec().reader, {}, s->pool());
  ASSERT_OK(scan);
  const auto got = prepare(*s, *scan);
  ASSERT_OK(got);
  const auto want = read_npy(golden_.file("preprocessed.npy"));
  ASSERT_OK(want);
  ASSERT_EQ((std::vector<int64_t>{got->channels, got->shape[0], got->shape[1], got->shape[2]}), want->shape);
  const Buffer<float>& w = *want->as<float>();
  double worst = 0;
  for (size_t i = 0; i < w.size(); ++i)
    worst = std::max(worst, std::abs(double(got->data[i]) - double(w[i])));
  EXPECT_LE(worst, 1e-5);
  RecordProperty("max_abs", std::to_string(worst));
}

TEST_P(Parity, AccumulationIsBitIdentical) {
  if (!golden_.has("tiles.npy")) GTEST_SKIP() << "this combination stores no tiles";
  const LoadedModel model = golden_.model();
  const auto tiles = read_npy(golden_.file("tiles.npy"));
  ASSERT_OK(tiles);
  const auto& shape = golden_.manifest["preprocessed_shape"];
  const auto plan =
      plan_tiles({shape[1], shape[2], shape[3]}, model.spec.patch_size, golden_.manifest["step"]);
  ASSERT_OK(plan);
  ThreadPool pool(2);
  Accumulator accumulator(*plan, model.spec.labels.heads, pool);
  Collector got;
  const int64_t one = model.spec.labels.heads * voxels(plan->patch);
  ASSERT_EQ(int64_t(tiles->as<float>()->size()), one * plan->tiles());
  for (int64_t t = 0; t < plan->tiles(); ++t)
    ASSERT_TRUE(accumulator.add(t, tiles->as<float>()->data() + t * one, std::ref(got)).ok());
  const auto want =
      read_npy(golden_.file(golden_.has("logits_fold_0.npy") ? "logits_fold_0.npy" : "logits.npy"));
  ASSERT_OK(want);
  const Buffer<uint16_t>& w = *want->as<uint16_t>();
  ASSERT_EQ(got.all.size(), w.size());
  EXPECT_EQ(std::memcmp(got.all.data(), w.data(), w.byte_size()), 0);
}

TEST_P(Parity, ExportIsBitIdentical) {
  auto s = open("reference");
  ASSERT_OK(s);
  auto scan = read_case(golden_.images(), s->spec().reader, {}, s->pool());
  ASSERT_OK(scan);
  const auto prepared = prepare(*s, *scan);
  ASSERT_OK(prepared);
  const auto logits = read_npy(golden_.file("logits.npy"));
  ASSERT_OK(logits);
  ASSERT_TRUE(logits->is_half);
  const auto want = read_labels(golden_.file("labels.nii.gz"), s->spec().reader, {}, s->pool());
  ASSERT_OK(want);
  for (const bool with_probabilities : {false, true}) {
    auto exporter =
        LabelExporter::create(s->spec(), prepared->crop, prepared->resample, s->pool(), with_probabilities);
    ASSERT_OK(exporter);
    const Shape3 n = prepared->shape;
    ASSERT_TRUE(exporter
                    ->add({0, n[0], n, s->spec().labels.heads, logits->as<uint16_t>()->data(), voxels(n),
                           n[1] * n[2], n[2]})
                    .ok());
    const LabelExporter::Output got = exporter->finish();
    ASSERT_EQ(got.labels.shape, want->shape);
    int64_t different = 0;
    for (size_t i = 0; i < want->data.size(); ++i) different += got.labels.data[i] != want->data[i];
    // With probabilities the reference decides on them; stored labels are of one kind or the other.
    if (with_probabilities == golden_.manifest["save_probabilities"].get<bool>()) {
      EXPECT_EQ(different, 0);
    }
  }
}

// A label may differ only where the reference itself was within 0.01 of a tie.
void Parity::end_to_end(const std::string& backend) {
  auto s = open(backend);
  ASSERT_OK(s);
  const fs::path out = fs::path(::testing::TempDir()) / ("isoline_" + backend + "_" + GetParam() + ".nii.gz");
  CaseFiles files{GetParam(), golden_.images(), out.string(), ""};
  if (!golden_.manifest["prev"].is_null()) files.previous_stage = golden_.file(golden_.manifest["prev"]);
  const auto result = segment_case(*s, files, {});
  ASSERT_OK(result);
  const auto got = read_labels(out.string(), s->spec().reader, {}, s->pool());
  const auto want = read_labels(golden_.file("labels.nii.gz"), s->spec().reader, {}, s->pool());
  fs::remove(out);
  ASSERT_OK(got);
  ASSERT_OK(want);
  ASSERT_EQ(got->shape, want->shape);
  const auto close = read_npy(golden_.file("close_voxels.npy"));
  ASSERT_OK(close);
  const Buffer<int64_t>& allowed = *close->as<int64_t>();
  int64_t different = 0;
  for (size_t i = 0; i < want->data.size(); ++i) {
    if (got->data[i] == want->data[i]) continue;
    ++different;
    EXPECT_TRUE(std::binary_search(allowed.begin(), allowed.end(), int64_t(i))) << "voxel " << i;
  }
  // The bound of 1e-5 is for volumes; these have some 10^4 voxels, so one near-tie is let pass here.
  EXPECT_LE(different, 1);
  RecordProperty("different_voxels", std::to_string(different));
}

TEST_P(Parity, EndToEndReference) {
  end_to_end("reference");
}
TEST_P(Parity, EndToEndOpenVino) {
  if (!registry_.find("openvino").ok()) GTEST_SKIP() << "no OpenVINO in this build";
  end_to_end("openvino");
}
TEST_P(Parity, EndToEndNative) {
  const auto native = registry_.find("native");
  if (!native.ok()) GTEST_SKIP() << "no native backend in this build";
  end_to_end("native");
}

INSTANTIATE_TEST_SUITE_P(Goldens, Parity, ::testing::ValuesIn(golden_names()),
                         [](const auto& info) { return info.param; });

// The same network as plans + checkpoint and as an ONNX bundle gives the same labels.
TEST(OnnxBundle, GivesTheResultsFoldersLabels) {
  const BackendRegistry registry = builtin_backends();
  const auto openvino = registry.find("openvino");
  if (!openvino.ok()) GTEST_SKIP() << "no OpenVINO in this build";
  const fs::path goldens = fs::path(ISOLINE_SOURCE_DIR) / "tests/goldens";
  auto model = load_model((goldens / "onnx_bundle").string(), {});
  ASSERT_OK(model);
  SegmenterOptions options;
  std::ifstream in(goldens / "parity/residual3d_softmax/manifest.json");
  const auto manifest = nlohmann::json::parse(in);
  options.step = manifest["step"];
  if (!manifest["tta"].get<bool>()) options.mirror_axes = std::vector<int>{};
  auto s = Segmenter::create(std::move(model).value(), **openvino, options);
  ASSERT_OK(s);
  const fs::path out = fs::path(::testing::TempDir()) / "isoline_onnx.nii.gz";
  const std::string image = (goldens / "parity/residual3d_softmax/images/case_0000.nii.gz").string();
  ASSERT_OK(segment_case(*s, {"case", {image}, out.string(), ""}, {}));
  const auto got = read_labels(out.string(), s->spec().reader, {}, s->pool());
  const auto want = read_labels((goldens / "parity/residual3d_softmax/labels.nii.gz").string(),
                                s->spec().reader, {}, s->pool());
  fs::remove(out);
  ASSERT_OK(got);
  ASSERT_OK(want);
  int64_t different = 0;
  for (size_t i = 0; i < want->data.size(); ++i) different += got->data[i] != want->data[i];
  EXPECT_LE(different, 1);

  // Other backends refuse the file by name.
  auto again = load_model((goldens / "onnx_bundle").string(), {});
  auto refused = Segmenter::create(std::move(again).value(), **registry.find("reference"), options);
  EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
}

TEST(ParityGoldens, AreThere) {
  EXPECT_GE(golden_names().size(), 12u);
}

}  // namespace
}  // namespace isoline
