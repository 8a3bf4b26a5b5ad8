#include "isoline/backends/registry/registry.h"

// The one place that knows which backends exist; their own code is behind no #ifdef.
#ifdef ISOLINE_HAS_BACKEND_CUDA
#include "isoline/backends/cuda/cuda_backend.h"
#endif
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
#ifdef ISOLINE_HAS_BACKEND_CUDA
  // First where there is a GPU; where there is none it is only listed, with its reason.
  std::unique_ptr<Backend> cuda = make_cuda_backend();
  if (cuda->available()) registry.add(std::move(cuda));
#endif
#ifdef ISOLINE_HAS_BACKEND_NATIVE
  registry.add(make_native_backend());
#endif
#ifdef ISOLINE_HAS_BACKEND_OPENVINO
  registry.add(make_openvino_backend());
#endif
  registry.add(make_reference_backend());
#ifdef ISOLINE_HAS_BACKEND_CUDA
  if (cuda) registry.add(std::move(cuda));
#endif
  return registry;
}

}  // namespace isoline
