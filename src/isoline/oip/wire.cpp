#include "isoline/oip/wire.h"

namespace isoline::oip {
namespace {

Error malformed(const char* what) {
  return {ErrorCode::kInvalidArgument, std::string("the message is no valid protocol buffer: ") + what, "",
          ""};
}

}  // namespace

Result<bool> WireReader::next_varint(uint64_t& value) {
  if (bytes_.empty()) return false;
  value = 0;
  for (size_t i = 0; i < 10; ++i) {
    if (i >= bytes_.size()) return malformed("it ends inside a number");
    const uint64_t b = uint64_t(bytes_[i]);
    if (i == 9 && b > 1) return malformed("a number is longer than 64 bits");
    value |= (b & 0x7F) << (7 * i);
    if (b < 0x80) {
      bytes_ = bytes_.subspan(i + 1);
      return true;
    }
  }
  return malformed("a number is longer than 64 bits");
}

Result<bool> WireReader::next(WireField& field) {
  uint64_t key = 0;
  ISOLINE_ASSIGN(const bool more, next_varint(key));
  if (!more) return false;
  if (key >> 32 || !(key >> 3)) return malformed("a field's number is out of range");
  field.id = uint32_t(key >> 3);
  field.number = 0;
  field.bytes = {};
  const uint64_t type = key & 7;
  if (type == 0) {
    field.type = WireField::Type::kVarint;
    ISOLINE_ASSIGN(const bool has, next_varint(field.number));
    if (!has) return malformed("it ends inside a field");
  } else if (type == 1 || type == 5) {
    field.type = WireField::Type(type);
    const size_t n = type == 1 ? 8 : 4;
    if (bytes_.size() < n) return malformed("it ends inside a field");
    std::memcpy(&field.number, bytes_.data(), n);
    field.bytes = bytes_.subspan(0, n);
    bytes_ = bytes_.subspan(n);
  } else if (type == 2) {
    field.type = WireField::Type::kBytes;
    uint64_t n = 0;
    ISOLINE_ASSIGN(const bool has, next_varint(n));
    if (!has || n > bytes_.size()) return malformed("a field is longer than the message");
    field.bytes = bytes_.subspan(0, size_t(n));
    bytes_ = bytes_.subspan(size_t(n));
  } else {
    return malformed("unknown kind of field");
  }
  return true;
}

size_t varint_size(uint64_t value) {
  size_t n = 1;
  while (value >= 0x80) {
    value >>= 7;
    ++n;
  }
  return n;
}

void WireWriter::varint(uint64_t value) {
  while (value >= 0x80) {
    out_ += char(value | 0x80);
    value >>= 7;
  }
  out_ += char(value);
}

void WireWriter::number(uint32_t id, uint64_t value, bool always) {
  if (!value && !always) return;
  tag(id, WireField::Type::kVarint);
  varint(value);
}

void WireWriter::text(uint32_t id, std::string_view value, bool always) {
  if (value.empty() && !always) return;
  tag(id, WireField::Type::kBytes);
  varint(value.size());
  out_.append(value);
}

void WireWriter::real(uint32_t id, double value, bool always) {
  if (value == 0 && !always) return;
  tag(id, WireField::Type::kFixed64);
  char raw[sizeof value];
  std::memcpy(raw, &value, sizeof value);
  out_.append(raw, sizeof raw);
}

}  // namespace isoline::oip
