// A model that returns its inputs: for conformance tests, load measurements and trying a server out.
#pragma once

#include <memory>

#include "isoline/serve/model_config.h"

namespace isoline::serve {

inline constexpr const char* kIdentityPlatform = "isoline_identity";

// Output i is input i; the configuration names both, of equal types. Parameter execute_delay_ms: each run
// takes that much longer. An error names what the configuration lacks.
Result<std::unique_ptr<TensorModel>> open_identity_model(const ModelConfig& config);

}  // namespace isoline::serve
