#include "isoline/postprocess/label_exporter.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>

#include "isoline/base/simd.h"
#include "isoline/postprocess/sigmoid.h"

namespace isoline {
namespace {

// Code of a voxel whose decision arithmetic could change.
constexpr uint16_t kUndecided = 0xffff;
// Regions use the sign pattern of all heads as code; more heads than this are always evaluated.
constexpr int64_t kMaxCodedRegions = 15;
// |logit| above which neither interpolation, binary16 rounding nor float32 sigmoid can cross 0.5.
constexpr float kSafeRegionLogit = 1e-4f;

// Rounds to the nearest binary16 value, ties to even, in one step (through float would round twice).
float round_to_half(double v) {
  const double mag = std::abs(v);
  if (!(mag < 65520.0)) return std::isnan(v) ? NAN : std::copysign(INFINITY, float(v));
  if (mag < 6.103515625e-05) {
    constexpr double magic = 268435456.0;  // 2^28: its last place is 2^-24, the subnormal step
    return float(std::copysign((mag + magic) - magic, v));
  }
  uint64_t bits = std::bit_cast<uint64_t>(v);
  bits += 0x1ffffffffffull + ((bits >> 42) & 1);
  bits &= ~((uint64_t{1} << 42) - 1);
  return float(std::bit_cast<double>(bits));
}

ISOLINE_MULTIVERSION void codes_of_row_argmax(const half_t* logits, int64_t head_stride, int64_t heads,
                                              int64_t n, bool exact, float* work, uint16_t* codes) {
  // work: [4][n]: best, second, largest magnitude, current head
  float *best = work, *second = work + n, *mag = work + 2 * n, *v = work + 3 * n;
  for (int64_t x = 0; x < n; ++x) {
    best[x] = -std::numeric_limits<float>::infinity();
    second[x] = best[x];
    mag[x] = 0;
    codes[x] = 0;
  }
  for (int64_t h = 0; h < heads; ++h) {
    convert(logits + h * head_stride, v, size_t(n));
    for (int64_t x = 0; x < n; ++x) {
      const bool above = v[x] > best[x];
      const float loser = above ? best[x] : v[x];
      second[x] = loser > second[x] ? loser : second[x];
      best[x] = above ? v[x] : best[x];
      codes[x] = above ? uint16_t(h) : codes[x];
      const float m = std::fabs(v[x]);
      mag[x] = m > mag[x] ? m : mag[x];
    }
  }
  if (exact) return;
  // Interpolated gap >= weighted gaps > one binary16 step of the largest interpolated magnitude: order
  // survives.
  for (int64_t x = 0; x < n; ++x)
    codes[x] = best[x] - second[x] > mag[x] * 0x1.02p-10f + 1e-6f ? codes[x] : kUndecided;
}

ISOLINE_MULTIVERSION void codes_of_row_regions(const half_t* logits, int64_t head_stride, int64_t heads,
                                               int64_t n, float* v, uint16_t* codes) {
  std::memset(codes, 0, size_t(n) * sizeof(uint16_t));
  for (int64_t h = 0; h < heads; ++h) {
    convert(logits + h * head_stride, v, size_t(n));
    for (int64_t x = 0; x < n; ++x) {
      const uint16_t bit = v[x] > 0 ? uint16_t(1 << h) : uint16_t(0);
      codes[x] = std::fabs(v[x]) > kSafeRegionLogit ? uint16_t(codes[x] | bit) : kUndecided;
    }
  }
}

// common[x] = the code all four rows share, or kUndecided. Returns whether one decided code fills the row.
ISOLINE_MULTIVERSION bool merge_rows(const uint16_t* a, const uint16_t* b, const uint16_t* c,
                                     const uint16_t* d, int64_t n, uint16_t* common) {
  uint16_t differs = 0;
  const uint16_t first = a[0];
  for (int64_t x = 0; x < n; ++x) {
    const uint16_t off = uint16_t((a[x] ^ b[x]) | (a[x] ^ c[x]) | (a[x] ^ d[x]));
    common[x] = off ? kUndecided : a[x];
    differs = uint16_t(differs | (common[x] ^ first));
  }
  return differs == 0 && first != kUndecided;
}

}  // namespace

Result<LabelExporter> LabelExporter::create(const ModelSpec& spec, const CropRecord& crop,
                                            const ResampleRecord& resample, ThreadPool& pool,
                                            bool with_probabilities) {
  ISOLINE_ASSIGN(LabelRule rule, make_label_rule(spec, crop, resample));
  return LabelExporter(std::move(rule), pool, with_probabilities);
}

LabelExporter::LabelExporter(LabelRule rule, ThreadPool& pool, bool with_probabilities)
    : rule_(std::move(rule)), with_probabilities_(with_probabilities), pool_(&pool) {
  const int64_t codes = rule_.regions ? int64_t{1} << std::min(rule_.heads, kMaxCodedRegions) : rule_.heads;
  label_of_code_.resize(size_t(codes));
  for (int64_t code = 0; code < codes; ++code) {
    uint16_t label = uint16_t(code);  // softmax: the channel index, as the reference's argmax
    if (rule_.regions) {
      label = 0;
      for (int64_t h = 0; h < std::min(rule_.heads, kMaxCodedRegions); ++h)
        if (code >> h & 1) label = rule_.region_labels[size_t(h)];
    }
    label_of_code_[size_t(code)] = label;
  }
  out_.labels.shape = rule_.file_shape;
  out_.labels.data = zeroed<uint16_t>(size_t(voxels(rule_.file_shape)));
  if (with_probabilities_) {
    out_.probabilities = zeroed<float>(size_t(rule_.heads * voxels(rule_.file_shape)));
    if (!rule_.regions)  // outside the crop: background with certainty (revert_cropping_on_probabilities)
      std::fill_n(out_.probabilities.data(), voxels(rule_.file_shape), 1.0f);
  }
}

void LabelExporter::make_codes(const half_t* logits, int64_t head_stride, int64_t row_stride,
                               uint16_t* codes) const {
  const Shape3 s = rule_.network_shape;
  pool_->for_each(s[1], 16, [&](int64_t begin, int64_t end) {
    Buffer<float> work(size_t(4 * s[2]));
    for (int64_t y = begin; y < end; ++y) {
      uint16_t* row = codes + y * s[2];
      if (!rule_.regions)
        codes_of_row_argmax(logits + y * row_stride, head_stride, rule_.heads, s[2], rule_.identity(),
                            work.data(), row);
      else if (rule_.heads <= kMaxCodedRegions)
        codes_of_row_regions(logits + y * row_stride, head_stride, rule_.heads, s[2], work.data(), row);
      else
        std::fill_n(row, s[2], kUndecided);
    }
  });
}

// values[h] of one output voxel. taps: the four rows (z lo/hi, y lo/hi), each [head] at a stride of one
// plane, given as 8 pointers to head 0 of the tap voxels in scipy's order; head stride is the plane size.
void LabelExporter::evaluate(const half_t* const* taps, const double* wz, const double* wy, const double* wx,
                             float* values) const {
  const int64_t head = rule_.network_shape[1] * rule_.network_shape[2];
  for (int64_t h = 0; h < rule_.heads; ++h) {
    if (rule_.torch) {  // float32, fused, x inside y inside z, not rounded to binary16 (torch's AVX2 build)
      auto lerp = [](float a, float b, const double* w) { return std::fma(a, float(w[0]), b * float(w[1])); };
      float plane[2];
      for (int z = 0; z < 2; ++z) {
        float row[2];
        for (int y = 0; y < 2; ++y) {
          const half_t* const* t = taps + z * 4 + y * 2;
          row[y] = lerp(half_to_float(t[0][h * head]), half_to_float(t[1][h * head]), wx);
        }
        plane[z] = lerp(row[0], row[1], wy);
      }
      values[h] = lerp(plane[0], plane[1], wz);
    } else {
      double sum = 0;  // ((v * wz) * wy) * wx, added in tap order: NI_ZoomShift
      for (int k = 0; k < 8; ++k)
        sum += double(half_to_float(taps[k][h * head])) * wz[k >> 2] * wy[(k >> 1) & 1] * wx[k & 1];
      values[h] = round_to_half(sum);
    }
  }
}

uint16_t LabelExporter::decide(const float* values) const {
  if (rule_.regions) {
    uint16_t label = 0;
    for (int64_t h = 0; h < rule_.heads; ++h)
      if (sigmoid(values[h]) > 0.5f) label = rule_.region_labels[size_t(h)];
    return label;
  }
  return uint16_t(std::max_element(values, values + rule_.heads) - values);
}

void LabelExporter::emit(int64_t z, const Plane& lo, const Plane& hi) {
  const Shape3 s = rule_.network_shape, o = rule_.crop_shape;
  const Box3& box = rule_.box;
  std::atomic<int64_t> evaluated{0};
  const double wz[2] = {rule_.taps[0].w_lo[size_t(z)], rule_.taps[0].w_hi[size_t(z)]};
  const LinearTaps &ty = rule_.taps[1], &tx = rule_.taps[2];
  pool_->for_each(o[1], 16, [&](int64_t begin, int64_t end) {
    Buffer<uint16_t> common{static_cast<size_t>(s[2])};
    std::vector<float> values(static_cast<size_t>(rule_.heads));
    int64_t count = 0;
    for (int64_t y = begin; y < end; ++y) {
      const auto yi = size_t(y);
      const int64_t y0 = ty.lo[yi] * s[2], y1 = ty.hi[yi] * s[2];
      const bool filled = merge_rows(lo.codes.data() + y0, lo.codes.data() + y1, hi.codes.data() + y0,
                                     hi.codes.data() + y1, s[2], common.data());
      const int64_t at = (z + box.lo[0]) * rule_.file_stride[0] + (y + box.lo[1]) * rule_.file_stride[1] +
                         box.lo[2] * rule_.file_stride[2];
      uint16_t* out = out_.labels.data.data() + at;
      if (filled && !with_probabilities_) {
        const uint16_t label = label_of_code_[common[0]];
        if (label)
          for (int64_t x = 0; x < o[2]; ++x) out[x * rule_.file_stride[2]] = label;
        continue;  // background is there already
      }
      const half_t* rows[4] = {lo.logits.data() + y0, lo.logits.data() + y1, hi.logits.data() + y0,
                               hi.logits.data() + y1};
      const double wy[2] = {ty.w_lo[yi], ty.w_hi[yi]};
      for (int64_t x = 0; x < o[2]; ++x) {
        const auto xi = size_t(x);
        const int32_t x0 = tx.lo[xi], x1 = tx.hi[xi];
        const uint16_t code = common[size_t(x0)];
        if (code == common[size_t(x1)] && code != kUndecided && !with_probabilities_) {
          out[x * rule_.file_stride[2]] = label_of_code_[code];
          continue;
        }
        const double wx[2] = {tx.w_lo[xi], tx.w_hi[xi]};
        const half_t* taps[8];
        for (int k = 0; k < 8; ++k) taps[k] = rows[k >> 1] + (k & 1 ? x1 : x0);
        evaluate(taps, wz, wy, wx, values.data());
        ++count;
        if (!with_probabilities_) {
          out[x * rule_.file_stride[2]] = decide(values.data());
          continue;
        }
        // The reference then decides on the probabilities (convert_probabilities_to_segmentation).
        if (rule_.regions) {
          uint16_t label = 0;
          for (int64_t h = 0; h < rule_.heads; ++h) {
            values[size_t(h)] = sigmoid(values[size_t(h)]);
            if (values[size_t(h)] > 0.5f) label = rule_.region_labels[size_t(h)];
          }
          out[x * rule_.file_stride[2]] = label;
        } else {
          const float top = *std::max_element(values.begin(), values.end());
          float sum = 0;
          for (float& v : values) sum += v = std::exp(v - top);
          for (float& v : values) v /= sum;
          out[x * rule_.file_stride[2]] =
              uint16_t(std::max_element(values.begin(), values.end()) - values.begin());
        }
        for (int64_t h = 0; h < rule_.heads; ++h)
          out_.probabilities[size_t(h * voxels(rule_.file_shape) + at + x * rule_.file_stride[2])] =
              values[size_t(h)];
      }
    }
    evaluated += count;
  });
  out_.evaluated_voxels += evaluated;
}

Status LabelExporter::add(const LogitSlab& slab) {
  const Shape3 s = rule_.network_shape;
  const int64_t plane = s[1] * s[2];
  auto load = [&](int64_t z) {
    Plane p{Buffer<half_t>(size_t(rule_.heads * plane)), Buffer<uint16_t>(size_t(plane))};
    const half_t* from = slab.data + (z - slab.z_begin) * slab.plane_stride;
    pool_->for_each(rule_.heads * s[1], 64, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r)
        std::memcpy(p.logits.data() + r * s[2],
                    from + r / s[1] * slab.head_stride + r % s[1] * slab.row_stride,
                    size_t(s[2]) * sizeof(half_t));
    });
    make_codes(p.logits.data(), plane, s[2], p.codes.data());
    return p;
  };
  for (int64_t z = slab.z_begin; z < slab.z_end; ++z) {
    Plane current = load(z);
    // Every output plane whose upper tap is z: its lower tap is z or z - 1.
    while (next_out_ < rule_.crop_shape[0] && rule_.taps[0].hi[size_t(next_out_)] <= z) {
      const int32_t lo = rule_.taps[0].lo[size_t(next_out_)], hi = rule_.taps[0].hi[size_t(next_out_)];
      emit(next_out_, lo == z ? current : previous_, hi == z ? current : previous_);
      ++next_out_;
    }
    previous_ = std::move(current);
  }
  return {};
}

LabelExporter::Output LabelExporter::finish() {
  return std::move(out_);
}

}  // namespace isoline
