// The OpenVINO backend: fp32 or bf16 on x86-64 CPUs; NetworkGraph and ONNX.
#pragma once

#include <memory>

#include "isoline/engine/backend.h"

namespace isoline {

// The precision is always set explicitly (OpenVINO would otherwise pick bf16 by itself where it is fast).
std::unique_ptr<Backend> make_openvino_backend();

}  // namespace isoline
