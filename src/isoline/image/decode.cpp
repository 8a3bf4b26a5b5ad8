#include "isoline/image/decode.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "isoline/image/exif.h"
#include "isoline/image/formats.h"

namespace isoline {
namespace {

bool starts(std::span<const std::byte> file, size_t at, std::string_view text) {
  return file.size() >= at + text.size() && std::memcmp(file.data() + at, text.data(), text.size()) == 0;
}

struct Magic {
  size_t at;
  std::string_view bytes;
  const char* name;
};
// What people do have in their folders, so that the refusal names it.
constexpr Magic kOthers[] = {{0, "GIF8", "GIF"},
                             {0, "BM", "BMP"},
                             {0, {"II*\0", 4}, "TIFF (or camera raw)"},
                             {0, {"MM\0*", 4}, "TIFF (or camera raw)"},
                             {4, "ftypheic", "HEIC"},
                             {4, "ftypheix", "HEIC"},
                             {4, "ftypmif1", "HEIF"},
                             {4, "ftypavif", "AVIF"},
                             {0, "\xff\x0a", "JPEG XL"},
                             {4, "JXL ", "JPEG XL"},
                             {4, "jP  ", "JPEG 2000"},
                             {0, "%PDF", "PDF"}};
// JPEG cannot have more. Keeps everything that grows with a side (rows, resize tables) small.
constexpr int64_t kMaxSide = 65535;
constexpr const char* kRemedy = "JPEG, PNG and WebP are read; convert it.";

Result<PictureFormat> sniff(std::span<const std::byte> file) {
  if (file.empty()) return Error{ErrorCode::kCorrupt, "the file is empty", "", ""};
  if (starts(file, 0, "\xff\xd8\xff")) return PictureFormat::kJpeg;
  if (starts(file, 0, "\x89PNG\r\n\x1a\n")) return PictureFormat::kPng;
  if (starts(file, 0, "RIFF") && starts(file, 8, "WEBP")) return PictureFormat::kWebp;
  for (const Magic& m : kOthers)
    if (starts(file, m.at, m.bytes))
      return Error{ErrorCode::kUnsupported, std::string("this is a ") + m.name + " file", "", kRemedy};
  return Error{ErrorCode::kUnsupported, "this is no JPEG, PNG or WebP file", "", kRemedy};
}

Result<Size2> stored_size(PictureFormat format, std::span<const std::byte> file) {
  switch (format) {
    case PictureFormat::kJpeg:
      return identify_jpeg(file);
    case PictureFormat::kPng:
      return identify_png(file);
    case PictureFormat::kWebp:
      return identify_webp(file);
  }
  return Error{ErrorCode::kInternal, "no such format", "", ""};
}

class WholePicture : public RowSink {
 public:
  Picture picture;
  Status begin(const PictureInfo& info) override {
    info_ = info;
    picture.size = info.upright();
    picture.pixels = Buffer<uint8_t>(size_t(picture.size.height * picture.size.width * 3));
    return {};
  }
  void row(int64_t y, std::span<const uint8_t> rgb) override {
    const Orientation o = info_.orientation;
    const int64_t width = info_.stored.width, stride = picture.size.width;
    const int64_t yy = o.reverse_rows() ? info_.stored.height - 1 - y : y;
    for (int64_t x = 0; x < width; ++x) {
      const int64_t xx = o.reverse_columns() ? width - 1 - x : x;
      const int64_t at = o.transposed() ? xx * stride + yy : yy * stride + xx;
      std::memcpy(picture.pixels.data() + at * 3, rgb.data() + x * 3, 3);
    }
  }

 private:
  PictureInfo info_;
};

}  // namespace

const char* to_string(PictureFormat format) {
  switch (format) {
    case PictureFormat::kJpeg:
      return "JPEG";
    case PictureFormat::kPng:
      return "PNG";
    case PictureFormat::kWebp:
      return "WebP";
  }
  return "unknown";
}

Status check_memory(uint64_t needed_bytes, const DecodeLimits& limits, const char* why) {
  if (needed_bytes <= limits.max_bytes) return {};
  return Error{ErrorCode::kResourceExhausted,
               std::string(why) + " needs " + std::to_string(needed_bytes >> 20) +
                   " MiB to decode, the limit is " + std::to_string(limits.max_bytes >> 20) + " MiB",
               "", "Make the picture smaller or raise the limit."};
}

Result<PictureInfo> identify_picture(std::span<const std::byte> file) {
  PictureInfo info;
  ISOLINE_ASSIGN(info.format, sniff(file));
  ISOLINE_ASSIGN(info.stored, stored_size(info.format, file));
  info.orientation = exif_orientation(info.format, file);
  return info;
}

Status decode_rows(std::span<const std::byte> file, const DecodeLimits& limits, RowSink& sink) {
  ISOLINE_ASSIGN(const PictureInfo info, identify_picture(file));
  const Size2 s = info.stored;
  if (s.height > kMaxSide || s.width > kMaxSide)
    return Error{ErrorCode::kResourceExhausted,
                 "the picture has " + std::to_string(s.width) + "x" + std::to_string(s.height) +
                     " pixels, no side may have more than " + std::to_string(kMaxSide),
                 "", "Cut the picture."};
  if (s.height > limits.max_pixels / s.width)
    return Error{ErrorCode::kResourceExhausted,
                 "the picture has " + std::to_string(s.width) + "x" + std::to_string(s.height) +
                     " pixels, the limit is " + std::to_string(limits.max_pixels),
                 "", "Make the picture smaller or raise the limit."};
  ISOLINE_RETURN_IF_ERROR(sink.begin(info));
  switch (info.format) {
    case PictureFormat::kJpeg:
      return decode_jpeg(file, limits, sink);
    case PictureFormat::kPng:
      return decode_png(file, limits, sink);
    case PictureFormat::kWebp:
      return decode_webp(file, limits, sink);
  }
  return Error{ErrorCode::kInternal, "no such format", "", ""};
}

Result<Picture> decode_picture(std::span<const std::byte> file, const DecodeLimits& limits) {
  WholePicture sink;
  ISOLINE_RETURN_IF_ERROR(decode_rows(file, limits, sink));
  return std::move(sink.picture);
}

}  // namespace isoline
