// The order of the scan kernels: resampling, adding up, dividing, deciding. Templates over an executor, so
// that the tests run the same passes on the host. An executor has
//   each(functor, planes, rows, columns)                       calls it for every element, after what came
//   before copy(to, to_pitch, from, from_pitch, width, height)        bytes; ranges do not overlap zero(to,
//   pitch, width, height)                             bytes
// All memory belongs to the caller and is the executor's.
#pragma once

#include <algorithm>

#include "isoline/backends/cuda/scan_elements.h"
#include "isoline/resample/resample_volume.h"
#include "isoline/tile/tile_plan.h"

namespace isoline::cuda {

inline Size3 size3(const Shape3& s) {
  return {int(s[0]), int(s[1]), int(s[2])};
}

// --- Resampling ---

// One axis: resample/axis_operator.h with its arrays in the executor's memory.
struct AxisTable {
  int n_in = 0, n_out = 0, taps = 1, pad = 0;
  bool prefilter = false;
  const int32_t* first = nullptr;
  const float* weight = nullptr;
  bool changes() const { return n_in != n_out; }
  int padded() const { return n_in + 2 * pad; }
};

struct ResamplePasses {
  Size3 in, out;
  AxisTable z, y, x;
  bool separate_z = false, clip = false;  // clip: order 3, to the source's range

  bool identity() const { return !z.changes() && !y.changes() && !x.changes(); }
  bool keeps_range() const { return clip && !identity(); }
  int64_t plane_out() const { return int64_t(out.y) * out.x; }
  // Floats of scratch: for a group of slices, and of the volume between the in-plane passes and those along
  // z.
  int64_t x_floats(int64_t slices) const { return x.changes() ? slices * x.padded() * in.y : 0; }
  int64_t y_floats(int64_t slices) const { return y.changes() ? slices * y.padded() * out.x : 0; }
  int64_t between_floats() const { return z.changes() ? z.padded() * plane_out() : 0; }
};

struct ResampleScratch {
  float *x_lines = nullptr, *y_lines = nullptr, *between = nullptr;
  uint32_t *low = nullptr,
           *high = nullptr;  // [in.z]: 0xffffffff and 0 at the beginning; used if keeps_range()
};

// Slices [z0, z0 + count) of one channel, in-plane. load(z0, count, place, low, high) normalises them to
// `place`.
template <class Executor, class Load>
void resample_slices(Executor& e, const ResamplePasses& p, const ResampleScratch& s, const Load& load, int z0,
                     int count, float* result) {
  const int64_t plane = p.plane_out();
  float* const to = p.z.changes() ? s.between + (p.z.pad + z0) * plane : result + z0 * plane;
  uint32_t *const low = p.keeps_range() ? s.low + z0 : nullptr, *const high =
                                                                    p.keeps_range() ? s.high + z0 : nullptr;
  const bool clip = p.clip && p.separate_z;  // per slice, after the last in-plane pass
  const int64_t x_group = int64_t(p.x.padded()) * p.in.y, y_group = int64_t(p.y.padded()) * p.out.x;
  float* const y_body = s.y_lines + p.y.pad * int64_t(p.out.x);
  if (p.x.changes()) {
    load(z0, count, Place{s.x_lines + p.x.pad * int64_t(p.in.y), x_group, 1, p.in.y}, low, high);
    e.each(FilterLines{s.x_lines, x_group, p.in.y, p.in.x, p.x.pad, p.x.prefilter}, count, 1, p.in.y);
    CombineLines c{s.x_lines, x_group, p.in.y, p.x.first, p.x.weight, p.x.taps, nullptr, nullptr, 1, {}};
    if (p.y.changes()) {
      c.out = {y_body, y_group, 1, p.out.x};
    } else {
      c.out = {to, plane, 1, p.out.x};
      if (clip) c.low = low, c.high = high;
    }
    e.each(c, count, p.out.x, p.in.y);
  } else if (p.y.changes()) {
    load(z0, count, Place{y_body, y_group, p.out.x, 1}, low, high);
  } else {
    load(z0, count, Place{to, plane, p.out.x, 1}, low, high);
  }
  if (p.y.changes()) {
    e.each(FilterLines{s.y_lines, y_group, p.out.x, p.in.y, p.y.pad, p.y.prefilter}, count, 1, p.out.x);
    CombineLines c{s.y_lines,
                   y_group,
                   p.out.x,
                   p.y.first,
                   p.y.weight,
                   p.y.taps,
                   clip ? low : nullptr,
                   high,
                   1,
                   {to, plane, p.out.x, 1}};
    e.each(c, count, p.out.y, p.out.x);
  }
}

// After all slices: along z, and the clip to the whole channel's range.
template <class Executor>
void resample_along_z(Executor& e, const ResamplePasses& p, const ResampleScratch& s, float* result) {
  const int64_t plane = p.plane_out();
  const bool clip = p.keeps_range() && !p.separate_z;
  if (clip) e.each(JoinRanges{s.low, s.high, p.in.z}, 1, 1, 1);
  if (p.z.changes()) {
    e.each(FilterLines{s.between, 0, plane, p.in.z, p.z.pad, p.z.prefilter}, 1, 1, plane);
    e.each(CombineLines{s.between,
                        0,
                        plane,
                        p.z.first,
                        p.z.weight,
                        p.z.taps,
                        clip ? s.low : nullptr,
                        s.high,
                        0,
                        {result, 0, plane, 1}},
           1, p.out.z, plane);
  } else if (clip) {
    e.each(ClipValues{{result, plane, p.out.x, 1}, s.low, s.high}, p.out.z, p.out.y, p.out.x);
  }
}

// --- Adding up and dividing ---

// The room tile's Accumulator: weighted binary16 sums of the planes that tiles can still reach, in a ring;
// finished planes leave in ascending order, a few at a time.
struct SumBuffers {
  const uint16_t* gaussian = nullptr;  // [patch]
  uint16_t* sums = nullptr;            // [heads, patch.z, padded y, padded x], zero at the beginning
  float* tile = nullptr;  // [heads, patch]; needed where a tile's mirrors come in several batches
  uint16_t* finished =
      nullptr;  // [heads, kFinishedPlanes + 1, shape y, shape x]; slot 0: the last plane before
  const int *z_steps = nullptr, *y_steps = nullptr, *x_steps = nullptr;
  int* not_finite = nullptr;
};
inline constexpr int kFinishedPlanes = 16;

template <class Executor>
class VolumeSums {
 public:
  VolumeSums(Executor& executor, const TilePlan& plan, int heads, int mirrors, const SumBuffers& buffers)
      : e_(executor), plan_(plan), heads_(heads), mirrors_(mirrors), b_(buffers) {}

  // `count` mirrored outputs of tile `index`, [count, heads, patch]; tiles and mirrors in order.
  void add(const float* parts, const Windows& windows, int count, bool first, bool last) {
    const Size3 patch = size3(plan_.patch);
    e_.each(AddTile{parts, count, heads_, first, last, mirrors_, patch, windows, b_.tile, b_.gaussian,
                    b_.sums, int(plan_.padded[1]), int(plan_.padded[2])},
            int64_t(heads_) * patch.z, patch.y, patch.x);
  }

  // After tile `index`: where a row of tiles ends, gives planes that no later tile reaches, [z0, z1)
  // unpadded, to sink(z0, z1, slot): plane z of head h is at finished[(h * (kFinishedPlanes + 1) + slot + z -
  // z0)], and the plane before z0, if there is one, in the slot before. Stops at the first error.
  template <class Sink>
  Status finish_after(int64_t index, const Sink& sink) {
    if ((index + 1) % plan_.tiles_per_row() != 0) return {};
    const bool last = index + 1 == plan_.tiles();
    const int64_t until = last ? plan_.padded[0] : plan_.origin(index + 1)[0];
    const int64_t begin = std::max(base_, plan_.pad_below[0]) - plan_.pad_below[0];
    const int64_t end = std::min(until - plan_.pad_below[0], plan_.shape[0]);
    for (int64_t z0 = begin; z0 < end; z0 += kFinishedPlanes) {
      const int64_t z1 = std::min<int64_t>(end, z0 + kFinishedPlanes);
      divide(int(z0), int(z1));
      ISOLINE_RETURN_IF_ERROR(sink(int(z0), int(z1), 1));
      const size_t plane = size_t(plan_.shape[1] * plan_.shape[2]), pitch = plane * (kFinishedPlanes + 1) * 2;
      e_.copy(b_.finished, pitch, b_.finished + size_t(z1 - z0) * plane, pitch, plane * 2, size_t(heads_));
    }
    clear(base_, until);
    base_ = until;
    return {};
  }

 private:
  void divide(int z0, int z1) {
    // Of the origins along z, those whose tiles reach these planes.
    const auto& steps = plan_.steps[0];
    const int64_t from = z0 + plan_.pad_below[0], to = z1 + plan_.pad_below[0];
    const auto lo = std::upper_bound(steps.begin(), steps.end(), from - plan_.patch[0]);
    const auto hi = std::lower_bound(steps.begin(), steps.end(), to);
    DividePlanes d;
    d.sums = b_.sums;
    d.gaussian = b_.gaussian;
    d.z_steps = {b_.z_steps + (lo - steps.begin()), int(hi - lo)};
    d.y_steps = {b_.y_steps, int(plan_.steps[1].size())};
    d.x_steps = {b_.x_steps, int(plan_.steps[2].size())};
    d.patch = size3(plan_.patch), d.shape = size3(plan_.shape);
    d.pad_below = {int(plan_.pad_below[0]), int(plan_.pad_below[1]), int(plan_.pad_below[2])};
    d.padded_y = int(plan_.padded[1]), d.padded_x = int(plan_.padded[2]);
    d.heads = heads_;
    d.z0 = z0;
    d.out = b_.finished;
    d.out_planes = kFinishedPlanes + 1, d.out_slot = 1;
    d.not_finite = b_.not_finite;
    e_.each(d, z1 - z0, plan_.shape[1], plan_.shape[2]);
  }

  // Zeroes the ring's slots of padded planes [from, until).
  void clear(int64_t from, int64_t until) {
    const int64_t ring = plan_.patch[0], n = std::min(until - from, ring);
    const size_t plane = size_t(plan_.padded[1] * plan_.padded[2]) * 2, pitch = plane * size_t(ring);
    const int64_t slot = from % ring, before_wrap = std::min(n, ring - slot);
    e_.zero(b_.sums + size_t(slot) * plane / 2, pitch, plane * size_t(before_wrap), size_t(heads_));
    if (n > before_wrap) e_.zero(b_.sums, pitch, plane * size_t(n - before_wrap), size_t(heads_));
  }

  Executor& e_;
  const TilePlan& plan_;
  int heads_, mirrors_;
  SumBuffers b_;
  int64_t base_ = 0;  // padded z of the first plane still in the ring
};

// --- Deciding ---

// Planes [begin, end) of the crop that can be decided once network planes below `network_end` are there,
// `next` being the first not decided yet. high: the upper tap of every crop plane along z.
inline int decidable_until(const std::vector<int32_t>& high, int next, int network_end) {
  int end = next;
  while (end < int(high.size()) && high[size_t(end)] < network_end) ++end;
  return end;
}

}  // namespace isoline::cuda
