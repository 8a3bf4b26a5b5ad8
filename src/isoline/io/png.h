// PNG pictures, 8 bits a channel.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "isoline/base/result.h"

namespace isoline {

// pixels: [height, width, channels], channels 1 (gray) or 3 (RGB). Atomic.
Status write_png(const std::string& path, std::span<const uint8_t> pixels, int64_t height, int64_t width,
                 int channels);

}  // namespace isoline
