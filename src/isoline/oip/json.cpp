#include "isoline/oip/json.h"

#include <charconv>
#include <cstring>

namespace isoline::oip {
namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

void append_utf8(std::string& out, uint32_t c) {
  if (c < 0x80) {
    out += char(c);
  } else if (c < 0x800) {
    out += char(0xC0 | c >> 6);
    out += char(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += char(0xE0 | c >> 12);
    out += char(0x80 | (c >> 6 & 0x3F));
    out += char(0x80 | (c & 0x3F));
  } else {
    out += char(0xF0 | c >> 18);
    out += char(0x80 | (c >> 12 & 0x3F));
    out += char(0x80 | (c >> 6 & 0x3F));
    out += char(0x80 | (c & 0x3F));
  }
}

bool hex4(std::string_view text, uint32_t& out) {
  if (text.size() < 4) return false;
  const auto r = std::from_chars(text.data(), text.data() + 4, out, 16);
  return r.ec == std::errc() && r.ptr == text.data() + 4;
}

}  // namespace

size_t utf8_sequence(std::string_view t) {
  if (t.empty()) return 0;
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(t[i]); };
  const auto more = [&](size_t i) { return i < t.size() && (byte(i) & 0xC0) == 0x80; };
  const unsigned a = byte(0);
  if (a < 0x80) return 1;
  if (a >= 0xC2 && a <= 0xDF) return more(1) ? 2 : 0;
  if (a >= 0xE0 && a <= 0xEF) {
    if (!more(1) || !more(2)) return 0;
    if (a == 0xE0 && byte(1) < 0xA0) return 0;  // overlong
    if (a == 0xED && byte(1) > 0x9F) return 0;  // surrogate
    return 3;
  }
  if (a >= 0xF0 && a <= 0xF4) {
    if (!more(1) || !more(2) || !more(3)) return 0;
    if (a == 0xF0 && byte(1) < 0x90) return 0;
    if (a == 0xF4 && byte(1) > 0x8F) return 0;
    return 4;
  }
  return 0;
}

bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const size_t n = utf8_sequence(text.substr(i));
    if (!n) return false;
    i += n;
  }
  return true;
}

Error JsonReader::fail(const std::string& what) const {
  return {ErrorCode::kInvalidArgument,
          "failed to parse the request JSON: " + what + " at byte " + std::to_string(at_), "", ""};
}

void JsonReader::space() {
  while (at_ < text_.size() &&
         (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t'))
    ++at_;
}

char JsonReader::peek() {
  space();
  return at_ < text_.size() ? text_[at_] : '\0';
}

Status JsonReader::literal(std::string_view word) {
  if (text_.substr(at_, word.size()) != word) return fail("unknown word");
  at_ += word.size();
  return {};
}

Status JsonReader::object(const std::function<Status(const std::string&)>& body) {
  if (peek() != '{') return fail("an object was expected");
  if (++depth_ > max_depth_) return fail("nested too deeply");
  ++at_;
  if (peek() == '}') {
    ++at_;
  } else {
    for (;;) {
      if (peek() != '"') return fail("a member's name was expected");
      ISOLINE_ASSIGN(const std::string key, string());
      if (peek() != ':') return fail("':' was expected");
      ++at_;
      ISOLINE_RETURN_IF_ERROR(body(key));
      const char c = peek();
      if (c != ',' && c != '}') return fail("',' or '}' was expected");
      ++at_;
      if (c == '}') break;
    }
  }
  --depth_;
  return {};
}

Status JsonReader::array(const std::function<Status()>& body) {
  if (peek() != '[') return fail("an array was expected");
  if (++depth_ > max_depth_) return fail("nested too deeply");
  ++at_;
  if (peek() == ']') {
    ++at_;
  } else {
    for (;;) {
      ISOLINE_RETURN_IF_ERROR(body());
      const char c = peek();
      if (c != ',' && c != ']') return fail("',' or ']' was expected");
      ++at_;
      if (c == ']') break;
    }
  }
  --depth_;
  return {};
}

// From a backslash on; the character goes to `out`, if there is one.
Status JsonReader::escape(std::string* out) {
  if (at_ + 1 >= text_.size()) return fail("the string does not end");
  const char e = text_[at_ + 1];
  at_ += 2;
  static constexpr std::string_view kNames = "\"\\/bfnrt", kValues = "\"\\/\b\f\n\r\t";
  if (const size_t i = kNames.find(e); i != std::string_view::npos) {
    if (out) *out += kValues[i];
    return {};
  }
  uint32_t code = 0;
  if (e != 'u' || !hex4(text_.substr(at_), code)) return fail("unknown escape");
  at_ += 4;
  if (code >= 0xDC00 && code <= 0xDFFF) return fail("half a surrogate pair");
  if (code >= 0xD800 && code <= 0xDBFF) {
    uint32_t low = 0;
    if (text_.substr(at_, 2) != "\\u" || !hex4(text_.substr(at_ + 2), low) || low < 0xDC00 || low > 0xDFFF)
      return fail("half a surrogate pair");
    at_ += 6;
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
  }
  if (out) append_utf8(*out, code);
  return {};
}

Result<std::string> JsonReader::string() {
  if (peek() != '"') return fail("a string was expected");
  ++at_;
  std::string out;
  for (;;) {
    const size_t run = at_;
    while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\\' &&
           static_cast<unsigned char>(text_[at_]) >= 0x20 && static_cast<unsigned char>(text_[at_]) < 0x80)
      ++at_;
    out.append(text_, run, at_ - run);
    if (at_ >= text_.size()) return fail("the string does not end");
    const char c = text_[at_];
    if (c == '"') {
      ++at_;
      return out;
    }
    if (c == '\\') {
      ISOLINE_RETURN_IF_ERROR(escape(&out));
      continue;
    }
    const size_t n = utf8_sequence(text_.substr(at_));
    if (static_cast<unsigned char>(c) < 0x20 || !n) return fail("a character that may not stand in a string");
    out.append(text_, at_, n);
    at_ += n;
  }
}

Status JsonReader::skip_string() {
  ++at_;  // "
  while (at_ < text_.size()) {
    const unsigned char c = static_cast<unsigned char>(text_[at_]);
    if (c == '"') {
      ++at_;
      return {};
    }
    if (c == '\\') {
      ISOLINE_RETURN_IF_ERROR(escape(nullptr));
    } else if (c < 0x20) {
      return fail("a character that may not stand in a string");
    } else if (c < 0x80) {
      ++at_;
    } else {
      const size_t n = utf8_sequence(text_.substr(at_));
      if (!n) return fail("a character that may not stand in a string");
      at_ += n;
    }
  }
  at_ = text_.size();
  return fail("the string does not end");
}

Result<bool> JsonReader::boolean() {
  const bool value = peek() == 't';
  ISOLINE_RETURN_IF_ERROR(literal(value ? "true" : "false"));
  return value;
}

Result<std::string_view> JsonReader::number() {
  space();
  const size_t begin = at_;
  const auto digits = [&] {
    const size_t from = at_;
    while (at_ < text_.size() && is_digit(text_[at_])) ++at_;
    return at_ > from;
  };
  if (at_ < text_.size() && text_[at_] == '-') ++at_;
  if (at_ < text_.size() && text_[at_] == '0')
    ++at_;
  else if (!digits())
    return fail("a number was expected");
  if (at_ < text_.size() && text_[at_] == '.') {
    ++at_;
    if (!digits()) return fail("a digit was expected");
  }
  if (at_ < text_.size() && (text_[at_] == 'e' || text_[at_] == 'E')) {
    ++at_;
    if (at_ < text_.size() && (text_[at_] == '+' || text_[at_] == '-')) ++at_;
    if (!digits()) return fail("a digit was expected");
  }
  if (at_ < text_.size() && is_digit(text_[at_])) return fail("a number may not start with 0");
  return text_.substr(begin, at_ - begin);
}

Result<int64_t> JsonReader::integer() {
  ISOLINE_ASSIGN(const std::string_view text, number());
  int64_t value = 0;
  const auto r = std::from_chars(text.data(), text.data() + text.size(), value);
  if (r.ec != std::errc() || r.ptr != text.data() + text.size())
    return fail("a whole number of 64 bits was expected");
  return value;
}

Result<uint64_t> JsonReader::unsigned_integer() {
  ISOLINE_ASSIGN(const std::string_view text, number());
  uint64_t value = 0;
  const auto r = std::from_chars(text.data(), text.data() + text.size(), value);
  if (r.ec != std::errc() || r.ptr != text.data() + text.size())
    return fail("a whole number of 0 or more was expected");
  return value;
}

Result<std::string_view> JsonReader::skip() {
  const char c = peek();
  const size_t begin = at_;
  if (c == '{') {
    ISOLINE_RETURN_IF_ERROR(object([&](const std::string&) -> Status {
      ISOLINE_ASSIGN(auto text, skip());
      static_cast<void>(text);
      return {};
    }));
  } else if (c == '[') {
    ISOLINE_RETURN_IF_ERROR(array([&]() -> Status {
      ISOLINE_ASSIGN(auto text, skip());
      static_cast<void>(text);
      return {};
    }));
  } else if (c == '"') {
    ISOLINE_RETURN_IF_ERROR(skip_string());
  } else if (c == 't' || c == 'f') {
    ISOLINE_RETURN_IF_ERROR(literal(c == 't' ? "true" : "false"));
  } else if (c == 'n') {
    ISOLINE_RETURN_IF_ERROR(literal("null"));
  } else {
    ISOLINE_ASSIGN(auto text, number());
    static_cast<void>(text);
  }
  return text_.substr(begin, at_ - begin);
}

Status JsonReader::end() {
  if (peek() != '\0' || at_ < text_.size()) return fail("something follows the document");
  return {};
}

void JsonWriter::comma() {
  if (!first_) out_ += ',';
  first_ = false;
}
JsonWriter& JsonWriter::open(char c) {
  comma();
  out_ += c;
  first_ = true;
  return *this;
}
JsonWriter& JsonWriter::close(char c) {
  out_ += c;
  first_ = false;
  return *this;
}
JsonWriter& JsonWriter::key(std::string_view name) {
  string(name);
  out_ += ':';
  first_ = true;
  return *this;
}

JsonWriter& JsonWriter::string(std::string_view value) {
  comma();
  out_ += '"';
  for (size_t i = 0; i < value.size();) {
    const unsigned char c = static_cast<unsigned char>(value[i]);
    if (c >= 0x80) {
      const size_t n = utf8_sequence(value.substr(i));
      if (n)
        out_.append(value, i, n);
      else
        out_ += "\xEF\xBF\xBD";
      i += n ? n : 1;
      continue;
    }
    ++i;
    if (c == '"' || c == '\\') {
      out_ += '\\';
      out_ += char(c);
    } else if (c == '\n') {
      out_ += "\\n";
    } else if (c < 0x20) {
      static constexpr char kHex[] = "0123456789abcdef";
      out_ += "\\u00";
      out_ += kHex[c >> 4];
      out_ += kHex[c & 15];
    } else {
      out_ += char(c);
    }
  }
  out_ += '"';
  return *this;
}

namespace {
template <class T>
void append_number(std::string& out, T value) {
  char text[40];
  const auto r = std::to_chars(text, text + sizeof text, value);
  out.append(text, size_t(r.ptr - text));
}
}  // namespace

JsonWriter& JsonWriter::integer(int64_t value) {
  comma();
  append_number(out_, value);
  return *this;
}
JsonWriter& JsonWriter::unsigned_integer(uint64_t value) {
  comma();
  append_number(out_, value);
  return *this;
}
JsonWriter& JsonWriter::number(double value) {
  comma();
  append_number(out_, value);
  return *this;
}
JsonWriter& JsonWriter::number(float value) {
  comma();
  append_number(out_, value);
  return *this;
}
JsonWriter& JsonWriter::boolean(bool value) {
  comma();
  out_ += value ? "true" : "false";
  return *this;
}

}  // namespace isoline::oip
