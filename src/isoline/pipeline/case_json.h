// What a case took and gave, as JSON: stages in seconds, windows, labels counted.
#pragma once

#include <nlohmann/json.hpp>

#include "isoline/pipeline/segment_case.h"

namespace isoline {

nlohmann::ordered_json to_json(const CaseResult& result);

}  // namespace isoline
