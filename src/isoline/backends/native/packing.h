// Weights in the order in which the kernels read them.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "isoline/backends/native/kernels.h"
#include "isoline/base/buffer.h"
#include "isoline/base/parallel.h"

namespace isoline::native {

// A matrix [k][outputs], outputs padded to 16, in groups of 32 columns (the last may have 16): group after
// group [k][group columns], float32; bfloat16 as [k / 2][group columns][2].
struct PackedShape {
  int64_t k = 0;
  int64_t vecs = 0;  // ceil(outputs / 16)
  bool bf16 = false;
  int64_t groups() const { return (vecs + 1) / 2; }
  int group_vecs(int64_t g) const { return vecs - 2 * g >= 2 ? 2 : 1; }
  int64_t element_bytes() const { return bf16 ? 2 : 4; }
  int64_t group_byte_offset(int64_t g) const { return g * 2 * kLanes * k * element_bytes(); }
  int64_t byte_size() const { return vecs * kLanes * k * element_bytes(); }
  // Element index of (k, output).
  int64_t index(int64_t ki, int64_t output) const {
    const int64_t g = output / (2 * kLanes), column = output % (2 * kLanes), columns = group_vecs(g) * kLanes;
    const int64_t base = g * 2 * kLanes * k;
    return bf16 ? base + (ki / 2 * columns + column) * 2 + ki % 2 : base + ki * columns + column;
  }
};

void store_weight(std::byte* to, bool bf16, int64_t index, double value);  // rounds to nearest even

// `lanes` (at most 16) filters [kz][ky][kx][lane] to one value per point of `kind`, [point][lane]; a kernel
// axis of 1 where the axis code is 1.
void winograd_filter(int kind, int64_t lanes, const double* filter, double* points);

// weight(o, i): the filter's taps [kz, ky, kx], or null for a padded input channel. The result holds
// winograd_points(kind) matrices, one after the other.
Buffer<std::byte> pack_winograd(int kind, const PackedShape& shape, int64_t outputs,
                                const std::function<const float*(int64_t o, int64_t i)>& weight,
                                ThreadPool& pool);

}  // namespace isoline::native
