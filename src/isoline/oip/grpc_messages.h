// The protocol's gRPC messages (package "inference", service GRPCInferenceService), field numbers as
// published. Pure functions; a message's tensors are used in place.
#pragma once

#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/oip/elements.h"
#include "isoline/oip/rest.h"
#include "isoline/oip/wire.h"
#include "isoline/serve/inference.h"
#include "isoline/serve/repository.h"

namespace isoline::oip {

struct GrpcInfer {
  serve::InferRequest request;
  bool wants_final_flag = false;  // parameter triton_enable_empty_final_response
};
// ModelInferRequest. `owner` keeps `message` alive.
Result<GrpcInfer> parse_model_infer(std::span<const std::byte> message, std::shared_ptr<const void> owner);

// A message in pieces: text of its own, tensors in place.
struct GrpcAnswer {
  std::deque<std::string> text;
  std::vector<std::span<const std::byte>> parts;
  uint64_t byte_size = 0;
};
// ModelInferResponse; as a part of a ModelStreamInferResponse if `stream`.
GrpcAnswer write_model_infer(const serve::InferResponse& response, bool stream, bool final_flag);
// ModelStreamInferResponse that says what went wrong.
std::string write_stream_error(const std::string& message, const std::string& id);

struct ModelName {
  std::string name, version;
};
// ModelReadyRequest, ModelMetadataRequest, ModelConfigRequest, ModelStatisticsRequest.
Result<ModelName> parse_model_name(std::span<const std::byte> message);
Result<bool> parse_index_message(std::span<const std::byte> message);
struct LoadMessage {
  std::string name;
  std::optional<std::string> config;
};
// RepositoryModelLoadRequest and RepositoryModelUnloadRequest.
Result<LoadMessage> parse_load_message(std::span<const std::byte> message);

std::string write_bool_message(bool value);  // ServerLive, ServerReady, ModelReady
std::string write_server_metadata_message(const ServerInfo& server);
std::string write_model_metadata_message(const serve::ServedModel& model,
                                         const std::vector<std::string>& versions);
std::string write_model_config_message(const serve::ServedModel& model);
std::string write_statistics_message(const std::vector<std::shared_ptr<serve::ServedModel>>& models);
std::string write_index_message(const std::vector<serve::ModelState>& models);

}  // namespace isoline::oip
