// The text form of a model configuration (config.pbtxt) becomes a JSON tree.
#pragma once

#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "isoline/base/result.h"

namespace isoline::serve {

// Protocol buffers' text format without a schema: fields, messages in {} or <>, lists in [], numbers,
// strings, identifiers (as strings), true/false, # comments. A field that repeats becomes an array. An error
// names the line. Depth and size are bounded (32; 1 MiB).
Result<nlohmann::json> parse_config_text(std::string_view text);

}  // namespace isoline::serve
