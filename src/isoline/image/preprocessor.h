// ImagePreprocessor: an encoded picture becomes one image of a network's input tensor.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <vector>

#include "isoline/base/half.h"
#include "isoline/base/result.h"
#include "isoline/image/decode.h"
#include "isoline/image/preprocess_spec.h"

namespace isoline {

// Decode, turn upright, resize, normalise: bit for bit what Pillow and torchvision's ToTensor and Normalize
// give (float16: that, rounded). Immutable; run() may be called from several threads at once.
class ImagePreprocessor {
 public:
  explicit ImagePreprocessor(PreprocessSpec spec, DecodeLimits limits = {});

  const PreprocessSpec& spec() const { return spec_; }
  size_t bytes_per_image() const { return spec_.byte_size(); }
  // `out`: bytes_per_image(), e.g. an image's place in a batch; indeterminate after an error. Errors as
  // decode_rows().
  Status run(std::span<const std::byte> file, std::span<std::byte> out) const;

 private:
  PreprocessSpec spec_;
  DecodeLimits limits_;
  std::array<std::array<float, 256>, 3> value_{};  // of each byte, per channel
  std::array<std::array<half_t, 256>, 3> half_{};
};

// Where the scaled picture comes to lie in the network's input, and what of it; separate for tests.
// `upright`: the picture's size.
struct Placement {
  ResizePlan plan;
  int64_t top = 0, left = 0;  // of the window in the input; the rest is filled
};
Placement place_picture(const PreprocessSpec& spec, Size2 upright);

}  // namespace isoline
