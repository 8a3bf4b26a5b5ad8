// What measuring convolutions needs beside them: values that are neither 0 nor all alike, and sums that show
// whether two results have the same bits. Launchers as in kernels.h.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "isoline/backends/cuda/kernels.h"

namespace isoline::cuda {

// From -1 to 1, by position.
cudaError_t fill_values(void* data, DataType type, int64_t count, cudaStream_t stream);
// *sum += a hash of (position, bits) over the rows of row_words 32-bit words, pitch_words apart. Equal bits
// give equal sums whatever the order; different ones do not but for a chance of 2^-64.
cudaError_t add_checksum(const void* data, int64_t rows, int row_words, int64_t pitch_words,
                         unsigned long long* sum, cudaStream_t stream);

}  // namespace isoline::cuda
