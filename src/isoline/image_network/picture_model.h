// An image network as servers see it: its tensor in, or encoded pictures; its finished vectors out.
#pragma once

#include <memory>

#include "isoline/engine/tensor_model.h"
#include "isoline/image/preprocessor.h"

namespace isoline {

inline constexpr const char* kImagePlatform = "isoline_image";

// `network`: the opened ONNX file of `spec`. The result's platform is "isoline_image"; its input is the
// network's, with the specification's extents; its only output is the vector, finished as the specification
// says (finish_vectors()). A vector with values that are not finite stays as the network gave it, so that one
// client's strange tensor does not fail the others of its batch. decoder() makes a sample of a picture.
// Errors as match_ports().
Result<std::unique_ptr<TensorModel>> make_picture_model(ImageModelSpec spec,
                                                        std::unique_ptr<TensorModel> network,
                                                        const DecodeLimits& limits);

}  // namespace isoline
