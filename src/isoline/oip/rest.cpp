#include "isoline/oip/rest.h"

#include <algorithm>
#include <charconv>
#include <cstring>

namespace isoline::oip {
namespace {

using serve::NamedTensor;

constexpr const char* kExtensions[] = {"model_repository", "model_configuration", "binary_tensor_data",
                                       "statistics", "schedule_policy"};
constexpr size_t kMaxTensors = 1024;  // of one request

Error invalid(std::string message, std::string context = "") {
  return {ErrorCode::kInvalidArgument, std::move(message), std::move(context), ""};
}
Error unsupported(std::string message, std::string remedy) {
  return {ErrorCode::kUnsupported, std::move(message), "", std::move(remedy)};
}

// Refuses a name that has stood in this object before: which one counts would be a guess.
class Once {
 public:
  Status operator()(const JsonReader& in, const std::string& key) {
    if (std::find(seen_.begin(), seen_.end(), key) != seen_.end())
      return in.fail("'" + key + "' is given twice");
    if (seen_.size() > kMaxTensors) return in.fail("too many members");
    seen_.push_back(key);
    return {};
  }

 private:
  std::vector<std::string> seen_;
};

Status skip(JsonReader& in) {
  ISOLINE_ASSIGN(auto text, in.skip());
  static_cast<void>(text);
  return {};
}

Status refuse_shared_memory(const std::string& key) {
  if (!key.starts_with("shared_memory")) return {};
  return unsupported("shared memory is not served", "Send the tensor's data.");
}

// Parameters of the request itself.
Status read_parameters(JsonReader& in, RestInfer& out) {
  Once once;
  return in.object([&](const std::string& key) -> Status {
    ISOLINE_RETURN_IF_ERROR(once(in, key));
    if (key == "binary_data_output") {
      ISOLINE_ASSIGN(out.outputs.binary_by_default, in.boolean());
    } else if (key == "priority") {
      ISOLINE_ASSIGN(out.request.priority, in.unsigned_integer());
    } else if (key == "timeout") {
      ISOLINE_ASSIGN(out.request.timeout_us, in.unsigned_integer());
    } else if (key == "sequence_id") {
      ISOLINE_ASSIGN(const auto text, in.skip());
      if (text != "0" && text != "\"\"")
        return unsupported("sequences are not served", "Send requests without sequence_id.");
    } else {
      return skip(in);
    }
    return {};
  });
}

struct ParsedInput {
  NamedTensor tensor;
  bool has_type = false, has_shape = false;
  std::optional<uint64_t> binary_size;
  std::optional<std::string_view> data;
};

Status read_input(JsonReader& in, ParsedInput& out) {
  Once once;
  return in.object([&](const std::string& key) -> Status {
    ISOLINE_RETURN_IF_ERROR(once(in, key));
    if (key == "name") {
      ISOLINE_ASSIGN(out.tensor.name, in.string());
    } else if (key == "datatype") {
      ISOLINE_ASSIGN(const std::string type, in.string());
      ISOLINE_ASSIGN(out.tensor.type, parse_element_type(type));
      out.has_type = true;
    } else if (key == "shape") {
      out.has_shape = true;
      return in.array([&]() -> Status {
        if (out.tensor.shape.size() >= 64) return in.fail("more than 64 dimensions");
        ISOLINE_ASSIGN(const int64_t d, in.integer());
        out.tensor.shape.push_back(d);
        return {};
      });
    } else if (key == "data") {
      ISOLINE_ASSIGN(out.data, in.skip());
    } else if (key == "parameters") {
      Once once_here;
      return in.object([&](const std::string& name) -> Status {
        ISOLINE_RETURN_IF_ERROR(once_here(in, name));
        ISOLINE_RETURN_IF_ERROR(refuse_shared_memory(name));
        if (name != "binary_data_size") return skip(in);
        ISOLINE_ASSIGN(out.binary_size, in.unsigned_integer());
        return {};
      });
    } else {
      return skip(in);
    }
    return {};
  });
}

Status read_output(JsonReader& in, RestInfer& out) {
  std::string name;
  std::optional<bool> binary;
  Once once;
  ISOLINE_RETURN_IF_ERROR(in.object([&](const std::string& key) -> Status {
    ISOLINE_RETURN_IF_ERROR(once(in, key));
    if (key == "name") {
      ISOLINE_ASSIGN(name, in.string());
    } else if (key == "parameters") {
      Once once_here;
      return in.object([&](const std::string& parameter) -> Status {
        ISOLINE_RETURN_IF_ERROR(once_here(in, parameter));
        ISOLINE_RETURN_IF_ERROR(refuse_shared_memory(parameter));
        if (parameter == "binary_data") {
          ISOLINE_ASSIGN(binary, in.boolean());
        } else if (parameter == "classification") {
          ISOLINE_ASSIGN(const uint64_t classes, in.unsigned_integer());
          if (classes)
            return unsupported("classification of outputs is not served", "Ask for the output itself.");
        } else {
          return skip(in);
        }
        return {};
      });
    } else {
      return skip(in);
    }
    return {};
  }));
  if (name.empty()) return in.fail("an output has no name");
  if (out.request.outputs.size() >= kMaxTensors) return in.fail("too many outputs");
  if (binary) out.outputs.binary.emplace_back(name, *binary);
  out.request.outputs.push_back(std::move(name));
  return {};
}

// The body as the only input of a model, batch 1.
Result<RestInfer> parse_raw(std::span<const std::byte> body, std::shared_ptr<RequestMemory> memory,
                            const TensorModelInfo& info) {
  if (info.inputs.size() != 1)
    return invalid("raw binary requests are for models with one input, this one has " +
                   std::to_string(info.inputs.size()));
  const TensorSpec& spec = info.inputs.front();
  NamedTensor t{spec.name, spec.type, spec.shape, body};
  const size_t size = element_size(spec.type);
  uint64_t known = 1;
  int64_t* open = nullptr;
  for (int64_t& d : t.shape) {
    if (d >= 0) {
      if (__builtin_mul_overflow(known, uint64_t(d), &known)) return invalid("the model's shape overflows");
    } else if (open) {
      return invalid("raw binary requests need a model with at most one variable dimension");
    } else {
      open = &d;
    }
  }
  if (spec.type == ElementType::kBytes) {
    if (open) *open = 1;
    if (known != 1)
      return invalid("raw binary requests to a BYTES input are for models that take one element");
    if (body.size() > UINT32_MAX) return invalid("the element is too long");
    const uint32_t length = uint32_t(body.size());
    std::vector<std::byte> element(sizeof length + body.size());
    std::memcpy(element.data(), &length, sizeof length);
    if (!body.empty()) std::memcpy(element.data() + sizeof length, body.data(), body.size());
    t.data = memory->decoded.emplace_back(std::move(element));
  } else {
    if (open && known && known <= body.size()) *open = int64_t(body.size() / size / known);
    if (open && *open < 0) *open = 0;
    t.data = aligned(body, spec.type, *memory);
  }
  if (info.max_batch > 0) t.shape.insert(t.shape.begin(), 1);
  RestInfer out;
  out.request.inputs.push_back(std::move(t));
  out.request.memory = std::move(memory);
  out.outputs.binary_by_default = true;
  return out;
}

void write_shape(JsonWriter& w, const char* key, const std::vector<int64_t>& shape, bool batched) {
  w.key(key).begin_array();
  if (batched) w.integer(-1);
  for (int64_t d : shape) w.integer(d);
  w.end_array();
}

void write_duration(JsonWriter& w, const char* key, const serve::CountedDuration& d) {
  w.key(key).begin_object();
  w.key("count").unsigned_integer(d.count).key("ns").unsigned_integer(d.ns);
  w.end_object();
}

void write_policy(JsonWriter& w, const serve::QueuePolicy& p) {
  w.begin_object();
  w.key("timeout_action").string(p.delay_on_timeout ? "DELAY" : "REJECT");
  w.key("default_timeout_microseconds").unsigned_integer(p.default_timeout_us);
  w.key("allow_timeout_override").boolean(p.allow_timeout_override);
  w.key("max_queue_size").unsigned_integer(p.max_queue_size);
  w.end_object();
}

void write_version_policy(JsonWriter& w, const serve::VersionPolicy& policy) {
  w.key("version_policy").begin_object();
  switch (policy.kind) {
    case serve::VersionPolicy::Kind::kLatest:
      w.key("latest").begin_object().key("num_versions").unsigned_integer(policy.latest).end_object();
      break;
    case serve::VersionPolicy::Kind::kAll:
      w.key("all").begin_object().end_object();
      break;
    case serve::VersionPolicy::Kind::kSpecific:
      w.key("specific").begin_object().key("versions").begin_array();
      for (int64_t v : policy.specific) w.integer(v);
      w.end_array().end_object();
      break;
  }
  w.end_object();
}

void write_batching(JsonWriter& w, const serve::DynamicBatching& d) {
  w.key("dynamic_batching").begin_object();
  w.key("preferred_batch_size").begin_array();
  for (int64_t p : d.preferred_batch_size) w.integer(p);
  w.end_array();
  w.key("max_queue_delay_microseconds").unsigned_integer(d.max_queue_delay_us);
  w.key("preserve_ordering").boolean(d.preserve_ordering);
  w.key("priority_levels").unsigned_integer(d.priority_levels);
  w.key("default_priority_level").unsigned_integer(d.default_priority_level);
  if (d.default_queue_policy) {
    w.key("default_queue_policy");
    write_policy(w, *d.default_queue_policy);
  }
  w.key("priority_queue_policy").begin_object();
  for (const auto& [level, policy] : d.priority_queue_policy) {
    w.key(std::to_string(level));
    write_policy(w, policy);
  }
  w.end_object();
  w.end_object();
}

}  // namespace

std::span<const char* const> server_extensions() {
  return kExtensions;
}

bool RestOutputs::is_binary(const std::string& name) const {
  for (const auto& [n, b] : binary)
    if (n == name) return b;
  return binary_by_default;
}

Result<RestInfer> parse_infer(std::span<const std::byte> body, std::shared_ptr<const void> owner,
                              std::optional<uint64_t> header_length, const TensorModelInfo& info) {
  auto memory = std::make_shared<RequestMemory>();
  memory->body = std::move(owner);
  if (header_length == uint64_t{0}) return parse_raw(body, std::move(memory), info);
  if (header_length && *header_length > body.size())
    return invalid("Inference-Header-Content-Length is " + std::to_string(*header_length) +
                   ", the body has " + std::to_string(body.size()) + " bytes");
  const size_t json_size = header_length ? size_t(*header_length) : body.size();
  const std::string_view json(reinterpret_cast<const char*>(body.data()), json_size);

  RestInfer out;
  std::vector<ParsedInput> inputs;
  bool has_inputs = false;
  JsonReader in(json);
  Once once;
  ISOLINE_RETURN_IF_ERROR(in.object([&](const std::string& key) -> Status {
    ISOLINE_RETURN_IF_ERROR(once(in, key));
    if (key == "id") {
      if (in.peek() != '"') {  // some clients send a number
        ISOLINE_ASSIGN(const auto text, in.number());
        out.request.id = std::string(text);
      } else {
        ISOLINE_ASSIGN(out.request.id, in.string());
      }
    } else if (key == "parameters") {
      return read_parameters(in, out);
    } else if (key == "inputs") {
      has_inputs = true;
      return in.array([&]() -> Status {
        if (inputs.size() >= kMaxTensors) return in.fail("too many inputs");
        return read_input(in, inputs.emplace_back());
      });
    } else if (key == "outputs") {
      return in.array([&]() -> Status { return read_output(in, out); });
    } else {
      return skip(in);
    }
    return {};
  }));
  ISOLINE_RETURN_IF_ERROR(in.end());
  if (!has_inputs) return invalid("the request JSON has no 'inputs'");

  size_t at = json_size;
  for (ParsedInput& p : inputs) {
    NamedTensor& t = p.tensor;
    if (t.name.empty()) return invalid("an input has no name");
    const std::string where = "input '" + t.name + "'";
    if (!p.has_type) return invalid("'datatype' is missing", where);
    if (!p.has_shape) return invalid("'shape' is missing", where);
    if (p.binary_size) {
      if (p.data) return invalid("has both 'data' and 'binary_data_size'", where);
      if (!header_length)
        return invalid("binary data needs the header Inference-Header-Content-Length", where);
      if (*p.binary_size > body.size() - at)
        return invalid("binary_data_size is " + std::to_string(*p.binary_size) + ", " +
                           std::to_string(body.size() - at) + " bytes are left in the body",
                       where);
      t.data = aligned(body.subspan(at, size_t(*p.binary_size)), t.type, *memory);
      at += size_t(*p.binary_size);
    } else if (p.data) {
      auto elements = serve::tensor_elements(t.shape);
      if (!elements.ok()) return elements.error().in(where);
      auto data = elements_from_json(*p.data, t.type, *elements);
      if (!data.ok()) return data.error().in(where);
      t.data = memory->decoded.emplace_back(std::move(*data));
    } else {
      return invalid("has neither 'data' nor 'binary_data_size'", where);
    }
    out.request.inputs.push_back(std::move(t));
  }
  if (at != body.size())
    return invalid(std::to_string(body.size() - at) + " bytes of the body belong to no input");
  out.request.memory = std::move(memory);
  return out;
}

Result<RestAnswer> write_infer(const serve::InferResponse& response, const RestOutputs& outputs) {
  RestAnswer answer;
  JsonWriter w;
  w.reserve(512);
  w.begin_object();
  if (!response.id.empty()) w.key("id").string(response.id);
  w.key("model_name").string(response.model).key("model_version").string(response.version);
  w.key("outputs").begin_array();
  for (const serve::NamedTensor& t : response.outputs) {
    w.begin_object();
    w.key("name").string(t.name).key("datatype").string(to_string(t.type));
    write_shape(w, "shape", t.shape, false);
    if (outputs.is_binary(t.name)) {
      w.key("parameters").begin_object().key("binary_data_size").unsigned_integer(t.data.size()).end_object();
      answer.binary.push_back(t.data);
    } else {
      w.key("data");
      if (Status s = write_elements(w, t.type, t.data); !s.ok())
        return s.error().in("output '" + t.name + "'");
    }
    w.end_object();
  }
  w.end_array().end_object();
  answer.json = w.take();
  return answer;
}

std::string write_error(const std::string& message) {
  JsonWriter w;
  w.begin_object().key("error").string(message).end_object();
  return w.take();
}

std::string write_server_metadata(const ServerInfo& server) {
  JsonWriter w;
  w.begin_object()
      .key("name")
      .string(server.name)
      .key("version")
      .string(server.version)
      .key("extensions")
      .begin_array();
  for (const char* e : kExtensions) w.string(e);
  w.end_array().end_object();
  return w.take();
}

std::string write_model_metadata(const serve::ServedModel& model, const std::vector<std::string>& versions) {
  JsonWriter w;
  w.begin_object().key("name").string(model.name()).key("versions").begin_array();
  for (const std::string& v : versions) w.string(v);
  w.end_array().key("platform").string(model.info().platform);
  const auto tensors = [&](const char* key, const std::vector<TensorSpec>& specs) {
    w.key(key).begin_array();
    for (const TensorSpec& t : specs) {
      w.begin_object().key("name").string(t.name).key("datatype").string(to_string(t.type));
      write_shape(w, "shape", t.shape, model.info().max_batch > 0);
      w.end_object();
    }
    w.end_array();
  };
  tensors("inputs", model.info().inputs);
  tensors("outputs", model.info().outputs);
  w.end_object();
  return w.take();
}

std::string write_model_config(const serve::ServedModel& model) {
  const serve::ModelConfig& c = model.config();
  JsonWriter w;
  w.begin_object();
  w.key("name").string(c.name).key("platform").string(c.platform).key("backend").string(c.backend);
  write_version_policy(w, c.version_policy);
  w.key("max_batch_size").integer(c.max_batch_size);
  for (const bool input : {true, false}) {
    w.key(input ? "input" : "output").begin_array();
    for (const TensorSpec& t : input ? c.input : c.output) {
      w.begin_object().key("name").string(t.name).key("data_type").string(serve::config_type_name(t.type));
      write_shape(w, "dims", t.shape, false);
      w.key(input ? "format" : "label_filename").string(input ? "FORMAT_NONE" : "");
      w.key("is_shape_tensor").boolean(false);
      if (input) w.key("allow_ragged_batch").boolean(false).key("optional").boolean(false);
      w.end_object();
    }
    w.end_array();
  }
  if (c.dynamic_batching) write_batching(w, *c.dynamic_batching);
  w.key("instance_group").begin_array();
  for (const serve::InstanceGroup& g : c.instance_group) {
    w.begin_object().key("name").string(g.name).key("kind").string(g.kind).key("count").integer(g.count);
    w.key("gpus").begin_array();
    for (int gpu : g.gpus) w.integer(gpu);
    w.end_array().end_object();
  }
  w.end_array();
  w.key("default_model_filename").string(c.default_model_filename);
  w.key("parameters").begin_object();
  for (const auto& [key, value] : c.parameters)
    w.key(key).begin_object().key("string_value").string(value).end_object();
  w.end_object();
  w.end_object();
  return w.take();
}

std::string write_statistics(const std::vector<std::shared_ptr<serve::ServedModel>>& models) {
  JsonWriter w;
  w.begin_object().key("model_stats").begin_array();
  for (const auto& model : models) {
    const serve::StatisticsSnapshot s = model->statistics();
    w.begin_object().key("name").string(model->name()).key("version").string(model->version());
    w.key("last_inference").unsigned_integer(s.last_inference_ms);
    w.key("inference_count")
        .unsigned_integer(s.inference_count)
        .key("execution_count")
        .unsigned_integer(s.execution_count);
    w.key("inference_stats").begin_object();
    write_duration(w, "success", s.success);
    write_duration(w, "fail", s.fail);
    write_duration(w, "queue", s.queue);
    write_duration(w, "compute_input", s.compute_input);
    write_duration(w, "compute_infer", s.compute_infer);
    write_duration(w, "compute_output", s.compute_output);
    write_duration(w, "cache_hit", {});
    write_duration(w, "cache_miss", {});
    w.end_object().key("batch_stats").begin_array();
    for (const auto& [size, b] : s.batches) {
      w.begin_object().key("batch_size").integer(size);
      write_duration(w, "compute_input", b.compute_input);
      write_duration(w, "compute_infer", b.compute_infer);
      write_duration(w, "compute_output", b.compute_output);
      w.end_object();
    }
    w.end_array().end_object();
  }
  w.end_array().end_object();
  return w.take();
}

std::string write_index(const std::vector<serve::ModelState>& models) {
  JsonWriter w;
  w.begin_array();
  for (const serve::ModelState& m : models) {
    w.begin_object().key("name").string(m.name);
    if (!m.version.empty()) w.key("version").string(m.version);
    if (!m.state.empty()) w.key("state").string(m.state);
    if (!m.reason.empty()) w.key("reason").string(m.reason);
    w.end_object();
  }
  w.end_array();
  return w.take();
}

Result<bool> parse_index_request(std::string_view body) {
  bool ready = false;
  JsonReader in(body);
  if (in.peek() == '\0' && in.end().ok()) return ready;
  ISOLINE_RETURN_IF_ERROR(in.object([&](const std::string& key) -> Status {
    if (key != "ready") return skip(in);
    ISOLINE_ASSIGN(ready, in.boolean());
    return {};
  }));
  ISOLINE_RETURN_IF_ERROR(in.end());
  return ready;
}

Result<std::optional<std::string>> parse_load_request(std::string_view body) {
  std::optional<std::string> config;
  JsonReader in(body);
  if (in.peek() == '\0' && in.end().ok()) return config;
  ISOLINE_RETURN_IF_ERROR(in.object([&](const std::string& key) -> Status {
    if (key != "parameters") return skip(in);
    return in.object([&](const std::string& name) -> Status {
      if (name.starts_with("file:"))
        return unsupported("files in a load request are not taken",
                           "Put the model into the server's folder.");
      if (name != "config") return skip(in);
      ISOLINE_ASSIGN(config, in.string());
      return {};
    });
  }));
  ISOLINE_RETURN_IF_ERROR(in.end());
  return config;
}

}  // namespace isoline::oip
