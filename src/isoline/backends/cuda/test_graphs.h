// Small graphs for this folder's tests.
#pragma once

#include <cmath>
#include <random>
#include <vector>

#include "isoline/network/graph.h"

namespace isoline::cuda::test {

struct Graph {
  Graph(int dims, int channels) {
    graph.spatial_dims = dims;
    graph.values.push_back({channels, {1, 1, 1}});
  }
  NetworkGraph graph;
  std::mt19937 rng{3};

  ValueId conv(ValueId in, int out, Vec3<int> kernel, Vec3<int> stride = {1, 1, 1}) {
    ConvOp op{in, add(out, in, stride, false), kernel, stride, {}, {}};
    const int fan = channels(in) * kernel[0] * kernel[1] * kernel[2];
    op.weight = values(size_t(out * fan), std::sqrt(2.0f / float(fan)));
    op.bias = values(size_t(out), 0.1f);
    graph.ops.push_back(op);
    return op.out;
  }
  ValueId norm(ValueId in) {
    InstanceNormOp op{in, same(in), 1e-5f, values(size_t(channels(in)), 0.2f),
                      values(size_t(channels(in)), 0.2f)};
    for (float& g : op.gamma) g += 1;
    graph.ops.push_back(op);
    return op.out;
  }
  ValueId relu(ValueId in, float slope) {
    graph.ops.push_back(LeakyReluOp{in, same(in), slope});
    return last();
  }
  ValueId block(ValueId in, int out, Vec3<int> stride = {1, 1, 1}) {
    return relu(
        norm(conv(in, out, graph.spatial_dims == 2 ? Vec3<int>{1, 3, 3} : Vec3<int>{3, 3, 3}, stride)),
        0.01f);
  }
  ValueId up(ValueId in, int out, Vec3<int> stride) {
    ConvTransposeOp op{in, add(out, in, stride, true), stride, {}, {}};
    op.weight = values(size_t(channels(in) * out * stride[0] * stride[1] * stride[2]),
                       std::sqrt(1.0f / float(channels(in))));
    op.bias = values(size_t(out), 0.1f);
    graph.ops.push_back(op);
    return op.out;
  }
  ValueId sum(ValueId a, ValueId b) {
    graph.ops.push_back(AddOp{a, b, same(a)});
    return last();
  }
  ValueId concat(ValueId a, ValueId b) {
    graph.values.push_back({channels(a) + channels(b), graph.values[size_t(a)].downscale});
    graph.ops.push_back(ConcatOp{a, b, last()});
    return last();
  }
  void head(ValueId in, int out) { finish(conv(in, out, {1, 1, 1})); }
  NetworkGraph& finish(ValueId output) {
    graph.output = output;
    return graph;
  }
  ValueId last() const { return ValueId(graph.values.size()) - 1; }
  int channels(ValueId v) const { return graph.values[size_t(v)].channels; }

 private:
  ValueId same(ValueId v) {
    graph.values.push_back(graph.values[size_t(v)]);
    return last();
  }
  ValueId add(int channels, ValueId of, Vec3<int> stride, bool up) {
    Vec3<int> d = graph.values[size_t(of)].downscale;
    for (size_t a = 0; a < 3; ++a) d[a] = up ? d[a] / stride[a] : d[a] * stride[a];
    graph.values.push_back({channels, d});
    return last();
  }
  std::vector<float> values(size_t n, float scale) {
    std::normal_distribution<float> d(0, scale);
    std::vector<float> v(n);
    for (float& x : v) x = d(rng);
    return v;
  }
};

// Two blocks a stage, strides of 2.
inline NetworkGraph& unet(Graph& g, const std::vector<int>& features) {
  std::vector<ValueId> skips;
  ValueId v = 0;
  for (size_t s = 0; s < features.size(); ++s) {
    v = g.block(g.block(v, features[s], s ? Vec3<int>{2, 2, 2} : Vec3<int>{1, 1, 1}), features[s]);
    skips.push_back(v);
  }
  for (size_t s = features.size() - 1; s-- > 0;) {
    v = g.concat(g.up(v, features[s], {2, 2, 2}), skips[s]);
    v = g.block(g.block(v, features[s]), features[s]);
  }
  g.head(v, 3);
  return g.graph;
}

}  // namespace isoline::cuda::test
