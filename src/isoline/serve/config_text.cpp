#include "isoline/serve/config_text.h"

#include <charconv>

#include <nlohmann/json.hpp>

namespace isoline::serve {
namespace {

using Json = nlohmann::json;
constexpr int kMaxDepth = 32;
constexpr size_t kMaxBytes = size_t{1} << 20;

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Result<Json> message(char close, int depth) {
    if (depth > kMaxDepth) return fail("nested too deeply");
    Json out = Json::object();
    std::map<std::string, bool> repeated;
    for (;;) {
      skip_space();
      if (at_end()) {
        if (close) return fail(std::string("'") + close + "' is missing");
        return out;
      }
      if (close && peek() == close) {
        ++at_;
        return out;
      }
      const std::string name = identifier();
      if (name.empty()) return fail("a field name was expected");
      skip_space();
      const bool colon = !at_end() && peek() == ':';
      if (colon) ++at_;
      skip_space();
      const bool is_list = !at_end() && peek() == '[';
      ISOLINE_ASSIGN(Json value, is_list ? list(depth + 1) : this->value(depth + 1, colon));
      if (!out.contains(name)) {
        repeated[name] = is_list;
        out[name] = std::move(value);
      } else {
        // The second occurrence makes it a list; later ones append.
        Json& old = out[name];
        if (!repeated[name]) old = Json::array({std::move(old)});
        repeated[name] = true;
        if (is_list)
          for (Json& v : value) old.push_back(std::move(v));
        else
          old.push_back(std::move(value));
      }
      skip_space();
      if (!at_end() && (peek() == ',' || peek() == ';')) ++at_;
    }
  }

 private:
  bool at_end() const { return at_ >= text_.size(); }
  char peek() const { return text_[at_]; }
  Error fail(const std::string& what) const {
    const auto line =
        1 + std::count(text_.begin(), text_.begin() + std::ptrdiff_t(std::min(at_, text_.size())), '\n');
    return {ErrorCode::kInvalidArgument, what, "line " + std::to_string(line), ""};
  }
  void skip_space() {
    while (!at_end()) {
      if (peek() == '#')
        while (!at_end() && peek() != '\n') ++at_;
      else if (peek() == ' ' || peek() == '\t' || peek() == '\n' || peek() == '\r')
        ++at_;
      else
        return;
    }
  }
  static bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  }
  std::string identifier() {
    const size_t begin = at_;
    while (!at_end() && is_word(peek())) ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }
  Result<Json> list(int depth) {
    if (depth > kMaxDepth) return fail("nested too deeply");
    ++at_;  // [
    Json out = Json::array();
    skip_space();
    if (!at_end() && peek() == ']') {
      ++at_;
      return out;
    }
    for (;;) {
      skip_space();
      ISOLINE_ASSIGN(Json v, value(depth + 1, true));
      out.push_back(std::move(v));
      skip_space();
      if (at_end()) return fail("']' is missing");
      const char c = text_[at_++];
      if (c == ']') return out;
      if (c != ',') return fail("',' or ']' was expected");
    }
  }
  Result<Json> value(int depth, bool scalar_allowed) {
    if (at_end()) return fail("a value is missing");
    const char c = peek();
    if (c == '{' || c == '<') {
      ++at_;
      return message(c == '{' ? '}' : '>', depth);
    }
    if (!scalar_allowed) return fail("':' or '{' was expected");
    if (c == '"' || c == '\'') return string();
    const bool negative = c == '-';
    if (negative) ++at_;
    const size_t begin = at_;
    while (!at_end() && (is_word(peek()) || peek() == '.' || peek() == '+' || peek() == '-')) ++at_;
    const std::string_view word = text_.substr(begin, at_ - begin);
    if (word.empty()) return fail("a value was expected");
    if ((word[0] < '0' || word[0] > '9') && word[0] != '.') {
      if (negative) return fail("'-' before a word");
      if (word == "true" || word == "false") return Json(word == "true");
      return Json(std::string(word));
    }
    const std::string_view number =
        text_.substr(begin - (negative ? 1 : 0), at_ - begin + (negative ? 1 : 0));
    int64_t integer = 0;
    auto r = std::from_chars(number.data(), number.data() + number.size(), integer);
    if (r.ec == std::errc() && r.ptr == number.data() + number.size()) return Json(integer);
    double real = 0;
    r = std::from_chars(number.data(), number.data() + number.size(), real);
    if (r.ec == std::errc() && r.ptr == number.data() + number.size()) return Json(real);
    return fail("'" + std::string(number) + "' is no number, or too large");
  }
  Result<Json> string() {
    std::string out;
    while (!at_end() && (peek() == '"' || peek() == '\'')) {  // adjacent strings join
      const char quote = text_[at_++];
      for (;;) {
        if (at_end() || peek() == '\n') return fail("the string does not end");
        const char c = text_[at_++];
        if (c == quote) break;
        if (c != '\\') {
          out += c;
          continue;
        }
        if (at_end()) return fail("the string does not end");
        const char e = text_[at_++];
        switch (e) {
          case 'n':
            out += '\n';
            break;
          case 't':
            out += '\t';
            break;
          case 'r':
            out += '\r';
            break;
          case '\\':
          case '"':
          case '\'':
            out += e;
            break;
          default:
            return fail(std::string("'\\") + e + "' is no escape this reader knows");
        }
      }
      skip_space();
    }
    return Json(out);
  }

  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

Result<Json> parse_config_text(std::string_view text) {
  if (text.size() > kMaxBytes)
    return Error{ErrorCode::kResourceExhausted, "a model configuration has at most 1 MiB", "", ""};
  return Parser(text).message('\0', 0);
}

}  // namespace isoline::serve
