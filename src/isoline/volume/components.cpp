#include "isoline/volume/components.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>

namespace isoline {
namespace {

// Disjoint sets of runs; the root of a set is its smallest member, so that roots come in memory order.
class RunSets {
 public:
  void add() { parent_.push_back(int32_t(parent_.size())); }
  int32_t find(int32_t i) {
    while (parent_[size_t(i)] != i) {
      parent_[size_t(i)] = parent_[size_t(parent_[size_t(i)])];
      i = parent_[size_t(i)];
    }
    return i;
  }
  void join(int32_t a, int32_t b) {
    a = find(a);
    b = find(b);
    parent_[size_t(std::max(a, b))] = std::min(a, b);
  }

 private:
  std::vector<int32_t> parent_;
};

}  // namespace

Components connected_components(const Shape3& shape,
                                const std::function<bool(int64_t, int64_t, uint8_t*)>& fill) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  const int64_t nx = shape[2];
  if (nx > kMost) throw std::length_error("connected_components: a row is too long");
  Components c;
  c.shape = shape;
  c.row_start.assign(size_t(shape[0] * shape[1]) + 1, 0);
  RunSets sets;
  std::vector<uint8_t> inside(static_cast<size_t>(nx));
  // Joins the runs of a row, from `first` on, with those of an earlier row that touch them, corners included.
  const auto join_row = [&](int64_t first, int64_t z, int64_t y) {
    if (z < 0 || y < 0 || y >= shape[1]) return;
    const auto r = size_t(z * shape[1] + y);
    int64_t other = c.row_start[r];
    const int64_t other_end = c.row_start[r + 1];
    for (int64_t i = first; i < int64_t(c.runs.size()) && other < other_end;) {
      const Components::Run& a = c.runs[size_t(i)];
      const Components::Run& b = c.runs[size_t(other)];
      if (a.x_begin <= b.x_end && b.x_begin <= a.x_end) sets.join(int32_t(i), int32_t(other));
      // The run that ends first touches nothing further on; at equal ends neither does.
      if (a.x_end < b.x_end)
        ++i;
      else
        ++other;
    }
  };
  for (int64_t z = 0; z < shape[0]; ++z)
    for (int64_t y = 0; y < shape[1]; ++y) {
      const auto first = int64_t(c.runs.size());
      if (fill(z, y, inside.data())) {
        for (int64_t x = 0; x < nx;) {
          const auto* begin = static_cast<const uint8_t*>(std::memchr(inside.data() + x, 1, size_t(nx - x)));
          if (!begin) break;
          x = begin - inside.data();
          const auto* end = static_cast<const uint8_t*>(std::memchr(begin, 0, size_t(nx - x)));
          const int64_t stop = end ? end - inside.data() : nx;
          if (int64_t(c.runs.size()) == kMost) throw std::length_error("connected_components: too many runs");
          c.runs.push_back({int32_t(x), int32_t(stop), 0});
          sets.add();
          x = stop;
        }
        if (int64_t(c.runs.size()) > first) {
          join_row(first, z, y - 1);
          for (int64_t dy = -1; dy <= 1; ++dy) join_row(first, z - 1, y + dy);
        }
      }
      c.row_start[size_t(z * shape[1] + y) + 1] = int64_t(c.runs.size());
    }
  for (size_t i = 0; i < c.runs.size(); ++i) {
    Components::Run& run = c.runs[i];
    const int32_t root = sets.find(int32_t(i));
    if (root == int32_t(i)) {
      run.component = int32_t(c.voxels.size());
      c.voxels.push_back(0);
    } else {
      run.component = c.runs[size_t(root)].component;
    }
    c.voxels[size_t(run.component)] += run.x_end - run.x_begin;
  }
  return c;
}

}  // namespace isoline
