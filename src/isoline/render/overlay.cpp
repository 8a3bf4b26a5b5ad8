#include "isoline/render/overlay.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

namespace isoline {
namespace {

using Colour = std::array<uint8_t, 3>;
// Distinct for the common kinds of colour blindness (Okabe and Ito).
constexpr std::array<Colour, 7> kPalette{{{86, 180, 233},
                                          {230, 159, 0},
                                          {0, 158, 115},
                                          {240, 228, 66},
                                          {213, 94, 0},
                                          {204, 121, 167},
                                          {0, 114, 178}}};
Colour colour_of(uint16_t label) {
  return kPalette[size_t(label - 1) % kPalette.size()];
}
Colour lighter(Colour c) {
  for (uint8_t& v : c) v = uint8_t(v + (255 - v) / 2);
  return c;
}

// Per axis, the slice with most voxels of the rarest label, so that small lesions are in the picture.
Index3 focus(const LabelMap& labels) {
  const Shape3 s = labels.shape;
  std::map<uint16_t, int64_t> counts;
  for (uint16_t l : labels.data)
    if (l) ++counts[l];
  if (counts.empty()) return {s[0] / 2, s[1] / 2, s[2] / 2};
  const uint16_t rarest = std::min_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) {
                            return a.second < b.second;
                          })->first;
  Vec3<std::vector<int64_t>> per_slice;
  for (size_t a = 0; a < 3; ++a) per_slice[a].assign(size_t(s[a]), 0);
  for (int64_t z = 0; z < s[0]; ++z)
    for (int64_t y = 0; y < s[1]; ++y)
      for (int64_t x = 0; x < s[2]; ++x)
        if (labels.at(z, y, x) == rarest)
          ++per_slice[0][size_t(z)], ++per_slice[1][size_t(y)], ++per_slice[2][size_t(x)];
  Index3 out{};
  for (size_t a = 0; a < 3; ++a)
    out[a] = std::max_element(per_slice[a].begin(), per_slice[a].end()) - per_slice[a].begin();
  return out;
}

// One plane: rows along axis v, columns along axis u, the third axis fixed at `at`.
struct Plane {
  int fixed, v, u;
  bool flip_v;  // superior on top: z grows upwards
};

}  // namespace

Result<RgbImage> render_overlay(const Image& image, const LabelMap& labels, const LabelMap* reference,
                                const OverlayOptions& options) {
  if (image.channels != 1)
    return Error{ErrorCode::kInvalidArgument, "the picture needs a scan of one channel", "overlay", ""};
  if (labels.shape != image.shape || (reference && reference->shape != image.shape))
    return Error{ErrorCode::kInvalidArgument, "labels and scan differ in shape", "overlay",
                 "Give the segmentation of this scan."};
  if (options.panel_pixels < 16 || options.panel_pixels > 4096 || !(options.window_high > options.window_low))
    return Error{ErrorCode::kInvalidArgument, "panel size must be 16 to 4096 and the window not empty",
                 "overlay", ""};
  const Shape3 s = image.shape;
  const Vec3<double> mm = image.geometry.spacing_mm;
  const Index3 at = focus(reference ? *reference : labels);
  auto intensity = [&](const Index3& p) {
    const auto i = size_t((p[0] * s[1] + p[1]) * s[2] + p[2]);
    return std::visit([&](const auto& b) { return double(b[i]); }, image.data);
  };
  const std::array<Plane, 3> planes{{{0, 1, 2, false}, {1, 0, 2, true}, {2, 0, 1, true}}};
  constexpr int kGap = 4;
  std::array<int, 3> widths{};
  int width = 0;
  for (size_t k = 0; k < 3; ++k) {
    const auto v = size_t(planes[k].v), u = size_t(planes[k].u);
    const double ratio = double(s[u]) * mm[u] / (double(s[v]) * mm[v]);
    widths[k] = std::clamp(int(std::lround(ratio * options.panel_pixels)), 16, 4 * options.panel_pixels);
    width += widths[k] + (k ? kGap : 0);
  }
  RgbImage out{width, options.panel_pixels,
               std::vector<uint8_t>(size_t(width) * size_t(options.panel_pixels) * 3, 24)};
  int left = 0;
  for (size_t k = 0; k < 3; ++k) {
    const Plane& plane = planes[k];
    const auto f = size_t(plane.fixed), v = size_t(plane.v), u = size_t(plane.u);
    const int w = widths[k], h = options.panel_pixels;
    auto voxel = [&](int row, int column) {
      Index3 p{};
      p[f] = at[f];
      const int r = plane.flip_v ? h - 1 - row : row;
      p[v] = std::clamp<int64_t>(int64_t((r + 0.5) * double(s[v]) / h), 0, s[v] - 1);
      p[u] = std::clamp<int64_t>(int64_t((column + 0.5) * double(s[u]) / w), 0, s[u] - 1);
      return p;
    };
    auto label_at = [&](const LabelMap& map, int row, int column) -> uint16_t {
      if (row < 0 || row >= h || column < 0 || column >= w) return 0;
      const Index3 p = voxel(row, column);
      return map.at(p[0], p[1], p[2]);
    };
    // A pixel is on an outline when a pixel to its left or above has another label.
    auto edge = [&](const LabelMap& map, int row, int column) -> uint16_t {
      const uint16_t here = label_at(map, row, column);
      for (const auto& [dr, dc] : {std::pair{-1, 0}, {0, -1}}) {
        const uint16_t other = label_at(map, row + dr, column + dc);
        if (other != here) return here ? here : other;
      }
      return 0;
    };
    for (int row = 0; row < h; ++row)
      for (int column = 0; column < w; ++column) {
        const double t =
            (intensity(voxel(row, column)) - options.window_low) / (options.window_high - options.window_low);
        const auto grey = uint8_t(std::lround(255 * std::clamp(t, 0.0, 1.0)));
        Colour c{grey, grey, grey};
        if (reference && (row + column) % 4 < 2)
          if (const uint16_t l = edge(*reference, row, column)) c = lighter(colour_of(l));
        if (const uint16_t l = edge(labels, row, column)) c = colour_of(l);
        std::copy(c.begin(), c.end(), out.pixels.begin() + (int64_t(row) * width + left + column) * 3);
      }
    left += w + kGap;
  }
  return out;
}

}  // namespace isoline
