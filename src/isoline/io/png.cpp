#include "isoline/io/png.h"

#include <png.h>

#include "isoline/base/file.h"

namespace isoline {

Status write_png(const std::string& path, std::span<const uint8_t> pixels, int64_t height, int64_t width,
                 int channels) {
  if ((channels != 1 && channels != 3) || height < 1 || width < 1 || height > 65535 || width > 65535 ||
      pixels.size() != size_t(height * width * channels))
    return Error{ErrorCode::kInvalidArgument,
                 "a picture of " + std::to_string(height) + "x" + std::to_string(width) + "x" +
                     std::to_string(channels) + " does not go with " + std::to_string(pixels.size()) +
                     " bytes",
                 path, ""};
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = png_uint_32(width);
  image.height = png_uint_32(height);
  image.format = channels == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
  Buffer<std::byte> encoded(size);
  if (!png_image_write_to_memory(&image, encoded.data(), &size, 0, pixels.data(), 0, nullptr))
    return Error{ErrorCode::kInternal, std::string("libpng: ") + image.message, path, ""};
  return write_file_atomically(path, std::span<const std::byte>(encoded.data(), size));
}

}  // namespace isoline
