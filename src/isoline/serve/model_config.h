// ModelConfig: how one model is served, the part of Triton's configuration that Isoline honours.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "isoline/base/result.h"
#include "isoline/engine/tensor_model.h"

namespace isoline::serve {

// What happens to requests that wait. Zero means no limit of its own (the server's limits stay).
struct QueuePolicy {
  bool delay_on_timeout = false;  // else rejected
  uint64_t default_timeout_us = 0;
  bool allow_timeout_override = false;
  uint32_t max_queue_size = 0;  // requests
};

struct DynamicBatching {
  std::vector<int64_t> preferred_batch_size;
  uint64_t max_queue_delay_us = 0;
  bool preserve_ordering = false;
  uint64_t priority_levels = 0;  // 0: no priorities; level 1 is served first
  uint64_t default_priority_level = 0;
  std::optional<QueuePolicy> default_queue_policy;
  std::map<uint64_t, QueuePolicy> priority_queue_policy;
};

struct InstanceGroup {
  std::string name;
  std::string kind = "KIND_CPU";
  int count = 1;
  std::vector<int> gpus;
};

struct VersionPolicy {
  enum class Kind { kLatest, kAll, kSpecific } kind = Kind::kLatest;
  uint32_t latest = 1;
  std::vector<int64_t> specific;
};

// One sample run before the model is ready.
struct Warmup {
  std::string name;
  uint32_t batch_size = 1, count = 1;
  struct Input {
    ElementType type = ElementType::kFloat32;
    std::vector<int64_t> shape;
    bool random = false;
  };
  std::map<std::string, Input> inputs;
};

struct ModelConfig {
  std::string name, platform, backend, default_model_filename;
  VersionPolicy version_policy;
  int64_t max_batch_size = 0;       // 0: tensors have no batch axis
  bool has_max_batch_size = false;  // written in the file, not completed from the model
  std::vector<TensorSpec> input, output;
  std::optional<DynamicBatching> dynamic_batching;
  std::vector<InstanceGroup> instance_group;
  std::map<std::string, std::string> parameters;
  std::vector<Warmup> warmup;

  int instances() const;
  // Inconsistent values; called by the parsers and again once completed from the model.
  Status validate() const;
};

// From a JSON object as the protocol writes it. Strict: a field that is not served is an error naming it.
Result<ModelConfig> model_config_from_json(const nlohmann::json& json);
// From the text of a config.pbtxt or of a JSON object (a request's override). Bounded depth.
Result<ModelConfig> parse_model_config(const std::string& text);

// TYPE_FP32, ..., TYPE_STRING: the configuration's names of element types.
std::string config_type_name(ElementType type);
Result<ElementType> parse_config_type(const std::string& text);

}  // namespace isoline::serve
