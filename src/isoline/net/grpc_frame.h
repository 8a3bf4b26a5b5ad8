// gRPC over HTTP/2, the parts that are pure: message frames, timeouts, status texts.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "isoline/net/bytes.h"

namespace isoline::net {

// The published status codes that are sent here.
enum class GrpcStatus {
  kOk = 0,
  kCancelled = 1,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kResourceExhausted = 8,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kUnauthenticated = 16,
};

// Cuts a stream of bytes into messages: one flag byte, four of length, the message.
class GrpcDeframer {
 public:
  GrpcDeframer(std::shared_ptr<MemoryBudget> budget, uint64_t max_bytes)
      : budget_(std::move(budget)), max_bytes_(max_bytes) {}
  enum class State { kMore, kTooLarge, kNoMemory, kMalformed };
  // Calls on_message(message, compressed) for each message that is complete.
  State feed(std::span<const std::byte> in, const std::function<void(Bytes, bool)>& on_message);
  // Nothing of a message has come that is not complete.
  bool at_boundary() const { return header_ == 0; }

 private:
  std::shared_ptr<MemoryBudget> budget_;
  const uint64_t max_bytes_;
  unsigned char head_[5] = {};
  size_t header_ = 0;  // bytes of it that came
  uint64_t length_ = 0;
  Bytes message_;
};

// The five bytes in front of a message of this size, sent without compression.
std::string grpc_frame_head(uint64_t byte_size);
// "100m" (units H M S m u n); nothing if malformed.
std::optional<std::chrono::nanoseconds> parse_grpc_timeout(std::string_view text);
// A grpc-message header: what is not printable ASCII becomes %XX.
std::string percent_encode_message(std::string_view text);

}  // namespace isoline::net
