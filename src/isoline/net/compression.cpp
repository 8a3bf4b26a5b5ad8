#include "isoline/net/compression.h"

#include <zlib.h>

#include <algorithm>
#include <charconv>

namespace isoline::net {
namespace {

std::string_view trim(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t')) s.remove_suffix(1);
  return s;
}
int window_bits(Coding coding) {
  return coding == Coding::kGzip ? 15 + 16 : 15;
}

}  // namespace

Result<Coding> parse_coding(std::string_view text) {
  text = trim(text);
  if (text.empty() || text == "identity") return Coding::kIdentity;
  if (text == "gzip" || text == "x-gzip") return Coding::kGzip;
  if (text == "deflate") return Coding::kDeflate;
  return Error{ErrorCode::kUnsupported,
               "the body's coding '" + std::string(text.substr(0, 64)) + "' is not known", "",
               "Use gzip, deflate or none."};
}

Coding choose_coding(std::string_view accept) {
  Coding best = Coding::kIdentity;
  while (!accept.empty()) {
    const size_t comma = std::min(accept.find(','), accept.size());
    std::string_view item = accept.substr(0, comma);
    accept.remove_prefix(std::min(comma + 1, accept.size()));
    const size_t semicolon = std::min(item.find(';'), item.size());
    const std::string_view name = trim(item.substr(0, semicolon));
    double quality = 1;
    if (const size_t q = item.find("q="); q != std::string_view::npos && q > semicolon)
      std::from_chars(item.data() + q + 2, item.data() + item.size(), quality);
    if (quality <= 0) continue;
    if (name == "gzip") return Coding::kGzip;
    if (name == "deflate") best = Coding::kDeflate;
  }
  return best;
}

const char* to_string(Coding coding) {
  return coding == Coding::kGzip ? "gzip" : coding == Coding::kDeflate ? "deflate" : "identity";
}

Result<Bytes> decompress(std::span<const std::byte> in, Coding coding, size_t max_bytes,
                         const std::shared_ptr<MemoryBudget>& budget) {
  const auto damaged = [] {
    return Error{ErrorCode::kInvalidArgument, "the compressed body is damaged or cut short", "", ""};
  };
  z_stream z{};
  if (inflateInit2(&z, window_bits(coding)) != Z_OK) throw std::bad_alloc();
  const std::unique_ptr<z_stream, int (*)(z_stream*)> end(&z, inflateEnd);
  Bytes out(budget);
  std::byte probe;
  size_t at = 0;
  for (;;) {
    if (out.size() >= max_bytes) {
      // One more byte would be too many; a stream that ends right here is fine.
      z.next_out = reinterpret_cast<Bytef*>(&probe);
      z.avail_out = 1;
    } else {
      if (!out.grow(std::min<size_t>(max_bytes - out.size(), std::max<size_t>(in.size(), 16384)), max_bytes))
        return Error{ErrorCode::kIo, "no memory is left for the decompressed body", "", "Try again later."};
      const size_t room = std::min(out.room().size(), max_bytes - out.size());
      z.next_out = reinterpret_cast<Bytef*>(out.room().data());
      z.avail_out = uInt(std::min<size_t>(room, 1u << 30));
    }
    const uInt before = z.avail_out;
    const size_t piece = std::min<size_t>(in.size() - at, 1u << 30);
    z.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(in.data() + at));
    z.avail_in = uInt(piece);
    const int r = inflate(&z, Z_NO_FLUSH);
    const size_t produced = before - z.avail_out;
    at += piece - z.avail_in;
    if (out.size() >= max_bytes && produced)
      return Error{ErrorCode::kResourceExhausted,
                   "the decompressed body is above the limit of " + std::to_string(max_bytes) + " bytes", "",
                   ""};
    out.advance(produced);
    if (r == Z_STREAM_END) {
      if (at != in.size()) return damaged();  // something follows the stream
      return out;
    }
    if ((r != Z_OK && r != Z_BUF_ERROR) || (!produced && z.avail_out && at == in.size())) return damaged();
    if (r == Z_BUF_ERROR && !produced && at == in.size()) return damaged();
  }
}

std::string compress(std::span<const std::span<const std::byte>> parts, Coding coding) {
  z_stream z{};
  if (deflateInit2(&z, 1, Z_DEFLATED, window_bits(coding), 8, Z_DEFAULT_STRATEGY) != Z_OK)
    throw std::bad_alloc();
  const std::unique_ptr<z_stream, int (*)(z_stream*)> end(&z, deflateEnd);
  std::string out;
  char block[16384];
  for (size_t i = 0; i <= parts.size(); ++i) {
    const bool last = i == parts.size();
    size_t at = 0;
    const size_t size = last ? 0 : parts[i].size();
    for (;;) {
      const size_t piece = std::min<size_t>(size - at, 1u << 30);
      z.next_in = last ? nullptr : reinterpret_cast<Bytef*>(const_cast<std::byte*>(parts[i].data() + at));
      z.avail_in = uInt(piece);
      z.next_out = reinterpret_cast<Bytef*>(block);
      z.avail_out = sizeof block;
      const int r = deflate(&z, last ? Z_FINISH : Z_NO_FLUSH);
      out.append(block, sizeof block - z.avail_out);
      at += piece - z.avail_in;
      if (last ? r == Z_STREAM_END : at == size && z.avail_out) break;
    }
  }
  return out;
}

}  // namespace isoline::net
