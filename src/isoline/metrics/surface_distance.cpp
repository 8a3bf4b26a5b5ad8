#include "isoline/metrics/surface_distance.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <mutex>
#include <tuple>

namespace isoline::metrics {
namespace {

constexpr int64_t kStrip = 16;  // corners along x; divides 64
constexpr int32_t kNone = -1;

// The lower envelope of parabolas height + (t - position)^2 * weight at whole positions t.
class Envelope {
 public:
  Envelope(int64_t positions, double spacing) : inverse_(size_t(positions)), hull_(size_t(positions)) {
    for (size_t d = 1; d < inverse_.size(); ++d) inverse_[d] = 0.5 / (spacing * spacing * double(d));
  }

  void clear() { size_ = 0; }
  // Positions must rise. `item` is handed back by lowest().
  void add(int32_t position, double height, int32_t item) {
    double from = -std::numeric_limits<double>::infinity();
    while (size_ > 0) {
      const Piece& last = hull_[size_t(size_ - 1)];
      // Where the new parabola falls below the last one.
      from = 0.5 * (position + last.position) +
             (height - last.height) * inverse_[size_t(position - last.position)];
      if (from > last.from) break;
      --size_;
      from = -std::numeric_limits<double>::infinity();
    }
    hull_[size_t(size_++)] = {from, height, position, item};
    at_ = 0;
  }
  // Calls visit(item, position) for the parabola that is lowest at t, and for its neighbours: at the border
  // of two pieces rounding must not decide. t must not fall between calls.
  template <class Visit>
  void lowest(int32_t t, Visit&& visit) {
    while (at_ + 1 < size_ && hull_[size_t(at_ + 1)].from <= t) ++at_;
    for (int32_t k = std::max(0, at_ - 1); k <= std::min(size_ - 1, at_ + 1); ++k)
      visit(hull_[size_t(k)].item, hull_[size_t(k)].position);
  }
  bool empty() const { return size_ == 0; }

 private:
  struct Piece {
    double from = 0, height = 0;
    int32_t position = 0, item = 0;
  };
  std::vector<double> inverse_;
  std::vector<Piece> hull_;
  int32_t size_ = 0, at_ = 0;
};

// Steps along y and x to the nearest element within a plane.
struct InPlane {
  int16_t dy = 0, dx = kNone;  // dx = kNone: the plane has no element
};

std::vector<double> squares(int64_t n, double spacing) {
  std::vector<double> out(static_cast<size_t>(n));
  for (size_t i = 0; i < out.size(); ++i) out[i] = (double(i) * spacing) * (double(i) * spacing);
  return out;
}

// The elements of a surface that are still to be found, one bit a corner.
struct Pending {
  explicit Pending(const CornerSurface& from)
      : words(from.words()),
        rows(from.corners()[1]),
        bits(zeroed<uint64_t>(size_t(from.corners()[0] * rows * words))),
        row_any(size_t(from.corners()[0] * rows), 0),
        column_any(size_t(words), 0) {}
  const uint64_t* row(int64_t z, int64_t y) const { return bits.data() + (z * rows + y) * words; }

  int64_t words, rows;
  Buffer<uint64_t> bits;
  std::vector<uint8_t> row_any;      // by row
  std::vector<uint64_t> column_any;  // over all rows
};

// The distances of one strip; scratch is kept from strip to strip.
class StripSearch {
 public:
  StripSearch(const CornerSurface& from, const CornerSurface& to, const Pending& pending,
              const Vec3<double>& spacing_mm)
      : from_(from),
        to_(to),
        pending_(pending),
        n_(from.corners()),
        square_z_(squares(n_[0], spacing_mm[0])),
        square_y_(squares(n_[1], spacing_mm[1])),
        square_x_(squares(n_[2], spacing_mm[2])),
        along_y_(n_[1], spacing_mm[1]),
        along_z_(n_[0], spacing_mm[0]),
        dx_(size_t(n_[1])) {}

  void run(int64_t strip, DistanceCounts& counts) {
    word_ = strip * kStrip / 64;
    shift_ = strip * kStrip % 64;
    find_columns();
    if (column_count_ == 0) return;
    nearest_.assign(size_t(column_count_ * n_[0]), InPlane{});
    for (int64_t z = 0; z < n_[0]; ++z) search_plane(z);
    for (int64_t lane = 0; lane < kStrip; ++lane)
      for (size_t i = 0; i < rows_of_[size_t(lane)].size(); ++i)
        search_column(lane, rows_of_[size_t(lane)][i], first_column_[size_t(lane)] + int64_t(i), counts);
  }

 private:
  // The strip's elements of `from` in a row that are asked for, one bit each.
  uint32_t asked(int64_t z, int64_t y) const {
    if (!pending_.row_any[size_t(z * n_[1] + y)]) return 0;
    return uint32_t(pending_.row(z, y)[word_] >> shift_) & 0xffff;
  }

  void find_columns() {
    for (auto& rows : rows_of_) rows.clear();
    for (int64_t y = 0; y < n_[1]; ++y) {
      uint32_t lanes = 0;
      for (int64_t z = 0; z < n_[0]; ++z) lanes |= asked(z, y);
      for (; lanes; lanes &= lanes - 1) rows_of_[size_t(std::countr_zero(lanes))].push_back(int32_t(y));
    }
    column_count_ = 0;
    for (size_t lane = 0; lane < size_t(kStrip); ++lane) {
      first_column_[lane] = column_count_;
      column_count_ += int64_t(rows_of_[lane].size());
    }
  }

  // Steps along x from each corner of the strip to the row's nearest element.
  void search_row(const uint64_t* bits, std::array<int32_t, kStrip>& dx) const {
    constexpr int32_t kFar = std::numeric_limits<int32_t>::max() / 2;
    const int64_t x0 = word_ * 64 + shift_;
    int32_t before = kFar;  // from the strip's first corner, downwards
    uint64_t below = shift_ ? bits[word_] & ((uint64_t{1} << shift_) - 1) : 0;
    for (int64_t w = word_;; below = bits[w]) {
      if (below) {
        before = int32_t(x0 - (w * 64 + 63 - std::countl_zero(below)));
        break;
      }
      if (--w < 0) break;
    }
    int32_t behind = kFar;  // from the strip's last corner, upwards
    const int64_t end = shift_ + kStrip;
    uint64_t above = end < 64 ? bits[word_] >> end << end : 0;
    for (int64_t w = word_;; above = bits[w]) {
      if (above) {
        behind = int32_t(w * 64 + std::countr_zero(above) - (x0 + kStrip - 1));
        break;
      }
      if (++w >= to_.words()) break;
    }
    const auto own = uint32_t(bits[word_] >> shift_);
    int32_t steps = before - 1;
    for (int64_t i = 0; i < kStrip; ++i) {
      steps = own >> i & 1 ? 0 : steps + 1;
      dx[size_t(i)] = steps;
    }
    steps = behind - 1;
    for (int64_t i = kStrip - 1; i >= 0; --i) {
      steps = own >> i & 1 ? 0 : steps + 1;
      dx[size_t(i)] = std::min(dx[size_t(i)], steps);
    }
  }

  void search_plane(int64_t z) {
    rows_.clear();
    for (int64_t y = 0; y < n_[1]; ++y)
      if (to_.row_has_surface(z, y)) {
        search_row(to_.border(z, y), dx_[rows_.size()]);
        rows_.push_back(int32_t(y));
      }
    if (rows_.empty()) return;
    for (size_t lane = 0; lane < size_t(kStrip); ++lane) {
      if (rows_of_[lane].empty()) continue;
      along_y_.clear();
      for (size_t r = 0; r < rows_.size(); ++r)
        along_y_.add(rows_[r], square_x_[size_t(dx_[r][lane])], dx_[r][lane]);
      int64_t column = first_column_[lane];
      for (int32_t y : rows_of_[lane]) {
        double least = std::numeric_limits<double>::infinity();
        InPlane best;
        along_y_.lowest(y, [&](int32_t dx, int32_t row) {
          const int32_t dy = std::abs(y - row);
          const double square = square_y_[size_t(dy)] + square_x_[size_t(dx)];
          if (square < least) {
            least = square;
            best = {int16_t(dy), int16_t(dx)};
          }
        });
        nearest_[size_t(column++ * n_[0] + z)] = best;
      }
    }
  }

  void search_column(int64_t lane, int64_t y, int64_t column, DistanceCounts& counts) {
    const InPlane* nearest = nearest_.data() + column * n_[0];
    along_z_.clear();
    for (int64_t z = 0; z < n_[0]; ++z)
      if (nearest[z].dx != kNone)
        along_z_.add(int32_t(z), square_y_[size_t(nearest[z].dy)] + square_x_[size_t(nearest[z].dx)],
                     int32_t(z));
    for (int64_t z = 0; z < n_[0]; ++z) {
      if (!(asked(z, y) >> lane & 1)) continue;
      double least = std::numeric_limits<double>::infinity();
      along_z_.lowest(int32_t(z), [&](int32_t, int32_t plane) {
        const InPlane& p = nearest[plane];
        least = std::min(least, square_z_[size_t(std::abs(z - plane))] + square_y_[size_t(p.dy)] +
                                    square_x_[size_t(p.dx)]);
      });
      counts.add(least, from_.code(z, y, word_ * 64 + shift_ + lane));
    }
  }

  const CornerSurface &from_, &to_;
  const Pending& pending_;
  const Shape3 n_;
  const std::vector<double> square_z_, square_y_, square_x_;  // by steps
  Envelope along_y_, along_z_;
  int64_t word_ = 0, shift_ = 0;  // where the strip's bits are in a row
  // Columns along z with something to search, by lane (x in the strip) and then y.
  std::array<std::vector<int32_t>, kStrip> rows_of_;
  std::array<int64_t, kStrip> first_column_{};
  int64_t column_count_ = 0;
  std::vector<int32_t> rows_;  // rows of the plane with an element of `to`, and the steps along x in each
  std::vector<std::array<int32_t, kStrip>> dx_;
  std::vector<InPlane> nearest_;  // [column, z]
};

// Steps to a corner nearby.
struct Offset {
  double squared_mm2 = 0;
  int32_t dz = 0, dy = 0, dx = 0;
};

// The corners around a corner, itself included, nearest first. Complete: any corner that is not in the list
// is at least as far away as the last one.
std::vector<Offset> nearby_offsets(const Shape3& corners, const Vec3<double>& spacing_mm) {
  constexpr int64_t kReach = 8;  // steps along an axis; less than a word
  constexpr size_t kMost = 512;
  Index3 reach;
  double limit = std::numeric_limits<double>::infinity();
  for (size_t a = 0; a < 3; ++a) {
    reach[a] = std::min(kReach, corners[a] - 1);
    const double beyond = double(kReach + 1) * spacing_mm[a];
    if (reach[a] == kReach) limit = std::min(limit, beyond * beyond);
  }
  std::vector<Offset> out;
  for (int64_t z = -reach[0]; z <= reach[0]; ++z)
    for (int64_t y = -reach[1]; y <= reach[1]; ++y)
      for (int64_t x = -reach[2]; x <= reach[2]; ++x) {
        const double mm[3] = {double(z) * spacing_mm[0], double(y) * spacing_mm[1],
                              double(x) * spacing_mm[2]};
        const double square = mm[0] * mm[0] + mm[1] * mm[1] + mm[2] * mm[2];
        if (square <= limit) out.push_back({square, int32_t(z), int32_t(y), int32_t(x)});
      }
  std::sort(out.begin(), out.end(), [](const Offset& a, const Offset& b) {
    return std::tie(a.squared_mm2, a.dz, a.dy, a.dx) < std::tie(b.squared_mm2, b.dz, b.dy, b.dx);
  });
  if (out.size() > kMost) out.resize(kMost);
  return out;
}

// Finds the elements of `from` that have one of `to` nearby: whole words of corners against shifted words,
// nearest offset first. Two segmentations of one thing mostly end here.
class NearbySearch {
 public:
  NearbySearch(const CornerSurface& from, const CornerSurface& to, const std::vector<Offset>& offsets)
      : from_(from), to_(to), n_(from.corners()), offsets_(offsets), by_code_(offsets.size() * 256, 0) {}

  // One word of a row; returns the bits that are left.
  uint64_t run(int64_t z, int64_t y, int64_t w) {
    uint64_t pending = from_.border(z, y)[w];
    for (size_t k = 0; k < offsets_.size() && pending; ++k) {
      const Offset& o = offsets_[k];
      const int64_t there_z = z + o.dz, there_y = y + o.dy;
      if (there_z < 0 || there_y < 0 || there_z >= n_[0] || there_y >= n_[1]) continue;
      if (!to_.row_has_surface(there_z, there_y)) continue;
      const uint64_t* row = to_.border(there_z, there_y);
      uint64_t there = row[w];
      if (o.dx > 0)
        there = there >> o.dx | (w + 1 < to_.words() ? row[w + 1] << (64 - o.dx) : 0);
      else if (o.dx < 0)
        there = there << -o.dx | (w > 0 ? row[w - 1] >> (64 + o.dx) : 0);
      for (uint64_t hits = pending & there; hits; hits &= hits - 1)
        ++by_code_[k * 256 + from_.code(z, y, w * 64 + std::countr_zero(hits))];
      pending &= ~there;
    }
    return pending;
  }

  void report(DistanceCounts& counts) const {
    for (size_t i = 0; i < by_code_.size(); ++i)
      if (by_code_[i]) counts.add(offsets_[i / 256].squared_mm2, uint32_t(i % 256), by_code_[i]);
  }

 private:
  const CornerSurface &from_, &to_;
  const Shape3 n_;
  const std::vector<Offset>& offsets_;
  std::vector<uint32_t> by_code_;  // [offset, code]
};

}  // namespace

void DistanceCounts::add(double squared_mm2, uint32_t code, uint64_t count) {
  if (counts_.size() >= merge_at_) {
    merge();
    merge_at_ = std::max(merge_at_, counts_.size() * 2);
  }
  counts_.push_back({squared_mm2, code, count});
}

void DistanceCounts::add(const DistanceCounts& other) {
  for (const DistanceCount& c : other.counts_) add(c.squared_mm2, c.code, c.count);
}

void DistanceCounts::merge() {
  std::sort(counts_.begin(), counts_.end(), [](const DistanceCount& a, const DistanceCount& b) {
    return a.squared_mm2 != b.squared_mm2 ? a.squared_mm2 < b.squared_mm2 : a.code < b.code;
  });
  size_t kept = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    if (kept && counts_[kept - 1].squared_mm2 == counts_[i].squared_mm2 &&
        counts_[kept - 1].code == counts_[i].code)
      counts_[kept - 1].count += counts_[i].count;
    else
      counts_[kept++] = counts_[i];
  }
  counts_.resize(kept);
}

const std::vector<DistanceCount>& DistanceCounts::sorted() {
  merge();
  return counts_;
}

DistanceCounts surface_distances(const CornerSurface& from, const CornerSurface& to,
                                 const Vec3<double>& spacing_mm, ThreadPool& pool) {
  DistanceCounts all;
  std::mutex mutex;
  const Shape3& n = from.corners();
  Pending pending(from);
  const std::vector<Offset> offsets = nearby_offsets(n, spacing_mm);
  const int64_t rows = n[0] * n[1];
  pool.for_each(rows, std::max<int64_t>(1024, rows / (3 * pool.threads()) + 1),
                [&](int64_t begin, int64_t end) {
                  NearbySearch search(from, to, offsets);
                  std::vector<uint64_t> column_any(size_t(from.words()), 0);
                  for (int64_t row = begin; row < end; ++row) {
                    const int64_t z = row / n[1], y = row % n[1];
                    if (!from.row_has_surface(z, y)) continue;
                    for (int64_t w = 0; w < from.words(); ++w)
                      if (const uint64_t left = search.run(z, y, w)) {
                        pending.bits[size_t(row * pending.words + w)] = left;
                        pending.row_any[size_t(row)] = 1;
                        column_any[size_t(w)] |= left;
                      }
                  }
                  const std::lock_guard lock(mutex);
                  search.report(all);
                  for (size_t w = 0; w < column_any.size(); ++w) pending.column_any[w] |= column_any[w];
                });
  const int64_t strips = (n[2] + kStrip - 1) / kStrip;
  pool.for_each(strips, 1, [&](int64_t begin, int64_t end) {
    for (int64_t strip = begin; strip < end; ++strip) {
      if (!(pending.column_any[size_t(strip * kStrip / 64)] >> (strip * kStrip % 64) & 0xffff)) continue;
      DistanceCounts mine;
      StripSearch(from, to, pending, spacing_mm).run(strip, mine);
      const std::lock_guard lock(mutex);
      all.add(mine);
    }
  });
  return all;
}

}  // namespace isoline::metrics
