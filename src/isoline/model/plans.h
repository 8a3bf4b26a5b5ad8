// plans.json + dataset.json + what the checkpoint says -> ModelSpec.
#pragma once

#include <string>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/model/json_value.h"
#include "isoline/model/model_spec.h"

namespace isoline {

// `plans` and `dataset` are the roots of the two files; their where() stands in messages. `configuration`
// names an entry of plans["configurations"]; `inherits_from` is resolved (a cycle is kCorrupt). Left for the
// caller: folder, trainer, checkpoint, folds, mirror axes. Remarks that are no errors go to `warnings`.
// Whatever Isoline does not do (readers, preprocessors, normalisers, resamplers and their arguments, layers)
// is kUnsupported with its name. Sources: nnunetv2 utilities/plans_handling/plans_handler.py,
// preprocessing/preprocessors/default_preprocessor.py, utilities/label_handling/label_handling.py.
Result<ModelSpec> parse_plans(const JsonField& plans, const JsonField& dataset,
                              const std::string& configuration, std::vector<std::string>& warnings);

// What plans.json and isoline.json have in common.
// A reader by the reference's class name, e.g. "SimpleITKIO".
Result<ReaderKind> parse_reader(const JsonField& field);
// Checks what does not depend on the file format: axis permutations, spacing, patch, mirror axes, channel
// count. `where` names the file.
Status check_spec(const ModelSpec& spec, const std::string& where);

}  // namespace isoline
