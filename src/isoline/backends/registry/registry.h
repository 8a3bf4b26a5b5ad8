// The backends in this build.
#pragma once

#include "isoline/engine/backend.h"

namespace isoline {

// Best first: what `--backend auto` tries, in order.
BackendRegistry builtin_backends();

}  // namespace isoline
