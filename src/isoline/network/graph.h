// NetworkGraph: a network as a short list of typed operations on values, weights included, in float32.
// Backends execute it; it knows nothing of files, tiles or devices.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/base/shape.h"

namespace isoline {

// Index into NetworkGraph::values. Value 0 is the input.
using ValueId = int;

// A tensor [n, channels, z, y, x] whose spatial extent is patch / downscale (exact division).
struct ValueDesc {
  int channels = 0;
  Vec3<int> downscale{1, 1, 1};
};

// out[n, o, p] = bias[o] + sum weight[o, i, k] * in[n, i, p * stride + k - (kernel - 1) / 2]; zero padding.
struct ConvOp {
  ValueId in = 0, out = 0;
  Vec3<int> kernel{1, 1, 1}, stride{1, 1, 1};  // 2-D networks have kernel 1 and stride 1 along z
  std::vector<float> weight;                   // [out_channels, in_channels, kz, ky, kx]
  std::vector<float> bias;                     // [out_channels] or empty
};

// Transposed convolution with kernel == stride (no overlap, no padding):
// out[n, o, p * stride + k] = bias[o] + sum_i weight[i, o, k] * in[n, i, p].
struct ConvTransposeOp {
  ValueId in = 0, out = 0;
  Vec3<int> stride{2, 2, 2};
  std::vector<float> weight;  // [in_channels, out_channels, kz, ky, kx]
  std::vector<float> bias;    // [out_channels] or empty
};

// Per sample and channel over all voxels: (v - mean) / sqrt(biased variance + eps) * gamma + beta.
struct InstanceNormOp {
  ValueId in = 0, out = 0;
  float eps = 1e-5f;
  std::vector<float> gamma, beta;  // [channels]; ones and zeros when not affine
};

// v > 0 ? v : slope * v; slope 0 is ReLU.
struct LeakyReluOp {
  ValueId in = 0, out = 0;
  float slope = 0.01f;
};

struct AddOp {
  ValueId a = 0, b = 0, out = 0;
};

// Channels of `a`, then channels of `b`.
struct ConcatOp {
  ValueId a = 0, b = 0, out = 0;
};

// Mean over non-overlapping windows, kernel == stride.
struct AvgPoolOp {
  ValueId in = 0, out = 0;
  Vec3<int> stride{2, 2, 2};
};

using Op = std::variant<ConvOp, ConvTransposeOp, InstanceNormOp, LeakyReluOp, AddOp, ConcatOp, AvgPoolOp>;

// Ops are in execution order; every value is written by exactly one op, before it is read.
struct NetworkGraph {
  int spatial_dims = 3;
  std::vector<ValueDesc> values;
  std::vector<Op> ops;
  ValueId output = 0;

  int input_channels() const { return values[0].channels; }
  int output_channels() const { return values[size_t(output)].channels; }
  // Smallest multiple a patch must have per axis so that every downscale divides it.
  Vec3<int> patch_divisor() const;
  // Multiply-accumulates of convolutions for one patch [z, y, x]; a FLOP count is twice this.
  int64_t macs(const Shape3& patch) const;
  int64_t parameters() const;
};

// Checks the invariants above and every weight's size; an Error names the op.
Status validate(const NetworkGraph& graph);

}  // namespace isoline
