#include "isoline/image_network/image_network.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace isoline {
namespace {

std::string text_of(const std::vector<int64_t>& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + "]";
}

ElementType element_type_of(PixelType type) {
  switch (type) {
    case PixelType::kFloat32:
      return ElementType::kFloat32;
    case PixelType::kFloat16:
      return ElementType::kFloat16;
    case PixelType::kUInt8:
      return ElementType::kUInt8;
  }
  return ElementType::kFloat32;
}

// -1 in the file fits any extent.
bool fits(const std::vector<int64_t>& file, const std::vector<int64_t>& wanted) {
  if (file.size() != wanted.size()) return false;
  for (size_t i = 0; i < file.size(); ++i)
    if (file[i] != -1 && file[i] != wanted[i]) return false;
  return true;
}

}  // namespace

Result<ImageNetworkPorts> match_ports(const ImageModelSpec& spec, const TensorModelInfo& info) {
  const std::string remedy = std::string("Change ") + kImageModelFile + " or export the network again.";
  const auto refuse = [&](const std::string& message) {
    return Error{ErrorCode::kUnsupported, message, spec.onnx_file, remedy};
  };
  ImageNetworkPorts ports;
  ports.batched = info.max_batch > 0;
  if (info.inputs.size() != 1)
    return refuse("the network has " + std::to_string(info.inputs.size()) +
                  " inputs, an image network has one");
  const TensorSpec& in = info.inputs[0];
  if (!spec.input_name.empty() && spec.input_name != in.name)
    return refuse("the network's input is called '" + in.name + "', not '" + spec.input_name + "'");
  const ElementType type = element_type_of(spec.preprocess.type);
  if (in.type != type)
    return refuse(std::string("the network's input has elements of type ") + to_string(in.type) + ", not " +
                  to_string(type));
  const std::vector<int64_t> picture = spec.preprocess.shape();
  std::vector<int64_t> one{1};
  one.insert(one.end(), picture.begin(), picture.end());
  ports.leading_one = !ports.batched && fits(in.shape, one);
  if (!ports.leading_one && !fits(in.shape, picture))
    return refuse("the network's input has the shape " + text_of(in.shape) + ", one picture is " +
                  text_of(picture));

  if (spec.output_name.empty() && info.outputs.size() != 1)
    return refuse("the network has " + std::to_string(info.outputs.size()) + " outputs and none is named");
  std::string names;
  for (ports.output = 0; ports.output < info.outputs.size(); ++ports.output) {
    const std::string& name = info.outputs[ports.output].name;
    if (spec.output_name.empty() || name == spec.output_name) break;
    names += (names.empty() ? "" : ", ") + name;
  }
  if (ports.output == info.outputs.size())
    return refuse("the network has no output '" + spec.output_name + "' (it has: " + names + ")");
  const TensorSpec& out = info.outputs[ports.output];
  if (out.type != ElementType::kFloat32)
    return refuse("output '" + out.name + "' has elements of type " + to_string(out.type) + ", not FP32");
  ports.output_shape = out.shape;
  if (!ports.batched && !out.shape.empty() && out.shape[0] == 1)
    ports.output_shape.erase(ports.output_shape.begin());
  ports.dimensions = 1;
  for (const int64_t extent : ports.output_shape) {
    if (extent < 1 || extent > (int64_t{1} << 24) / ports.dimensions)
      return refuse("output '" + out.name + "' has the shape " + text_of(out.shape) +
                    ", which is no fixed vector");
    ports.dimensions *= extent;
  }
  return ports;
}

Status finish_vectors(const ImageModelSpec& spec, int64_t dimensions, std::span<float> vectors) {
  const auto d = size_t(dimensions);
  for (size_t at = 0; at + d <= vectors.size(); at += d) {
    const std::span<float> v = vectors.subspan(at, d);
    double sum = 0;
    float largest = v[0];
    for (const float x : v) {
      if (!std::isfinite(x))
        return Error{ErrorCode::kCorrupt, "the network gave a value that is not finite", spec.onnx_file,
                     "Try another precision; otherwise the network is broken."};
      sum += double(x) * double(x);
      largest = std::max(largest, x);
    }
    if (spec.l2_normalize && sum > 0) {
      const double scale = 1 / std::sqrt(sum);
      for (float& x : v) x = float(double(x) * scale);
    }
    if (spec.softmax) {
      double total = 0;
      for (const float x : v) total += std::exp(double(x) - double(largest));
      for (float& x : v) x = float(std::exp(double(x) - double(largest)) / total);
    }
  }
  return {};
}

Result<ImageNetwork> ImageNetwork::open(const ImageModelSpec& spec, const Backend& backend,
                                        const TensorModelOptions& options, const DecodeLimits& limits) {
  ISOLINE_ASSIGN(std::unique_ptr<TensorModel> model, backend.open_tensor_model(spec.onnx_file, options));
  ISOLINE_ASSIGN(ImageNetworkPorts ports, match_ports(spec, model->info()));
  return ImageNetwork(spec, limits, std::move(model), std::move(ports));
}

Result<ImageNetwork::Session> ImageNetwork::create_session() const {
  ISOLINE_ASSIGN(std::unique_ptr<TensorSession> session, model_->create_session());
  return Session(*this, std::move(session));
}

Status ImageNetwork::Session::run(std::span<const std::byte> input, int64_t pictures,
                                  std::span<float> vectors) {
  const ImageNetwork& n = *network_;
  InputTensor tensor{n.spec_.preprocess.shape(), input};
  if (n.ports_.batched || n.ports_.leading_one) tensor.shape.insert(tensor.shape.begin(), pictures);
  const auto wanted = size_t(pictures * n.ports_.dimensions);
  if (pictures < 1 || pictures > n.max_batch() || vectors.size() != wanted)
    return Error{ErrorCode::kInternal, std::to_string(pictures) + " pictures do not fit a run", "", ""};
  ISOLINE_RETURN_IF_ERROR(session_->run(std::span(&tensor, 1), outputs_));
  const std::vector<std::byte>& out = outputs_[n.ports_.output].data;
  if (out.size() != wanted * sizeof(float))
    return Error{ErrorCode::kInternal,
                 "the network gave " + std::to_string(out.size()) + " bytes instead of " +
                     std::to_string(wanted * sizeof(float)),
                 n.spec_.onnx_file, "Please report this."};
  std::memcpy(vectors.data(), out.data(), out.size());
  return finish_vectors(n.spec_, n.ports_.dimensions, vectors);
}

}  // namespace isoline
