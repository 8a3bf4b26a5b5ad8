// ONNX files as TensorModels. Internal to backends/openvino.
#pragma once

#include <memory>
#include <string>

#include "isoline/engine/backend.h"

namespace isoline::openvino_backend {

// See Backend::open_tensor_model. The network is compiled once, with its batch axis free, and shared by all
// sessions; each session has buffers of its own. The CPU plugin computes float64 as float32 and integers with
// 32 bits: larger input values are refused by run() (kUnsupported), larger results in between are not seen.
Result<std::unique_ptr<TensorModel>> open_tensor_model(const std::string& file,
                                                       const TensorModelOptions& options);

}  // namespace isoline::openvino_backend
