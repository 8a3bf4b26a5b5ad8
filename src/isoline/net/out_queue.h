// What is to be written to a connection: pieces of text and bytes in place that somebody keeps alive.
#pragma once

#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "isoline/net/transport.h"

namespace isoline::net {

// Bytes in place, kept by `owner`.
struct Segment {
  std::shared_ptr<const void> owner;
  std::span<const std::byte> bytes;
};

class OutQueue {
 public:
  void text(std::string_view text);
  void segment(Segment segment);
  bool empty() const { return pieces_.empty(); }
  size_t byte_size() const { return bytes_; }

  enum class Flushed { kAll, kBlocked, kFailed };
  // Writes as much as the transport takes; `written` grows by that.
  Flushed flush(Transport& transport, uint64_t& written);

 private:
  struct Piece {
    std::string text;
    Segment segment;
    std::span<const std::byte> bytes() const {
      return segment.owner ? segment.bytes : std::as_bytes(std::span(text));
    }
  };
  std::deque<Piece> pieces_;
  size_t done_ = 0;  // of the first piece
  size_t bytes_ = 0;
};

}  // namespace isoline::net
