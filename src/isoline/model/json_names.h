// Enumerations in JSON: a list of names, and the error that lists them.
#pragma once

#include <cstddef>
#include <string>

#include "isoline/model/json_value.h"
#include "isoline/model/printable.h"

namespace isoline {

template <class Enum>
struct Name {
  const char* name;
  Enum value;
};

// The value of the name that stands in `field`; kUnsupported, with all names, for any other.
template <class Enum, size_t N>
Result<Enum> parse_name(const JsonField& field, const Name<Enum> (&names)[N]) {
  ISOLINE_ASSIGN(const std::string text, field.as_string());
  std::string all;
  for (const auto& n : names) {
    if (text == n.name) return n.value;
    all += (all.empty() ? "" : ", ") + std::string(n.name);
  }
  return field.unsupported("is '" + printable(text) + "'; supported: " + all);
}

}  // namespace isoline
