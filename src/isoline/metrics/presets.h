// Published sets of regions and tolerances.
#pragma once

#include <string>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/metrics/overlap.h"

namespace isoline {

struct EvaluationPreset {
  std::string name, source;
  std::vector<LabelSet> regions;
  std::vector<double> tolerances_mm;  // of surface Dice, one per region
};

const std::vector<EvaluationPreset>& evaluation_presets();
// kNotFound names the presets there are.
Result<EvaluationPreset> find_evaluation_preset(const std::string& name);

}  // namespace isoline
