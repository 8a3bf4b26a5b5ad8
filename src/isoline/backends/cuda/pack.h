// Convolution weights in the order in which the kernels of kernels.h read them. Host code, no device needed.
#pragma once

#include <cstddef>
#include <vector>

#include "isoline/backends/cuda/kernels.h"

namespace isoline::cuda {

// weight: [out_channels, in_channels, kz, ky, kx]. tensor_channels: c of the tensor that conv() will read (a
// multiple of 8, >= in_channels). positions: for each of in_channels its channel in that tensor, or null for
// 0, 1, 2, ... (a concatenation of slices that were padded one by one has gaps). type: of the tensors.
// layout: what conv_needs() says. Values round to nearest even (TF32: ties away from zero); what exceeds fp16
// becomes infinite, so check the range first.
std::vector<std::byte> pack_conv_weights(DataType type, const float* weight, int out_channels,
                                         int in_channels, const ConvShape& shape, int tensor_channels,
                                         const int* positions = nullptr,
                                         WeightLayout layout = WeightLayout::kMma);

// For conv_planar(); type fp16 or bf16, kernel x 1 or 3.
std::vector<std::byte> pack_planar_conv_weights(DataType type, const float* weight, int out_channels,
                                                int in_channels, const ConvShape& shape);

}  // namespace isoline::cuda
