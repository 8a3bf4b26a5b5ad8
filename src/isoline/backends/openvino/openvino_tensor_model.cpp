#include "isoline/backends/openvino/openvino_tensor_model.h"

#include <algorithm>
#include <cstring>
#include <mutex>

#include <openvino/frontend/manager.hpp>

#include "isoline/backends/openvino/openvino_common.h"
#include "isoline/base/buffer.h"
#include "isoline/base/file.h"
#include "isoline/base/parallel.h"

namespace isoline::openvino_backend {
namespace {

struct ElementPair {
  ElementType ours;
  ov::element::Type_t theirs;
};
constexpr ElementPair kElements[] = {
    {ElementType::kBool, ov::element::Type_t::boolean},  {ElementType::kUInt8, ov::element::Type_t::u8},
    {ElementType::kUInt16, ov::element::Type_t::u16},    {ElementType::kUInt32, ov::element::Type_t::u32},
    {ElementType::kUInt64, ov::element::Type_t::u64},    {ElementType::kInt8, ov::element::Type_t::i8},
    {ElementType::kInt16, ov::element::Type_t::i16},     {ElementType::kInt32, ov::element::Type_t::i32},
    {ElementType::kInt64, ov::element::Type_t::i64},     {ElementType::kFloat16, ov::element::Type_t::f16},
    {ElementType::kBFloat16, ov::element::Type_t::bf16}, {ElementType::kFloat32, ov::element::Type_t::f32},
    {ElementType::kFloat64, ov::element::Type_t::f64}};

// Core::read_model would try other formats after ONNX, with their complaints on standard error.
std::shared_ptr<ov::Model> read_onnx(const std::string& file) {
  static std::mutex mutex;
  static ov::frontend::FrontEndManager manager;
  std::lock_guard lock(mutex);
  const ov::frontend::FrontEnd::Ptr onnx = manager.load_by_framework("onnx");
  return onnx->convert(onnx->load(file));
}

// Whether the first axis of every input and output is free: then it is the batch.
bool has_batch_axis(const ov::Model& model) {
  const auto free_first = [](const ov::Output<const ov::Node>& port) {
    const ov::PartialShape& s = port.get_partial_shape();
    return s.rank().is_static() && s.rank().get_length() > 0 && s[0].is_dynamic();
  };
  const auto inputs = model.inputs(), outputs = model.outputs();
  return !inputs.empty() && std::all_of(inputs.begin(), inputs.end(), free_first) &&
         std::all_of(outputs.begin(), outputs.end(), free_first);
}

Result<TensorSpec> describe_port(const ov::Output<const ov::Node>& port, const std::string& role,
                                 size_t index, bool batched) {
  TensorSpec out;
  out.name = port.get_names().empty() ? role + std::to_string(index) : port.get_any_name();
  const std::string what = role + " '" + out.name + "'";
  const auto* pair = std::find_if(std::begin(kElements), std::end(kElements), [&](const ElementPair& e) {
    return ov::element::Type(e.theirs) == port.get_element_type();
  });
  if (pair == std::end(kElements))
    return Error{ErrorCode::kUnsupported,
                 what + " has elements of type " + port.get_element_type().get_type_name(), "",
                 "The openvino backend passes numbers and booleans."};
  out.type = pair->ours;
  const ov::PartialShape& shape = port.get_partial_shape();
  if (shape.rank().is_dynamic())
    return Error{ErrorCode::kUnsupported, what + " has no fixed number of axes", "",
                 "Export the network with the rank of every input and output known."};
  for (size_t a = batched ? 1 : 0; a < shape.size(); ++a)
    out.shape.push_back(shape[a].is_static() ? shape[a].get_length() : -1);
  return out;
}

class OpenVinoTensorSession : public TensorSession {
 public:
  OpenVinoTensorSession(ov::InferRequest request, const TensorModelInfo& info)
      : request_(std::move(request)), info_(info), aligned_(info.inputs.size()) {}

  Status run(std::span<const InputTensor> inputs, std::vector<OwnedTensor>& outputs) override {
    if (inputs.size() != info_.inputs.size())
      return Error{ErrorCode::kInvalidArgument,
                   std::to_string(inputs.size()) + " inputs given, the model has " +
                       std::to_string(info_.inputs.size()),
                   "", ""};
    try {
      for (size_t i = 0; i < inputs.size(); ++i) ISOLINE_RETURN_IF_ERROR(set_input(i, inputs[i]));
      request_.infer();
      outputs.resize(info_.outputs.size());
      for (size_t i = 0; i < outputs.size(); ++i) {
        const ov::Tensor tensor = request_.get_output_tensor(i);
        const ov::Shape& shape = tensor.get_shape();
        outputs[i].shape.assign(shape.begin(), shape.end());
        const auto* data = static_cast<const std::byte*>(tensor.data());
        outputs[i].data.assign(data, data + tensor.get_byte_size());
      }
    } catch (const std::exception& e) {
      return from_exception(e, "running the network");
    }
    return {};
  }

 private:
  // The CPU plugin computes integers of more than 31 bits with 32: larger ones would come out wrong.
  template <class T>
  static bool fits_32_bits(const std::byte* data, uint64_t bytes) {
    const auto* v = reinterpret_cast<const T*>(data);
    return std::all_of(v, v + bytes / sizeof(T),
                       [](T x) { return T(int32_t(x)) == x && (x < 0) == (int32_t(x) < 0); });
  }
  static bool fits(ElementType type, const std::byte* data, uint64_t bytes) {
    switch (type) {
      case ElementType::kInt64:
        return fits_32_bits<int64_t>(data, bytes);
      case ElementType::kUInt64:
        return fits_32_bits<uint64_t>(data, bytes);
      case ElementType::kUInt32:
        return fits_32_bits<uint32_t>(data, bytes);
      default:
        return true;
    }
  }

  // Tensors wrap the caller's memory, which OpenVINO only reads; what does not lie on its elements' alignment
  // (part of a network message, say) is copied.
  Status set_input(size_t i, const InputTensor& view) {
    const TensorSpec& spec = info_.inputs[i];
    const size_t element = element_size(spec.type);
    uint64_t bytes = element;
    ov::Shape shape;
    for (const int64_t extent : view.shape) {
      if (extent < 0 || (extent > 0 && bytes > (uint64_t{1} << 48) / uint64_t(extent)))
        return Error{ErrorCode::kInvalidArgument, "input '" + spec.name + "' has an impossible shape", "",
                     ""};
      bytes *= uint64_t(extent);
      shape.push_back(size_t(extent));
    }
    if (view.data.size() != bytes)
      return Error{ErrorCode::kInvalidArgument,
                   "input '" + spec.name + "' has " + std::to_string(view.data.size()) +
                       " bytes, its shape needs " + std::to_string(bytes),
                   "", ""};
    const std::byte* data = view.data.data();
    if (reinterpret_cast<uintptr_t>(data) % element != 0) {
      if (aligned_[i].size() < bytes) aligned_[i] = Buffer<std::byte>(bytes);
      std::memcpy(aligned_[i].data(), data, bytes);
      data = aligned_[i].data();
    }
    if (!fits(spec.type, data, bytes))
      return Error{ErrorCode::kUnsupported, "input '" + spec.name + "' has a value beyond 32 bits (signed)",
                   "", "OpenVINO computes integers on CPUs with 32 bits; keep values below 2147483648."};
    const auto* pair = std::find_if(std::begin(kElements), std::end(kElements),
                                    [&](const ElementPair& e) { return e.ours == spec.type; });
    request_.set_input_tensor(i, ov::Tensor(pair->theirs, shape, const_cast<std::byte*>(data)));
    return {};
  }

  ov::InferRequest request_;
  const TensorModelInfo info_;
  std::vector<Buffer<std::byte>> aligned_;
};

class OpenVinoTensorModel : public TensorModel {
 public:
  OpenVinoTensorModel(ov::CompiledModel model, TensorModelInfo info)
      : model_(std::move(model)), info_(std::move(info)) {}
  const TensorModelInfo& info() const override { return info_; }
  Result<std::unique_ptr<TensorSession>> create_session() const override {
    try {
      std::lock_guard lock(mutex_);
      return std::unique_ptr<TensorSession>(
          std::make_unique<OpenVinoTensorSession>(model_.create_infer_request(), info_));
    } catch (const std::exception& e) {
      return from_exception(e, "making an inference request");
    }
  }

 private:
  mutable std::mutex mutex_;
  mutable ov::CompiledModel model_;
  TensorModelInfo info_;
};

Result<TensorModelInfo> describe_model(const ov::Model& model, const TensorModelOptions& options) {
  TensorModelInfo info;
  info.platform = "openvino_onnx";
  const bool batched = options.max_batch > 0 && has_batch_axis(model);
  info.max_batch = batched ? options.max_batch : 0;
  for (const auto& port : model.inputs()) {
    ISOLINE_ASSIGN(TensorSpec spec, describe_port(port, "input", info.inputs.size(), batched));
    info.inputs.push_back(std::move(spec));
  }
  for (const auto& port : model.outputs()) {
    ISOLINE_ASSIGN(TensorSpec spec, describe_port(port, "output", info.outputs.size(), batched));
    info.outputs.push_back(std::move(spec));
  }
  info.description = openvino_backend::describe(options.precision, options.threads) + ", " +
                     std::to_string(options.instances) +
                     (options.instances == 1 ? " instance" : " instances");
  return info;
}

}  // namespace

Result<std::unique_ptr<TensorModel>> open_tensor_model(const std::string& file,
                                                       const TensorModelOptions& options) {
  ISOLINE_RETURN_IF_ERROR(supports_precision(options.precision));
  if (options.max_batch < 0 || options.instances < 1 || options.threads < 0)
    return Error{ErrorCode::kInvalidArgument,
                 "a model needs an instance, and no negative batch or number of threads", file, ""};
  ISOLINE_RETURN_IF_ERROR(InputFile::open(file));
  std::shared_ptr<ov::Model> model;
  try {
    model = read_onnx(file);
  } catch (const std::exception& e) {
    return Error{ErrorCode::kCorrupt, "OpenVINO cannot read this ONNX file: " + reason(e), file, ""};
  }
  if (model->inputs().empty() || model->outputs().empty())
    return Error{ErrorCode::kCorrupt, "holds no network with inputs and outputs", file,
                 "Export the network again."};
  try {
    auto info = describe_model(*model, options);
    if (!info.ok()) return info.error().in(file);
    const ov::element::Type precision = element_type(options.precision);
    const int threads = options.threads > 0 ? options.threads : available_cores();
    ov::CompiledModel compiled = core().compile_model(
        model, "CPU", ov::hint::inference_precision(precision), ov::inference_num_threads(threads),
        ov::num_streams(std::min(options.instances, threads)),
        // Every run would be bound to the same first cores, whatever else the process has running there.
        ov::hint::enable_cpu_pinning(false),
        ov::hint::performance_mode(options.instances == 1 ? ov::hint::PerformanceMode::LATENCY
                                                          : ov::hint::PerformanceMode::THROUGHPUT));
    if (compiled.get_property(ov::hint::inference_precision) != precision)
      return Error{ErrorCode::kInternal, "OpenVINO did not accept the precision", "--precision", ""};
    return std::unique_ptr<TensorModel>(
        std::make_unique<OpenVinoTensorModel>(std::move(compiled), std::move(info).value()));
  } catch (const std::exception& e) {
    return from_exception(e, "compiling " + file);
  }
}

}  // namespace isoline::openvino_backend
