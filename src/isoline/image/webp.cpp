#include <webp/decode.h>

#include "isoline/base/buffer.h"
#include "isoline/image/formats.h"

namespace isoline {
namespace {

Result<WebPBitstreamFeatures> features(std::span<const std::byte> file) {
  WebPBitstreamFeatures f;
  const VP8StatusCode code = WebPGetFeatures(reinterpret_cast<const uint8_t*>(file.data()), file.size(), &f);
  if (code == VP8_STATUS_NOT_ENOUGH_DATA)
    return Error{ErrorCode::kCorrupt, "the WebP file is truncated", "", ""};
  if (code != VP8_STATUS_OK) return Error{ErrorCode::kCorrupt, "the WebP file's header is damaged", "", ""};
  if (f.has_animation)
    return Error{ErrorCode::kUnsupported, "this is an animated WebP file", "",
                 "Extract the picture that is meant."};
  return f;
}

}  // namespace

Result<Size2> identify_webp(std::span<const std::byte> file) {
  ISOLINE_ASSIGN(const WebPBitstreamFeatures f, features(file));
  return Size2{f.height, f.width};
}

Status decode_webp(std::span<const std::byte> file, const DecodeLimits& limits, RowSink& sink) {
  ISOLINE_ASSIGN(const WebPBitstreamFeatures f, features(file));
  const uint64_t pixels = uint64_t(f.height) * uint64_t(f.width);
  // Besides the result: lossless files are held as 32-bit pixels with their transforms.
  ISOLINE_RETURN_IF_ERROR(check_memory(pixels * (f.format == 1 ? 4 : 9), limits, "this WebP"));
  Buffer<uint8_t> rgb(size_t(pixels) * 3);
  const size_t stride = size_t(f.width) * 3;
  if (!WebPDecodeRGBInto(reinterpret_cast<const uint8_t*>(file.data()), file.size(), rgb.data(), rgb.size(),
                         int(stride)))
    return Error{ErrorCode::kCorrupt, "the WebP file is truncated or damaged", "", ""};
  for (int64_t y = 0; y < f.height; ++y) sink.row(y, std::span(rgb.data() + size_t(y) * stride, stride));
  return {};
}

}  // namespace isoline
