// Launches of scan_elements.h on the device.
#pragma once

#include <cuda_runtime.h>

#include "isoline/backends/cuda/scan_elements.h"

namespace isoline::cuda {

// f(plane, row, column) for all of [0, planes) x [0, rows) x [0, columns); columns are neighbouring threads.
// Extents of 0 do nothing.
template <class Functor>
cudaError_t for_each_element(const Functor& f, int64_t planes, int64_t rows, int64_t columns,
                             cudaStream_t stream);

}  // namespace isoline::cuda
