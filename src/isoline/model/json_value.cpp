#include "isoline/model/json_value.h"

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "isoline/base/file.h"
#include "isoline/model/printable.h"

namespace isoline {
namespace {

constexpr uint64_t kMaxBytes = uint64_t(64) << 20;
constexpr size_t kMaxDepth = 64, kMaxValues = 1'000'000, kMaxList = 10'000;

const char* kind_name(JsonKind kind) {
  switch (kind) {
    case JsonKind::kNull:
      return "null";
    case JsonKind::kBool:
      return "a boolean";
    case JsonKind::kInt:
      return "an integer";
    case JsonKind::kFloat:
      return "a number";
    case JsonKind::kString:
      return "a string";
    case JsonKind::kArray:
      return "a list";
    case JsonKind::kObject:
      return "an object";
  }
  return "?";
}

// Builds the tree from nlohmann's events; returning false stops the parser.
class TreeBuilder : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit TreeBuilder(JsonValue& root) : root_(root) {}
  Error error{ErrorCode::kCorrupt, "not JSON", "", ""};

  bool null() override { return scalar(JsonKind::kNull) != nullptr; }
  bool boolean(bool v) override {
    JsonValue* to = scalar(JsonKind::kBool);
    if (to) to->boolean = v;
    return to;
  }
  bool number_integer(number_integer_t v) override {
    JsonValue* to = scalar(JsonKind::kInt);
    if (to) to->integer = v, to->number = double(v);
    return to;
  }
  bool number_unsigned(number_unsigned_t v) override {
    if (v <= uint64_t(INT64_MAX)) return number_integer(number_integer_t(v));
    return number_float(double(v), {});
  }
  bool number_float(number_float_t v, const string_t&) override {
    JsonValue* to = scalar(JsonKind::kFloat);
    if (to) to->number = v;
    return to;
  }
  bool string(string_t& v) override {
    JsonValue* to = scalar(JsonKind::kString);
    if (to) to->text = std::move(v);
    return to;
  }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(JsonKind::kObject); }
  bool start_array(std::size_t) override { return open(JsonKind::kArray); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& v) override {
    Level& level = stack_.back();
    const auto [it, fresh] = level.index.emplace(v, level.node->items.size());
    level.next = it->second;
    if (fresh) {
      level.node->keys.push_back(std::move(v));
      level.node->items.emplace_back();
    } else {
      level.node->items[level.next] = JsonValue();
    }
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    error = Error{ErrorCode::kCorrupt, "not JSON (byte " + std::to_string(position) + ")", "", ""};
    return false;
  }

 private:
  struct Level {
    JsonValue* node;
    size_t next = 0;                      // objects: where the value of the last key goes
    std::map<std::string, size_t> index;  // objects; a hash could be made to collide
  };

  JsonValue* scalar(JsonKind kind) {
    if (++values_ > kMaxValues) {
      error =
          Error{ErrorCode::kResourceExhausted, "more than " + std::to_string(kMaxValues) + " values", "", ""};
      return nullptr;
    }
    JsonValue* to = &root_;
    if (!stack_.empty()) {
      Level& level = stack_.back();
      if (level.node->kind == JsonKind::kArray) {
        level.node->items.emplace_back();
        to = &level.node->items.back();
      } else {
        to = &level.node->items[level.next];
      }
    }
    to->kind = kind;
    return to;
  }
  bool open(JsonKind kind) {
    if (stack_.size() >= kMaxDepth) {
      error = Error{ErrorCode::kResourceExhausted,
                    "nested more than " + std::to_string(kMaxDepth) + " levels deep", "", ""};
      return false;
    }
    JsonValue* to = scalar(kind);
    if (to) stack_.push_back({to, 0, {}});
    return to;
  }
  bool close() {
    stack_.pop_back();
    return true;
  }

  JsonValue& root_;
  std::vector<Level> stack_;  // pointers stay valid: a container grows only while its members are closed
  size_t values_ = 0;
};

}  // namespace

Result<JsonValue> parse_json(std::span<const std::byte> text) {
  if (text.size() > kMaxBytes)
    return Error{
        ErrorCode::kResourceExhausted,
        "has " + std::to_string(text.size()) + " bytes; at most " + std::to_string(kMaxBytes) + " are read",
        "", ""};
  JsonValue root;
  TreeBuilder builder(root);
  const auto* begin = reinterpret_cast<const char*>(text.data());
  if (!nlohmann::json::sax_parse(begin, begin + text.size(), &builder)) return builder.error;
  return root;
}

Result<JsonValue> read_json(const std::string& path) {
  ISOLINE_ASSIGN(const auto bytes, read_whole_file(path, kMaxBytes));
  auto value = parse_json(bytes.span());
  if (!value) return value.error().in(path);
  return value;
}

const JsonValue* JsonField::find_value(std::string_view key) const {
  for (size_t i = 0; i < value_->keys.size(); ++i)
    if (value_->keys[i] == key) return &value_->items[i];
  return nullptr;
}

JsonField JsonField::child(const JsonValue& value, std::string_view key) const {
  const bool root = where_.find(": ") == std::string::npos;
  return JsonField(value, where_ + (root ? ": " : ".") + printable(key));
}

Result<JsonField> JsonField::at(std::string_view key) const {
  ISOLINE_RETURN_IF_ERROR(require_object());
  if (const JsonValue* v = find_value(key)) return child(*v, key);
  return corrupt("lacks '" + std::string(key) + "'");
}

JsonField JsonField::item(size_t i) const {
  if (value_->kind == JsonKind::kObject) return child(value_->items[i], value_->keys[i]);
  return JsonField(value_->items[i], where_ + "[" + std::to_string(i) + "]");
}

Error JsonField::error(ErrorCode code, std::string message, std::string remedy) const {
  return Error{code, std::move(message), where_, std::move(remedy)};
}

Status JsonField::require_object() const {
  if (!is(JsonKind::kObject))
    return corrupt(std::string("is ") + kind_name(value_->kind) + ", not an object");
  return {};
}

Result<std::string> JsonField::as_string() const {
  if (!is(JsonKind::kString)) return corrupt(std::string("is ") + kind_name(value_->kind) + ", not a string");
  return value_->text;
}

Result<bool> JsonField::as_bool() const {
  if (!is(JsonKind::kBool))
    return corrupt(std::string("is ") + kind_name(value_->kind) + ", not true or false");
  return value_->boolean;
}

Result<int> JsonField::as_int(int lowest, int highest) const {
  if (!is(JsonKind::kInt)) return corrupt(std::string("is ") + kind_name(value_->kind) + ", not an integer");
  if (value_->integer < lowest || value_->integer > highest)
    return corrupt("is " + std::to_string(value_->integer) + ", not between " + std::to_string(lowest) +
                   " and " + std::to_string(highest));
  return int(value_->integer);
}

Result<double> JsonField::as_number() const {
  if (!is(JsonKind::kInt) && !is(JsonKind::kFloat))
    return corrupt(std::string("is ") + kind_name(value_->kind) + ", not a number");
  if (!std::isfinite(value_->number)) return corrupt("is not finite");
  return value_->number;
}

Result<std::vector<JsonField>> JsonField::as_array() const {
  if (!is(JsonKind::kArray)) return corrupt(std::string("is ") + kind_name(value_->kind) + ", not a list");
  if (size() > kMaxList) return corrupt("has more than " + std::to_string(kMaxList) + " entries");
  std::vector<JsonField> out;
  out.reserve(size());
  for (size_t i = 0; i < size(); ++i) out.push_back(item(i));
  return out;
}

Result<std::vector<int>> JsonField::as_ints(int lowest, int highest) const {
  ISOLINE_ASSIGN(const auto fields, as_array());
  std::vector<int> out;
  out.reserve(fields.size());
  for (const JsonField& f : fields) {
    ISOLINE_ASSIGN(const int v, f.as_int(lowest, highest));
    out.push_back(v);
  }
  return out;
}

Result<std::vector<double>> JsonField::as_numbers() const {
  ISOLINE_ASSIGN(const auto fields, as_array());
  std::vector<double> out;
  out.reserve(fields.size());
  for (const JsonField& f : fields) {
    ISOLINE_ASSIGN(const double v, f.as_number());
    out.push_back(v);
  }
  return out;
}

Status JsonField::refuse_unknown_keys(std::initializer_list<std::string_view> known) const {
  ISOLINE_RETURN_IF_ERROR(require_object());
  for (const std::string& key : keys()) {
    bool found = false;
    for (const std::string_view k : known) found |= key == k;
    if (!found) return unsupported("has the unknown key '" + printable(key) + "'");
  }
  return {};
}

}  // namespace isoline
