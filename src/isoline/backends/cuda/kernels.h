// Launchers of the CUDA kernels: device pointers in, work queued on a stream, nothing waits, nothing is
// allocated.
//
// Tensors are channels-last [n, z, y, x, c] with a channel pitch: element (voxel v, channel k) lies at
// data[v * pitch + k]; sample i starts at data[i * voxels() * pitch]. A tensor may therefore be a slice of
// the channels of a wider one, which is how concatenation happens without copies. Channel counts and pitches
// are multiples of 8 (padded with zeros) and data is 16-byte aligned, so that 16-byte accesses are. T is
// __half, __nv_bfloat16 or float. kTensorFloat32 is float in memory and in every sum; only the factors of
// convolutions' products are rounded to TF32 (10 bits after the point, ties away from zero).
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "isoline/backends/cuda/conv_choice.h"

namespace isoline::cuda {

enum class DataType { kFloat32, kTensorFloat32, kFloat16, kBFloat16 };

struct Tensor {
  void* data = nullptr;
  DataType type = DataType::kFloat16;
  int n = 0, z = 0, y = 0, x = 0, c = 0;
  int pitch = 0;                                         // channels of the tensor this is a slice of
  int64_t voxels() const { return int64_t(z) * y * x; }  // of one sample; below 2^31
};

struct ConvShape {
  int kernel[3] = {1, 1, 1},
      stride[3] = {1, 1, 1};  // z, y, x; kernel odd, 1..7; stride 1 or 2; padding (kernel - 1) / 2
  ConvChoice choice = {};     // of conv(); one that this convolution cannot run on is cudaErrorNotSupported
};

// Per-sample, per-channel affine applied to what a convolution reads, followed by LeakyReLU: v' = v * scale +
// shift, then v' > 0 ? v' : slope * v', in float32, then rounded to T (or TF32). Padding stays 0 (it is
// padded after the activation). scale_shift null: identity, slope ignored. Channels below `first`, a multiple
// of 8, are read as they are; only conv() and naive_conv() take another than 0.
struct LoadTransform {
  // [n, in.c - first, 2], 16-byte aligned; padded channels need scale = shift = 0
  const float* scale_shift = nullptr;
  float slope = 1;  // any finite value
  int first = 0;
};

// Sums of a convolution's outputs, for the instance norm that follows: partial[n, blocks, out.c, 2] holds sum
// and sum of squares of the float32 accumulators (bias included), each pair written by exactly one thread
// block, so that the order of addition is fixed. Every pair is written; nothing needs clearing before.
struct Statistics {
  float* partial = nullptr;  // null: not wanted
  int blocks = 0;            // what conv_blocks() says
};

// The order of packed weights depends on the kernel that will read them: conv_needs() says which.
enum class WeightLayout { kMma, kWgmma32, kWgmma64, kChannels, kMarch };

// Weights as conv() wants them, made once on the host: pack_conv_weights() in pack.h.
struct ConvWeights {
  const void* packed = nullptr;  // device, 16-byte aligned
  const float* bias = nullptr;   // device, 8-byte aligned float32 [out.c] (padded with zeros) or null
};

// How conv() will run on the current device. Depends on sizes, kernel, stride and type only, not on pointers.
// blocks: per sample, to size Statistics. workspace_bytes: scratch that conv() needs until it has run (0 for
// most layers; layers of one stream may share it). layout: to pack the weights in. Error:
// cudaErrorNotSupported when the halo of such a kernel does not fit the device's shared memory,
// cudaErrorInvalidValue when the arguments break a rule of this header.
struct ConvNeeds {
  int blocks = 0;
  size_t workspace_bytes = 0;
  WeightLayout layout = WeightLayout::kMma;
};
cudaError_t conv_needs(const Tensor& in, const Tensor& out, const ConvShape& shape, ConvNeeds* needs);

// What could run this convolution, the rule's own choice first; one that is made explicit. same_bits: only
// what is meant to give the bits of the first, statistics included (the same sums in the same order).
std::vector<ConvChoice> conv_candidates(const Tensor& in, const Tensor& out, const ConvShape& shape,
                                        bool same_bits);

// in.type == out.type == the packed type. out = conv(transform(in)) + bias, float32 accumulation. out must
// not overlap in. The first call of a shape raises the kernel's shared-memory limit: call conv() once (or
// conv_needs()) before capturing a graph.
cudaError_t conv(const Tensor& in, const LoadTransform& load, const Tensor& out, const ConvShape& shape,
                 const ConvWeights& weights, const Statistics& statistics, void* workspace,
                 cudaStream_t stream);

// A first convolution, straight from planar float32 input: in is [n, channels, z, y, x] (device), rounded to
// out.type. For out.type fp16 or bf16, 1..4 channels, stride 1, kernel x <= 3; else cudaErrorNotSupported
// (use conv()). Weights: pack_planar_conv_weights(). No workspace.
struct PlanarInput {
  const float* data = nullptr;
  int channels = 0;
};
cudaError_t conv_planar_needs(const PlanarInput& in, const Tensor& out, const ConvShape& shape,
                              ConvNeeds* needs);
cudaError_t conv_planar(const PlanarInput& in, const Tensor& out, const ConvShape& shape,
                        const ConvWeights& weights, const Statistics& statistics, cudaStream_t stream);

}  // namespace isoline::cuda
