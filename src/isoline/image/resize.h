// Antialiased resizing of 8-bit pictures, equal to Image.resize of Pillow 12 to the last bit, of rows as they
// come.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "isoline/image/picture.h"

namespace isoline {

enum class ResizeFilter { kBilinear, kBicubic };

// A picture is scaled to `scaled`, of which the window [top, top + height) x [left, left + width) is kept.
struct ResizePlan {
  Size2 scaled;
  int64_t top = 0, left = 0;
  Size2 window;
};

// One axis: output i = sum over k of weights[k] * input[first + k], in steps of 2^-22 (Pillow: Resample.c,
// precompute_coeffs and normalize_coeffs_8bpc). Only outputs [begin, end) are computed.
struct ResizeAxis {
  struct Output {
    int64_t first = 0;
    std::vector<int32_t> weights;
  };
  std::vector<Output> outputs;
  static ResizeAxis make(int64_t in, int64_t out, int64_t begin, int64_t end, ResizeFilter filter);
  // Inputs any output needs: [first, last).
  int64_t first() const { return outputs.front().first; }
  int64_t last() const { return outputs.back().first + int64_t(outputs.back().weights.size()); }
};

// Takes stored rows in order and gives the window of the upright, scaled picture. As in Pillow the upright
// picture's rows are resized first, to 8 bits, then its columns. Held: window width times needed rows.
class RowResizer {
 public:
  // `channels`: 1 or 3 values a pixel. The window must lie within `scaled`.
  RowResizer(Size2 stored, Orientation orientation, int channels, const ResizePlan& plan,
             ResizeFilter filter);
  // Stored row y: [stored.width, channels].
  void row(int64_t y, std::span<const uint8_t> pixels);
  // After the last row: [window.height, window.width, channels].
  void finish(std::span<uint8_t> out);

 private:
  void add_row(int64_t upright_y, const uint8_t* pixels);
  void add_column(int64_t upright_x, const uint8_t* pixels);

  Size2 stored_;
  Orientation orientation_;
  size_t channels_;
  Size2 window_;
  ResizeAxis across_, down_;  // of the upright picture
  // Rows resized, columns not yet: [needed row, window column, channel]; of transposed pictures, which arrive
  // column by column, [window column, needed row, channel].
  Buffer<uint8_t> half_;
  Buffer<uint8_t> turned_;                          // a row read backwards
  std::vector<std::vector<int32_t>> sums_, spare_;  // transposed: of the window columns begun
};

}  // namespace isoline
