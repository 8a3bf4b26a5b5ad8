#include "isoline/net/grpc_frame.h"

#include <algorithm>
#include <charconv>

namespace isoline::net {

GrpcDeframer::State GrpcDeframer::feed(std::span<const std::byte> in,
                                       const std::function<void(Bytes, bool)>& on_message) {
  size_t at = 0;
  for (;;) {
    while (header_ < sizeof head_ && at < in.size()) {
      head_[header_++] = static_cast<unsigned char>(in[at++]);
      if (header_ < sizeof head_) continue;
      if (head_[0] > 1) return State::kMalformed;
      length_ = uint64_t(head_[1]) << 24 | uint64_t(head_[2]) << 16 | uint64_t(head_[3]) << 8 | head_[4];
      if (length_ > max_bytes_) return State::kTooLarge;
      message_ = Bytes(budget_);
    }
    if (header_ < sizeof head_) return State::kMore;
    const size_t n = std::min<size_t>(size_t(length_) - message_.size(), in.size() - at);
    if (!message_.append(in.subspan(at, n), size_t(length_))) return State::kNoMemory;
    at += n;
    if (message_.size() < length_) return State::kMore;
    header_ = 0;
    on_message(std::exchange(message_, Bytes()), head_[0] == 1);
  }
}

std::string grpc_frame_head(uint64_t n) {
  return {'\0', char(n >> 24), char(n >> 16), char(n >> 8), char(n)};
}

std::optional<std::chrono::nanoseconds> parse_grpc_timeout(std::string_view text) {
  if (text.size() < 2 || text.size() > 9) return std::nullopt;
  uint64_t n = 0;
  const auto r = std::from_chars(text.data(), text.data() + text.size() - 1, n);
  if (r.ec != std::errc() || r.ptr != text.data() + text.size() - 1) return std::nullopt;
  double unit_ns = 0;
  switch (text.back()) {
    case 'H':
      unit_ns = 3600e9;
      break;
    case 'M':
      unit_ns = 60e9;
      break;
    case 'S':
      unit_ns = 1e9;
      break;
    case 'm':
      unit_ns = 1e6;
      break;
    case 'u':
      unit_ns = 1e3;
      break;
    case 'n':
      unit_ns = 1;
      break;
    default:
      return std::nullopt;
  }
  // Capped at a year: time points must not overflow.
  return std::chrono::nanoseconds(int64_t(std::min(double(n) * unit_ns, 365.0 * 86400 * 1e9)));
}

std::string percent_encode_message(std::string_view text) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (unsigned char c : text.substr(0, 1024)) {
    if (c >= 0x20 && c < 0x7F && c != '%') {
      out += char(c);
    } else {
      out += '%';
      out += kHex[c >> 4];
      out += kHex[c & 15];
    }
  }
  return out;
}

}  // namespace isoline::net
