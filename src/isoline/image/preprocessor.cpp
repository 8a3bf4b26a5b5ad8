#include "isoline/image/preprocessor.h"

#include <algorithm>
#include <cmath>
#include <optional>

namespace isoline {
namespace {

// Python's round(): halves to even.
int64_t round_half_even(double v) {
  return int64_t(std::nearbyint(v));
}

// Pillow's convert("L").
uint8_t gray(const uint8_t* rgb) {
  return uint8_t((rgb[0] * 19595u + rgb[1] * 38470u + rgb[2] * 7471u + 0x8000u) >> 16);
}

// Feeds rows to the resizer, turned grey where the network sees grey.
class ResizeSink : public RowSink {
 public:
  explicit ResizeSink(const PreprocessSpec& spec) : spec_(spec) {}
  Status begin(const PictureInfo& info) override {
    placement_ = place_picture(spec_, info.upright());
    resizer_.emplace(info.stored, info.orientation, spec_.channels(), placement_.plan, spec_.filter);
    if (spec_.channels() == 1) gray_ = Buffer<uint8_t>(size_t(info.stored.width));
    return {};
  }
  void row(int64_t y, std::span<const uint8_t> rgb) override {
    if (gray_.empty()) return resizer_->row(y, rgb);
    for (size_t x = 0; x < gray_.size(); ++x) gray_[x] = gray(rgb.data() + 3 * x);
    resizer_->row(y, gray_.span());
  }
  // [window, channels].
  Buffer<uint8_t> pixels() {
    const Size2 w = placement_.plan.window;
    Buffer<uint8_t> out(size_t(w.height * w.width * spec_.channels()));
    resizer_->finish(out.span());
    return out;
  }
  const Placement& placement() const { return placement_; }

 private:
  const PreprocessSpec& spec_;
  Placement placement_;
  std::optional<RowResizer> resizer_;
  Buffer<uint8_t> gray_;
};

// Writes the window, and the fill around it, in the network's layout. `values`: of each byte, per channel of
// the output; `order`: the channel of the picture each output channel takes.
template <class T, class Values>
void write_input(const PreprocessSpec& spec, const Placement& place, const uint8_t* pixels,
                 const Values& values, T* out) {
  const int64_t h = spec.size.height, w = spec.size.width, channels = spec.channels();
  const Size2 window = place.plan.window;
  const bool planar = spec.layout == PixelLayout::kNchw;
  for (int64_t c = 0; c < channels; ++c) {
    const int64_t from = spec.colors == PixelColors::kBgr ? 2 - c : c;
    const uint8_t fill = channels == 1 ? gray(spec.fill_rgb.data()) : spec.fill_rgb[size_t(from)];
    T* plane = planar ? out + c * h * w : out + c;
    const int64_t step = planar ? 1 : channels;
    for (int64_t y = 0; y < h; ++y) {
      T* row = plane + y * w * step;
      const int64_t wy = y - place.top;
      const bool inside = wy >= 0 && wy < window.height;
      const int64_t begin = inside ? place.left : w, end = inside ? place.left + window.width : w;
      for (int64_t x = 0; x < begin; ++x) row[x * step] = T(values(c, fill));
      const uint8_t* in = pixels + (wy * window.width) * channels + from;
      for (int64_t x = begin; x < end; ++x) row[x * step] = T(values(c, in[(x - begin) * channels]));
      for (int64_t x = end; x < w; ++x) row[x * step] = T(values(c, fill));
    }
  }
}

}  // namespace

Placement place_picture(const PreprocessSpec& spec, Size2 upright) {
  Placement out;
  const double height = double(upright.height), width = double(upright.width);
  switch (spec.mode) {
    case ResizeMode::kStretch:
      out.plan.scaled = out.plan.window = spec.size;
      break;
    case ResizeMode::kShortestSide: {
      // torchvision: the longer side is truncated, the crop's corner rounded half to even.
      const int64_t side = spec.shortest_side;
      const int64_t longer = int64_t(double(side) * std::max(height, width) / std::min(height, width));
      out.plan.scaled = height <= width ? Size2{side, longer} : Size2{longer, side};
      out.plan.window = spec.size;
      out.plan.top = round_half_even(double(out.plan.scaled.height - spec.size.height) / 2);
      out.plan.left = round_half_even(double(out.plan.scaled.width - spec.size.width) / 2);
      break;
    }
    case ResizeMode::kPad: {
      // Pillow's ImageOps.contain and pad.
      Size2 s = spec.size;
      const double ratio = width / height, wanted = double(s.width) / double(s.height);
      if (ratio > wanted)
        s.height = std::max<int64_t>(1, round_half_even(height / width * double(s.width)));
      else if (ratio < wanted)
        s.width = std::max<int64_t>(1, round_half_even(width / height * double(s.height)));
      out.plan.scaled = out.plan.window = s;
      out.top = round_half_even(double(spec.size.height - s.height) * 0.5);
      out.left = round_half_even(double(spec.size.width - s.width) * 0.5);
      break;
    }
  }
  return out;
}

ImagePreprocessor::ImagePreprocessor(PreprocessSpec spec, DecodeLimits limits)
    : spec_(std::move(spec)), limits_(limits) {
  if (spec_.type == PixelType::kUInt8) return;
  for (size_t c = 0; c < size_t(spec_.channels()); ++c)
    for (size_t v = 0; v < 256; ++v) {
      value_[c][v] = (float(v) / spec_.divide_by - spec_.mean[c]) / spec_.std_dev[c];
      half_[c][v] = float_to_half(value_[c][v]);
    }
}

Status ImagePreprocessor::run(std::span<const std::byte> file, std::span<std::byte> out) const {
  if (out.size() != bytes_per_image())
    return Error{ErrorCode::kInternal,
                 std::to_string(out.size()) + " bytes for an image of " + std::to_string(bytes_per_image()),
                 "", ""};
  ResizeSink sink(spec_);
  ISOLINE_RETURN_IF_ERROR(decode_rows(file, limits_, sink));
  const Buffer<uint8_t> pixels = sink.pixels();
  const Placement& place = sink.placement();
  switch (spec_.type) {
    case PixelType::kFloat32:
      write_input(
          spec_, place, pixels.data(), [&](int64_t c, uint8_t v) { return value_[size_t(c)][v]; },
          reinterpret_cast<float*>(out.data()));
      break;
    case PixelType::kFloat16:
      write_input(
          spec_, place, pixels.data(), [&](int64_t c, uint8_t v) { return half_[size_t(c)][v]; },
          reinterpret_cast<half_t*>(out.data()));
      break;
    case PixelType::kUInt8:
      write_input(
          spec_, place, pixels.data(), [](int64_t, uint8_t v) { return v; },
          reinterpret_cast<uint8_t*>(out.data()));
      break;
  }
  return {};
}

}  // namespace isoline
