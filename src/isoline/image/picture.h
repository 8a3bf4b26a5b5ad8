// Pictures in memory and what stands in a file's header about them.
#pragma once

#include <cstdint>

#include "isoline/base/buffer.h"

namespace isoline {

enum class PictureFormat { kJpeg, kPng, kWebp };
const char* to_string(PictureFormat format);

struct Size2 {
  int64_t height = 0, width = 0;
  bool operator==(const Size2&) const = default;
};

// EXIF's orientation 1..8: how stored pixels are to be turned to stand upright.
struct Orientation {
  int exif = 1;
  // Stored row y, column x goes to upright row y, column x; the other way round where transposed. Stored rows
  // or columns are counted from their far end first where they are to be reversed.
  bool transposed() const { return exif >= 5; }
  bool reverse_rows() const { return exif == 3 || exif == 4 || exif == 6 || exif == 7; }
  bool reverse_columns() const { return exif == 2 || exif == 3 || exif == 7 || exif == 8; }
  Size2 upright(Size2 stored) const { return transposed() ? Size2{stored.width, stored.height} : stored; }
};

struct PictureInfo {
  PictureFormat format = PictureFormat::kJpeg;
  Size2 stored;  // as in the file, before turning
  Orientation orientation;
  Size2 upright() const { return orientation.upright(stored); }
};

// RGB, 8 bits a channel, [height, width, 3], upright.
struct Picture {
  Size2 size;
  Buffer<uint8_t> pixels;
};

}  // namespace isoline
