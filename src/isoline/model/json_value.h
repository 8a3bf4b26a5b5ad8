// A JSON document as a tree that keeps the order of keys, and a cursor whose errors name the field.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "isoline/base/result.h"

namespace isoline {

enum class JsonKind : uint8_t { kNull, kBool, kInt, kFloat, kString, kArray, kObject };

struct JsonValue {
  JsonKind kind = JsonKind::kNull;
  bool boolean = false;
  int64_t integer = 0;
  double number = 0;  // also set for kInt
  std::string text;
  std::vector<JsonValue> items;   // kArray, kObject
  std::vector<std::string> keys;  // kObject; unique, a repeated key keeps its place and takes the last value
};

// At most 64 MB, 64 levels and 1,000,000 values; beyond that kResourceExhausted. kCorrupt if it is not JSON.
Result<JsonValue> parse_json(std::span<const std::byte> text);
// Errors name the file.
Result<JsonValue> read_json(const std::string& path);

// A value and where it stands. Refers to the tree it was made from; cheap to copy.
class JsonField {
 public:
  // `where` names the root in messages, e.g. a file name.
  JsonField(const JsonValue& value, std::string where) : value_(&value), where_(std::move(where)) {}

  const JsonValue& value() const { return *value_; }
  bool is_null() const { return value_->kind == JsonKind::kNull; }
  bool is(JsonKind kind) const { return value_->kind == kind; }
  const std::string& where() const { return where_; }  // "plans.json: configurations.2d.patch_size[1]"

  // Objects.
  bool has(std::string_view key) const { return find_value(key) != nullptr; }
  Result<JsonField> at(std::string_view key) const;  // an error if this is no object or lacks the key
  const std::vector<std::string>& keys() const { return value_->keys; }
  // Arrays and objects: the i-th member.
  size_t size() const { return value_->items.size(); }
  JsonField item(size_t i) const;

  Result<std::string> as_string() const;
  Result<bool> as_bool() const;
  Result<int> as_int(int lowest, int highest) const;  // refuses 3.0
  Result<double> as_number() const;                   // finite
  Result<std::vector<int>> as_ints(int lowest, int highest) const;
  Result<std::vector<double>> as_numbers() const;
  Result<std::vector<JsonField>> as_array() const;  // at most 10,000 entries, as for the two above
  Status require_object() const;
  // kUnsupported naming the first key that is not in `known`.
  Status refuse_unknown_keys(std::initializer_list<std::string_view> known) const;

  // An Error about this field.
  Error error(ErrorCode code, std::string message, std::string remedy = "") const;
  Error unsupported(std::string message, std::string remedy = "") const {
    return error(ErrorCode::kUnsupported, std::move(message), std::move(remedy));
  }
  Error corrupt(std::string message) const { return error(ErrorCode::kCorrupt, std::move(message)); }

 private:
  const JsonValue* find_value(std::string_view key) const;
  JsonField child(const JsonValue& value, std::string_view key) const;
  const JsonValue* value_;
  std::string where_;
};

}  // namespace isoline
