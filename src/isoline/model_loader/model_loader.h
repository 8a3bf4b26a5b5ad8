// Folders of ONNX files and image networks become models to be served: the ModelFactory of `isoline serve`.
//
//   VERSION_FOLDER/model.onnx            (or default_model_filename) a plain network: platform
//   "onnxruntime_onnx"
//                                        or "openvino_onnx", or backend "onnxruntime" or "openvino"
//   VERSION_FOLDER/isoline_image.json    an image network and its ONNX file: platform "isoline_image"
//
// "onnxruntime" stands for whichever backend runs ONNX files; what really runs stands in the model's
// metadata. From the configuration: max_batch_size (left out: 32; where the file's first axis is free),
// instance_group (count), and the parameters `precision` (fp32, bf16) and `threads` (of all instances
// together; left out: one per core). Where nothing is configured, requests are batched as they come.
#pragma once

#include "isoline/engine/backend.h"
#include "isoline/image/decode.h"
#include "isoline/serve/repository.h"

namespace isoline {

inline constexpr int64_t kDefaultMaxBatch = 32;

// `registry` must outlive the factory. `limits`: of each picture that is sent to an image network.
serve::ModelFactory make_model_factory(const BackendRegistry& registry, DecodeLimits limits);

}  // namespace isoline
