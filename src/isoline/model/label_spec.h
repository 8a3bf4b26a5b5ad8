// dataset.json "labels" and "regions_class_order" -> LabelSpec.
#pragma once

#include "isoline/base/result.h"
#include "isoline/model/json_value.h"
#include "isoline/model/model_spec.h"

namespace isoline {

// `root` holds the object "labels" and, for region models, the list "regions_class_order".
// Source: nnunetv2 utilities/label_handling/label_handling.py (LabelManager).
Result<LabelSpec> parse_labels(const JsonField& root);

}  // namespace isoline
