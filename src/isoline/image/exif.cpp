#include "isoline/image/exif.h"

#include <cstdint>
#include <cstring>

namespace isoline {
namespace {

using Bytes = std::span<const std::byte>;

uint32_t big16(Bytes b, size_t at) {
  return uint32_t(b[at]) << 8 | uint32_t(b[at + 1]);
}
uint32_t big32(Bytes b, size_t at) {
  return big16(b, at) << 16 | big16(b, at + 2);
}
uint32_t little16(Bytes b, size_t at) {
  return uint32_t(b[at + 1]) << 8 | uint32_t(b[at]);
}
uint32_t little32(Bytes b, size_t at) {
  return little16(b, at + 2) << 16 | little16(b, at);
}
bool says(Bytes b, size_t at, const char* text, size_t n) {
  return at + n <= b.size() && std::memcmp(b.data() + at, text, n) == 0;
}

// A TIFF header and its first directory.
int orientation_of(Bytes exif) {
  if (says(exif, 0, "Exif\0\0", 6)) exif = exif.subspan(6);
  if (exif.size() < 8) return 1;
  const bool little = says(exif, 0, "II", 2);
  if (!little && !says(exif, 0, "MM", 2)) return 1;
  const auto u16 = [&](size_t at) { return little ? little16(exif, at) : big16(exif, at); };
  const auto u32 = [&](size_t at) { return little ? little32(exif, at) : big32(exif, at); };
  if (u16(2) != 42) return 1;
  const size_t directory = u32(4);
  if (directory + 2 > exif.size()) return 1;
  const size_t entries = u16(directory);
  for (size_t i = 0; i < entries; ++i) {
    const size_t at = directory + 2 + 12 * i;
    if (at + 12 > exif.size()) return 1;
    if (u16(at) != 0x0112) continue;
    const uint32_t type = u16(at + 2), count = u32(at + 4);
    const uint32_t value = type == 3 ? u16(at + 8) : type == 4 ? u32(at + 8) : 1;
    return count == 1 && value >= 1 && value <= 8 ? int(value) : 1;
  }
  return 1;
}

// Markers up to the first scan; the first APP1 that holds EXIF.
Bytes find_in_jpeg(Bytes f) {
  size_t at = 2;
  while (at + 4 <= f.size()) {
    if (f[at] != std::byte{0xff}) return {};
    const auto marker = uint8_t(f[at + 1]);
    if (marker == 0xff) {  // fill byte
      ++at;
      continue;
    }
    if (marker == 0xda || marker == 0xd9) return {};
    if (marker == 0x01 || (marker >= 0xd0 && marker <= 0xd8)) {
      at += 2;
      continue;
    }
    const size_t length = big16(f, at + 2);
    if (length < 2 || at + 2 + length > f.size()) return {};
    if (marker == 0xe1 && says(f, at + 4, "Exif\0\0", 6)) return f.subspan(at + 4, length - 2);
    at += 2 + length;
  }
  return {};
}

Bytes find_in_png(Bytes f) {
  size_t at = 8;
  while (at + 12 <= f.size()) {
    const size_t length = big32(f, at);
    if (length > f.size() - at - 12) return {};
    if (says(f, at + 4, "eXIf", 4)) return f.subspan(at + 8, length);
    at += 12 + length;
  }
  return {};
}

Bytes find_in_webp(Bytes f) {
  size_t at = 12;
  while (at + 8 <= f.size()) {
    const size_t length = little32(f, at + 4);
    if (length > f.size() - at - 8) return {};
    if (says(f, at, "EXIF", 4)) return f.subspan(at + 8, length);
    at += 8 + length + (length & 1);
  }
  return {};
}

}  // namespace

Orientation exif_orientation(PictureFormat format, Bytes file) {
  switch (format) {
    case PictureFormat::kJpeg:
      return {orientation_of(find_in_jpeg(file))};
    case PictureFormat::kPng:
      return {orientation_of(find_in_png(file))};
    case PictureFormat::kWebp:
      return {orientation_of(find_in_webp(file))};
  }
  return {};
}

}  // namespace isoline
