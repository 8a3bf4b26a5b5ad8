// Makes text from a file fit to stand in a message.
#pragma once

#include <string>
#include <string_view>

namespace isoline {

// `text` cut to 120 bytes ("..." appended), with bytes outside printable ASCII replaced by '?'.
inline std::string printable(std::string_view text) {
  constexpr size_t kMax = 120;
  std::string out;
  for (char c : text.substr(0, kMax)) out += c >= 0x20 && c < 0x7f ? c : '?';
  if (text.size() > kMax) out += "...";
  return out;
}

}  // namespace isoline
