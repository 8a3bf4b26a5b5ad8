// Any bytes as a picture, decoded whole and on the way into a network; the first byte chooses what kind of
// network.
#include <cstdlib>
#include <vector>

#include "isoline/image/preprocessor.h"

using namespace isoline;

namespace {

ImagePreprocessor preprocessor(uint8_t choice, const DecodeLimits& limits) {
  PreprocessSpec spec;
  spec.type = PixelType(choice % 3);
  spec.layout = PixelLayout(choice / 3 % 2);
  spec.colors = PixelColors(choice / 6 % 3);
  spec.mode = ResizeMode(choice / 18 % 3);
  spec.filter = ResizeFilter(choice / 54 % 2);
  spec.shortest_side = 20;
  spec.size = {19, 13};
  spec.divide_by = 255;
  spec.mean.assign(size_t(spec.channels()), 0.5f);
  spec.std_dev.assign(size_t(spec.channels()), 0.25f);
  return ImagePreprocessor(spec, limits);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (!size) return 0;
  const auto file = std::as_bytes(std::span(data + 1, size - 1));
  const DecodeLimits limits{1 << 18, 8 << 20};
  const auto picture = decode_picture(file, limits);
  if (picture.ok()) {
    const Size2 s = picture->size;
    if (s.height < 1 || s.width < 1 || s.height * s.width > limits.max_pixels ||
        picture->pixels.size() != size_t(s.height * s.width * 3))
      std::abort();
  } else if (picture.error().message.empty()) {
    std::abort();
  }
  const ImagePreprocessor to_tensor = preprocessor(data[0], limits);
  std::vector<std::byte> tensor(to_tensor.bytes_per_image());
  // One reads what the other reads.
  if (to_tensor.run(file, tensor).ok() != picture.ok()) std::abort();
  return 0;
}
