#include "isoline/backends/registry/registry.h"

// The one place that knows which backends exist; their own code is behind no #ifdef.
#ifdef ISOLINE_HAS_BACKEND_NATIVE
#include "isoline/backends/native/native_backend.h"
#endif
#ifdef ISOLINE_HAS_BACKEND_OPENVINO
#include "isoline/backends/openvino/openvino_backend.h"
#endif
#include "isoline/backends/reference/reference_backend.h"

namespace isoline {

BackendRegistry builtin_backends() {
  BackendRegistry registry;
#ifdef ISOLINE_HAS_BACKEND_NATIVE
  registry.add(make_native_backend());
#endif
#ifdef ISOLINE_HAS_BACKEND_OPENVINO
  registry.add(make_openvino_backend());
#endif
  registry.add(make_reference_backend());
  return registry;
}

}  // namespace isoline
