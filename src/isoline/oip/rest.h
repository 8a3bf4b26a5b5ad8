// The protocol's REST bodies: JSON with or without binary tensors behind it. Pure functions.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/oip/elements.h"
#include "isoline/serve/inference.h"
#include "isoline/serve/repository.h"

namespace isoline::oip {

// How the answer's tensors are to be written.
struct RestOutputs {
  bool binary_by_default = false;
  std::vector<std::pair<std::string, bool>> binary;  // outputs that say so themselves

  bool is_binary(const std::string& name) const;
};

struct RestInfer {
  serve::InferRequest request;  // without model and version: they stand in the path
  RestOutputs outputs;
};

// `header_length`: the value of Inference-Header-Content-Length; none: the whole body is JSON. 0: the body is
// the model's only input at batch 1, without any JSON. Bytes of `body` are used in place; `owner` keeps them
// alive.
Result<RestInfer> parse_infer(std::span<const std::byte> body, std::shared_ptr<const void> owner,
                              std::optional<uint64_t> header_length, const TensorModelInfo& info);

// JSON and, behind it, the tensors written as binary, in place in the response.
struct RestAnswer {
  std::string json;
  std::vector<std::span<const std::byte>> binary;  // empty: the body is JSON alone
};
Result<RestAnswer> write_infer(const serve::InferResponse& response, const RestOutputs& outputs);

struct ServerInfo {
  std::string name, version;
};
std::string write_error(const std::string& message);
std::string write_server_metadata(const ServerInfo& server);
std::string write_model_metadata(const serve::ServedModel& model, const std::vector<std::string>& versions);
std::string write_model_config(const serve::ServedModel& model);
std::string write_statistics(const std::vector<std::shared_ptr<serve::ServedModel>>& models);
std::string write_index(const std::vector<serve::ModelState>& models);

// Body of repository/index: {"ready": true}; may be empty.
Result<bool> parse_index_request(std::string_view body);
// Body of a model's load: {"parameters": {"config": "..."}}; may be empty. Files in parameters are refused.
Result<std::optional<std::string>> parse_load_request(std::string_view body);

// What the server offers beside the protocol's core, as ServerMetadata lists it.
std::span<const char* const> server_extensions();

}  // namespace isoline::oip
