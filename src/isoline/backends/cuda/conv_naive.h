// One slow convolution for every kernel, stride and type: what the others are tested against, and the
// fallback where they refuse.
#pragma once

#include <vector>

#include "isoline/backends/cuda/kernels.h"

namespace isoline::cuda {

// Always float32: [kz, ky, kx, in tensor channels, out channels padded to 8]. Arguments as in
// pack_conv_weights().
std::vector<float> pack_naive_weights(const float* weight, int out_channels, int in_channels,
                                      const ConvShape& shape, int tensor_channels, const int* positions);
int naive_conv_blocks(const Tensor& out);
// As conv(), with weights.packed from pack_naive_weights(); needs no workspace.
cudaError_t naive_conv(const Tensor& in, const LoadTransform& load, const Tensor& out, const ConvShape& shape,
                       const ConvWeights& weights, const Statistics& statistics, cudaStream_t stream);

}  // namespace isoline::cuda
