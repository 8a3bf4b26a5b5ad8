// JPEG, PNG and WebP files in memory -> RGB rows, with the pixels Pillow's Image.open(f).convert("RGB")
// gives.
//
// Grey is repeated; alpha and transparency are dropped, not blended; 16 bits keep the upper 8
// (Pillow turns 16-bit grey nearly white); palettes are
// looked up; CMYK and YCCK (JPEG) are converted as Pillow does (inverted as Adobe writes them, no colour
// profile). Colour profiles and gamma are not applied. Refused by name (kUnsupported): other formats,
// animated WebP, 12-bit and lossless JPEG. Stricter than Pillow: damage inside a JPEG's data is an error,
// except stray bytes before a marker.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "isoline/base/result.h"
#include "isoline/image/picture.h"

namespace isoline {

// Checked against the header before anything of the picture's size is allocated: kResourceExhausted. No side
// may have more than 65535 pixels.
struct DecodeLimits {
  int64_t max_pixels = 100'000'000;
  // What decoding may hold at once. Rows stream for most JPEG and PNG files (well under 1 MiB); progressive
  // JPEG, interlaced PNG and WebP need whole pictures.
  uint64_t max_bytes = uint64_t{1} << 30;
};

// Takes a picture as it is decoded.
class RowSink {
 public:
  virtual ~RowSink() = default;
  // Once, before the first row; an error ends decoding and is returned by it.
  virtual Status begin(const PictureInfo& info) = 0;
  // Stored row y = 0, 1, ...: [width, 3].
  virtual void row(int64_t y, std::span<const uint8_t> rgb) = 0;
};

// Header only. kUnsupported (by name), kCorrupt.
Result<PictureInfo> identify_picture(std::span<const std::byte> file);

// All rows to `sink`; on an error some may already have gone there. kCorrupt: truncated or damaged.
Status decode_rows(std::span<const std::byte> file, const DecodeLimits& limits, RowSink& sink);

// A whole picture, turned upright.
Result<Picture> decode_picture(std::span<const std::byte> file, const DecodeLimits& limits);

}  // namespace isoline
