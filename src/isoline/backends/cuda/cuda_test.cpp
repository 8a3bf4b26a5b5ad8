// What the contract test over all backends does not see. Tests named CudaDevice need a GPU and are skipped
// without one.
#include "isoline/backends/cuda/cuda_backend.h"

#include <cuda_fp16.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <regex>
#include <set>
#include <sstream>
#include <vector>

#include "isoline/backends/cuda/ceilings.h"
#include "isoline/backends/cuda/pack.h"
#include "isoline/backends/cuda/session.h"
#include "isoline/backends/cuda/test_graphs.h"
#include "isoline/backends/reference/reference_backend.h"
#include "isoline/base/buffer.h"
#include "isoline/engine/scan_runner.h"
#include "isoline/postprocess/label_exporter.h"
#include "isoline/preprocess/preprocess.h"
#include "isoline/tile/accumulator.h"
#include "isoline/tile/tile_plan.h"

namespace isoline::cuda {
namespace {

constexpr Precision kPrecisions[] = {Precision::kFloat32, Precision::kTensorFloat32, Precision::kBFloat16,
                                     Precision::kFloat16};

// Read back as mma.m16n8k8 gives them to lanes: B fragment b0 is k = lane % 4, b1 is k + 4, of column lane
// / 4.
TEST(CudaPack, Tf32WeightsLieInFragmentOrderAndAreRounded) {
  constexpr int kOut = 40, kIn = 11, kChannels = 16, kTaps = 3;
  std::vector<float> weight(kOut * kIn * kTaps);
  std::mt19937 rng(5);
  std::normal_distribution<float> normal;
  for (float& w : weight) w = normal(rng);
  weight[0] = 1 + 0x1p-11f;                                           // a tie: away from zero
  weight[1] = -(1 + 0x1p-11f - 0x1p-20f);                             // just below one
  std::vector<int> positions{0, 1, 2, 8, 9, 10, 11, 12, 13, 14, 15};  // 3..7 are gaps
  const ConvShape shape{{1, 1, kTaps}, {1, 1, 1}};
  const auto packed = pack_conv_weights(DataType::kTensorFloat32, weight.data(), kOut, kIn, shape, kChannels,
                                        positions.data());
  const auto* const floats = reinterpret_cast<const float*>(packed.data());
  std::vector<int> seen(weight.size());
  for (int tile = 0; tile < 2; ++tile)
    for (int chunk = 0; chunk < kChannels / 8; ++chunk)
      for (int tap = 0; tap < kTaps; ++tap)
        for (int f = 0; f < 4; ++f)
          for (int lane = 0; lane < 32; ++lane)
            for (int b = 0; b < 2; ++b) {
              const int unit = ((tile * 2 + chunk) * kTaps + tap) * 64 + f / 2 * 32 + lane;
              const float got = floats[unit * 4 + f % 2 * 2 + b];
              const int j = lane / 4, o = tile * 32 + 8 * (j / 2) + 2 * f + j % 2;
              const int channel = chunk * 8 + lane % 4 + 4 * b;
              const auto at = std::find(positions.begin(), positions.end(), channel);
              if (o >= kOut || at == positions.end()) {
                ASSERT_EQ(got, 0.0f);
                continue;
              }
              const size_t i = size_t((o * kIn + int(at - positions.begin())) * kTaps + tap);
              ++seen[i];
              EXPECT_EQ(std::fmod(std::ldexp(got, 10 - std::ilogb(got)), 1.0f), 0.0f) << "10 bits";
              EXPECT_LE(std::abs(got - weight[i]), std::ldexp(1.0f, std::ilogb(weight[i]) - 11));
            }
  for (int n : seen) EXPECT_EQ(n, 1);
  EXPECT_EQ(floats[0], 1 + 0x1p-10f);
  EXPECT_EQ(floats[256], -1.0f);
}

// Of a convolution whose inputs have gaps among the tensor's 56 channels, the last chunk of which is half
// empty.
struct GappedConv {
  static constexpr int kChannels = 56, kChunks = 4;
  explicit GappedConv(int out_channels) : out(out_channels) {
    for (int i = 0; i < kChannels; ++i)
      if (i % 5 != 3) positions.push_back(i);
    weight.resize(size_t(out) * positions.size() * 27);
    for (size_t i = 0; i < weight.size(); ++i) weight[i] = float(i % 2039 + 1);  // exact in fp16
  }
  std::vector<std::byte> packed(WeightLayout layout) const {
    const ConvShape shape{{3, 3, 3}, {1, 1, 1}};
    return pack_conv_weights(DataType::kFloat16, weight.data(), out, int(positions.size()), shape, kChannels,
                             positions.data(), layout);
  }
  float want(int o, int channel, int kz, int tap) const {
    const auto at = std::find(positions.begin(), positions.end(), channel);
    if (o >= out || at == positions.end()) return 0;
    return weight[(size_t(o) * positions.size() + size_t(at - positions.begin())) * 27 +
                  size_t(kz * 9 + tap)];
  }
  int out;
  std::vector<int> positions;
  std::vector<float> weight;
};

// Read back as conv_channels.cu's products do: matrices of rows of 16 inputs, the two halves of a row apart.
TEST(CudaPack, ChannelsAreRowsOfTheMatricesOfWeights) {
  const GappedConv conv(72);
  const auto packed = conv.packed(WeightLayout::kChannels);
  const auto* const halves = reinterpret_cast<const __half*>(packed.data());
  ASSERT_EQ(packed.size(), size_t(2 * GappedConv::kChunks * 27 * 64 * 32));
  size_t read = 0;
  for (int tile = 0; tile < 2; ++tile)
    for (int two = 0; two < GappedConv::kChunks / 2; ++two)
      for (int kz = 0; kz < 3; ++kz)
        for (int chunk = 0; chunk < 2; ++chunk)
          for (int tap = 0; tap < 9; ++tap)
            for (int half = 0; half < 2; ++half)
              for (int row = 0; row < 64; ++row)
                for (int k = 0; k < 8; ++k, ++read) {
                  const int o = tile * 64 + row / 16 * 16 + 4 * (row % 8 / 2) + 2 * (row % 16 / 8) + row % 2;
                  const float w = conv.want(o, (two * 2 + chunk) * 16 + half * 8 + k, kz, tap);
                  ASSERT_EQ(__half2float(halves[read]), w) << "output " << o << ", input " << k;
                }
}

// Read back as conv_march.cu's products do: columns of 16 inputs, all kz in one matrix.
TEST(CudaPack, MarchHasTheTapsAlongZBesideEachOther) {
  const GappedConv conv(24);
  const auto packed = conv.packed(WeightLayout::kMarch);
  const auto* const halves = reinterpret_cast<const __half*>(packed.data());
  ASSERT_EQ(packed.size(), size_t(GappedConv::kChunks * 9 * 96 * 32));
  size_t read = 0;
  for (int chunk = 0; chunk < GappedConv::kChunks; ++chunk)
    for (int tap = 0; tap < 9; ++tap)
      for (int half = 0; half < 2; ++half)
        for (int kz = 0; kz < 3; ++kz)
          for (int column = 0; column < 32; ++column)
            for (int k = 0; k < 8; ++k, ++read) {
              const int o = 8 * (column % 8 / 2) + 2 * (column / 8) + column % 2;
              const float w = conv.want(o, chunk * 16 + half * 8 + k, kz, tap);
              ASSERT_EQ(__half2float(halves[read]), w) << "output " << o << ", input " << k;
            }
}

// Read back as transpose_fragments.cu's lanes do.
TEST(CudaPack, TransposedWeightsLieInFragmentOrder) {
  constexpr int kIn = 7, kChannels = 40, kOut = 41, kTaps = 2;
  const std::vector<int> positions{0, 1, 8, 15, 31, 32, 39};
  std::vector<float> weight(kIn * kOut * kTaps);
  for (size_t i = 0; i < weight.size(); ++i) weight[i] = float(i + 1);  // exact in fp16
  const auto packed = pack_transpose_weights(DataType::kFloat16, TransposeKernel::kFragments, weight.data(),
                                             kIn, kOut, kTaps, kChannels, positions.data());
  ASSERT_EQ(packed.size(), size_t(kTaps * 2 * 2 * 1024 * 2));
  const auto* const halves = reinterpret_cast<const __half*>(packed.data());
  size_t found = 0, read = 0;
  for (int tap = 0; tap < kTaps; ++tap)
    for (int tile = 0; tile < 2; ++tile)
      for (int group = 0; group < 2; ++group)
        for (int f = 0; f < 4; ++f)
          for (int lane = 0; lane < 32; ++lane)
            for (int i = 0; i < 8; ++i, ++read) {
              const float got = __half2float(halves[read]);
              const int o = tile * 32 + 8 * (lane / 4 / 2) + 2 * f + lane / 4 % 2;
              const auto at = std::find(positions.begin(), positions.end(), group * 32 + lane % 4 * 8 + i);
              if (o >= kOut || at == positions.end()) {
                ASSERT_EQ(got, 0.0f);
                continue;
              }
              EXPECT_EQ(got, weight[size_t(((at - positions.begin()) * kOut + o) * kTaps + tap)]);
              ++found;
            }
  EXPECT_EQ(found, weight.size());
}

TEST(CudaBackend, WithoutAGpuItSaysWhyAndRefuses) {
  const auto backend = make_cuda_backend();
  EXPECT_EQ(backend->device_kind(), "gpu");
  if (backend->available()) GTEST_SKIP() << "there is one";
  EXPECT_NE(backend->device_description().find("not usable here: "), std::string::npos);
  test::Graph g(3, 1);
  g.head(0, 2);
  const auto session = backend->create(g.graph, {{4, 4, 4}, 1, Precision::kFloat16, 1});
  ASSERT_FALSE(session.ok());
  EXPECT_EQ(session.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(session.error().remedy.find("--backend native"), std::string::npos);
}

TEST(CudaBackend, ErrorsNameTheCauseAndTheRemedy) {
  EXPECT_EQ(cuda_error(cudaErrorMemoryAllocation, "x").code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(cuda_error(cudaErrorNoKernelImageForDevice, "x").code, ErrorCode::kUnsupported);
  const Error lost = cuda_error(cudaErrorIllegalAddress, "running the network");
  EXPECT_EQ(lost.code, ErrorCode::kInternal);
  EXPECT_NE(lost.message.find("the GPU failed while running the network"), std::string::npos);
  EXPECT_NE(lost.remedy.find("Xid"), std::string::npos);
}

class CudaDevice : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!device_info().ok()) GTEST_SKIP() << device_info().error().message;
  }
  static Buffer<float> input(const NetworkGraph& graph, const SessionOptions& o, float scale = 1) {
    Buffer<float> in(size_t(o.batch) * size_t(graph.input_channels()) * size_t(voxels(o.patch)));
    std::mt19937 rng(9);
    std::normal_distribution<float> normal(0, scale);
    for (float& v : in) v = normal(rng);
    return in;
  }
  static size_t out_size(const NetworkGraph& graph, const SessionOptions& o) {
    size_t n = size_t(o.batch) * size_t(graph.output_channels());
    for (size_t a = 0; a < 3; ++a) n *= size_t(o.patch[a] / graph.values[size_t(graph.output)].downscale[a]);
    return n;
  }
  static double difference(const Buffer<float>& got, const Buffer<float>& want) {
    double d = 0, w = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      d += std::pow(double(got[i]) - double(want[i]), 2);
      w += std::pow(double(want[i]), 2);
    }
    return std::sqrt(d / w);
  }
  // Every way to run it, against the reference.
  static void check(const NetworkGraph& graph, Shape3 patch, int batch, double fp16_bound) {
    ASSERT_TRUE(validate(graph).ok());
    const SessionOptions ro{patch, batch, Precision::kFloat32, 2};
    const Buffer<float> in = input(graph, ro);
    Buffer<float> want(out_size(graph, ro)), got(want.size());
    auto truth = make_reference_backend()->create(graph, ro);
    ASSERT_TRUE(truth.ok());
    ASSERT_TRUE((*truth)->run(in.data(), want.data()).ok());
    for (const Precision p : kPrecisions)
      for (const bool fold : {true, false})
        for (const bool naive : {true, false}) {
          auto session =
              CudaSession::create(graph, {patch, batch, p, 2, Autotune::kOff}, *device_info(), {fold, naive});
          ASSERT_TRUE(session.ok()) << session.error().to_string();
          std::fill(got.begin(), got.end(), NAN);
          const Status s = (*session)->run(in.data(), got.data());
          ASSERT_TRUE(s.ok()) << s.error().to_string();
          const double bound = p == Precision::kFloat32    ? 1e-5
                               : p == Precision::kBFloat16 ? 8 * fp16_bound
                                                           : fp16_bound;
          EXPECT_LT(difference(got, want), bound)
              << to_string(p) << (fold ? " fold" : "") << (naive ? " naive" : "");
        }
  }
};

TEST_F(CudaDevice, SmallUNet) {  // also for compute-sanitizer
  test::Graph g(3, 1);
  check(test::unet(g, {8, 16}), {6, 8, 10}, 1, 8e-3);
}

TEST_F(CudaDevice, WideUNet) {  // also for compute-sanitizer: every kernel of Hopper's own
  test::Graph g(3, 1);
  check(test::unet(g, {24, 40}), {16, 16, 16}, 1, 8e-3);
}

TEST_F(CudaDevice, UNetsOfOddSizesAndBatches) {
  test::Graph a(3, 3);
  check(test::unet(a, {5, 13, 27}), {12, 8, 20}, 3, 8e-3);
  test::Graph b(3, 1);
  check(test::unet(b, {32, 40, 328}), {16, 8, 8}, 2, 8e-3);  // more than 256 channels
  test::Graph c(3, 1);
  check(test::unet(c, {72, 392}), {4, 6, 8}, 2, 8e-3);  // transposed: more than a warp's registers hold
}

TEST_F(CudaDevice, OddGraphs) {
  test::Graph g(3, 8);
  const ValueId a = g.block(0, 8), b = g.relu(g.conv(0, 8, {1, 1, 1}), 0.2f);
  const ValueId ab = g.concat(a, b), aa = g.concat(a, a);
  const ValueId all = g.concat(g.norm(ab), g.concat(aa, ab));
  g.head(g.relu(g.norm(g.relu(all, -0.5f)), -0.1f), 11);  // more heads than a pass of the head kernel has
  check(g.graph, {6, 5, 7}, 2, 8e-3);

  test::Graph wide(3, 2);  // a stride that the fast kernels do not have; the output is no 1x1x1 convolution
  const ValueId low = wide.block(0, 12, {3, 1, 3});
  check(wide.finish(wide.norm(wide.up(low, 5, {3, 1, 3}))), {6, 5, 9}, 2, 8e-3);
}

TEST_F(CudaDevice, TwoRunsAndTwoSessionsAreIdentical) {
  test::Graph g(3, 1);
  const NetworkGraph& graph = test::unet(g, {16, 32, 64});
  for (const Precision p : kPrecisions) {
    const SessionOptions o{{32, 48, 40}, 2, p, 2};
    const Buffer<float> in = input(graph, o);
    Buffer<float> first(out_size(graph, o)), other(first.size());
    for (int session = 0; session < 2; ++session) {
      auto s = make_cuda_backend()->create(graph, o);
      ASSERT_TRUE(s.ok()) << s.error().to_string();
      for (int run = 0; run < 5; ++run) {
        Buffer<float>& to = session + run ? other : first;
        ASSERT_TRUE((*s)->run(in.data(), to.data()).ok());
        if (session + run) {
          ASSERT_EQ(std::memcmp(first.data(), other.data(), first.byte_size()), 0)
              << to_string(p) << " run " << run;
        }
      }
    }
  }
}

// Mirroring and adding on the device gives the bits of doing both on the host around run().
TEST_F(CudaDevice, MirrorsAsTheHostDoes) {
  test::Graph g(3, 2);
  const NetworkGraph& graph = test::unet(g, {8, 16});
  const SessionOptions o{
      {8, 10, 70}, 1, Precision::kFloat16, 2};  // rows longer than half a block, 10 x 8 x channels
  const auto at = [&](int64_t c, int64_t z, int64_t y, int64_t x, const Vec3<bool>& m) {
    return size_t(((c * 8 + (m[0] ? 7 - z : z)) * 10 + (m[1] ? 9 - y : y)) * 70 + (m[2] ? 69 - x : x));
  };
  const auto each = [&](int64_t channels, auto body) {
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t z = 0; z < 8; ++z)
        for (int64_t y = 0; y < 10; ++y)
          for (int64_t x = 0; x < 70; ++x) body(c, z, y, x);
  };
  const Buffer<float> in = input(graph, o);
  Buffer<float> turned(in.size()), part(out_size(graph, o)), want(part.size()), got(part.size());
  auto session = make_cuda_backend()->create(graph, o);
  ASSERT_TRUE(session.ok()) << session.error().to_string();
  const std::vector<Vec3<bool>> mirrors{{false, false, false}, {true, false, false}, {false, true, true}};
  for (size_t k = 0; k < mirrors.size(); ++k) {
    each(graph.input_channels(), [&](int64_t c, int64_t z, int64_t y, int64_t x) {
      turned[at(c, z, y, x, {})] = in[at(c, z, y, x, mirrors[k])];
    });
    ASSERT_TRUE((*session)->run(turned.data(), part.data()).ok());
    each(graph.output_channels(), [&](int64_t c, int64_t z, int64_t y, int64_t x) {
      float& sum = want[at(c, z, y, x, {})];
      sum = (k ? sum : 0.0f) + part[at(c, z, y, x, mirrors[k])];
      if (k + 1 == mirrors.size()) sum /= float(mirrors.size());
    });
  }
  for (int run = 0; run < 2; ++run) {
    std::fill(got.begin(), got.end(), NAN);
    const Status s = (*session)->run_mirrored(in.data(), mirrors, got.data());
    ASSERT_TRUE(s.ok()) << s.error().to_string();
    EXPECT_EQ(std::memcmp(got.data(), want.data(), want.byte_size()), 0) << "run " << run;
  }
}

TEST_F(CudaDevice, Fp16OverflowIsAnErrorThatNamesTheRemedy) {
  test::Graph g(3, 1);
  const ValueId c = g.conv(0, 8, {3, 3, 3});
  for (float& w : std::get<ConvOp>(g.graph.ops.back()).weight) w *= 300;
  g.head(g.relu(g.norm(c), 0.01f), 2);
  const SessionOptions o{{8, 8, 8}, 1, Precision::kFloat16, 1};
  const Buffer<float> in = input(g.graph, o, 1000);
  Buffer<float> out(out_size(g.graph, o));
  auto session = make_cuda_backend()->create(g.graph, o);
  ASSERT_TRUE(session.ok());
  for (int run = 0; run < 2; ++run) {  // the flag is cleared and found again
    const Status s = (*session)->run(in.data(), out.data());
    ASSERT_FALSE(s.ok());
    EXPECT_NE(s.error().message.find("fp16 overflow"), std::string::npos);
    EXPECT_NE(s.error().remedy.find("bf16"), std::string::npos);
  }
  Buffer<float> small = input(g.graph, o, 1e-3f);
  EXPECT_TRUE((*session)->run(small.data(), out.data()).ok()) << "the session stays usable";
  auto bf16 = make_cuda_backend()->create(g.graph, {{8, 8, 8}, 1, Precision::kBFloat16, 1});
  ASSERT_TRUE(bf16.ok());
  EXPECT_TRUE((*bf16)->run(in.data(), out.data()).ok());
}

// Folders of their own: a cold start, one that finds the choices, and the fixed rule give the same bits.
TEST_F(CudaDevice, TuningNeverChangesBitsUnlessAskedTo) {
  const std::string folder = ::testing::TempDir() + "isoline_cuda_tuning";
  std::filesystem::remove_all(folder);
  test::Graph g(3, 1);
  const NetworkGraph& graph = test::unet(g, {32, 64, 160});
  for (const Precision p : {Precision::kTensorFloat32, Precision::kBFloat16, Precision::kFloat16})
    for (const Autotune mode : {Autotune::kSameBits, Autotune::kAll}) {
      SessionOptions o{{32, 24, 40}, 2, p, 2, Autotune::kOff};
      const Buffer<float> in = input(graph, o);
      Buffer<float> want(out_size(graph, o)), first(want.size()), again(want.size());
      auto rule = CudaSession::create(graph, o, *device_info(), {true, false, folder});
      ASSERT_TRUE(rule.ok()) << rule.error().to_string();
      EXPECT_EQ((*rule)->tuning().text(), "");
      ASSERT_TRUE((*rule)->run(in.data(), want.data()).ok());
      o.autotune = mode;
      auto cold = CudaSession::create(graph, o, *device_info(), {true, false, folder});
      ASSERT_TRUE(cold.ok()) << cold.error().to_string();
      const TuningReport& tuning = (*cold)->tuning();
      EXPECT_GE(tuning.layers_timed, 3) << tuning.text();
      EXPECT_EQ(tuning.layers_kept, 0);
      EXPECT_EQ(tuning.candidates_refused, 0) << "what is said to have the same bits has";
      EXPECT_EQ(tuning.note, "");
      EXPECT_LT(tuning.duration_s, 10);
      ASSERT_TRUE((*cold)->run(in.data(), first.data()).ok());
      auto warm = CudaSession::create(graph, o, *device_info(), {true, false, folder});
      ASSERT_TRUE(warm.ok()) << warm.error().to_string();
      EXPECT_EQ((*warm)->tuning().layers_timed, 0) << (*warm)->tuning().text();
      EXPECT_EQ((*warm)->tuning().layers_kept, tuning.layers_timed);
      EXPECT_EQ((*warm)->tuning().layers_changed, tuning.layers_changed);
      ASSERT_TRUE((*warm)->run(in.data(), again.data()).ok());
      EXPECT_EQ(std::memcmp(first.data(), again.data(), first.byte_size()), 0) << to_string(p);
      if (mode == Autotune::kSameBits)
        EXPECT_EQ(std::memcmp(first.data(), want.data(), first.byte_size()), 0) << to_string(p);
      else
        EXPECT_LT(difference(first, want), p == Precision::kBFloat16 ? 6e-2 : 8e-3) << to_string(p);
    }
  // Another process would find the file; one that names kernels which this device or layer does not have is
  // not followed.
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) files.push_back(entry.path());
  ASSERT_EQ(files.size(), 1u);
  std::stringstream text;
  text << std::ifstream(files[0]).rdbuf();
  const std::string forged =
      std::regex_replace(text.str(), std::regex("\"(mma|wgmma)[^\"]*\""), "\"mma 4x4 s2 k1\"");
  ASSERT_NE(forged, text.str());
  std::filesystem::create_directories(folder + "/forged");
  std::ofstream(folder + "/forged/" + files[0].filename().string()) << forged;
  const SessionOptions o{{32, 24, 40}, 2, Precision::kFloat16, 2};
  auto session = CudaSession::create(graph, o, *device_info(), {true, false, folder + "/forged"});
  ASSERT_TRUE(session.ok()) << session.error().to_string();
  EXPECT_EQ((*session)->tuning().layers_kept, 0);
  EXPECT_NE((*session)->tuning().note.find("none of this device's"), std::string::npos);
  std::filesystem::remove_all(folder);
}

// Small enough for compute-sanitizer's racecheck: a whole scan of two windows.
TEST_F(CudaDevice, TinyScan) {
  test::Graph g(3, 1);
  const NetworkGraph& graph = test::unet(g, {8, 16});
  ModelSpec spec;
  spec.spacing_mm = {1, 1, 1};
  spec.patch_size = {16, 16, 16};
  spec.channels = {ChannelSpec{"CT", Normalization::kCt, false, 10, 200, -150, 400}};
  spec.labels.heads = 3;
  spec.resample_probabilities.order = 1;
  Image image;
  image.channels = 1;
  image.shape = {8, 16, 16};
  image.geometry.spacing_mm = {2, 1, 1.5};
  auto voxels_in = zeroed<int16_t>(size_t(voxels(image.shape)));
  for (size_t i = 0; i < voxels_in.size(); ++i)
    voxels_in[i] = int16_t(100 + 90 * std::sin(double(i) * 0.37) + double(i % 31));
  image.data = std::move(voxels_in);
  ThreadPool pool(1);
  const auto prepare = plan_preprocess(image, false, spec, pool);
  ASSERT_TRUE(prepare.ok()) << prepare.error().to_string();
  const auto prepared = preprocess(image, nullptr, spec, *prepare, pool);
  ASSERT_TRUE(prepared.ok());
  const auto tiles = plan_tiles(prepared->shape, spec.patch_size, 0.5);
  ASSERT_TRUE(tiles.ok());
  ASSERT_EQ(tiles->tiles(), 2);
  const std::vector<Vec3<bool>> mirrors{{false, false, false}};
  const auto rule = make_label_rule(spec, prepare->crop, prepare->resample);
  ASSERT_TRUE(rule.ok());
  const SessionOptions so{tiles->patch, 1, Precision::kFloat16, 1, Autotune::kOff};

  auto runner = make_cuda_backend()->create_scan_runner({graph}, {so, 0});
  ASSERT_TRUE(runner.ok()) << runner.error().to_string();
  LabelMap got(rule->file_shape, {});
  std::fill(got.data.begin(), got.data.end(), uint16_t(0));
  ScanRequest request;
  request.image = &image;
  request.plan = &*prepare;
  request.tiles = &*tiles;
  request.mirrors = mirrors;
  request.rule = &*rule;
  request.labels = &got;
  ScanReport report;
  const Status s = (*runner)->run(request, &report);
  ASSERT_TRUE(s.ok()) << s.error().to_string();
  EXPECT_TRUE(report.preprocessed_on_device);
  EXPECT_EQ(report.forward_ms.size(), 2u);

  // The CPU's rooms around the same network; resampling differs by rounding.
  auto session = make_cuda_backend()->create(graph, so);
  ASSERT_TRUE(session.ok());
  auto exporter = LabelExporter::create(spec, prepare->crop, prepare->resample, pool);
  ASSERT_TRUE(exporter.ok());
  Accumulator accumulator(*tiles, 3, pool);
  Buffer<float> in(size_t(voxels(tiles->patch))), out(3 * in.size());
  for (int64_t t = 0; t < tiles->tiles(); ++t) {
    extract_tile(*tiles, prepared->data.data(), 1, tiles->origin(t), {false, false, false}, in.data());
    ASSERT_TRUE((*session)->run(in.data(), out.data()).ok());
    ASSERT_TRUE(
        accumulator.add(t, out.data(), [&](const LogitSlab& slab) { return exporter->add(slab); }).ok());
  }
  const LabelMap want = exporter->finish().labels;
  ASSERT_EQ(got.data.size(), want.data.size());
  size_t different = 0;
  for (size_t i = 0; i < want.data.size(); ++i) different += got.data[i] != want.data[i];
  EXPECT_LE(different, want.data.size() / 100);
  EXPECT_GT(std::set<uint16_t>(got.data.begin(), got.data.end()).size(), 1u);
}

TEST_F(CudaDevice, CeilingsAreMeasured) {
  for (const Precision p : kPrecisions) {
    const auto ceilings = make_cuda_backend()->measure_ceilings(p);
    ASSERT_TRUE(ceilings.ok()) << ceilings.error().to_string();
    EXPECT_GT(ceilings->flops_per_s, 0) << to_string(p);
    EXPECT_GT(ceilings->bytes_per_s, 0) << to_string(p);
    EXPECT_FALSE(ceilings->how.empty());
  }
  // The copy that is timed copies, and the products that are timed are made: different ones, all finite.
  std::vector<int> in(size_t(3 * kCopyBlockBytes / 4)), out(in.size());
  for (size_t i = 0; i < in.size(); ++i) in[i] = int(i * 2654435761u);
  const size_t bytes = in.size() * 4;
  auto from = DeviceMemory::allocate(bytes, "test"), to = DeviceMemory::allocate(bytes, "test");
  ASSERT_TRUE(from.ok() && to.ok());
  ASSERT_EQ(cudaMemcpy(from->at(), in.data(), bytes, cudaMemcpyHostToDevice), cudaSuccess);
  ASSERT_EQ(copy_memory(from->at(), to->at(), int64_t(bytes), nullptr), cudaSuccess);
  ASSERT_EQ(cudaMemcpy(out.data(), to->at(), bytes, cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_EQ(in, out);
  EXPECT_EQ(copy_memory(from->at(), to->at(), 4, nullptr), cudaErrorInvalidValue);
  for (const DataType type :
       {DataType::kFloat32, DataType::kTensorFloat32, DataType::kBFloat16, DataType::kFloat16}) {
    const DeviceInfo& device = *device_info();
    std::vector<float> sums(256);
    auto memory = DeviceMemory::allocate(size_t(device.processors) * kProductThreads * 4, "test");
    ASSERT_TRUE(memory.ok());
    Products products;
    ASSERT_EQ(multiply(type, device, memory->at<float>(), &products, nullptr), cudaSuccess);
    ASSERT_EQ(cudaMemcpy(sums.data(), memory->at(), sums.size() * 4, cudaMemcpyDeviceToHost), cudaSuccess);
    EXPECT_GT(products.flops, 0);
    for (float v : sums) EXPECT_TRUE(std::isfinite(v));
    EXPECT_GT(std::set<float>(sums.begin(), sums.end()).size(), 200u);
  }
}

TEST_F(CudaDevice, WhatDoesNotFitIsRefusedWithItsSize) {
  test::Graph g(3, 1);
  g.head(g.conv(0, 256, {3, 3, 3}), 2);
  const auto status = make_cuda_backend()->supports(g.graph, {{1000, 1000, 1000}, 1, Precision::kFloat32, 1});
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.error().message.find("MiB of GPU memory"), std::string::npos);
}

}  // namespace
}  // namespace isoline::cuda
