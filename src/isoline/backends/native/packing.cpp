#include "isoline/backends/native/packing.h"

#include <array>
#include <bit>
#include <cstring>

namespace isoline::native {
namespace {

// The filter transform of an axis code (kernels.h), rows in the order of the transforms in kernels_impl.h.
// F(tile, 3) in Toom-Cook form: row i is (1, p, p^2) / prod over j != i of (p_i - p_j), the last is infinity.
// Stride 2: F(2, 2) of the outer taps, then the middle tap for each of two outputs.
using FilterMatrix = std::array<std::array<double, 3>, 6>;
FilterMatrix filter_matrix(int axis) {
  if (axis == -2) return {{{1, 0, 0}, {1, 0, 1}, {0, 0, 1}, {0, 1, 0}, {0, 1, 0}}};
  const std::vector<double> points = axis == 2 ? std::vector<double>{0, 1, -1}
                                               : std::vector<double>{0, kPointA, -kPointA, kPointB, -kPointB};
  FilterMatrix g{};
  for (size_t i = 0; i < points.size(); ++i) {
    double f = 1;
    for (size_t j = 0; j < points.size(); ++j)
      if (j != i) f *= points[i] - points[j];
    g[i] = {1 / f, points[i] / f, points[i] * points[i] / f};
  }
  g[points.size()] = {0, 0, 1};
  return g;
}

const FilterMatrix kFilter2 = filter_matrix(2), kFilter4 = filter_matrix(4),
                   kFilterStride2 = filter_matrix(-2);

// Transforms the middle axis of [outer][taps][inner]; axis code 1 leaves it as it is.
void transform_axis(int axis, int64_t outer, int64_t inner, const double* from, double* to) {
  if (axis == 1) {
    std::memcpy(to, from, size_t(outer * inner) * sizeof(double));
    return;
  }
  const FilterMatrix& g = axis == 2 ? kFilter2 : axis == 4 ? kFilter4 : kFilterStride2;
  const int64_t n = winograd_points_1d(axis);
  for (int64_t o = 0; o < outer; ++o)
    for (int64_t p = 0; p < n; ++p)
      for (int64_t i = 0; i < inner; ++i) {
        const double* f = from + o * 3 * inner + i;
        const auto& row = g[size_t(p)];
        to[(o * n + p) * inner + i] = row[0] * f[0] + row[1] * f[inner] + row[2] * f[2 * inner];
      }
}

}  // namespace

void store_weight(std::byte* to, bool bf16, int64_t index, double value) {
  const float f = float(value);
  if (!bf16) {
    std::memcpy(to + index * 4, &f, 4);
    return;
  }
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  const uint16_t h = uint16_t((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
  std::memcpy(to + index * 2, &h, 2);
}

void winograd_filter(int kind, int64_t lanes, const double* filter, double* points) {
  const int* axis = kWinogradAxis[kind];
  const int64_t taps_z = axis[0] == 1 ? 1 : 3, taps_y = axis[1] == 1 ? 1 : 3;
  const int64_t ny = winograd_points_1d(axis[1]), nx = winograd_points_1d(axis[2]);
  double along_x[9 * 6 * kLanes], along_y[3 * 36 * kLanes];
  transform_axis(axis[2], taps_z * taps_y, lanes, filter, along_x);
  transform_axis(axis[1], taps_z, nx * lanes, along_x, along_y);
  transform_axis(axis[0], 1, ny * nx * lanes, along_y, points);
}

Buffer<std::byte> pack_winograd(int kind, const PackedShape& shape, int64_t outputs,
                                const std::function<const float*(int64_t o, int64_t i)>& weight,
                                ThreadPool& pool) {
  const int64_t points = winograd_points(kind);
  int64_t taps = 1;
  for (int axis : kWinogradAxis[kind]) taps *= axis == 1 ? 1 : 3;
  Buffer<std::byte> packed(size_t(points * shape.byte_size()));
  // Sixteen outputs at a time: they are neighbours in every point's matrix. Grain 4 keeps the two inputs of a
  // bfloat16 pair with one thread.
  pool.for_each(shape.k, 4, [&](int64_t begin, int64_t end) {
    double filters[27 * kLanes], u[216 * kLanes];
    for (int64_t o = 0; o < shape.vecs * kLanes; o += kLanes)
      for (int64_t i = begin; i < end; ++i) {
        for (int64_t lane = 0; lane < kLanes; ++lane) {
          const float* filter = o + lane < outputs ? weight(o + lane, i) : nullptr;
          for (int64_t t = 0; t < taps; ++t) filters[t * kLanes + lane] = filter ? double(filter[t]) : 0.0;
        }
        winograd_filter(kind, kLanes, filters, u);
        for (int64_t p = 0; p < points; ++p)
          for (int64_t lane = 0; lane < kLanes; ++lane)
            store_weight(packed.data() + p * shape.byte_size(), shape.bf16, shape.index(i, o + lane),
                         u[p * kLanes + lane]);
      }
  });
  return packed;
}

}  // namespace isoline::native
