// JSON as a stream: a strict pull reader with bounded depth that builds no tree, and a writer that appends.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "isoline/base/result.h"

namespace isoline::oip {

// Reads one document from the front. Errors are kInvalidArgument and name the byte. RFC 8259, nothing beyond
// it: no comments, no NaN, no control characters, valid UTF-8 only. The text must outlive the reader.
class JsonReader {
 public:
  explicit JsonReader(std::string_view text, int max_depth = 100) : text_(text), max_depth_(max_depth) {}

  // The first character of the next value ('{', '[', '"', 't', 'f', 'n', '-' or a digit); '\0' at the end.
  char peek();
  // Calls body(key) for each member; body must read the value.
  Status object(const std::function<Status(const std::string& key)>& body);
  // Calls body() for each element; body must read it.
  Status array(const std::function<Status()>& body);
  Result<std::string> string();
  Result<bool> boolean();
  // The text of a number, checked against the grammar.
  Result<std::string_view> number();
  Result<int64_t> integer();
  Result<uint64_t> unsigned_integer();
  // Passes over a value and returns its text, checked like all the rest.
  Result<std::string_view> skip();
  // Nothing but space may follow.
  Status end();

  Error fail(const std::string& what) const;

 private:
  void space();
  Status literal(std::string_view word);
  Status skip_string();
  Status escape(std::string* out);

  std::string_view text_;
  size_t at_ = 0;
  int depth_ = 0;
  const int max_depth_;
};

// Appends JSON to a string; commas come by themselves.
class JsonWriter {
 public:
  std::string take() { return std::move(out_); }
  void reserve(size_t n) { out_.reserve(n); }
  size_t size() const { return out_.size(); }

  JsonWriter& begin_object() { return open('{'); }
  JsonWriter& end_object() { return close('}'); }
  JsonWriter& begin_array() { return open('['); }
  JsonWriter& end_array() { return close(']'); }
  JsonWriter& key(std::string_view name);
  // What is not UTF-8 becomes U+FFFD.
  JsonWriter& string(std::string_view value);
  JsonWriter& integer(int64_t value);
  JsonWriter& unsigned_integer(uint64_t value);
  JsonWriter& boolean(bool value);
  // Finite values only; the shortest text that reads back as the same value.
  JsonWriter& number(double value);
  JsonWriter& number(float value);

 private:
  JsonWriter& open(char c);
  JsonWriter& close(char c);
  void comma();
  std::string out_;
  bool first_ = true;
};

// Bytes of the valid UTF-8 sequence at the front of `text`; 0 if there is none.
size_t utf8_sequence(std::string_view text);
bool is_utf8(std::string_view text);

}  // namespace isoline::oip
