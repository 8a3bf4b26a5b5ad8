#include "isoline/preprocess/crop.h"

#include <algorithm>
#include <mutex>
#include <vector>

namespace isoline {
namespace {

// Grows [lo, hi) to cover the nonzero values of one row, looking only outside what is already covered.
template <class T>
void extend_over_row(const T* row, int64_t n, int64_t& lo, int64_t& hi) {
  int64_t first = 0;
  while (first < std::min(lo, n) && row[first] == T(0)) ++first;
  if (first >= n) return;
  if (first < lo) {
    lo = first;
    hi = std::max(hi, first + 1);
  }
  int64_t last = n;
  while (last > hi && row[last - 1] == T(0)) --last;
  hi = std::max(hi, last);
}

template <class T>
bool any_nonzero(const T* row, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    if (row[i] != T(0)) return true;
  return false;
}

}  // namespace

Box3 nonzero_box(const Image& image, ThreadPool& pool) {
  const Shape3 s = image.shape;
  std::mutex mutex;
  Box3 box{{s[0], s[1], s[2]}, {0, 0, 0}};
  std::visit(
      [&](const auto& buffer) {
        pool.for_each(s[0], 1, [&](int64_t begin, int64_t end) {
          Box3 mine;
          {
            std::lock_guard lock(mutex);
            mine = box;  // what others covered need not be searched again
          }
          for (int64_t z = begin; z < end; ++z)
            for (int64_t c = 0; c < image.channels; ++c)
              for (int64_t y = 0; y < s[1]; ++y) {
                const auto* row = buffer.data() + ((c * s[0] + z) * s[1] + y) * s[2];
                const bool inside = mine.lo[0] <= z && z < mine.hi[0] && mine.lo[1] <= y && y < mine.hi[1];
                if (!inside) {
                  if (!any_nonzero(row, s[2])) continue;
                  mine.lo[0] = std::min(mine.lo[0], z), mine.hi[0] = std::max(mine.hi[0], z + 1);
                  mine.lo[1] = std::min(mine.lo[1], y), mine.hi[1] = std::max(mine.hi[1], y + 1);
                }
                extend_over_row(row, s[2], mine.lo[2], mine.hi[2]);
              }
          std::lock_guard lock(mutex);
          for (size_t a = 0; a < 3; ++a) {
            box.lo[a] = std::min(box.lo[a], mine.lo[a]);
            box.hi[a] = std::max(box.hi[a], mine.hi[a]);
          }
        });
      },
      image.data);
  if (box.hi[0] == 0) return {{0, 0, 0}, s};
  return box;
}

Buffer<uint8_t> filled_nonzero_mask(const Image& image, const Box3& box) {
  const Shape3 s = image.shape, m = box.shape();
  Buffer<uint8_t> mask = zeroed<uint8_t>(size_t(voxels(m)));
  std::visit(
      [&](const auto& buffer) {
        for (int64_t c = 0; c < image.channels; ++c)
          for (int64_t z = 0; z < m[0]; ++z)
            for (int64_t y = 0; y < m[1]; ++y) {
              const auto* row =
                  buffer.data() + ((c * s[0] + z + box.lo[0]) * s[1] + y + box.lo[1]) * s[2] + box.lo[2];
              uint8_t* out = mask.data() + (z * m[1] + y) * m[2];
              for (int64_t x = 0; x < m[2]; ++x) out[x] |= uint8_t(row[x] != 0);
            }
      },
      image.data);
  // Flood the background from the faces of the box; what is not reached is a hole. Values: 0 background not
  // reached, 1 foreground, 2 reached. Outside the box everything is background and joined to the outside.
  std::vector<int64_t> stack;
  const int64_t plane = m[1] * m[2];
  auto visit = [&](int64_t i) {
    if (mask[size_t(i)] == 0) {
      mask[size_t(i)] = 2;
      stack.push_back(i);
    }
  };
  for (int64_t z = 0; z < m[0]; ++z)
    for (int64_t y = 0; y < m[1]; ++y) {
      const bool face = z == 0 || z == m[0] - 1 || y == 0 || y == m[1] - 1;
      const int64_t row = z * plane + y * m[2];
      if (face) {
        for (int64_t x = 0; x < m[2]; ++x) visit(row + x);
      } else {
        visit(row);
        visit(row + m[2] - 1);
      }
    }
  while (!stack.empty()) {
    const int64_t i = stack.back();
    stack.pop_back();
    const int64_t z = i / plane, y = i / m[2] % m[1], x = i % m[2];
    if (z > 0) visit(i - plane);
    if (z + 1 < m[0]) visit(i + plane);
    if (y > 0) visit(i - m[2]);
    if (y + 1 < m[1]) visit(i + m[2]);
    if (x > 0) visit(i - 1);
    if (x + 1 < m[2]) visit(i + 1);
  }
  for (uint8_t& v : mask) v = v != 2;
  return mask;
}

}  // namespace isoline
