// The full nnU-Net that benchmarks run: features 32 64 128 256 320 320, two convolutions a stage, 1 -> 4
// channels, random weights.
#pragma once

#include <cmath>
#include <random>
#include <utility>
#include <vector>

#include "isoline/network/graph.h"

namespace isoline::bench {

struct Builder {
  NetworkGraph graph;
  std::mt19937 random{1};

  std::vector<float> values(size_t n, float scale) {
    std::uniform_real_distribution<float> uniform(-scale, scale);
    std::vector<float> v(n);
    for (float& x : v) x = uniform(random);
    return v;
  }
  ValueId value(int channels, int downscale) {
    graph.values.push_back({channels, {downscale, downscale, downscale}});
    return ValueId(graph.values.size()) - 1;
  }
  ValueId conv(ValueId in, int out, int kernel, int stride) {
    const ValueDesc from = graph.values[size_t(in)];
    ConvOp op;
    op.in = in;
    op.out = value(out, from.downscale[0] * stride);
    op.kernel = {kernel, kernel, kernel};
    op.stride = {stride, stride, stride};
    const int taps = kernel * kernel * kernel;
    op.weight =
        values(size_t(out) * size_t(from.channels * taps), std::sqrt(3.0f / float(from.channels * taps)));
    op.bias = values(size_t(out), 0.1f);
    graph.ops.push_back(op);
    return op.out;
  }
  ValueId block(ValueId in, int out, int stride) {
    const ValueId c = conv(in, out, 3, stride);
    InstanceNormOp norm;
    norm.in = c;
    norm.out = value(out, graph.values[size_t(c)].downscale[0]);
    norm.gamma.assign(size_t(out), 1.0f);
    norm.beta.assign(size_t(out), 0.0f);
    graph.ops.push_back(norm);
    LeakyReluOp relu{norm.out, value(out, graph.values[size_t(c)].downscale[0]), 0.01f};
    graph.ops.push_back(relu);
    return relu.out;
  }
  ValueId up(ValueId in, int out) {
    const ValueDesc from = graph.values[size_t(in)];
    ConvTransposeOp op;
    op.in = in;
    op.out = value(out, from.downscale[0] / 2);
    op.weight = values(size_t(from.channels) * size_t(out) * 8, std::sqrt(3.0f / float(from.channels)));
    op.bias = values(size_t(out), 0.1f);
    graph.ops.push_back(op);
    return op.out;
  }
};

inline NetworkGraph full_network() {
  const std::vector<int> features{32, 64, 128, 256, 320, 320};
  Builder b;
  ValueId v = b.value(1, 1);
  std::vector<ValueId> skips;
  for (size_t s = 0; s < features.size(); ++s) {
    v = b.block(b.block(v, features[s], s ? 2 : 1), features[s], 1);
    skips.push_back(v);
  }
  for (size_t s = features.size() - 1; s-- > 0;) {
    const ValueId up = b.up(v, features[s]);
    const ConcatOp join{up, skips[s], b.value(2 * features[s], 1 << s)};
    b.graph.ops.push_back(join);
    v = b.block(b.block(join.out, features[s], 1), features[s], 1);
  }
  b.graph.output = b.conv(v, 4, 1, 1);
  return std::move(b.graph);
}

}  // namespace isoline::bench
