// The one place where text becomes HTML or SVG.
#pragma once

#include <string>
#include <string_view>

namespace isoline::report {

// Text for element content and double-quoted attributes: cleaned (format.h) and with & < > " ' replaced.
std::string escape(std::string_view text);

}  // namespace isoline::report
