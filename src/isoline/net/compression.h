// gzip and zlib bodies, in and out, with a bound on what comes out.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "isoline/base/result.h"
#include "isoline/net/bytes.h"

namespace isoline::net {

enum class Coding { kIdentity, kGzip, kDeflate };
// "gzip", "deflate", "identity" or "": kUnsupported for others.
Result<Coding> parse_coding(std::string_view text);
// The coding of an Accept-Encoding header that serves best.
Coding choose_coding(std::string_view accept);
const char* to_string(Coding coding);

// kResourceExhausted beyond `max_bytes`; kIo where the budget is used up; kInvalidArgument where the stream
// is damaged or cut short.
Result<Bytes> decompress(std::span<const std::byte> bytes, Coding coding, size_t max_bytes,
                         const std::shared_ptr<MemoryBudget>& budget);
std::string compress(std::span<const std::span<const std::byte>> parts, Coding coding);

}  // namespace isoline::net
