// Architecture + weights -> NetworkGraph.
#pragma once

#include "isoline/base/result.h"
#include "isoline/model/model_spec.h"
#include "isoline/model/weights.h"
#include "isoline/network/graph.h"

namespace isoline {

// The forward pass of PlainConvUNet or ResidualEncoderUNet with deep supervision off, as a graph that owns
// its weights in float32. `in_channels`: ModelSpec::input_channels(); `heads`: ModelSpec::labels.heads.
// Tensors are found by their state-dict names; the state dict's second names for the same tensors
// (`all_modules`, `decoder.encoder.`) and the deep-supervision heads that do not run are ignored. kCorrupt
// naming the tensor if one is missing, has another shape than the architecture says, or is left over, or
// shares bytes with another; kResourceExhausted beyond 2^30 parameters. Source: dynamic_network_architectures
// building_blocks/{plain_conv_encoder,residual_encoders,residual, simple_conv_blocks,unet_decoder}.py.
Result<NetworkGraph> build_network(const ArchitectureSpec& spec, int in_channels, int heads,
                                   const Weights& weights);

}  // namespace isoline
