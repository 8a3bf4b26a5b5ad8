// isoline.json: a ModelSpec beside an ONNX file. The schema is docs/guides/isoline-json.md.
#pragma once

#include <string>

#include "isoline/base/result.h"
#include "isoline/model/json_value.h"
#include "isoline/model/model_spec.h"

namespace isoline {

// Reads the file; spec.onnx_file becomes a path beside it. Unknown keys are kUnsupported with their name.
Result<ModelSpec> read_isoline_json(const std::string& path);
// The same from a tree; `folder` is put before the ONNX file's name.
Result<ModelSpec> parse_isoline_json(const JsonField& root, const std::string& folder);

// The text read_isoline_json gives `spec` back from, except for what only results folders have (plans,
// trainer, checkpoint, folds, architecture). `onnx_file` is the name of the ONNX file, without folders.
std::string to_isoline_json(const ModelSpec& spec, const std::string& onnx_file);

}  // namespace isoline
