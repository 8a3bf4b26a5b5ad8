#include "isoline/report/format.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>

namespace isoline::report {
namespace {

constexpr const char* kMinus = "\u2212";
constexpr const char* kReplacement = "\uFFFD";

std::string print(double value, int decimals) {
  char buffer[512];
  std::snprintf(buffer, sizeof buffer, "%.*f", std::clamp(decimals, 0, 17), std::abs(value));
  std::string out = buffer;
  const bool zero = out.find_first_not_of("0.") == std::string::npos;
  return value < 0 && !zero ? kMinus + out : out;
}

// One code point at text[at]; 0 length: these bytes are not UTF-8.
struct Decoded {
  uint32_t code = 0;
  size_t length = 0;
};
Decoded decode(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return uint32_t(static_cast<unsigned char>(text[i])); };
  const uint32_t b = byte(at);
  if (b < 0x80) return {b, 1};
  const size_t length = b >= 0xF0 && b < 0xF5 ? 4 : b >= 0xE0 ? 3 : 2;
  if (b < 0xC2 || b >= 0xF5 || at + length > text.size()) return {};
  uint32_t code = b & (0x7Fu >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((byte(at + i) & 0xC0) != 0x80) return {};
    code = code << 6 | (byte(at + i) & 0x3F);
  }
  constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  if (code < kSmallest[length] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return {};
  return {code, length};
}

bool reorders(uint32_t c) {
  return c == 0x061C || c == 0x200E || c == 0x200F || (c >= 0x202A && c <= 0x202E) ||
         (c >= 0x2066 && c <= 0x2069);
}
bool breaks_line(uint32_t c) {
  return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x2028 || c == 0x2029;
}

}  // namespace

std::string significant(double value, int digits) {
  if (!std::isfinite(value)) return "n/a";
  if (value == 0) return "0";
  // The exponent after rounding: 9.996 has four significant digits as 9.996 but three as 10.0.
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.*e", digits - 1, std::abs(value));
  const int exponent = std::atoi(std::string(buffer).substr(std::string(buffer).find('e') + 1).c_str());
  if (exponent < -4) {
    std::string mantissa = buffer, power;
    mantissa.resize(mantissa.find('e'));
    constexpr const char* kSuperscripts[] = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
    for (char c : std::to_string(-exponent)) power += kSuperscripts[c - '0'];
    return (value < 0 ? kMinus : "") + mantissa + "×10⁻" + power;
  }
  return print(value, std::max(0, digits - 1 - exponent));
}

std::string fixed(double value, int decimals, bool sign) {
  if (!std::isfinite(value)) return "n/a";
  const std::string text = print(value, decimals);
  const bool zero = text.find_first_not_of("0.") == std::string::npos;
  return sign && value > 0 && !zero ? "+" + text : text;
}

std::string times(double ratio) {
  return significant(ratio, 3) + "×";
}

std::string bytes(double byte_count) {
  constexpr double kMiB = 1 << 20, kGiB = 1 << 30;
  return byte_count >= kGiB ? significant(byte_count / kGiB, 3) + " GiB"
                            : significant(byte_count / kMiB, 3) + " MiB";
}

std::string percent(double fraction, int digits) {
  return significant(100 * fraction, digits) + " %";
}

std::string clean(std::string_view text, size_t max_characters) {
  std::string out;
  size_t count = 0;
  for (size_t at = 0; at < text.size(); ++count) {
    if (count == max_characters) return out + "…";
    const Decoded d = decode(text, at);
    if (d.length == 0 || reorders(d.code))
      out += kReplacement;
    else if (breaks_line(d.code))
      out += ' ';
    else
      out += text.substr(at, d.length);
    at += std::max<size_t>(d.length, 1);
  }
  return out;
}

size_t characters(std::string_view text) {
  return size_t(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

}  // namespace isoline::report
