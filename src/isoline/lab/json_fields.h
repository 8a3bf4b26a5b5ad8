// Structs to JSON and back from one list of their fields. For this room and those above it, in .cpp files.
//
// For a struct S, its own namespace (or isoline::lab) holds
//   template <class V> void fields(V& v, S& s) { v("name", s.name), ...; }
#pragma once

#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/measure/reading.h"
#include "isoline/stats/noninferiority.h"

namespace isoline::lab {

using Json = nlohmann::ordered_json;

// Text of a file -> JSON, discarded (is_discarded()) if it is none or nests deeper than any file of ours:
// copying and flattening recurse, so a hostile file could otherwise use up the stack.
template <class AnyJson = Json>
AnyJson parse_json_text(std::string_view text) {
  constexpr int kMaxDepth = 64;
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size() && depth <= kMaxDepth; ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      ++depth;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  if (depth > kMaxDepth) return AnyJson(nlohmann::detail::value_t::discarded);
  return AnyJson::parse(text, nullptr, false);
}

template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};
template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {};
template <class T>
struct IsMap : std::false_type {};
template <class T>
struct IsMap<std::map<std::string, T>> : std::true_type {};

struct JsonWriter {
  Json json = Json::object();

  template <class T>
  void operator()(const char* name, T& value) {
    json[name] = write(value);
  }
  template <class T>
  static Json write(T& value) {
    if constexpr (std::is_same_v<T, double>) {
      return std::isfinite(value) ? Json(value) : Json(nullptr);
    } else if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>) {
      return value;
    } else if constexpr (std::is_same_v<T, Verdict>) {
      return to_string(value);
    } else if constexpr (std::is_same_v<T, Reading>) {
      if (value.ok()) return Json{{"value", *value}};
      return Json{{"value", nullptr}, {"reason", value.reason.empty() ? "not available" : value.reason}};
    } else if constexpr (std::is_same_v<T, std::pair<std::string, std::string>>) {
      return Json::array({value.first, value.second});
    } else if constexpr (IsOptional<T>::value) {
      return value ? write(*value) : Json(nullptr);
    } else if constexpr (IsVector<T>::value) {
      Json list = Json::array();
      for (auto& v : value) list.push_back(write(v));
      return list;
    } else if constexpr (IsMap<T>::value) {
      Json object = Json::object();
      for (auto& [key, v] : value) object[key] = write(v);
      return object;
    } else {
      JsonWriter inner;
      fields(inner, value);
      return std::move(inner.json);
    }
  }
};

// Absent fields keep their defaults: published tables leave most of them out.
struct JsonReader {
  const Json& json;
  std::string path;
  Status& status;  // the first problem; nothing is read after it

  template <class T>
  void operator()(const char* name, T& value) {
    if (!status.ok()) return;
    const auto at = json.find(name);
    if (at != json.end()) read(*at, path.empty() ? name : path + "." + name, value);
  }
  void wrong(const std::string& where, const char* expected) {
    if (status.ok()) status = Error{ErrorCode::kCorrupt, "field '" + where + "' is not " + expected, "", ""};
  }
  template <class T>
  void read(const Json& j, const std::string& where, T& value) {
    if (!status.ok()) return;
    if constexpr (std::is_same_v<T, bool>) {
      if (!j.is_boolean()) return wrong(where, "true or false");
      value = j.get<bool>();
    } else if constexpr (std::is_same_v<T, double>) {
      if (!j.is_number() || !std::isfinite(j.get<double>())) return wrong(where, "a finite number");
      value = j.get<double>();
    } else if constexpr (std::is_integral_v<T>) {
      const bool fits = j.is_number_unsigned()
                            ? j.get<uint64_t>() <= uint64_t(std::numeric_limits<T>::max())
                            : j.is_number_integer() && std::is_signed_v<T> &&
                                  j.get<int64_t>() >= int64_t(std::numeric_limits<T>::min());
      if (!fits) return wrong(where, "a whole number in range");
      value = j.get<T>();
    } else if constexpr (std::is_same_v<T, std::string>) {
      if (!j.is_string()) return wrong(where, "text");
      value = j.get<std::string>();
    } else if constexpr (std::is_same_v<T, Verdict>) {
      for (Verdict v : {Verdict::kPreserved, Verdict::kNotPreserved, Verdict::kInconclusive})
        if (j == to_string(v)) {
          value = v;
          return;
        }
      wrong(where, "a verdict");
    } else if constexpr (std::is_same_v<T, Reading>) {
      if (!j.is_object()) return wrong(where, "an object with value or reason");
      const Json number = j.value("value", Json(nullptr)), reason = j.value("reason", Json(""));
      if (number.is_number() && std::isfinite(number.get<double>()))
        value = Reading::of(number.get<double>());
      else if (number.is_null() && reason.is_string() && !reason.get<std::string>().empty())
        value = Reading::unavailable(reason.get<std::string>());
      else
        wrong(where, "a number or null with a reason");
    } else if constexpr (std::is_same_v<T, std::pair<std::string, std::string>>) {
      if (!j.is_array() || j.size() != 2 || !j[0].is_string() || !j[1].is_string())
        return wrong(where, "a pair of texts");
      value = {j[0].get<std::string>(), j[1].get<std::string>()};
    } else if constexpr (IsOptional<T>::value) {
      if (j.is_null()) return;
      read(j, where, value.emplace());
    } else if constexpr (IsVector<T>::value) {
      if (!j.is_array()) return wrong(where, "a list");
      value.clear();
      for (size_t i = 0; i < j.size(); ++i)
        read(j[i], where + "[" + std::to_string(i) + "]", value.emplace_back());
    } else if constexpr (IsMap<T>::value) {
      if (!j.is_object()) return wrong(where, "an object");
      value.clear();
      for (const auto& [key, v] : j.items()) read(v, where + "." + key, value[key]);
    } else {
      if (!j.is_object()) return wrong(where, "an object");
      JsonReader inner{j, where, status};
      fields(inner, value);
    }
  }
};

}  // namespace isoline::lab
