#include "isoline/backends/openvino/openvino_backend.h"

#include <exception>
#include <vector>

#include <openvino/openvino.hpp>
#include <openvino/opsets/opset8.hpp>

#include "isoline/backends/openvino/openvino_common.h"
#include "isoline/backends/openvino/openvino_tensor_model.h"
#include "isoline/base/parallel.h"

namespace isoline {
namespace {

using namespace openvino_backend;
namespace op = ov::opset8;
using Nodes = std::vector<ov::Output<ov::Node>>;

// Builds an ov::Model from a NetworkGraph. Two-dimensional networks keep their two axes.
class Translator {
 public:
  Translator(const NetworkGraph& graph, const SessionOptions& options)
      : graph_(graph), dims_(size_t(graph.spatial_dims)), values_(graph.values.size()) {
    ov::Shape shape{size_t(options.batch), size_t(graph.input_channels())};
    for (size_t a = 3 - dims_; a < 3; ++a) shape.push_back(size_t(options.patch[a]));
    input_ = std::make_shared<op::Parameter>(ov::element::f32, shape);
    values_[0] = input_;
  }

  std::shared_ptr<ov::Model> translate() {
    for (const Op& o : graph_.ops) std::visit([&](const auto& x) { add(x); }, o);
    auto result = std::make_shared<op::Result>(values_[size_t(graph_.output)]);
    return std::make_shared<ov::Model>(ov::ResultVector{result}, ov::ParameterVector{input_}, "isoline");
  }

 private:
  template <class T>
  std::vector<T> axes(const Vec3<int>& v) const {
    std::vector<T> out;
    for (size_t a = 3 - dims_; a < 3; ++a) out.push_back(T(v[a]));
    return out;
  }
  std::shared_ptr<op::Constant> constant(const std::vector<float>& data, const ov::Shape& shape) const {
    return std::make_shared<op::Constant>(ov::element::f32, shape, data.data());
  }
  // One value per channel, shaped to broadcast over [n, c, ...].
  std::shared_ptr<op::Constant> per_channel(const std::vector<float>& data) const {
    ov::Shape shape(dims_ + 2, 1);
    shape[1] = data.size();
    return constant(data, shape);
  }
  ov::Output<ov::Node> with_bias(const ov::Output<ov::Node>& node, const std::vector<float>& bias) const {
    if (bias.empty()) return node;
    return std::make_shared<op::Add>(node, per_channel(bias));
  }

  void add(const ConvOp& o) {
    ov::Shape shape{size_t(graph_.values[size_t(o.out)].channels),
                    size_t(graph_.values[size_t(o.in)].channels)};
    for (int k : axes<int>(o.kernel)) shape.push_back(size_t(k));
    ov::CoordinateDiff pad;
    for (int k : axes<int>(o.kernel)) pad.push_back((k - 1) / 2);
    auto conv = std::make_shared<op::Convolution>(values_[size_t(o.in)], constant(o.weight, shape),
                                                  ov::Strides(axes<size_t>(o.stride)), pad, pad,
                                                  ov::Strides(dims_, 1));
    values_[size_t(o.out)] = with_bias(conv, o.bias);
  }
  void add(const ConvTransposeOp& o) {
    ov::Shape shape{size_t(graph_.values[size_t(o.in)].channels),
                    size_t(graph_.values[size_t(o.out)].channels)};
    for (int k : axes<int>(o.stride)) shape.push_back(size_t(k));
    const ov::CoordinateDiff pad(dims_, 0);
    auto conv = std::make_shared<op::ConvolutionBackpropData>(
        values_[size_t(o.in)], constant(o.weight, shape), ov::Strides(axes<size_t>(o.stride)), pad, pad,
        ov::Strides(dims_, 1));
    values_[size_t(o.out)] = with_bias(conv, o.bias);
  }
  void add(const InstanceNormOp& o) {
    std::vector<int64_t> spatial;
    for (size_t a = 0; a < dims_; ++a) spatial.push_back(int64_t(a + 2));
    auto over = std::make_shared<op::Constant>(ov::element::i64, ov::Shape{spatial.size()}, spatial);
    auto mvn =
        std::make_shared<op::MVN>(values_[size_t(o.in)], over, true, o.eps, ov::op::MVNEpsMode::INSIDE_SQRT);
    auto scaled = std::make_shared<op::Multiply>(mvn, per_channel(o.gamma));
    values_[size_t(o.out)] = std::make_shared<op::Add>(scaled, per_channel(o.beta));
  }
  void add(const LeakyReluOp& o) {
    const ov::Output<ov::Node>& in = values_[size_t(o.in)];
    if (o.slope == 0)
      values_[size_t(o.out)] = std::make_shared<op::Relu>(in);
    else
      values_[size_t(o.out)] = std::make_shared<op::PRelu>(in, constant({o.slope}, {1}));
  }
  void add(const AddOp& o) {
    values_[size_t(o.out)] = std::make_shared<op::Add>(values_[size_t(o.a)], values_[size_t(o.b)]);
  }
  void add(const ConcatOp& o) {
    values_[size_t(o.out)] =
        std::make_shared<op::Concat>(ov::OutputVector{values_[size_t(o.a)], values_[size_t(o.b)]}, 1);
  }
  void add(const AvgPoolOp& o) {
    const auto s = axes<size_t>(o.stride);
    values_[size_t(o.out)] =
        std::make_shared<op::AvgPool>(values_[size_t(o.in)], ov::Strides(s), ov::Shape(dims_, 0),
                                      ov::Shape(dims_, 0), ov::Shape(s), true, ov::op::RoundingType::FLOOR);
  }

  const NetworkGraph& graph_;
  size_t dims_;
  Nodes values_;
  std::shared_ptr<op::Parameter> input_;
};

class OpenVinoSession : public Session {
 public:
  OpenVinoSession(ov::CompiledModel model, const SessionOptions& options, ov::Shape in, ov::Shape out)
      : model_(std::move(model)),
        request_(model_.create_infer_request()),
        in_(std::move(in)),
        out_(std::move(out)),
        options_(options) {}

  Status run(const float* in, float* out) override {
    try {
      // Tensors wrap the caller's memory: nothing is copied. OpenVINO only reads its input.
      request_.set_input_tensor(ov::Tensor(ov::element::f32, in_, const_cast<float*>(in)));
      request_.set_output_tensor(ov::Tensor(ov::element::f32, out_, out));
      request_.infer();
    } catch (const std::exception& e) {
      return from_exception(e, "running the network");
    }
    return {};
  }

  std::string description() const override { return describe(options_.precision, options_.threads); }

 private:
  ov::CompiledModel model_;
  ov::InferRequest request_;
  ov::Shape in_, out_;
  SessionOptions options_;
};

class OpenVinoBackend : public Backend {
 public:
  std::string name() const override { return "openvino"; }

  std::string device_description() const override {
    try {
      std::string text = core().get_property("CPU", ov::device::full_name) + ", precisions:";
      for (const std::string& c : core().get_property("CPU", ov::device::capabilities))
        if (c == "FP32" || c == "BF16" || c == "FP16") text += " " + c;
      return text;
    } catch (const std::exception& e) {
      return std::string("not available: ") + e.what();
    }
  }

  Status supports(const NetworkGraph& graph, const SessionOptions& options) const override {
    ISOLINE_RETURN_IF_ERROR(validate(graph));
    return supports_precision(options.precision);
  }

  Result<std::unique_ptr<Session>> create(const NetworkGraph& graph,
                                          const SessionOptions& options) const override {
    ISOLINE_RETURN_IF_ERROR(supports(graph, options));
    try {
      return compile(Translator(graph, options).translate(), options);
    } catch (const std::exception& e) {
      return from_exception(e, "compiling the network");
    }
  }

  Status supports_onnx(const SessionOptions& options) const override {
    return supports_precision(options.precision);
  }

  Result<std::unique_ptr<Session>> create_from_onnx(const std::string& file, int input_channels,
                                                    int output_channels, int spatial_dims,
                                                    const SessionOptions& options) const override {
    ISOLINE_RETURN_IF_ERROR(supports_precision(options.precision));
    try {
      std::shared_ptr<ov::Model> model = core().read_model(file);
      if (model->inputs().size() != 1 || model->outputs().size() != 1)
        return Error{ErrorCode::kUnsupported,
                     "the ONNX file has " + std::to_string(model->inputs().size()) + " inputs and " +
                         std::to_string(model->outputs().size()) + " outputs",
                     file, "One input [n, c, (z,) y, x] and one output are needed."};
      ov::PartialShape shape{options.batch, input_channels};
      for (size_t a = size_t(3 - spatial_dims); a < 3; ++a) shape.push_back(ov::Dimension(options.patch[a]));
      model->reshape(shape);
      ov::PartialShape want{options.batch, output_channels};
      for (size_t a = size_t(3 - spatial_dims); a < 3; ++a) want.push_back(ov::Dimension(options.patch[a]));
      if (!model->output().get_partial_shape().compatible(want) ||
          model->output().get_partial_shape().is_dynamic())
        return Error{ErrorCode::kUnsupported,
                     "the ONNX file gives " + model->output().get_partial_shape().to_string() +
                         ", expected " + want.to_string(),
                     file, "Check labels and patch_size in isoline.json."};
      if (model->input().get_element_type() != ov::element::f32 ||
          model->output().get_element_type() != ov::element::f32)
        return Error{ErrorCode::kUnsupported, "the ONNX file's input and output must be float32", file, ""};
      return compile(model, options);
    } catch (const std::exception& e) {
      return Error{ErrorCode::kCorrupt, "OpenVINO cannot read this ONNX file: " + reason(e), file, ""};
    }
  }

  Status supports_tensor_model(const TensorModelOptions& options) const override {
    return supports_precision(options.precision);
  }

  Result<std::unique_ptr<TensorModel>> open_tensor_model(const std::string& file,
                                                         const TensorModelOptions& options) const override {
    return openvino_backend::open_tensor_model(file, options);
  }

 private:
  static Result<std::unique_ptr<Session>> compile(const std::shared_ptr<ov::Model>& model,
                                                  const SessionOptions& options) {
    const ov::element::Type precision = element_type(options.precision);
    const int threads = options.threads > 0 ? options.threads : available_cores();
    ov::CompiledModel compiled = core().compile_model(
        model, "CPU", ov::hint::inference_precision(precision), ov::inference_num_threads(threads),
        ov::num_streams(1), ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY));
    if (compiled.get_property(ov::hint::inference_precision) != precision)
      return Error{ErrorCode::kInternal, "OpenVINO did not accept the precision", "--precision", ""};
    const ov::Shape in = compiled.input().get_shape(), out = compiled.output().get_shape();
    return std::unique_ptr<Session>(std::make_unique<OpenVinoSession>(std::move(compiled), options, in, out));
  }
};

}  // namespace

std::unique_ptr<Backend> make_openvino_backend() {
  return std::make_unique<OpenVinoBackend>();
}

}  // namespace isoline
