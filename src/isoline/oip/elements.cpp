#include "isoline/oip/elements.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>

namespace isoline::oip {
namespace {

template <class T>
void append(std::vector<std::byte>& out, T value) {
  const size_t at = out.size();
  out.resize(at + sizeof value);
  std::memcpy(out.data() + at, &value, sizeof value);
}

template <class T>
Status append_number(JsonReader& in, std::vector<std::byte>& out) {
  ISOLINE_ASSIGN(const std::string_view text, in.number());
  T value{};
  const auto r = std::from_chars(text.data(), text.data() + text.size(), value);
  if (r.ptr != text.data() + text.size()) return in.fail("a number of the tensor's datatype was expected");
  if (r.ec != std::errc()) return in.fail("a number is outside the range of the tensor's datatype");
  append(out, value);
  return {};
}

Status append_element(JsonReader& in, ElementType type, std::vector<std::byte>& out) {
  switch (type) {
    case ElementType::kBool: {
      const char c = in.peek();
      if (c == 't' || c == 'f') {
        ISOLINE_ASSIGN(const bool value, in.boolean());
        append(out, uint8_t(value));
        return {};
      }
      ISOLINE_ASSIGN(const int64_t value, in.integer());
      append(out, uint8_t(value != 0));
      return {};
    }
    case ElementType::kUInt8:
      return append_number<uint8_t>(in, out);
    case ElementType::kUInt16:
      return append_number<uint16_t>(in, out);
    case ElementType::kUInt32:
      return append_number<uint32_t>(in, out);
    case ElementType::kUInt64:
      return append_number<uint64_t>(in, out);
    case ElementType::kInt8:
      return append_number<int8_t>(in, out);
    case ElementType::kInt16:
      return append_number<int16_t>(in, out);
    case ElementType::kInt32:
      return append_number<int32_t>(in, out);
    case ElementType::kInt64:
      return append_number<int64_t>(in, out);
    case ElementType::kFloat32:
      return append_number<float>(in, out);
    case ElementType::kFloat64:
      return append_number<double>(in, out);
    case ElementType::kBytes: {
      ISOLINE_ASSIGN(const std::string text, in.string());
      append(out, uint32_t(text.size()));
      const size_t at = out.size();
      out.resize(at + text.size());
      if (!text.empty()) std::memcpy(out.data() + at, text.data(), text.size());
      return {};
    }
    case ElementType::kFloat16:
    case ElementType::kBFloat16:
      break;
  }
  return Error{ErrorCode::kInvalidArgument, std::string(to_string(type)) + " has no JSON form", "",
               "Send it as binary data."};
}

template <class T>
T read(std::span<const std::byte> data, size_t at) {
  T value;
  std::memcpy(&value, data.data() + at, sizeof value);
  return value;
}

template <class T, class F>
void each(std::span<const std::byte> data, F write) {
  for (size_t at = 0; at + sizeof(T) <= data.size(); at += sizeof(T)) write(read<T>(data, at));
}

template <class T>
Status write_reals(JsonWriter& out, std::span<const std::byte> data) {
  for (size_t at = 0; at + sizeof(T) <= data.size(); at += sizeof(T)) {
    const T value = read<T>(data, at);
    if (!std::isfinite(value))
      return Error{ErrorCode::kUnsupported, "the output holds NaN or infinity, which JSON cannot say", "",
                   "Ask for binary data."};
    out.number(value);
  }
  return {};
}

Status write_strings(JsonWriter& out, std::span<const std::byte> data) {
  for (size_t at = 0; at < data.size();) {
    if (data.size() - at < sizeof(uint32_t))
      return Error{ErrorCode::kInternal, "the output ends inside an element", "", ""};
    const size_t length = read<uint32_t>(data, at);
    at += sizeof(uint32_t);
    if (data.size() - at < length)
      return Error{ErrorCode::kInternal, "the output ends inside an element", "", ""};
    const std::string_view text(reinterpret_cast<const char*>(data.data() + at), length);
    if (!is_utf8(text))
      return Error{ErrorCode::kUnsupported,
                   "the output holds bytes that are not UTF-8, which JSON cannot say", "",
                   "Ask for binary data."};
    out.string(text);
    at += length;
  }
  return {};
}

}  // namespace

Result<std::vector<std::byte>> elements_from_json(std::string_view json, ElementType type,
                                                  uint64_t elements) {
  std::vector<std::byte> out;
  // An element takes two characters at least, so the text bounds what is reserved.
  const size_t size = std::max<size_t>(element_size(type), sizeof(uint32_t));
  out.reserve(size_t(std::min<uint64_t>(elements, json.size() / 2 + 1)) * size);
  JsonReader in(json);
  uint64_t count = 0;
  const std::function<Status()> element = [&]() -> Status {
    if (in.peek() == '[') return in.array(element);
    if (++count > elements) return in.fail("more elements than the shape has");
    return append_element(in, type, out);
  };
  ISOLINE_RETURN_IF_ERROR(in.array(element));
  if (count != elements)
    return Error{ErrorCode::kInvalidArgument,
                 "data has " + std::to_string(count) + " elements, the shape has " + std::to_string(elements),
                 "", ""};
  return out;
}

Status write_elements(JsonWriter& out, ElementType type, std::span<const std::byte> data) {
  out.begin_array();
  Status status;
  const auto whole = [&](auto v) { out.integer(int64_t(v)); };
  switch (type) {
    case ElementType::kBool:
      each<uint8_t>(data, [&](uint8_t v) { out.boolean(v != 0); });
      break;
    case ElementType::kUInt8:
      each<uint8_t>(data, whole);
      break;
    case ElementType::kUInt16:
      each<uint16_t>(data, whole);
      break;
    case ElementType::kUInt32:
      each<uint32_t>(data, whole);
      break;
    case ElementType::kUInt64:
      each<uint64_t>(data, [&](uint64_t v) { out.unsigned_integer(v); });
      break;
    case ElementType::kInt8:
      each<int8_t>(data, whole);
      break;
    case ElementType::kInt16:
      each<int16_t>(data, whole);
      break;
    case ElementType::kInt32:
      each<int32_t>(data, whole);
      break;
    case ElementType::kInt64:
      each<int64_t>(data, whole);
      break;
    case ElementType::kFloat32:
      status = write_reals<float>(out, data);
      break;
    case ElementType::kFloat64:
      status = write_reals<double>(out, data);
      break;
    case ElementType::kBytes:
      status = write_strings(out, data);
      break;
    case ElementType::kFloat16:
    case ElementType::kBFloat16:
      status = Error{ErrorCode::kUnsupported, std::string(to_string(type)) + " has no JSON form", "",
                     "Ask for binary data."};
  }
  out.end_array();
  return status;
}

std::span<const std::byte> aligned(std::span<const std::byte> data, ElementType type, RequestMemory& memory) {
  const size_t size = element_size(type);
  if (size < 2 || data.empty() || reinterpret_cast<uintptr_t>(data.data()) % size == 0) return data;
  return memory.decoded.emplace_back(data.begin(), data.end());
}

}  // namespace isoline::oip
