// HTTP/1.1 messages: heads and chunked bodies read from bytes, heads written. Pure, strict, bounded.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "isoline/net/bytes.h"

namespace isoline::net {

struct HttpLimits {
  size_t max_head_bytes = size_t{16} << 10;
  size_t max_headers = 100;
  uint64_t max_body_bytes = uint64_t{64} << 20;  // as sent, and again once decompressed
};

struct HttpHead {
  std::string method, path, query;                           // path and query as sent, without '?'
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::optional<uint64_t> content_length;
  bool chunked = false, keep_alive = true, expects_continue = false;

  // The first header of this (lower-case) name, or "".
  std::string_view header(std::string_view name) const;
};

struct HeadResult {
  enum class Kind { kIncomplete, kComplete, kRefused } kind = Kind::kIncomplete;
  size_t consumed = 0;  // bytes of the head, with the empty line
  int status = 0;       // of a refusal: 400, 411, 413, 417, 431, 501, 505
  std::string reason;
};
// Reads a request's head from the front of `bytes`. A body that is announced as larger than the limit is
// refused with 413, contradictory lengths (the ways to smuggle requests) with 400.
HeadResult parse_head(std::string_view bytes, const HttpLimits& limits, HttpHead& head);

// A chunked body, fed as it comes.
class ChunkDecoder {
 public:
  enum class State { kMore, kDone, kMalformed, kTooLarge, kNoMemory };
  // Appends data to `body`, at most `max_bytes` of it; `consumed` says how much of `in` it took.
  State feed(std::string_view in, size_t& consumed, Bytes& body, uint64_t max_bytes);

 private:
  enum class Part {
    kSize,
    kExtension,
    kSizeEnd,
    kData,
    kDataReturn,
    kDataNewline,
    kTrailer,
    kTrailerEnd
  } part_ = Part::kSize;
  uint64_t left_ = 0;
  int digits_ = 0;
  size_t line_ = 0;  // bytes of the extension or trailer so far
  bool line_empty_ = true;
};

const char* status_reason(int status);
// "%2F" -> "/"; nothing if the escapes are malformed or give a zero byte.
std::optional<std::string> percent_decode(std::string_view text);

}  // namespace isoline::net
