// Numbers and foreign text as they stand in a report.
#pragma once

#include <string>
#include <string_view>

namespace isoline::report {

// Plain notation with `digits` significant digits, more for large whole parts: 0.012345 -> "0.0123",
// 41.26 -> "41.3", 1234.5 -> "1235". Minus is U+2212, negative zero is "0"; below 1e-4 "1.2×10^-5" in
// superscripts. Not finite: "n/a" (callers give a reason before it comes to that).
std::string significant(double value, int digits = 3);
// A fixed number of decimals; with `sign`, positive values carry "+".
std::string fixed(double value, int decimals, bool sign = false);
// "2.31×"
std::string times(double ratio);
// Bytes as "512 MiB" or "3.29 GiB".
std::string bytes(double byte_count);
// "37 %"
std::string percent(double fraction, int digits = 2);
// `text` as valid UTF-8 in one line: control characters become spaces; invalid bytes and characters that
// reorder text (bidirectional controls) become U+FFFD; cut after `max_characters` with an ellipsis.
std::string clean(std::string_view text, size_t max_characters = 2000);
// Characters (code points) of valid UTF-8.
size_t characters(std::string_view text);

}  // namespace isoline::report
