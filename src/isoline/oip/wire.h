// Protocol buffers' wire format: a reader over bytes in place and a writer that appends.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "isoline/base/result.h"

namespace isoline::oip {

// One field of a message. Varints and fixed numbers in `number`, the rest in `bytes`.
struct WireField {
  uint32_t id = 0;
  enum class Type { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 } type = Type::kVarint;
  uint64_t number = 0;
  std::span<const std::byte> bytes;

  std::string_view text() const { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
};

class WireReader {
 public:
  explicit WireReader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  // False at the end. An error (kInvalidArgument) where the bytes are no message. Groups are refused.
  Result<bool> next(WireField& field);
  // A varint from a packed list; false at the end.
  Result<bool> next_varint(uint64_t& value);

 private:
  std::span<const std::byte> bytes_;
};

// Proto3 rules: zero and empty values are left out, except where `always` is asked for.
class WireWriter {
 public:
  std::string take() { return std::move(out_); }
  const std::string& str() const { return out_; }

  void varint(uint64_t value);
  void tag(uint32_t id, WireField::Type type) { varint(uint64_t{id} << 3 | uint64_t(type)); }
  void number(uint32_t id, uint64_t value, bool always = false);
  void text(uint32_t id, std::string_view value, bool always = false);
  void real(uint32_t id, double value, bool always = false);
  void message(uint32_t id, const WireWriter& inner) { text(id, inner.out_, true); }
  // A packed list of int64.
  template <class Range>
  void numbers(uint32_t id, const Range& values) {
    WireWriter packed;
    for (auto v : values) packed.varint(uint64_t(int64_t(v)));
    text(id, packed.out_);
  }

 private:
  std::string out_;
};

size_t varint_size(uint64_t value);

}  // namespace isoline::oip
