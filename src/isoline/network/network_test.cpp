#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "isoline/base/file.h"
#include "isoline/model/load_model.h"
#include "isoline/network/build_network.h"

namespace isoline {
namespace {

struct Tensor {
  int channels = 0;
  Shape3 s{0, 0, 0};
  std::vector<double> v;
  double& at(int c, int64_t z, int64_t y, int64_t x) {
    return v[size_t(((c * s[0] + z) * s[1] + y) * s[2] + x)];
  }
  double padded(int c, int64_t z, int64_t y, int64_t x) {
    return z < 0 || y < 0 || x < 0 || z >= s[0] || y >= s[1] || x >= s[2] ? 0.0 : at(c, z, y, x);
  }
};

// Executes a graph as the comments in graph.h read, in double, one sample.
class Executor {
 public:
  Executor(const NetworkGraph& g, const Shape3& patch) : g_(g), values_(g.values.size()) {
    for (size_t i = 0; i < values_.size(); ++i) {
      values_[i].channels = g.values[i].channels;
      for (size_t a = 0; a < 3; ++a) values_[i].s[a] = patch[a] / g.values[i].downscale[a];
      values_[i].v.assign(size_t(values_[i].channels * voxels(values_[i].s)), NAN);
    }
  }
  std::vector<double> run(const std::vector<float>& in) {
    values_[0].v.assign(in.begin(), in.end());
    for (const Op& op : g_.ops) std::visit([&](const auto& o) { execute(o); }, op);
    return values_[size_t(g_.output)].v;
  }

 private:
  Tensor& t(ValueId id) { return values_[size_t(id)]; }
  template <class F>
  void each(Tensor& out, F f) {
    for (int c = 0; c < out.channels; ++c)
      for (int64_t z = 0; z < out.s[0]; ++z)
        for (int64_t y = 0; y < out.s[1]; ++y)
          for (int64_t x = 0; x < out.s[2]; ++x) out.at(c, z, y, x) = f(c, z, y, x);
  }
  void execute(const ConvOp& o) {
    Tensor &in = t(o.in), &out = t(o.out);
    each(out, [&](int c, int64_t z, int64_t y, int64_t x) {
      double sum = o.bias.empty() ? 0 : o.bias[size_t(c)];
      size_t w = size_t(c) * size_t(in.channels * o.kernel[0] * o.kernel[1] * o.kernel[2]);
      for (int i = 0; i < in.channels; ++i)
        for (int kz = 0; kz < o.kernel[0]; ++kz)
          for (int ky = 0; ky < o.kernel[1]; ++ky)
            for (int kx = 0; kx < o.kernel[2]; ++kx)
              sum += o.weight[w++] * in.padded(i, z * o.stride[0] + kz - (o.kernel[0] - 1) / 2,
                                               y * o.stride[1] + ky - (o.kernel[1] - 1) / 2,
                                               x * o.stride[2] + kx - (o.kernel[2] - 1) / 2);
      return sum;
    });
  }
  void execute(const ConvTransposeOp& o) {
    Tensor &in = t(o.in), &out = t(o.out);
    each(out, [&](int c, int64_t z, int64_t y, int64_t x) {
      double sum = o.bias.empty() ? 0 : o.bias[size_t(c)];
      for (int i = 0; i < in.channels; ++i) {
        const int64_t k = ((z % o.stride[0]) * o.stride[1] + y % o.stride[1]) * o.stride[2] + x % o.stride[2];
        const int64_t taps = int64_t(o.stride[0]) * o.stride[1] * o.stride[2];
        sum += o.weight[size_t((int64_t(i) * out.channels + c) * taps + k)] *
               in.at(i, z / o.stride[0], y / o.stride[1], x / o.stride[2]);
      }
      return sum;
    });
  }
  void execute(const InstanceNormOp& o) {
    Tensor &in = t(o.in), &out = t(o.out);
    const int64_t n = voxels(in.s);
    for (int c = 0; c < in.channels; ++c) {
      double sum = 0, squares = 0;
      for (int64_t i = 0; i < n; ++i) sum += in.v[size_t(c * n + i)];
      for (int64_t i = 0; i < n; ++i) squares += std::pow(in.v[size_t(c * n + i)] - sum / double(n), 2);
      const double scale = o.gamma[size_t(c)] / std::sqrt(squares / double(n) + o.eps);
      for (int64_t i = 0; i < n; ++i)
        out.v[size_t(c * n + i)] = (in.v[size_t(c * n + i)] - sum / double(n)) * scale + o.beta[size_t(c)];
    }
  }
  void execute(const LeakyReluOp& o) {
    for (size_t i = 0; i < t(o.in).v.size(); ++i)
      t(o.out).v[i] = t(o.in).v[i] * (t(o.in).v[i] > 0 ? 1 : o.slope);
  }
  void execute(const AddOp& o) {
    for (size_t i = 0; i < t(o.a).v.size(); ++i) t(o.out).v[i] = t(o.a).v[i] + t(o.b).v[i];
  }
  void execute(const ConcatOp& o) {
    t(o.out).v = t(o.a).v;
    t(o.out).v.insert(t(o.out).v.end(), t(o.b).v.begin(), t(o.b).v.end());
  }
  void execute(const AvgPoolOp& o) {
    Tensor& in = t(o.in);
    each(t(o.out), [&](int c, int64_t z, int64_t y, int64_t x) {
      double sum = 0;
      for (int kz = 0; kz < o.stride[0]; ++kz)
        for (int ky = 0; ky < o.stride[1]; ++ky)
          for (int kx = 0; kx < o.stride[2]; ++kx)
            sum += in.at(c, z * o.stride[0] + kz, y * o.stride[1] + ky, x * o.stride[2] + kx);
      return sum / (o.stride[0] * o.stride[1] * o.stride[2]);
    });
  }

  const NetworkGraph& g_;
  std::vector<Tensor> values_;
};

std::string golden(const std::string& name) {
  return ISOLINE_SOURCE_DIR "/tests/goldens/network/" + name;
}

std::vector<float> read_floats(const std::string& path) {
  auto bytes = read_whole_file(path, 1 << 20);
  EXPECT_TRUE(bytes.ok());
  std::vector<float> out(bytes->size() / 4);
  std::memcpy(out.data(), bytes->data(), out.size() * 4);
  return out;
}

LoadedModel load(const std::string& name) {
  auto model = load_model(golden(name));
  EXPECT_TRUE(model.ok()) << model.error().to_string();
  return std::move(model).value();
}
Result<NetworkGraph> build(const LoadedModel& m) {
  return build_network(*m.spec.architecture, m.spec.input_channels(), m.spec.labels.heads, m.folds[0]);
}

class NetworkGolden : public testing::TestWithParam<const char*> {};

TEST_P(NetworkGolden, MatchesTorch) {
  const LoadedModel m = load(GetParam());
  auto graph = build(m);
  ASSERT_TRUE(graph.ok()) << graph.error().to_string();
  Shape3 patch{1, 1, 1};
  const size_t dims = m.spec.patch_size.size();
  for (size_t a = 0; a < dims; ++a) patch[3 - dims + a] = m.spec.patch_size[a];
  const auto want = read_floats(golden(GetParam()) + std::string("/output.f32"));
  const auto got = Executor(*graph, patch).run(read_floats(golden(GetParam()) + std::string("/input.f32")));
  ASSERT_EQ(got.size(), want.size());
  double range = 0, worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    range = std::max(range, std::fabs(double(want[i])));
    worst = std::max(worst, std::fabs(got[i] - want[i]));
  }
  EXPECT_LT(worst, 2e-5 * range) << "range " << range;
}

INSTANTIATE_TEST_SUITE_P(All, NetworkGolden,
                         testing::Values("plain3d", "residual3d", "plain2d", "anisotropic", "no_bias_relu",
                                         "no_norm", "residual2d_plain_norm"));

TEST(BuildNetwork, CountsParametersWorkAndDivisor) {
  const LoadedModel m = load("no_bias_relu");
  auto g = build(m);
  ASSERT_TRUE(g.ok());
  // encoder 1->3, 3->5 (3x3x3), norms 3, 5; transposed 5->3 (2x2x2); decoder 6->3, norm 3; head 3->2 with
  // bias.
  EXPECT_EQ(g->parameters(), 27 * 3 + 6 + 27 * 15 + 10 + 8 * 15 + 27 * 18 + 6 + 8);
  const int64_t full = 8 * 8 * 8, half = full / 8;
  EXPECT_EQ(g->macs({8, 8, 8}), full * 81 + half * 405 + half * 120 + full * 486 + full * 6);
  EXPECT_EQ(g->patch_divisor(), (Vec3<int>{2, 2, 2}));
  EXPECT_EQ(build(load("anisotropic"))->patch_divisor(), (Vec3<int>{2, 6, 8}));
}

TEST(BuildNetwork, NamesTheTensorThatIsWrong) {
  const std::string name = "encoder.stages.1.0.convs.0.conv.weight";
  LoadedModel m = load("plain3d");
  ASSERT_EQ(m.folds[0].tensors.count(name), 1u);
  TensorView view = m.folds[0].tensors[name];

  m.folds[0].tensors.erase(name);
  EXPECT_EQ(build(m).error().context, name);
  EXPECT_NE(build(m).error().message.find("lacks"), std::string::npos);

  view.shape[1] += 1;
  m.folds[0].tensors[name] = view;
  EXPECT_EQ(build(m).error().context, name);
  EXPECT_NE(build(m).error().message.find("[4, 4, 3, 3, 3], plans.json says [4, 3, 3, 3, 3]"),
            std::string::npos)
      << build(m).error().message;

  view.shape[1] -= 1;
  m.folds[0].tensors[name] = view;
  m.folds[0].tensors["encoder.stages.1.0.convs.0.squeeze_excitation.weight"] = view;
  EXPECT_EQ(build(m).error().context, "encoder.stages.1.0.convs.0.squeeze_excitation.weight");
  m.folds[0].tensors.erase("encoder.stages.1.0.convs.0.squeeze_excitation.weight");
  EXPECT_TRUE(build(m).ok());

  // Two tensors of one shape cannot be the same bytes.
  LoadedModel twice = load("plain3d");
  auto& t = twice.folds[0].tensors;
  t["decoder.stages.1.convs.1.norm.bias"] = t["decoder.stages.1.convs.0.norm.bias"];
  EXPECT_EQ(build(twice).error().to_string(),
            "decoder.stages.1.convs.1.norm.bias: the tensor shares memory with another");

  // One more head than the checkpoint has.
  EXPECT_EQ(build_network(*m.spec.architecture, 2, 4, m.folds[0]).error().context,
            "decoder.seg_layers.1.weight");
}

TEST(Validate, NamesTheOpThatBreaksAnInvariant) {
  auto graph = build(load("residual3d"));
  ASSERT_TRUE(graph.ok());
  const auto complaint = [&](auto&& damage) {
    NetworkGraph g = *graph;
    damage(g);
    const Status s = validate(g);
    return s.ok() ? std::string("ok") : s.error().to_string();
  };
  EXPECT_EQ(complaint([](NetworkGraph&) {}), "ok");
  EXPECT_EQ(complaint([](NetworkGraph& g) { std::get<ConvOp>(g.ops[0]).weight.pop_back(); }),
            "op 0 (convolution): has the wrong number of weights");
  EXPECT_EQ(complaint([](NetworkGraph& g) { std::swap(g.ops[0], g.ops[1]); }),
            "op 0 (instance norm): reads a value that does not exist or is not written yet");
  EXPECT_EQ(complaint([](NetworkGraph& g) { g.ops.push_back(g.ops.back()); }).substr(0, 3), "op ");
  EXPECT_EQ(complaint([](NetworkGraph& g) {
              std::get<ConvOp>(g.ops[0]).stride = {2, 1, 1};
            }),
            "op 0 (convolution): output resolution does not fit the stride");
  EXPECT_EQ(complaint([](NetworkGraph& g) { g.output = ValueId(g.values.size()); }),
            "graph: the output value does not exist");
}

}  // namespace
}  // namespace isoline
