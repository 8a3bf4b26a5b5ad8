#include "isoline/image/resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "isoline/base/simd.h"

namespace isoline {
namespace {

constexpr int kPrecisionBits = 32 - 8 - 2;
constexpr int32_t kHalf = 1 << (kPrecisionBits - 1);

uint8_t to_byte(int32_t sum) {
  return uint8_t(std::clamp(sum >> kPrecisionBits, 0, 255));
}

double bilinear(double x) {
  if (x < 0) x = -x;
  return x < 1 ? 1 - x : 0;
}
double bicubic(double x) {
  constexpr double a = -0.5;
  if (x < 0) x = -x;
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

// out[i, :] = weighted sum of in[first + k, :], a row of pixels.
template <size_t kChannels>
void resize_row(const ResizeAxis& axis, const uint8_t* in, uint8_t* out, size_t out_step) {
  for (const ResizeAxis::Output& o : axis.outputs) {
    const uint8_t* from = in + size_t(o.first) * kChannels;
    int32_t sum[kChannels];
    for (int32_t& s : sum) s = kHalf;
    for (const int32_t w : o.weights) {
      for (size_t c = 0; c < kChannels; ++c) sum[c] += w * from[c];
      from += kChannels;
    }
    for (size_t c = 0; c < kChannels; ++c) out[c] = to_byte(sum[c]);
    out += out_step;
  }
}
void resize_row(const ResizeAxis& axis, const uint8_t* in, uint8_t* out, size_t out_step, size_t channels) {
  if (channels == 3)
    resize_row<3>(axis, in, out, out_step);
  else
    resize_row<1>(axis, in, out, out_step);
}

ISOLINE_MULTIVERSION void add_weighted(int32_t* sums, const uint8_t* values, int32_t weight, size_t n) {
  for (size_t i = 0; i < n; ++i) sums[i] += weight * values[i];
}
ISOLINE_MULTIVERSION void round_sums(const int32_t* sums, uint8_t* out, size_t n) {
  for (size_t i = 0; i < n; ++i) out[i] = uint8_t(std::clamp(sums[i] >> kPrecisionBits, 0, 255));
}

}  // namespace

ResizeAxis ResizeAxis::make(int64_t in, int64_t out, int64_t begin, int64_t end, ResizeFilter filter) {
  const double scale = double(in) / double(out), filter_scale = std::max(scale, 1.0);
  const double support = (filter == ResizeFilter::kBilinear ? 1.0 : 2.0) * filter_scale;
  const double inverse = 1.0 / filter_scale;
  ResizeAxis axis;
  axis.outputs.resize(size_t(end - begin));
  std::vector<double> w;
  for (int64_t i = begin; i < end; ++i) {
    Output& o = axis.outputs[size_t(i - begin)];
    const double center = 0 + (double(i) + 0.5) * scale;
    o.first = std::max<int64_t>(0, int64_t(center - support + 0.5));
    const int64_t n = std::min<int64_t>(in, int64_t(center + support + 0.5)) - o.first;
    w.assign(size_t(n), 0);
    double total = 0;
    for (int64_t k = 0; k < n; ++k) {
      const double x = (double(k + o.first) - center + 0.5) * inverse;
      w[size_t(k)] = filter == ResizeFilter::kBilinear ? bilinear(x) : bicubic(x);
      total += w[size_t(k)];
    }
    for (double v : w) {
      if (total != 0) v /= total;
      o.weights.push_back(int32_t((v < 0 ? -0.5 : 0.5) + v * (1 << kPrecisionBits)));
    }
  }
  return axis;
}

RowResizer::RowResizer(Size2 stored, Orientation orientation, int channels, const ResizePlan& plan,
                       ResizeFilter filter)
    : stored_(stored),
      orientation_(orientation),
      channels_(size_t(channels)),
      window_(plan.window),
      across_(ResizeAxis::make(orientation.upright(stored).width, plan.scaled.width, plan.left,
                               plan.left + plan.window.width, filter)),
      down_(ResizeAxis::make(orientation.upright(stored).height, plan.scaled.height, plan.top,
                             plan.top + plan.window.height, filter)),
      half_(size_t(down_.last() - down_.first()) * size_t(window_.width) * channels_),
      turned_(size_t(stored.width) * channels_),
      sums_(size_t(window_.width)) {}

void RowResizer::row(int64_t y, std::span<const uint8_t> pixels) {
  const uint8_t* from = pixels.data();
  if (orientation_.reverse_columns()) {
    for (size_t x = 0; x < size_t(stored_.width); ++x)
      std::memcpy(turned_.data() + x * channels_, from + (size_t(stored_.width) - 1 - x) * channels_,
                  channels_);
    from = turned_.data();
  }
  const int64_t at = orientation_.reverse_rows() ? stored_.height - 1 - y : y;
  if (orientation_.transposed())
    add_column(at, from);
  else
    add_row(at, from);
}

void RowResizer::add_row(int64_t upright_y, const uint8_t* pixels) {
  if (upright_y < down_.first() || upright_y >= down_.last()) return;
  const size_t step = size_t(window_.width) * channels_;
  resize_row(across_, pixels, half_.data() + size_t(upright_y - down_.first()) * step, channels_, channels_);
}

// Sums are whole numbers: the order in which columns come does not matter.
void RowResizer::add_column(int64_t upright_x, const uint8_t* pixels) {
  const size_t first = size_t(down_.first()) * channels_,
               n = size_t(down_.last() - down_.first()) * channels_;
  // Outputs whose inputs hold upright_x lie together, as `first` and the end of inputs grow with the output.
  auto o = std::partition_point(across_.outputs.begin(), across_.outputs.end(), [&](const auto& output) {
    return output.first + int64_t(output.weights.size()) <= upright_x;
  });
  const bool backwards = orientation_.reverse_rows();
  for (; o != across_.outputs.end() && o->first <= upright_x; ++o) {
    const auto j = size_t(o - across_.outputs.begin());
    const int64_t begin = o->first, end = begin + int64_t(o->weights.size()) - 1;
    if (upright_x == (backwards ? end : begin)) {
      if (spare_.empty()) spare_.emplace_back(n);
      sums_[j].swap(spare_.back());
      spare_.pop_back();
      std::fill(sums_[j].begin(), sums_[j].end(), kHalf);
    }
    add_weighted(sums_[j].data(), pixels + first, o->weights[size_t(upright_x - begin)], n);
    if (upright_x == (backwards ? begin : end)) {
      round_sums(sums_[j].data(), half_.data() + j * n, n);
      spare_.emplace_back().swap(sums_[j]);
    }
  }
}

void RowResizer::finish(std::span<uint8_t> out) {
  const size_t step = size_t(window_.width) * channels_;
  if (orientation_.transposed()) {
    const size_t n = size_t(down_.last() - down_.first()) * channels_;
    // resize_row() counts pixels from the picture's first row, half_ begins at the first one needed.
    ResizeAxis down = down_;
    for (auto& o : down.outputs) o.first -= down_.first();
    for (size_t j = 0; j < size_t(window_.width); ++j)
      resize_row(down, half_.data() + j * n, out.data() + j * channels_, step, channels_);
    return;
  }
  std::vector<int32_t> sums(step);
  for (size_t i = 0; i < down_.outputs.size(); ++i) {
    const ResizeAxis::Output& o = down_.outputs[i];
    std::fill(sums.begin(), sums.end(), kHalf);
    const uint8_t* from = half_.data() + size_t(o.first - down_.first()) * step;
    for (size_t k = 0; k < o.weights.size(); ++k)
      add_weighted(sums.data(), from + k * step, o.weights[k], step);
    round_sums(sums.data(), out.data() + i * step, step);
  }
}

}  // namespace isoline
