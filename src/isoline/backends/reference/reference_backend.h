// The reference backend: every operation as its definition reads, sums in double.
#pragma once

#include <memory>

#include "isoline/engine/backend.h"

namespace isoline {

// fp32 only. Runs anywhere; hours for a full-size network.
std::unique_ptr<Backend> make_reference_backend();

}  // namespace isoline
