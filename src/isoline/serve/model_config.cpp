#include "isoline/serve/model_config.h"

#include <functional>
#include <set>

#include <nlohmann/json.hpp>

#include "isoline/serve/config_text.h"

namespace isoline::serve {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxBatch = 1 << 20;
constexpr int kMaxInstances = 256;

Error invalid(const std::string& message, const std::string& context, const std::string& remedy = "") {
  return {ErrorCode::kInvalidArgument, message, context, remedy};
}

// Reads one JSON object field by field; the first mistake wins. A field nobody asked for is a mistake.
class Fields {
 public:
  Fields(const Json& json, std::string where) : json_(json), where_(std::move(where)) {
    if (!json.is_object()) error_ = invalid("is not an object", where_);
  }

  void text(const char* name, std::string& out) {
    if (const Json* v = take(name)) {
      if (!v->is_string()) return wrong(name, "a string");
      out = v->get<std::string>();
    }
  }
  void flag(const char* name, bool& out) {
    if (const Json* v = take(name)) {
      if (!v->is_boolean()) return wrong(name, "true or false");
      out = v->get<bool>();
    }
  }
  template <class T>
  void number(const char* name, T& out, int64_t low, int64_t high) {
    if (const Json* v = take(name)) {
      const std::optional<int64_t> n = integer(*v);
      if (!n || *n < low || *n > high)
        return wrong(name, "a whole number from " + std::to_string(low) + " to " + std::to_string(high));
      out = T(*n);
    }
  }
  template <class T>
  void numbers(const char* name, std::vector<T>& out, int64_t low, int64_t high) {
    each(name, [&](const Json& v) {
      const std::optional<int64_t> n = integer(v);
      if (!n || *n < low || *n > high)
        return wrong(name, "whole numbers from " + std::to_string(low) + " to " + std::to_string(high));
      out.push_back(T(*n));
    });
  }
  // One value or a list of them.
  void each(const char* name, const std::function<void(const Json&)>& body) {
    if (const Json* v = take(name)) {
      if (!v->is_array()) return body(*v);
      for (const Json& entry : *v) body(entry);
    }
  }
  // A map: {"key": value} or, from the text form, entries {key: ..., value: ...}.
  void each_entry(const char* name, const std::function<void(const std::string&, const Json&)>& body) {
    const Json* v = take(name);
    if (!v) return;
    const auto pair = [&](const Json& e) {
      if (!e.is_object() || !e.contains("key") || !e.contains("value"))
        return wrong(name, "entries of key and value");
      const Json& key = e["key"];
      body(key.is_string() ? key.get<std::string>() : key.dump(), e["value"]);
    };
    if (v->is_array()) {
      for (const Json& e : *v) pair(e);
    } else if (v->is_object() && v->size() == 2 && v->contains("key") && v->contains("value")) {
      pair(*v);
    } else if (v->is_object()) {
      for (const auto& [key, value] : v->items()) body(key, value);
    } else {
      wrong(name, "an object");
    }
  }
  void refuse(const char* name) {
    const Json* v = take(name);
    if (v && !v->empty() && !error_)
      error_ = Error{ErrorCode::kUnsupported, std::string("'") + name + "' is not served", where_,
                     "Remove it from the configuration."};
  }
  // Accepted because clients and files carry it; it changes nothing here.
  void ignore(const char* name) { take(name); }
  bool has(const char* name) const { return json_.is_object() && json_.contains(name); }
  void fail(Error error) {
    if (!error_) error_ = std::move(error);
  }
  const std::string& where() const { return where_; }
  Status finish() {
    if (!error_)
      for (const auto& [name, value] : json_.items())
        if (!taken_.count(name)) {
          error_ = invalid("unknown field '" + name + "'", where_, "Remove it, or check its spelling.");
          break;
        }
    if (error_) return *error_;
    return {};
  }

 private:
  const Json* take(const char* name) {
    taken_.insert(name);
    if (error_) return nullptr;
    const auto it = json_.find(name);
    return it == json_.end() || it->is_null() ? nullptr : &*it;
  }
  // The protocol's JSON writes 64-bit numbers as strings.
  static std::optional<int64_t> integer(const Json& v) {
    if (v.is_number_unsigned() && v.get<uint64_t>() > uint64_t(INT64_MAX)) return std::nullopt;
    if (v.is_number_integer()) return v.get<int64_t>();
    if (!v.is_string()) return std::nullopt;
    const std::string& s = v.get_ref<const std::string&>();
    char* end = nullptr;
    errno = 0;
    const long long n = std::strtoll(s.c_str(), &end, 10);
    if (s.empty() || *end || errno) return std::nullopt;
    return n;
  }
  void wrong(const std::string& name, const std::string& want) {
    fail(invalid("'" + name + "' must be " + want, where_));
  }

  const Json& json_;
  std::string where_;
  std::set<std::string> taken_;
  std::optional<Error> error_;
};

// Runs `read` over a sub-object and passes its mistake on.
void nested(Fields& parent, const Json& json, const std::string& name,
            const std::function<void(Fields&)>& read) {
  Fields f(json, parent.where().empty() ? name : parent.where() + "." + name);
  read(f);
  if (Status s = f.finish(); !s.ok()) parent.fail(s.error());
}

void read_type(Fields& f, const char* name, ElementType& out) {
  std::string text;
  f.text(name, text);
  if (text.empty()) return f.fail(invalid(std::string("'") + name + "' is missing", f.where()));
  auto type = parse_config_type(text);
  if (type.ok())
    out = *type;
  else
    f.fail(type.error().in(f.where()));
}

void read_tensors(Fields& f, const char* field, std::vector<TensorSpec>& out) {
  f.each(field, [&](const Json& json) {
    nested(f, json, field, [&](Fields& t) {
      TensorSpec spec;
      t.text("name", spec.name);
      if (spec.name.empty()) t.fail(invalid("'name' is missing", t.where()));
      read_type(t, "data_type", spec.type);
      t.numbers("dims", spec.shape, -1, INT64_MAX);
      for (const char* ignored : {"format", "label_filename"}) t.ignore(ignored);
      bool unsupported = false;
      for (const char* name :
           {"is_shape_tensor", "allow_ragged_batch", "optional", "is_non_linear_format_io"}) {
        bool on = false;
        t.flag(name, on);
        unsupported = unsupported || on;
      }
      if (unsupported)
        t.fail({ErrorCode::kUnsupported, "shape tensors, ragged batches and optional inputs are not served",
                t.where(), ""});
      t.refuse("reshape");
      out.push_back(std::move(spec));
    });
  });
}

void read_policy(Fields& f, QueuePolicy& p) {
  std::string action = "REJECT";
  f.text("timeout_action", action);
  if (action != "REJECT" && action != "DELAY")
    f.fail(invalid("'timeout_action' must be REJECT or DELAY", f.where()));
  p.delay_on_timeout = action == "DELAY";
  f.number("default_timeout_microseconds", p.default_timeout_us, 0, INT64_MAX / 1000);
  f.flag("allow_timeout_override", p.allow_timeout_override);
  f.number("max_queue_size", p.max_queue_size, 0, UINT32_MAX);
}

void read_batching(Fields& f, DynamicBatching& d) {
  f.numbers("preferred_batch_size", d.preferred_batch_size, 1, kMaxBatch);
  f.number("max_queue_delay_microseconds", d.max_queue_delay_us, 0, 60'000'000);
  f.flag("preserve_ordering", d.preserve_ordering);
  f.number("priority_levels", d.priority_levels, 0, 1000);
  f.number("default_priority_level", d.default_priority_level, 0, 1000);
  f.each("default_queue_policy", [&](const Json& j) {
    nested(f, j, "default_queue_policy",
           [&](Fields& p) { read_policy(p, d.default_queue_policy.emplace()); });
  });
  f.each_entry("priority_queue_policy", [&](const std::string& key, const Json& j) {
    const uint64_t level = std::strtoull(key.c_str(), nullptr, 10);
    nested(f, j, "priority_queue_policy", [&](Fields& p) { read_policy(p, d.priority_queue_policy[level]); });
  });
}

void read_instances(Fields& f, std::vector<InstanceGroup>& out) {
  f.each("instance_group", [&](const Json& j) {
    nested(f, j, "instance_group", [&](Fields& g) {
      InstanceGroup group;
      g.text("name", group.name);
      g.text("kind", group.kind);
      if (group.kind == "KIND_AUTO") group.kind = "KIND_CPU";
      if (group.kind != "KIND_CPU" && group.kind != "KIND_GPU" && group.kind != "KIND_MODEL")
        g.fail(invalid("'kind' must be KIND_AUTO, KIND_CPU, KIND_GPU or KIND_MODEL", g.where()));
      g.number("count", group.count, 1, kMaxInstances);
      g.numbers("gpus", group.gpus, 0, 1023);
      for (const char* ignored : {"profile", "host_policy", "secondary_devices"}) g.ignore(ignored);
      g.refuse("rate_limiter");
      bool passive = false;
      g.flag("passive", passive);
      out.push_back(std::move(group));
    });
  });
}

void read_versions(Fields& f, VersionPolicy& policy) {
  f.each("version_policy", [&](const Json& j) {
    nested(f, j, "version_policy", [&](Fields& v) {
      v.each("latest", [&](const Json& l) {
        nested(v, l, "latest", [&](Fields& n) { n.number("num_versions", policy.latest, 1, 1000); });
      });
      if (v.has("all")) policy.kind = VersionPolicy::Kind::kAll;
      v.ignore("all");
      v.each("specific", [&](const Json& s) {
        policy.kind = VersionPolicy::Kind::kSpecific;
        nested(v, s, "specific", [&](Fields& n) { n.numbers("versions", policy.specific, 1, INT64_MAX); });
      });
    });
  });
}

void read_warmup(Fields& f, std::vector<Warmup>& out) {
  f.each("model_warmup", [&](const Json& j) {
    nested(f, j, "model_warmup", [&](Fields& w) {
      Warmup warmup;
      w.text("name", warmup.name);
      w.number("batch_size", warmup.batch_size, 0, kMaxBatch);
      w.number("count", warmup.count, 0, 1000);
      warmup.count = std::max(warmup.count, 1u);
      w.each_entry("inputs", [&](const std::string& key, const Json& value) {
        nested(w, value, "inputs." + key, [&](Fields& i) {
          Warmup::Input& input = warmup.inputs[key];
          read_type(i, "data_type", input.type);
          i.numbers("dims", input.shape, 1, INT64_MAX);
          bool zero = false;
          i.flag("zero_data", zero);
          i.flag("random_data", input.random);
          if (zero == input.random) i.fail(invalid("give zero_data or random_data", i.where()));
        });
      });
      out.push_back(std::move(warmup));
    });
  });
}

}  // namespace

std::string config_type_name(ElementType type) {
  return type == ElementType::kBytes ? "TYPE_STRING" : std::string("TYPE_") + to_string(type);
}

Result<ElementType> parse_config_type(const std::string& text) {
  if (text == "TYPE_STRING") return ElementType::kBytes;
  if (text.starts_with("TYPE_") && text != "TYPE_BYTES")
    if (auto type = parse_element_type(text.substr(5)); type.ok()) return type;
  return invalid("'" + text + "' is no data type", "data_type",
                 "Use TYPE_FP32, TYPE_INT64, TYPE_STRING, ...");
}

int ModelConfig::instances() const {
  int n = 0;
  for (const InstanceGroup& g : instance_group) n += g.count;
  return std::max(n, 1);
}

Status ModelConfig::validate() const {
  if (instances() > kMaxInstances)
    return invalid("more than " + std::to_string(kMaxInstances) + " instances", "instance_group");
  for (const auto* list : {&input, &output}) {
    std::set<std::string> names;
    for (const TensorSpec& t : *list)
      if (!names.insert(t.name).second)
        return invalid("'" + t.name + "' is named twice", list == &input ? "input" : "output");
  }
  if (dynamic_batching) {
    const DynamicBatching& d = *dynamic_batching;
    if (has_max_batch_size && max_batch_size < 1)
      return invalid("dynamic batching needs max_batch_size of 1 or more", "dynamic_batching");
    if (max_batch_size > 0)
      for (int64_t p : d.preferred_batch_size)
        if (p > max_batch_size)
          return invalid("preferred_batch_size " + std::to_string(p) + " is above max_batch_size " +
                             std::to_string(max_batch_size),
                         "dynamic_batching");
    if (d.default_priority_level > d.priority_levels || (d.priority_levels && !d.default_priority_level))
      return invalid("default_priority_level must be from 1 to priority_levels", "dynamic_batching");
    for (const auto& [level, policy] : d.priority_queue_policy)
      if (level < 1 || level > d.priority_levels)
        return invalid(
            "priority_queue_policy names level " + std::to_string(level) + ", which does not exist",
            "dynamic_batching");
    if (d.preserve_ordering && instances() > 1)
      return Error{ErrorCode::kUnsupported, "preserve_ordering with more than one instance is not served",
                   "dynamic_batching", "Use one instance or drop preserve_ordering."};
  }
  return {};
}

Result<ModelConfig> model_config_from_json(const Json& json) {
  ModelConfig c;
  Fields f(json, "");
  f.text("name", c.name);
  f.text("platform", c.platform);
  f.text("backend", c.backend);
  f.text("default_model_filename", c.default_model_filename);
  c.has_max_batch_size = f.has("max_batch_size");
  f.number("max_batch_size", c.max_batch_size, 0, kMaxBatch);
  read_versions(f, c.version_policy);
  read_tensors(f, "input", c.input);
  read_tensors(f, "output", c.output);
  f.each("dynamic_batching", [&](const Json& j) {
    nested(f, j, "dynamic_batching", [&](Fields& d) { read_batching(d, c.dynamic_batching.emplace()); });
  });
  read_instances(f, c.instance_group);
  f.each_entry("parameters", [&](const std::string& key, const Json& value) {
    nested(f, value, "parameters." + key, [&](Fields& p) { p.text("string_value", c.parameters[key]); });
  });
  read_warmup(f, c.warmup);
  for (const char* ignored : {"runtime", "optimization", "metric_tags", "cc_model_filenames", "batch_input",
                              "batch_output", "model_transaction_policy"})
    f.ignore(ignored);
  for (const char* refused : {"sequence_batching", "ensemble_scheduling", "model_operations",
                              "model_repository_agents", "response_cache"})
    f.refuse(refused);
  ISOLINE_RETURN_IF_ERROR(f.finish());
  ISOLINE_RETURN_IF_ERROR(c.validate());
  return c;
}

Result<ModelConfig> parse_model_config(const std::string& text) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string::npos || text[first] != '{') {
    ISOLINE_ASSIGN(const Json json, parse_config_text(text));
    return model_config_from_json(json);
  }
  if (text.size() > (size_t{1} << 20))
    return Error{ErrorCode::kResourceExhausted, "a model configuration has at most 1 MiB", "", ""};
  // The depth of nlohmann's tree is bounded here, before anything is built.
  bool too_deep = false;
  const Json json = Json::parse(
      text, [&](int depth, Json::parse_event_t, Json&) { return !(too_deep = too_deep || depth > 32); },
      false);
  if (json.is_discarded() || too_deep)
    return invalid("is not JSON, or nested too deeply", "model configuration");
  return model_config_from_json(json);
}

}  // namespace isoline::serve
