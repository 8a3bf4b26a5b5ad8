#include "isoline/oip/grpc_messages.h"

#include <cstring>

namespace isoline::oip {
namespace {

using Type = WireField::Type;
constexpr size_t kMaxTensors = 1024;
constexpr size_t kMaxText = 4096;  // names, ids, parameters

Error invalid(std::string message, std::string context = "") {
  return {ErrorCode::kInvalidArgument, std::move(message), std::move(context), ""};
}

// Calls body(field) for each field of a message.
template <class F>
Status each_field(std::span<const std::byte> message, F body) {
  WireReader in(message);
  WireField field;
  for (;;) {
    ISOLINE_ASSIGN(const bool more, in.next(field));
    if (!more) return {};
    ISOLINE_RETURN_IF_ERROR(body(field));
  }
}

Status read_text(const WireField& f, std::string& out) {
  if (f.type != Type::kBytes) return invalid("a text field has another type");
  if (f.bytes.size() > kMaxText)
    return invalid("a text field has more than " + std::to_string(kMaxText) + " bytes");
  out = std::string(f.text());
  return {};
}

struct Parameter {
  std::string key;
  std::optional<bool> boolean;
  std::optional<int64_t> integer;
  std::optional<std::string> text;
};

// A map entry <string, InferParameter>.
Status read_parameter(std::span<const std::byte> entry, Parameter& out) {
  return each_field(entry, [&](const WireField& f) -> Status {
    if (f.id == 1) return read_text(f, out.key);
    if (f.id != 2 || f.type != Type::kBytes) return {};
    return each_field(f.bytes, [&](const WireField& v) -> Status {
      if (v.id == 1) out.boolean = v.number != 0;
      if (v.id == 2 || v.id == 5) out.integer = int64_t(v.number);
      if (v.id == 3) return read_text(v, out.text.emplace());
      return {};
    });
  });
}

Status refuse_shared_memory(const Parameter& p) {
  if (!p.key.starts_with("shared_memory")) return {};
  return Error{ErrorCode::kUnsupported, "shared memory is not served", "", "Send the tensor's data."};
}

// A repeated number, packed or not.
template <class F>
Status read_numbers(const WireField& f, F add) {
  if (f.type == Type::kVarint) return add(f.number);
  if (f.type != Type::kBytes) return invalid("a list of numbers has another type");
  WireReader in(f.bytes);
  for (;;) {
    uint64_t v = 0;
    ISOLINE_ASSIGN(const bool more, in.next_varint(v));
    if (!more) return {};
    ISOLINE_RETURN_IF_ERROR(add(v));
  }
}

// InferTensorContents of the tensor's datatype, as binary.
Status read_contents(std::span<const std::byte> contents, ElementType type, std::vector<std::byte>& out) {
  const auto append = [&](const void* data, size_t n) {
    const size_t at = out.size();
    out.resize(at + n);
    if (n) std::memcpy(out.data() + at, data, n);
  };
  return each_field(contents, [&](const WireField& f) -> Status {
    uint32_t want = 0;
    switch (type) {
      case ElementType::kBool:
        want = 1;
        break;
      case ElementType::kInt8:
      case ElementType::kInt16:
      case ElementType::kInt32:
        want = 2;
        break;
      case ElementType::kInt64:
        want = 3;
        break;
      case ElementType::kUInt8:
      case ElementType::kUInt16:
      case ElementType::kUInt32:
        want = 4;
        break;
      case ElementType::kUInt64:
        want = 5;
        break;
      case ElementType::kFloat32:
        want = 6;
        break;
      case ElementType::kFloat64:
        want = 7;
        break;
      case ElementType::kBytes:
        want = 8;
        break;
      case ElementType::kFloat16:
      case ElementType::kBFloat16:
        return invalid(std::string(to_string(type)) + " must be sent in raw_input_contents");
    }
    if (f.id != want) return invalid(std::string("contents are not of datatype ") + to_string(type));
    if (type == ElementType::kBytes) {
      if (f.type != Type::kBytes || f.bytes.size() > UINT32_MAX)
        return invalid("bytes_contents is malformed");
      const uint32_t length = uint32_t(f.bytes.size());
      append(&length, sizeof length);
      append(f.bytes.data(), f.bytes.size());
      return {};
    }
    const size_t size = element_size(type);
    if (type == ElementType::kFloat32 || type == ElementType::kFloat64) {
      // Little-endian already, packed or one by one.
      const Type single = size == 4 ? Type::kFixed32 : Type::kFixed64;
      if ((f.type != Type::kBytes && f.type != single) || f.bytes.size() % size)
        return invalid("contents are malformed");
      append(f.bytes.data(), f.bytes.size());
      return {};
    }
    const bool is_signed = want == 2 || want == 3;
    return read_numbers(f, [&](uint64_t v) -> Status {
      const unsigned bits = unsigned(size) * 8;
      if (type == ElementType::kBool) {
        v = v != 0;
      } else if (is_signed && bits < 64) {
        const int64_t s = int64_t(v), limit = int64_t{1} << (bits - 1);
        if (s < -limit || s >= limit)
          return invalid(std::string("a value is outside the range of ") + to_string(type));
      } else if (bits < 64 && v >> bits) {
        return invalid(std::string("a value is outside the range of ") + to_string(type));
      }
      append(&v, size);
      return {};
    });
  });
}

struct Input {
  serve::NamedTensor tensor;
  std::optional<std::span<const std::byte>> contents;
};

Status read_input(std::span<const std::byte> message, Input& out) {
  std::string type;
  ISOLINE_RETURN_IF_ERROR(each_field(message, [&](const WireField& f) -> Status {
    switch (f.id) {
      case 1:
        return read_text(f, out.tensor.name);
      case 2:
        return read_text(f, type);
      case 3:
        return read_numbers(f, [&](uint64_t v) -> Status {
          if (out.tensor.shape.size() >= 64) return invalid("more than 64 dimensions");
          out.tensor.shape.push_back(int64_t(v));
          return {};
        });
      case 4: {
        Parameter p;
        ISOLINE_RETURN_IF_ERROR(read_parameter(f.bytes, p));
        return refuse_shared_memory(p);
      }
      case 5:
        if (f.type != Type::kBytes) return invalid("contents have another type");
        out.contents = f.bytes;
        return {};
      default:
        return {};
    }
  }));
  if (out.tensor.name.empty()) return invalid("an input has no name");
  auto parsed = parse_element_type(type);
  if (!parsed.ok()) return parsed.error().in("input '" + out.tensor.name + "'");
  out.tensor.type = *parsed;
  return {};
}

Status read_output(std::span<const std::byte> message, std::string& name) {
  ISOLINE_RETURN_IF_ERROR(each_field(message, [&](const WireField& f) -> Status {
    if (f.id == 1) return read_text(f, name);
    if (f.id != 2) return {};
    Parameter p;
    ISOLINE_RETURN_IF_ERROR(read_parameter(f.bytes, p));
    if (p.key == "classification" && p.integer.value_or(0))
      return Error{ErrorCode::kUnsupported, "classification of outputs is not served", "",
                   "Ask for the output itself."};
    return refuse_shared_memory(p);
  }));
  if (name.empty()) return invalid("an output has no name");
  return {};
}

Status read_request_parameter(std::span<const std::byte> entry, GrpcInfer& out) {
  Parameter p;
  ISOLINE_RETURN_IF_ERROR(read_parameter(entry, p));
  if (p.key == "priority" || p.key == "timeout") {
    if (!p.integer || *p.integer < 0)
      return invalid("parameter '" + p.key + "' must be a whole number of 0 or more");
    (p.key == "priority" ? out.request.priority : out.request.timeout_us) = uint64_t(*p.integer);
  } else if (p.key == "sequence_id") {
    if (p.integer.value_or(0) || !p.text.value_or("").empty())
      return Error{ErrorCode::kUnsupported, "sequences are not served", "",
                   "Send requests without sequence_id."};
  } else if (p.key == "triton_enable_empty_final_response") {
    out.wants_final_flag = p.boolean.value_or(false);
  }
  return {};
}

void write_tensor_metadata(WireWriter& w, uint32_t id, const TensorSpec& spec, bool batched) {
  WireWriter t;
  t.text(1, spec.name);
  t.text(2, to_string(spec.type));
  std::vector<int64_t> shape = spec.shape;
  if (batched) shape.insert(shape.begin(), -1);
  t.numbers(3, shape);
  w.message(id, t);
}

void write_duration(WireWriter& w, uint32_t id, const serve::CountedDuration& d) {
  WireWriter inner;
  inner.number(1, d.count);
  inner.number(2, d.ns);
  w.message(id, inner);
}

uint64_t data_type_number(ElementType type) {
  switch (type) {
    case ElementType::kBool:
      return 1;
    case ElementType::kUInt8:
      return 2;
    case ElementType::kUInt16:
      return 3;
    case ElementType::kUInt32:
      return 4;
    case ElementType::kUInt64:
      return 5;
    case ElementType::kInt8:
      return 6;
    case ElementType::kInt16:
      return 7;
    case ElementType::kInt32:
      return 8;
    case ElementType::kInt64:
      return 9;
    case ElementType::kFloat16:
      return 10;
    case ElementType::kFloat32:
      return 11;
    case ElementType::kFloat64:
      return 12;
    case ElementType::kBytes:
      return 13;
    case ElementType::kBFloat16:
      return 14;
  }
  return 0;
}

WireWriter policy_message(const serve::QueuePolicy& p) {
  WireWriter w;
  w.number(1, p.delay_on_timeout);
  w.number(2, p.default_timeout_us);
  w.number(3, p.allow_timeout_override);
  w.number(4, p.max_queue_size);
  return w;
}

WireWriter batching_message(const serve::DynamicBatching& d) {
  WireWriter w;
  w.numbers(1, d.preferred_batch_size);
  w.number(2, d.max_queue_delay_us);
  w.number(3, d.preserve_ordering);
  w.number(4, d.priority_levels);
  w.number(5, d.default_priority_level);
  if (d.default_queue_policy) w.message(6, policy_message(*d.default_queue_policy));
  for (const auto& [level, policy] : d.priority_queue_policy) {
    WireWriter entry;
    entry.number(1, level);
    entry.message(2, policy_message(policy));
    w.message(7, entry);
  }
  return w;
}

}  // namespace

Result<GrpcInfer> parse_model_infer(std::span<const std::byte> message, std::shared_ptr<const void> owner) {
  GrpcInfer out;
  auto memory = std::make_shared<RequestMemory>();
  memory->body = std::move(owner);
  std::vector<Input> inputs;
  std::vector<std::span<const std::byte>> raw;
  ISOLINE_RETURN_IF_ERROR(each_field(message, [&](const WireField& f) -> Status {
    if (f.id >= 4 && f.id <= 7 && f.type != Type::kBytes)
      return invalid("a field has another type than published");
    switch (f.id) {
      case 1:
        return read_text(f, out.request.model);
      case 2:
        return read_text(f, out.request.version);
      case 3:
        return read_text(f, out.request.id);
      case 4:
        return read_request_parameter(f.bytes, out);
      case 5:
        if (inputs.size() >= kMaxTensors) return invalid("too many inputs");
        return read_input(f.bytes, inputs.emplace_back());
      case 6:
        if (out.request.outputs.size() >= kMaxTensors) return invalid("too many outputs");
        return read_output(f.bytes, out.request.outputs.emplace_back());
      case 7:
        if (raw.size() >= kMaxTensors) return invalid("too many raw inputs");
        raw.push_back(f.bytes);
        return {};
      default:
        return {};
    }
  }));
  if (!raw.empty() && raw.size() != inputs.size())
    return invalid("raw_input_contents has " + std::to_string(raw.size()) + " tensors for " +
                   std::to_string(inputs.size()) + " inputs");
  for (size_t i = 0; i < inputs.size(); ++i) {
    serve::NamedTensor& t = inputs[i].tensor;
    const std::string where = "input '" + t.name + "'";
    if (!raw.empty()) {
      if (inputs[i].contents) return invalid("contents and raw_input_contents are both given", where);
      t.data = aligned(raw[i], t.type, *memory);
    } else {
      std::vector<std::byte> data;
      if (inputs[i].contents)
        if (Status s = read_contents(*inputs[i].contents, t.type, data); !s.ok()) return s.error().in(where);
      t.data = memory->decoded.emplace_back(std::move(data));
    }
    out.request.inputs.push_back(std::move(t));
  }
  out.request.memory = std::move(memory);
  return out;
}

GrpcAnswer write_model_infer(const serve::InferResponse& response, bool stream, bool final_flag) {
  WireWriter w;
  w.text(1, response.model);
  w.text(2, response.version);
  w.text(3, response.id);
  if (final_flag) {
    WireWriter value, entry;
    value.number(1, 1);
    entry.text(1, "triton_final_response");
    entry.message(2, value);
    w.message(4, entry);
  }
  uint64_t raw_size = 0;
  for (const serve::NamedTensor& t : response.outputs) {
    WireWriter o;
    o.text(1, t.name);
    o.text(2, to_string(t.type));
    o.numbers(3, t.shape);
    w.message(5, o);
    raw_size += 1 + varint_size(t.data.size()) + t.data.size();
  }
  GrpcAnswer answer;
  const auto add_text = [&](std::string text) {
    answer.text.push_back(std::move(text));
    const std::string& s = answer.text.back();
    answer.parts.push_back(std::as_bytes(std::span(s)));
    answer.byte_size += s.size();
  };
  std::string head = w.take();
  if (stream) {
    WireWriter outer;
    outer.tag(2, WireField::Type::kBytes);
    outer.varint(head.size() + raw_size);
    head = outer.take() + head;
  }
  for (size_t i = 0; i < response.outputs.size(); ++i) {
    const auto data = response.outputs[i].data;
    WireWriter tag;
    tag.tag(6, WireField::Type::kBytes);
    tag.varint(data.size());
    add_text(std::exchange(head, {}) + tag.take());
    answer.parts.push_back(data);
    answer.byte_size += data.size();
  }
  if (!head.empty()) add_text(std::move(head));
  return answer;
}

std::string write_stream_error(const std::string& message, const std::string& id) {
  WireWriter w;
  w.text(1, message);
  if (!id.empty()) {
    WireWriter response;
    response.text(3, id);
    w.message(2, response);
  }
  return w.take();
}

Result<ModelName> parse_model_name(std::span<const std::byte> message) {
  ModelName out;
  ISOLINE_RETURN_IF_ERROR(each_field(message, [&](const WireField& f) -> Status {
    if (f.id == 1) return read_text(f, out.name);
    if (f.id == 2) return read_text(f, out.version);
    return {};
  }));
  return out;
}

Result<bool> parse_index_message(std::span<const std::byte> message) {
  bool ready = false;
  ISOLINE_RETURN_IF_ERROR(each_field(message, [&](const WireField& f) -> Status {
    if (f.id == 2) ready = f.number != 0;
    return {};
  }));
  return ready;
}

Result<LoadMessage> parse_load_message(std::span<const std::byte> message) {
  LoadMessage out;
  ISOLINE_RETURN_IF_ERROR(each_field(message, [&](const WireField& f) -> Status {
    if (f.id == 2) return read_text(f, out.name);
    if (f.id != 3 || f.type != Type::kBytes) return {};
    std::string key;
    std::optional<std::string> value;
    ISOLINE_RETURN_IF_ERROR(each_field(f.bytes, [&](const WireField& e) -> Status {
      if (e.id == 1) return read_text(e, key);
      if (e.id != 2 || e.type != Type::kBytes) return {};
      return each_field(e.bytes, [&](const WireField& v) -> Status {
        if (v.id == 3 && v.type == Type::kBytes) value = std::string(v.text());
        return {};
      });
    }));
    if (key.starts_with("file:"))
      return Error{ErrorCode::kUnsupported, "files in a load request are not taken", "",
                   "Put the model into the server's folder."};
    if (key == "config") out.config = std::move(value);
    return {};
  }));
  return out;
}

std::string write_bool_message(bool value) {
  WireWriter w;
  w.number(1, value);
  return w.take();
}

std::string write_server_metadata_message(const ServerInfo& server) {
  WireWriter w;
  w.text(1, server.name);
  w.text(2, server.version);
  for (const char* e : server_extensions()) w.text(3, e);
  return w.take();
}

std::string write_model_metadata_message(const serve::ServedModel& model,
                                         const std::vector<std::string>& versions) {
  WireWriter w;
  w.text(1, model.name());
  for (const std::string& v : versions) w.text(2, v);
  w.text(3, model.info().platform);
  const bool batched = model.info().max_batch > 0;
  for (const TensorSpec& t : model.info().inputs) write_tensor_metadata(w, 4, t, batched);
  for (const TensorSpec& t : model.info().outputs) write_tensor_metadata(w, 5, t, batched);
  return w.take();
}

std::string write_model_config_message(const serve::ServedModel& model) {
  const serve::ModelConfig& c = model.config();
  WireWriter w;
  w.text(1, c.name);
  w.text(2, c.platform);
  WireWriter policy, chosen;
  switch (c.version_policy.kind) {
    case serve::VersionPolicy::Kind::kLatest:
      chosen.number(1, c.version_policy.latest);
      policy.message(1, chosen);
      break;
    case serve::VersionPolicy::Kind::kAll:
      policy.message(2, chosen);
      break;
    case serve::VersionPolicy::Kind::kSpecific:
      chosen.numbers(1, c.version_policy.specific);
      policy.message(3, chosen);
      break;
  }
  w.message(3, policy);
  w.number(4, uint64_t(c.max_batch_size));
  for (const TensorSpec& t : c.input) {
    WireWriter i;
    i.text(1, t.name);
    i.number(2, data_type_number(t.type));
    i.numbers(4, t.shape);
    w.message(5, i);
  }
  for (const TensorSpec& t : c.output) {
    WireWriter o;
    o.text(1, t.name);
    o.number(2, data_type_number(t.type));
    o.numbers(3, t.shape);
    w.message(6, o);
  }
  for (const serve::InstanceGroup& g : c.instance_group) {
    WireWriter i;
    i.text(1, g.name);
    i.number(2, uint64_t(g.count));
    i.numbers(3, g.gpus);
    i.number(4, g.kind == "KIND_GPU" ? 1 : g.kind == "KIND_CPU" ? 2 : 3);
    w.message(7, i);
  }
  w.text(8, c.default_model_filename);
  if (c.dynamic_batching) w.message(11, batching_message(*c.dynamic_batching));
  for (const auto& [key, value] : c.parameters) {
    WireWriter parameter, entry;
    parameter.text(1, value);
    entry.text(1, key);
    entry.message(2, parameter);
    w.message(14, entry);
  }
  w.text(17, c.backend);
  WireWriter response;
  response.message(1, w);
  return response.take();
}

std::string write_statistics_message(const std::vector<std::shared_ptr<serve::ServedModel>>& models) {
  WireWriter out;
  for (const auto& model : models) {
    const serve::StatisticsSnapshot s = model->statistics();
    WireWriter w, stats;
    w.text(1, model->name());
    w.text(2, model->version());
    w.number(3, s.last_inference_ms);
    w.number(4, s.inference_count);
    w.number(5, s.execution_count);
    write_duration(stats, 1, s.success);
    write_duration(stats, 2, s.fail);
    write_duration(stats, 3, s.queue);
    write_duration(stats, 4, s.compute_input);
    write_duration(stats, 5, s.compute_infer);
    write_duration(stats, 6, s.compute_output);
    write_duration(stats, 7, {});
    write_duration(stats, 8, {});
    w.message(6, stats);
    for (const auto& [size, b] : s.batches) {
      WireWriter batch;
      batch.number(1, uint64_t(size));
      write_duration(batch, 2, b.compute_input);
      write_duration(batch, 3, b.compute_infer);
      write_duration(batch, 4, b.compute_output);
      w.message(7, batch);
    }
    out.message(1, w);
  }
  return out.take();
}

std::string write_index_message(const std::vector<serve::ModelState>& models) {
  WireWriter out;
  for (const serve::ModelState& m : models) {
    WireWriter w;
    w.text(1, m.name);
    w.text(2, m.version);
    w.text(3, m.state);
    w.text(4, m.reason);
    out.message(1, w);
  }
  return out.take();
}

}  // namespace isoline::oip
