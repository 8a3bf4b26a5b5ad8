// A transport without a socket, for tests and fuzzing: both directions are strings that the test holds.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "isoline/net/transport.h"

namespace isoline::net {

// What the other side sent and received, and how much it takes at a time.
struct MemoryWire {
  std::string in, out;
  size_t at = 0;                                       // of `in`: so much was read
  size_t read_step = SIZE_MAX, write_room = SIZE_MAX;  // bytes a read gives; bytes that writes may still put
  bool ended = false, finished = false, closed = false;  // the peer's end; ours; the transport is gone
};

class MemoryTransport final : public Transport {
 public:
  explicit MemoryTransport(std::shared_ptr<MemoryWire> wire) : wire_(std::move(wire)) {}
  ~MemoryTransport() override { wire_->closed = true; }
  IoResult read(std::span<std::byte> to) override {
    const size_t n = std::min({to.size(), wire_->read_step, wire_->in.size() - wire_->at});
    if (!n) return {wire_->ended ? IoResult::Kind::kEnd : IoResult::Kind::kBlocked, 0, true};
    std::memcpy(to.data(), wire_->in.data() + wire_->at, n);
    wire_->at += n;
    return {IoResult::Kind::kOk, n, false};
  }
  IoResult write(std::span<const iovec> parts) override {
    size_t total = 0;
    for (const iovec& p : parts) {
      const size_t n = std::min(p.iov_len, wire_->write_room);
      wire_->out.append(static_cast<const char*>(p.iov_base), n);
      wire_->write_room -= wire_->write_room == SIZE_MAX ? 0 : n;
      total += n;
      if (n < p.iov_len) break;
    }
    if (!total) return {IoResult::Kind::kBlocked, 0, true};
    return {IoResult::Kind::kOk, total, false};
  }
  IoResult handshake() override { return {IoResult::Kind::kOk, 0, false}; }
  void finish_writing() override { wire_->finished = true; }

 private:
  const std::shared_ptr<MemoryWire> wire_;
};

}  // namespace isoline::net
