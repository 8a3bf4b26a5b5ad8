#include "isoline/serve/served_model.h"

#include <algorithm>
#include <cstring>
#include <random>

namespace isoline::serve {
namespace {

constexpr uint64_t kMaxWarmupBytes = uint64_t{64} << 20;  // inputs of a warm-up that nobody asked for

Error invalid(std::string message, std::string context) {
  return {ErrorCode::kInvalidArgument, std::move(message), std::move(context), ""};
}

std::string text(const std::vector<int64_t>& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? "," : "") + std::to_string(shape[i]);
  return out + "]";
}

// Elements of a BYTES tensor, each with its length in front, must fill the data exactly.
Status check_bytes(std::span<const std::byte> data, uint64_t elements) {
  uint64_t count = 0;
  size_t at = 0;
  while (at < data.size()) {
    uint32_t length = 0;
    if (data.size() - at < sizeof length) return invalid("ends inside the length of an element", "");
    std::memcpy(&length, data.data() + at, sizeof length);
    at += sizeof length;
    if (data.size() - at < length) return invalid("an element is longer than the data", "");
    at += length;
    ++count;
  }
  if (count != elements)
    return invalid("holds " + std::to_string(count) + " elements, its shape has " + std::to_string(elements),
                   "");
  return {};
}

bool fits(const std::vector<int64_t>& shape, size_t from, const std::vector<int64_t>& want) {
  if (shape.size() != want.size() + from) return false;
  for (size_t i = 0; i < want.size(); ++i)
    if (want[i] >= 0 && shape[from + i] != want[i]) return false;
  return true;
}

// What the file says must be what the model is; what it leaves out comes from the model.
Status complete(ModelConfig& config, const TensorModelInfo& info, const std::string& name) {
  if (config.name.empty()) config.name = name;
  if (config.name != name) return invalid("the configuration is for model '" + config.name + "'", name);
  if (config.has_max_batch_size && config.max_batch_size != info.max_batch)
    return invalid("max_batch_size " + std::to_string(config.max_batch_size) +
                       " is not what the model takes, " + std::to_string(info.max_batch),
                   name);
  config.max_batch_size = info.max_batch;
  config.has_max_batch_size = true;
  config.platform = info.platform;
  const auto agree = [&](std::vector<TensorSpec>& named, const std::vector<TensorSpec>& real,
                         const char* what) -> Status {
    for (const TensorSpec& n : named) {
      const auto it =
          std::find_if(real.begin(), real.end(), [&](const TensorSpec& r) { return r.name == n.name; });
      if (it == real.end())
        return invalid("the model has no " + std::string(what) + " '" + n.name + "'", name);
      if (it->type != n.type || !fits(n.shape, 0, it->shape))
        return invalid(std::string(what) + " '" + n.name + "' is " + to_string(it->type) + " " +
                           text(it->shape) + " in the model and " + to_string(n.type) + " " + text(n.shape) +
                           " in the configuration",
                       name);
    }
    if (!named.empty() && named.size() != real.size())
      return invalid("the configuration names " + std::to_string(named.size()) + " of " +
                         std::to_string(real.size()) + " " + what + "s",
                     name);
    named = real;
    return {};
  };
  ISOLINE_RETURN_IF_ERROR(agree(config.input, info.inputs, "input"));
  ISOLINE_RETURN_IF_ERROR(agree(config.output, info.outputs, "output"));
  if (config.instance_group.empty()) config.instance_group.emplace_back();
  for (size_t i = 0; i < config.instance_group.size(); ++i)
    if (config.instance_group[i].name.empty())
      config.instance_group[i].name = name + (i ? "_" + std::to_string(i) : std::string());
  return config.validate();
}

// One run with data nobody asked for.
Status run_once(TensorSession& session, const TensorModelInfo& info, const Warmup& warmup,
                const std::string& label) {
  std::vector<OwnedTensor> data;
  std::mt19937_64 random(1);
  for (const TensorSpec& spec : info.inputs) {
    OwnedTensor t{spec.shape, {}};
    bool fill = false;
    if (const auto it = warmup.inputs.find(spec.name); it != warmup.inputs.end()) {
      if (it->second.type != spec.type || !fits(it->second.shape, 0, spec.shape))
        return invalid("the warm-up's input '" + spec.name + "' does not fit the model", label);
      t.shape = it->second.shape;
      fill = it->second.random;
    }
    for (int64_t& d : t.shape)
      if (d < 0) return invalid("the warm-up must give dims of input '" + spec.name + "'", label);
    if (info.max_batch > 0) t.shape.insert(t.shape.begin(), std::max<int64_t>(1, warmup.batch_size));
    ISOLINE_ASSIGN(const uint64_t elements, tensor_elements(t.shape));
    const size_t size = spec.type == ElementType::kBytes ? sizeof(uint32_t) : element_size(spec.type);
    if (elements > (uint64_t{1} << 32) / size)
      return invalid("the warm-up's input '" + spec.name + "' is above 4 GiB", label);
    t.data.resize(size_t(elements) * size);
    if (fill && spec.type != ElementType::kBytes && spec.type != ElementType::kBool)
      // The top byte stays zero: no NaN, no infinity, in whatever type.
      for (size_t i = 0; i < t.data.size(); ++i)
        if (size == 1 || (i + 1) % size) t.data[i] = std::byte(random() & 0x7f);
    data.push_back(std::move(t));
  }
  std::vector<InputTensor> inputs;
  for (const OwnedTensor& t : data) inputs.push_back({t.shape, t.data});
  std::vector<OwnedTensor> outputs;
  auto status = session.run(inputs, outputs);
  return status.ok() ? status : Status(status.error().in(label + ": warm-up"));
}

Status warm_up(TensorSession& session, const TensorModelInfo& info, const ModelConfig& config,
               const std::string& label) {
  if (!config.warmup.empty()) {
    for (const Warmup& w : config.warmup)
      for (uint32_t i = 0; i < w.count; ++i) ISOLINE_RETURN_IF_ERROR(run_once(session, info, w, label));
    return {};
  }
  // Without instructions: zeros, where the model's extents are known. One sample; where requests are batched
  // also 2, 4, 8, ... and the largest batch, since a runtime prepares for each size when it first comes.
  uint64_t sample_bytes = 0;
  for (const TensorSpec& t : info.inputs) {
    for (int64_t d : t.shape)
      if (d < 0) return {};
    ISOLINE_ASSIGN(const uint64_t elements, tensor_elements(t.shape));
    sample_bytes += elements * std::max<size_t>(1, element_size(t.type));
  }
  ISOLINE_RETURN_IF_ERROR(run_once(session, info, Warmup{}, label));
  if (!config.dynamic_batching || info.max_batch < 2) return {};
  Warmup warmup;
  for (int64_t batch = 2;; batch = std::min(2 * batch, info.max_batch)) {
    if (uint64_t(batch) > kMaxWarmupBytes / std::max<uint64_t>(1, sample_bytes)) return {};
    warmup.batch_size = uint32_t(batch);
    ISOLINE_RETURN_IF_ERROR(run_once(session, info, warmup, label));
    if (batch == info.max_batch) return {};
  }
}

}  // namespace

Result<uint64_t> tensor_elements(const std::vector<int64_t>& shape) {
  uint64_t n = 1;
  for (int64_t d : shape) {
    if (d < 0) return invalid("dimension " + std::to_string(d) + " is negative", "shape");
    if (__builtin_mul_overflow(n, uint64_t(d), &n))
      return invalid("has more elements than can be counted", "shape");
  }
  return n;
}

void InferTicket::cancel() {
  const auto model = model_.lock();
  const auto job = job_.lock();
  if (model && job) model->scheduler_->cancel(*job);
}

Result<std::shared_ptr<ServedModel>> ServedModel::start(std::unique_ptr<TensorModel> model,
                                                        ModelConfig config, std::string name, int64_t version,
                                                        SchedulerOptions options) {
  std::shared_ptr<ServedModel> served(new ServedModel);
  served->name_ = std::move(name);
  served->version_ = std::to_string(version);
  served->info_ = model->info();
  ISOLINE_RETURN_IF_ERROR(complete(config, served->info_, served->name_));
  served->config_ = std::move(config);
  const std::string label = served->name_ + "/" + served->version_;
  std::vector<std::unique_ptr<TensorSession>> sessions;
  for (int i = 0; i < served->config_.instances(); ++i) {
    ISOLINE_ASSIGN(auto session, model->create_session());
    ISOLINE_RETURN_IF_ERROR(warm_up(*session, served->info_, served->config_, label));
    sessions.push_back(std::move(session));
  }
  served->decoder_ = model->decoder();
  served->model_ = std::move(model);
  served->scheduler_ = std::make_unique<Scheduler>(served->config_, served->info_, std::move(sessions),
                                                   served->statistics_, label, served->version_, options);
  return served;
}

ServedModel::~ServedModel() = default;

void ServedModel::drain() {
  scheduler_->drain();
  model_.reset();
}

Status ServedModel::check(const InferRequest& request, Job& job) const {
  const bool batched = info_.max_batch > 0;
  if (request.inputs.size() != info_.inputs.size())
    return invalid("expected " + std::to_string(info_.inputs.size()) + " inputs but got " +
                       std::to_string(request.inputs.size()) + " inputs for model '" + name_ + "'",
                   "");
  job.inputs.resize(info_.inputs.size());
  std::vector<bool> seen(info_.inputs.size());
  for (const NamedTensor& t : request.inputs) {
    const std::string where = "input '" + t.name + "' for model '" + name_ + "'";
    const auto spec = std::find_if(info_.inputs.begin(), info_.inputs.end(),
                                   [&](const TensorSpec& s) { return s.name == t.name; });
    if (spec == info_.inputs.end()) return invalid("unexpected " + where, "");
    const size_t i = size_t(spec - info_.inputs.begin());
    if (seen[i]) return invalid("is given twice", where);
    seen[i] = true;
    if (t.type != spec->type)
      return invalid(std::string("datatype is ") + to_string(t.type) + ", expected " + to_string(spec->type),
                     where);
    auto elements = tensor_elements(t.shape);
    if (!elements.ok()) return elements.error().in(where);
    if (!fits(t.shape, batched ? 1 : 0, spec->shape)) {
      std::vector<int64_t> want = spec->shape;
      if (batched) want.insert(want.begin(), -1);
      return invalid("unexpected shape, expected " + text(want) + ", got " + text(t.shape), where);
    }
    if (batched) {
      if (t.shape[0] < 1 || t.shape[0] > info_.max_batch)
        return invalid("request batch-size must be from 1 to " + std::to_string(info_.max_batch) + ", got " +
                           std::to_string(t.shape[0]),
                       where);
      if (&t == &request.inputs.front())
        job.samples = t.shape[0];
      else if (t.shape[0] != job.samples)
        return invalid("its batch size " + std::to_string(t.shape[0]) + " is not that of the other inputs, " +
                           std::to_string(job.samples),
                       where);
    }
    if (t.type == ElementType::kBytes) {
      if (Status s = check_bytes(t.data, *elements); !s.ok()) return s.error().in(where);
    } else {
      uint64_t bytes = 0;
      if (__builtin_mul_overflow(*elements, uint64_t(element_size(t.type)), &bytes) || bytes != t.data.size())
        return invalid("got " + std::to_string(t.data.size()) + " bytes, its shape and datatype have " +
                           (bytes ? std::to_string(bytes) : std::string("more than can be counted")),
                       where);
    }
    job.inputs[i] = {t.shape, t.data};
  }
  if (request.outputs.empty())
    for (size_t o = 0; o < info_.outputs.size(); ++o) job.wanted.push_back(o);
  for (const std::string& name : request.outputs) {
    const auto spec = std::find_if(info_.outputs.begin(), info_.outputs.end(),
                                   [&](const TensorSpec& s) { return s.name == name; });
    if (spec == info_.outputs.end())
      return invalid("unexpected output '" + name + "' for model '" + name_ + "'", "");
    const size_t o = size_t(spec - info_.outputs.begin());
    if (std::find(job.wanted.begin(), job.wanted.end(), o) != job.wanted.end())
      return invalid("output '" + name + "' is asked for twice", "");
    job.wanted.push_back(o);
  }
  return {};
}

InferTicket ServedModel::infer(InferRequest request, InferDone done) {
  auto job = std::make_shared<Job>();
  if (Status s = check(request, *job); !s.ok()) {
    done(s.error());
    return {};
  }
  job->request = std::move(request);
  job->done = std::move(done);
  InferTicket ticket;
  ticket.model_ = weak_from_this();
  ticket.job_ = job;
  scheduler_->submit(std::move(job));
  return ticket;
}

}  // namespace isoline::serve
