// EXIF orientation, from the containers of the three formats. Internal to image.
#pragma once

#include <cstddef>
#include <span>

#include "isoline/image/picture.h"

namespace isoline {

// 1 where there is no EXIF block, or none that says an orientation of 1..8 (Pillow ignores such blocks too).
// Looks at headers only; XMP is not read.
Orientation exif_orientation(PictureFormat format, std::span<const std::byte> file);

}  // namespace isoline
