#include "isoline/metrics/presets.h"

namespace isoline {

const std::vector<EvaluationPreset>& evaluation_presets() {
  static const std::vector<EvaluationPreset> presets{
      {"kits23",
       "KiTS23 challenge: hierarchical evaluation classes and tolerances of neheller/kits23, "
       "kits23/configuration/labels.py",
       {{"kidney_and_mass", {1, 2, 3}}, {"mass", {2, 3}}, {"tumor", {2}}},
       {1.0330772532390826, 1.1328796488598762, 1.1498198361434828}}};
  return presets;
}

Result<EvaluationPreset> find_evaluation_preset(const std::string& name) {
  std::string known;
  for (const EvaluationPreset& p : evaluation_presets()) {
    if (p.name == name) return p;
    known += (known.empty() ? "" : ", ") + p.name;
  }
  return Error{ErrorCode::kNotFound, "there is no such preset", name, "Known: " + known + "."};
}

}  // namespace isoline
