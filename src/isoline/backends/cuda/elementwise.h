// Everything on the device but convolutions; rules of kernels.h hold (channels-last, multiples of 8, nothing
// waits).
#pragma once

#include <cstddef>
#include <vector>

#include "isoline/backends/cuda/kernels.h"

namespace isoline::cuda {

// planar: [n, channels, z, y, x] float32 on the device; further channels of out become 0.
cudaError_t pack_input(const float* planar, int channels, const Tensor& out, cudaStream_t stream);

// scale_shift[n, c] from partial[n, blocks, c]: scale = gamma / sqrt(variance + eps), shift = beta - mean *
// scale, with sums in float64 and in a fixed order. gamma, beta: device, [c], 0 in padded channels.
cudaError_t finish_statistics(const Statistics& statistics, int n, int c, int64_t voxels, float eps,
                              const float* gamma, const float* beta, float* scale_shift, cudaStream_t stream);

int statistics_blocks(const Tensor& in);
cudaError_t gather_statistics(const Tensor& in, const Statistics& statistics, cudaStream_t stream);

// out = leaky(transform(a) [+ transform(b)], slope); b null: a alone. out may be a or b.
cudaError_t combine(const Tensor& a, const LoadTransform& load_a, const Tensor* b,
                    const LoadTransform& load_b, float slope, const Tensor& out, cudaStream_t stream);

// Mean over windows of stride.
cudaError_t average_pool(const Tensor& in, const LoadTransform& load, const Tensor& out, const int stride[3],
                         cudaStream_t stream);

// planar[n, heads, voxels] = bias + weights * transform(in); weights: device float32 [heads, in.c]; bias:
// device or null. *not_finite becomes 1 if any result is NaN or infinite.
cudaError_t head(const Tensor& in, const LoadTransform& load, const float* weights, const float* bias,
                 int heads, float* planar, int* not_finite, cudaStream_t stream);

// planar[n, channels, voxels] = transform(in) at `positions` (device, [channels]).
cudaError_t unpack_output(const Tensor& in, const LoadTransform& load, const int* positions, int channels,
                          float* planar, int* not_finite, cudaStream_t stream);

// The kernels of a transposed convolution, each with weights of its own order. kFragments: fp16 and bf16, as
// many input channels as a warp's registers hold. kTiles: anything (float32 has its plain one).
enum class TransposeKernel { kTiles, kFragments };
TransposeKernel transpose_rule(DataType type, int in_channels);  // in_channels: of the tensor

// Transposed convolution with kernel == stride. weights: device, from pack_transpose_weights() for the same
// kernel; bias: device [out.c], 8-byte aligned, or null. cudaErrorNotSupported: not on this kernel.
cudaError_t transpose_conv(const Tensor& in, const LoadTransform& load, const Tensor& out,
                           const int stride[3], TransposeKernel kernel, const void* weights,
                           const float* bias, cudaStream_t stream);
// weight: [in_channels, out_channels, taps]; result: for kTiles [tap, in tensor channels, out channels padded
// to 8] of `type`, for kFragments in that kernel's order.
std::vector<std::byte> pack_transpose_weights(DataType type, TransposeKernel kernel, const float* weight,
                                              int in_channels, int out_channels, int taps,
                                              int tensor_channels, const int* positions);

}  // namespace isoline::cuda
