// What each thread of the scan kernels does, as plain functions of its indices: compiled for the device by
// scan_kernels.cu and for the host by the tests, which compare them with the CPU rooms bit for bit.
//
// Every functor is called once per (plane, row, column); calls are independent of each other unless said
// otherwise.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "isoline/base/half.h"

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#define ISOLINE_HD __host__ __device__ __forceinline__
#else
#define ISOLINE_HD inline
#endif

namespace isoline::cuda {

inline constexpr int kMaxBatch = 8;

struct Size3 {
  int z = 0, y = 0, x = 0;
  ISOLINE_HD int64_t voxels() const { return int64_t(z) * y * x; }
};

ISOLINE_HD float half_value(uint16_t h) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(h));
#else
  return half_to_float(h);
#endif
}
ISOLINE_HD uint16_t half_bits(float v) {
#if defined(__CUDA_ARCH__)
  return __half_as_ushort(__float2half_rn(v));
#else
  return float_to_half(v);
#endif
}

// Rounds to the nearest binary16 value, ties to even, in one step, and back to float32 (label_exporter.cpp).
ISOLINE_HD float rounded_to_half(double v) {
  const double magnitude = fabs(v);
  if (!(magnitude < 65520.0)) return float(v) * INFINITY;  // NaN stays NaN
  if (magnitude < 6.103515625e-05) {
    constexpr double magic = 268435456.0;  // 2^28: its last place is 2^-24, the subnormal step
    return float(copysign((magnitude + magic) - magic, v));
  }
  uint64_t bits;
  memcpy(&bits, &v, sizeof bits);
  bits += 0x1ffffffffffull + ((bits >> 42) & 1);
  bits &= ~((uint64_t{1} << 42) - 1);
  double rounded;
  memcpy(&rounded, &bits, sizeof rounded);
  return float(rounded);
}

// Floats as integers of the same order, so that integer atomics find the smallest and the largest.
ISOLINE_HD uint32_t ordered(float v) {
  uint32_t bits;
  memcpy(&bits, &v, sizeof bits);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
ISOLINE_HD float from_ordered(uint32_t key) {
  const uint32_t bits = key & 0x80000000u ? key & 0x7fffffffu : ~key;
  float v;
  memcpy(&v, &bits, sizeof v);
  return v;
}
ISOLINE_HD void widen_range(uint32_t key, uint32_t* low, uint32_t* high) {
#if defined(__CUDA_ARCH__)
  const unsigned active = __activemask();
  const uint32_t smallest = __reduce_min_sync(active, key), largest = __reduce_max_sync(active, key);
  if ((threadIdx.x & 31) == __ffs(int(active)) - 1) {
    atomicMin(low, smallest);
    atomicMax(high, largest);
  }
#else
  if (key < *low) *low = key;
  if (key > *high) *high = key;
#endif
}

// Where an element (plane, row, column) goes.
struct Place {
  float* data = nullptr;
  int64_t plane = 0, row = 0, column = 0;  // steps
  ISOLINE_HD float& at(int64_t p, int64_t r, int64_t c) const {
    return data[p * plane + r * row + c * column];
  }
};

// --- Preprocessing (rooms preprocess and resample) ---

struct VoxelScale {
  bool identity = true, clip = false;
  float low = 0, high = 0, subtract = 0, divide = 1;
  ISOLINE_HD float operator()(float v) const {
    if (identity) return v;
    if (clip) {
      v = v < low ? low : v;
      v = v > high ? high : v;
    }
    return (v - subtract) / divide;
  }
};

// (z, y, x) of a group of slices: raw voxel -> normalised, and the range of every slice (low, high: [plane],
// or null).
template <class T>
struct NormalizeSlices {
  const T* raw = nullptr;
  int64_t z_step = 0, y_step = 0, x_step = 0;
  VoxelScale normalize;
  Place out;
  uint32_t *low = nullptr, *high = nullptr;
  ISOLINE_HD void operator()(int z, int y, int x) const {
    const float v = normalize(float(raw[z * z_step + y * y_step + x * x_step]));
    out.at(z, y, x) = v;
    if (low) widen_range(ordered(v), low + z, high + z);
  }
};

// (group, 0, lane): copies a line's edge samples into its padding, then the cubic B-spline prefilter in
// place. Element i of the padded line is at data[group * group_step + i * line_step + lane].
struct FilterLines {
  float* data = nullptr;
  int64_t group_step = 0, line_step = 0;
  int n = 0, pad = 0;
  bool prefilter = false;
  ISOLINE_HD void operator()(int group, int, int lane) const {
    float* const s = data + group * group_step + lane;
    const int64_t step = line_step;
    const float first = s[pad * step], last_sample = s[(pad + n - 1) * step];
    for (int p = 0; p < pad; ++p) {
      s[p * step] = first;
      s[(pad + n + p) * step] = last_sample;
    }
    if (!prefilter) return;
    const int m = n + 2 * pad;
    constexpr float pole = -0.26794919243112270647f;  // sqrt(3) - 2
    constexpr float gain = 6.0f;                      // (1 - pole) * (1 - 1 / pole)
    float start = 0, power = pole;
    for (int i = 0; i < (m < 32 ? m : 32); ++i, power *= pole) start += power * s[i * step];
    float previous = gain * (s[0] + start);
    s[0] = previous;
    for (int i = 1; i < m; ++i) s[i * step] = previous = gain * s[i * step] + pole * previous;
    previous *= pole / (pole - 1.0f);
    s[(m - 1) * step] = previous;
    for (int i = m - 2; i >= 0; --i) s[i * step] = previous = pole * (previous - s[i * step]);
  }
};

// (group, output sample, lane): one output sample of every filtered line.
struct CombineLines {
  const float* data = nullptr;
  int64_t group_step = 0, line_step = 0;
  const int32_t* first = nullptr;  // [outputs], in padded samples
  const float* weight = nullptr;   // [outputs, taps]
  int taps = 1;
  const uint32_t *low = nullptr, *high = nullptr;  // clip to this range; null: not at all
  int range_step = 0;                              // 1: one range per group
  Place out;                                       // (group, output, lane)
  ISOLINE_HD void operator()(int group, int o, int lane) const {
    const float* const c = data + group * group_step + first[o] * line_step + lane;
    const float* const w = weight + int64_t(o) * taps;
    float v;
    if (taps == 4) {
      v = w[0] * c[0] + w[1] * c[line_step] + w[2] * c[2 * line_step] + w[3] * c[3 * line_step];
      if (low) {
        const float lo = from_ordered(low[group * range_step]), hi = from_ordered(high[group * range_step]);
        v = v < lo ? lo : v;
        v = v > hi ? hi : v;
      }
    } else if (taps == 2) {
      v = w[0] * c[0] + w[1] * c[line_step];
    } else {
      v = c[0];
    }
    out.at(group, o, lane) = v;
  }
};

// (0, 0, 0): joins the ranges of all slices into the first.
struct JoinRanges {
  uint32_t *low = nullptr, *high = nullptr;
  int n = 0;
  ISOLINE_HD void operator()(int, int, int) const {
    for (int i = 1; i < n; ++i) {
      if (low[i] < low[0]) low[0] = low[i];
      if (high[i] > high[0]) high[0] = high[i];
    }
  }
};

// (z, y, x): clips to one range.
struct ClipValues {
  Place values;
  const uint32_t *low = nullptr, *high = nullptr;
  ISOLINE_HD void operator()(int z, int y, int x) const {
    const float lo = from_ordered(*low), hi = from_ordered(*high);
    float& v = values.at(z, y, x);
    v = v < lo ? lo : v;
    v = v > hi ? hi : v;
  }
};

// --- Tiles (room tile) ---

struct Window {
  int z = 0, y = 0, x = 0;  // origin in padded coordinates
  bool flip_z = false, flip_y = false, flip_x = false;
};
struct Windows {
  Window at[kMaxBatch];
};

// ((window * channels + channel) * patch.z + z, y, x): the network's input. Volume planes lie in a ring of
// `ring` planes: plane z at slot z % ring.
struct CutTiles {
  const float* volume = nullptr;  // [channels, ring, shape.y, shape.x]
  Size3 shape, pad_below, patch;
  int channels = 1, ring = 0;
  Windows windows;
  float* out = nullptr;  // [windows, channels, patch]
  ISOLINE_HD void operator()(int plane, int ty, int tx) const {
    const int tz = plane % patch.z, wc = plane / patch.z, channel = wc % channels;
    const Window& w = windows.at[wc / channels];
    const int z = w.z - pad_below.z + (w.flip_z ? patch.z - 1 - tz : tz);
    const int y = w.y - pad_below.y + (w.flip_y ? patch.y - 1 - ty : ty);
    const int x = w.x - pad_below.x + (w.flip_x ? patch.x - 1 - tx : tx);
    float v = 0;
    if (z >= 0 && z < shape.z && y >= 0 && y < shape.y && x >= 0 && x < shape.x)
      v = volume[((int64_t(channel) * ring + z % ring) * shape.y + y) * shape.x + x];
    out[(int64_t(plane) * patch.y + ty) * patch.x + tx] = v;
  }
};

// (head * patch.z + z, y, x): adds `count` mirrored parts of one tile to its sum in float32, in order; the
// last one divides by the number of mirrors and adds the tile, weighted, to the volume's binary16 sums.
struct AddTile {
  const float* parts = nullptr;  // [count, heads, patch]
  int count = 1, heads = 1;
  bool first = true, last = true;
  int mirrors = 1;
  Size3 patch;
  Windows windows;                     // of the parts: origin and flips
  float* sum = nullptr;                // [heads, patch]; not read if `first`, not written if `last`
  const uint16_t* gaussian = nullptr;  // [patch], binary16
  uint16_t* sums = nullptr;  // [heads, patch.z slots, padded_y, padded_x]: plane z at slot z % patch.z
  int padded_y = 0, padded_x = 0;
  ISOLINE_HD void operator()(int plane, int y, int x) const {
    const int z = plane % patch.z, head = plane / patch.z;
    const int64_t i = (int64_t(plane) * patch.y + y) * patch.x + x;
    float total = first ? 0 : sum[i];
    for (int k = 0; k < count; ++k) {
      const Window& w = windows.at[k];
      const int fz = w.flip_z ? patch.z - 1 - z : z, fy = w.flip_y ? patch.y - 1 - y : y,
                fx = w.flip_x ? patch.x - 1 - x : x;
      const float v = parts[(((int64_t(k) * heads + head) * patch.z + fz) * patch.y + fy) * patch.x + fx];
      total = first && k == 0 ? v : total + v;
    }
    if (!last) {
      sum[i] = total;
      return;
    }
    if (mirrors > 1) total /= float(mirrors);
    const Window& w = windows.at[0];
    uint16_t* const to =
        sums + ((int64_t(head) * patch.z + (w.z + z) % patch.z) * padded_y + w.y + y) * padded_x + w.x + x;
    const float weight = half_value(gaussian[(int64_t(z) * patch.y + y) * patch.x + x]);
    *to = half_bits(half_value(*to) + total * weight);
  }
};

struct Steps {
  const int* at = nullptr;  // ascending tile origins; along z only those that reach the planes in question
  int count = 0;
};

// (plane, y, x) of finished planes from `z0` on (unpadded): divides the sums by the binary16 sum of all
// weights, in tile order. *not_finite becomes 1 where a logit is infinite or NaN.
struct DividePlanes {
  const uint16_t* sums = nullptr;
  const uint16_t* gaussian = nullptr;
  Steps z_steps, y_steps, x_steps;
  Size3 patch, shape, pad_below;
  int padded_y = 0, padded_x = 0, heads = 1, z0 = 0;
  uint16_t* out = nullptr;  // [heads, out_planes, shape.y, shape.x]; plane p goes to slot out_slot + p
  int out_planes = 0, out_slot = 0;
  int* not_finite = nullptr;
  ISOLINE_HD void operator()(int p, int y, int x) const {
    const int z = z0 + p + pad_below.z, py = y + pad_below.y, px = x + pad_below.x;
    uint16_t weight = 0;
    for (int i = 0; i < z_steps.count; ++i) {
      const int tz = z - z_steps.at[i];
      if (tz < 0 || tz >= patch.z) continue;
      for (int j = 0; j < y_steps.count; ++j) {
        const int ty = py - y_steps.at[j];
        if (ty < 0 || ty >= patch.y) continue;
        for (int k = 0; k < x_steps.count; ++k) {
          const int tx = px - x_steps.at[k];
          if (tx < 0 || tx >= patch.x) continue;
          weight = half_bits(half_value(weight) +
                             half_value(gaussian[(int64_t(tz) * patch.y + ty) * patch.x + tx]));
        }
      }
    }
    const float divisor = half_value(weight);
    for (int h = 0; h < heads; ++h) {
      const uint16_t sum = sums[((int64_t(h) * patch.z + z % patch.z) * padded_y + py) * padded_x + px];
      const uint16_t v = half_bits(half_value(sum) / divisor);
      if ((v & 0x7c00) == 0x7c00) *not_finite = 1;
      out[((int64_t(h) * out_planes + out_slot + p) * shape.y + y) * shape.x + x] = v;
    }
  }
};

// (head * planes + plane, y, x): the mean over folds in binary16, fold by fold.
struct AddFold {
  uint16_t* planes_of_fold =
      nullptr;  // [heads, fold_planes, y, x] from slot fold_slot on; the last fold's get the mean
  uint16_t* volume = nullptr;  // [heads, shape]
  Size3 shape;
  int planes = 0, fold_planes = 0, fold_slot = 0, z0 = 0, fold = 0, folds = 1;
  ISOLINE_HD void operator()(int hp, int y, int x) const {
    const int h = hp / planes, p = hp % planes;
    uint16_t& from = planes_of_fold[((int64_t(h) * fold_planes + fold_slot + p) * shape.y + y) * shape.x + x];
    uint16_t& to = volume[((int64_t(h) * shape.z + z0 + p) * shape.y + y) * shape.x + x];
    uint16_t v = from;
    if (fold > 0) v = half_bits(half_value(to) + half_value(v));
    if (fold + 1 == folds) from = v = half_bits(half_value(v) / float(folds));
    to = v;
  }
};

// --- Export (room postprocess) ---

struct DeviceTaps {
  const int32_t *low = nullptr, *high = nullptr;
  const double *low_weight = nullptr, *high_weight = nullptr;
};

// (plane, y, x) of the crop's voxels from plane z0 on: interpolates, rounds, decides and writes the label.
template <class Label>
struct ExportLabels {
  const uint16_t* logits = nullptr;  // [heads, planes, y, x]: network plane z at slot z - base
  int planes = 0, base = 0, heads = 1;
  int network_y = 0, network_x = 0;
  DeviceTaps taps_z, taps_y, taps_x;
  bool regions = false, torch = false;
  float threshold = 0;
  const uint16_t* region_labels = nullptr;
  int z0 = 0;
  Label* labels = nullptr;  // of crop voxel (z0, 0, 0)
  int64_t z_step = 0, y_step = 0, x_step = 0;

  ISOLINE_HD float value(const uint16_t* head, const int64_t* rows, const int* columns, const double* wz,
                         const double* wy, const double* wx) const {
    if (torch) {  // float32, fused, x inside y inside z, not rounded (torch's AVX2 build)
      float plane[2];
      for (int z = 0; z < 2; ++z) {
        float row[2];
        for (int y = 0; y < 2; ++y) {
          const uint16_t* const r = head + rows[z * 2 + y];
          row[y] = fmaf(half_value(r[columns[0]]), float(wx[0]), half_value(r[columns[1]]) * float(wx[1]));
        }
        plane[z] = fmaf(row[0], float(wy[0]), row[1] * float(wy[1]));
      }
      return fmaf(plane[0], float(wz[0]), plane[1] * float(wz[1]));
    }
    double sum = 0;  // ((v * wz) * wy) * wx, added in tap order: NI_ZoomShift
    for (int k = 0; k < 8; ++k)
      sum +=
          double(half_value(head[rows[k >> 1] + columns[k & 1]])) * wz[k >> 2] * wy[(k >> 1) & 1] * wx[k & 1];
    return rounded_to_half(sum);
  }

  ISOLINE_HD void operator()(int p, int y, int x) const {
    const int z = z0 + p;
    const int64_t plane = int64_t(network_y) * network_x;
    const double wz[2] = {taps_z.low_weight[z], taps_z.high_weight[z]};
    const double wy[2] = {taps_y.low_weight[y], taps_y.high_weight[y]};
    const double wx[2] = {taps_x.low_weight[x], taps_x.high_weight[x]};
    const int columns[2] = {taps_x.low[x], taps_x.high[x]};
    int64_t rows[4];
    for (int k = 0; k < 4; ++k)
      rows[k] = int64_t((k >> 1 ? taps_z.high[z] : taps_z.low[z]) - base) * plane +
                int64_t(k & 1 ? taps_y.high[y] : taps_y.low[y]) * network_x;
    int label = 0;
    float best = 0;
    for (int h = 0; h < heads; ++h) {
      const float v = value(logits + int64_t(h) * planes * plane, rows, columns, wz, wy, wx);
      if (regions) {
        if (v >= threshold) label = region_labels[h];
      } else if (h == 0 || v > best) {
        best = v;
        label = h;
      }
    }
    labels[p * z_step + y * y_step + x * x_step] = Label(label);
  }
};

}  // namespace isoline::cuda
