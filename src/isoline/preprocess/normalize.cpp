#include "isoline/preprocess/normalize.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "isoline/base/simd.h"

namespace isoline {
namespace {

constexpr double kEpsilon = 1e-8;

template <class T>
[[gnu::always_inline]] inline void apply_plain(const Normalizer& k, const T* row, int64_t n, float* out) {
  const float low = k.clip ? k.low : -std::numeric_limits<float>::infinity();
  const float high = k.clip ? k.high : std::numeric_limits<float>::infinity();
  const float subtract = k.subtract, divide = k.divide;
  for (int64_t i = 0; i < n; ++i) {
    float v = float(row[i]);
    v = v < low ? low : v;
    v = v > high ? high : v;
    out[i] = (v - subtract) / divide;
  }
}
ISOLINE_MULTIVERSION void apply_i16(const Normalizer& k, const int16_t* r, int64_t n, float* o) {
  apply_plain(k, r, n, o);
}
ISOLINE_MULTIVERSION void apply_f32(const Normalizer& k, const float* r, int64_t n, float* o) {
  apply_plain(k, r, n, o);
}

template <class T>
void keep_outside_mask(const uint8_t* mask_row, const T* row, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i)
    if (!mask_row[i]) out[i] = float(row[i]);
}

struct Moments {
  double sum = 0, square = 0, count = 0;
  float lo = std::numeric_limits<float>::infinity(), hi = -std::numeric_limits<float>::infinity();
};

// Sums over channel c inside the box; squares are of (v - center). Slices are added in a fixed order, so
// threads do not change the result.
Moments moments(const Image& image, int64_t c, const Box3& box, const uint8_t* mask, double center,
                ThreadPool& pool) {
  const Shape3 s = image.shape, m = box.shape();
  std::vector<Moments> per_slice(static_cast<size_t>(m[0]));
  std::visit(
      [&](const auto& buffer) {
        pool.for_each(m[0], 1, [&](int64_t begin, int64_t end) {
          for (int64_t z = begin; z < end; ++z) {
            Moments& total = per_slice[size_t(z)];
            for (int64_t y = 0; y < m[1]; ++y) {
              const auto* row =
                  buffer.data() + ((c * s[0] + z + box.lo[0]) * s[1] + y + box.lo[1]) * s[2] + box.lo[2];
              const uint8_t* inside = mask ? mask + (z * m[1] + y) * m[2] : nullptr;
              for (int64_t x = 0; x < m[2]; ++x) {
                if (inside && !inside[x]) continue;
                const float v = float(row[x]);
                const double d = double(v) - center;
                total.sum += double(v);
                total.square += d * d;
                total.count += 1;
                total.lo = std::min(total.lo, v);
                total.hi = std::max(total.hi, v);
              }
            }
          }
        });
      },
      image.data);
  Moments all;
  for (const Moments& p : per_slice) {
    all.sum += p.sum, all.square += p.square, all.count += p.count;
    all.lo = std::min(all.lo, p.lo), all.hi = std::max(all.hi, p.hi);
  }
  return all;
}

}  // namespace

void Normalizer::apply(const int16_t* row, const uint8_t* mask_row, int64_t n, float* out) const {
  if (identity) {
    for (int64_t i = 0; i < n; ++i) out[i] = float(row[i]);
    return;
  }
  apply_i16(*this, row, n, out);
  if (mask_row) keep_outside_mask(mask_row, row, n, out);
}

void Normalizer::apply(const float* row, const uint8_t* mask_row, int64_t n, float* out) const {
  if (identity) {
    std::copy_n(row, n, out);
    return;
  }
  apply_f32(*this, row, n, out);
  if (mask_row) keep_outside_mask(mask_row, row, n, out);
}

Result<Normalizer> make_normalizer(const ChannelSpec& channel, const Image& image, int64_t c, const Box3& box,
                                   const uint8_t* mask, ThreadPool& pool) {
  Normalizer k;
  switch (channel.normalization) {
    case Normalization::kNone:
      return k;
    case Normalization::kCt:
      k.identity = false;
      k.clip = true;
      k.low = float(channel.percentile_00_5);
      k.high = float(channel.percentile_99_5);
      k.subtract = float(channel.mean);
      k.divide = float(std::max(channel.std_dev, kEpsilon));
      return k;
    case Normalization::kZScore: {
      const uint8_t* inside = channel.use_mask ? mask : nullptr;
      const Moments first = moments(image, c, box, inside, 0, pool);
      const double mean = first.count > 0 ? first.sum / first.count : 0;
      const Moments second = moments(image, c, box, inside, mean, pool);
      const double deviation = second.count > 0 ? std::sqrt(second.square / second.count) : 0;
      k.identity = false;
      k.subtract = float(mean);
      k.divide = float(std::max(deviation, kEpsilon));
      k.mask = inside;
      return k;
    }
    case Normalization::kRescaleTo01: {
      const Moments m = moments(image, c, box, nullptr, 0, pool);
      k.identity = false;
      k.subtract = m.lo;
      k.divide = std::max(m.hi - m.lo, float(kEpsilon));
      return k;
    }
    case Normalization::kRgbTo01: {
      const Moments m = moments(image, c, box, nullptr, 0, pool);
      if (m.lo < 0 || m.hi > 255)
        return Error{ErrorCode::kInvalidArgument,
                     "values from " + std::to_string(m.lo) + " to " + std::to_string(m.hi) +
                         " are not the 0..255 that RGBTo01Normalization needs",
                     "channel " + std::to_string(c), "Give the 8-bit image the model was trained on."};
      k.identity = false;
      k.divide = 255;
      return k;
    }
  }
  return Error{ErrorCode::kInternal, "unknown normalisation", channel.name, ""};
}

}  // namespace isoline
