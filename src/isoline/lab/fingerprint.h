// SHA-256 of texts, files and models, in hexadecimal.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/model/model_spec.h"

namespace isoline::lab {

std::string sha256_of_bytes(std::span<const std::byte> bytes);
std::string sha256_of_text(const std::string& text);
// Streams the file: memory does not depend on its size.
Result<std::string> sha256_of_file(const std::string& path);
// Over everything in the model's folder that decides its answer: plans.json, dataset.json and the checkpoint
// of each of `folds` (results folder), or isoline.json and the ONNX file (bundle). Independent of where the
// folder lies.
Result<std::string> sha256_of_model(const ModelSpec& spec, const std::vector<std::string>& folds);

}  // namespace isoline::lab
