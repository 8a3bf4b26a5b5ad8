// The decoders behind decode.h, one a format. Internal to image.
#pragma once

#include <cstddef>
#include <span>

#include "isoline/base/result.h"
#include "isoline/image/decode.h"

namespace isoline {

// Stored size from the header.
Result<Size2> identify_jpeg(std::span<const std::byte> file);
Result<Size2> identify_png(std::span<const std::byte> file);
Result<Size2> identify_webp(std::span<const std::byte> file);

// Rows to `sink`, whose begin() has been called; max_pixels has been looked at.
Status decode_jpeg(std::span<const std::byte> file, const DecodeLimits& limits, RowSink& sink);
Status decode_png(std::span<const std::byte> file, const DecodeLimits& limits, RowSink& sink);
Status decode_webp(std::span<const std::byte> file, const DecodeLimits& limits, RowSink& sink);

// kResourceExhausted if decoding needs more than the limit.
Status check_memory(uint64_t needed_bytes, const DecodeLimits& limits, const char* why);

}  // namespace isoline
