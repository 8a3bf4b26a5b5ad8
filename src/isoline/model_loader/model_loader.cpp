#include "isoline/model_loader/model_loader.h"

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "isoline/image_network/picture_model.h"

namespace isoline {
namespace {

namespace fs = std::filesystem;
using serve::ModelConfig;
using serve::ModelSource;

constexpr const char* kAnyOnnxBackend = "onnxruntime";
constexpr int kMaxThreads = 1024;

Error invalid(std::string message, std::string context, std::string remedy) {
  return {ErrorCode::kInvalidArgument, std::move(message), std::move(context), std::move(remedy)};
}

// The backend that the configuration names, or the best here that runs ONNX files.
Result<const Backend*> choose_backend(const BackendRegistry& registry, const std::string& name,
                                      const TensorModelOptions& options) {
  if (!name.empty() && name != kAnyOnnxBackend) {
    ISOLINE_ASSIGN(const Backend* named, registry.find(name));
    ISOLINE_RETURN_IF_ERROR(named->supports_tensor_model(options));
    return named;
  }
  std::optional<Error> refusal;
  for (const Backend* backend : registry.all()) {
    if (!backend->available()) continue;
    const Status status = backend->supports_tensor_model(options);
    if (status.ok()) return backend;
    // One that runs ONNX files has more to say than one that does not.
    if (!refusal || backend->name() == "openvino") refusal = status.error();
  }
  if (refusal) return *refusal;
  return Error{ErrorCode::kUnsupported, "no backend of this build runs ONNX files", "", ""};
}

// What the configuration's two names for one thing come to: a backend's name, or empty.
Result<std::string> backend_name(const ModelConfig& config) {
  std::string name = config.backend;
  if (config.platform.empty() || config.platform == kImagePlatform) return name;
  const std::string_view ending = "_onnx";
  if (!config.platform.ends_with(ending))
    return Error{ErrorCode::kUnsupported, "no way to open models of platform '" + config.platform + "'",
                 "config.pbtxt", "ONNX files are of platform onnxruntime_onnx or openvino_onnx."};
  const std::string from_platform = config.platform.substr(0, config.platform.size() - ending.size());
  if (!name.empty() && name != from_platform)
    return invalid("platform '" + config.platform + "' and backend '" + name + "' do not belong together",
                   "config.pbtxt", "Leave one of them out.");
  return from_platform;
}

Result<TensorModelOptions> read_options(const ModelConfig& config) {
  TensorModelOptions options;
  options.max_batch = config.has_max_batch_size ? config.max_batch_size : kDefaultMaxBatch;
  options.instances = config.instances();
  for (const serve::InstanceGroup& g : config.instance_group)
    if (g.kind == "KIND_GPU")
      return Error{ErrorCode::kUnsupported, "no backend of this build runs ONNX files on a GPU",
                   "instance_group", "Use KIND_CPU or KIND_AUTO."};
  for (const auto& [key, value] : config.parameters) {
    if (key == "precision") {
      auto precision = parse_precision(value);
      if (!precision.ok()) return precision.error().in("parameters.precision");
      options.precision = *precision;
    } else if (key == "threads") {
      const auto r = std::from_chars(value.data(), value.data() + value.size(), options.threads);
      if (r.ec != std::errc() || r.ptr != value.data() + value.size() || options.threads < 1 ||
          options.threads > kMaxThreads)
        return invalid("'" + value + "' is no number from 1 to " + std::to_string(kMaxThreads),
                       "parameters.threads", "Leave it out for one thread per core.");
    } else {
      return Error{ErrorCode::kUnsupported, "the parameter '" + key + "' is not served", "parameters",
                   "ONNX models have the parameters precision and threads."};
    }
  }
  return options;
}

// A file of the version's folder; its name may come from a client.
Result<std::string> onnx_file(const ModelSource& source, const ModelConfig& config) {
  const std::string name =
      config.default_model_filename.empty() ? "model.onnx" : config.default_model_filename;
  if (!serve::check_model_name(name).ok())
    return invalid("'" + name.substr(0, 128) + "' is no file's name: letters, digits, '_', '.' and '-'",
                   "default_model_filename", "");
  const fs::path file = fs::path(source.version_folder) / name;
  std::error_code ec;
  if (!fs::is_regular_file(file, ec))
    return Error{ErrorCode::kNotFound,
                 "there is neither " + name + " nor " + std::string(kImageModelFile) + " in its folder", "",
                 "Put the network there, as MODEL/VERSION/" + name + "."};
  return file.string();
}

Result<std::unique_ptr<TensorModel>> open_network(const BackendRegistry& registry, const DecodeLimits& limits,
                                                  const ModelSource& source, ModelConfig& config) {
  const bool pictures = config.platform == kImagePlatform || is_image_model(source.version_folder);
  if (pictures && !config.platform.empty() && config.platform != kImagePlatform)
    return invalid("the folder holds an image network (" + std::string(kImageModelFile) +
                       ") and the platform is '" + config.platform + "'",
                   "config.pbtxt", std::string("Write ") + kImagePlatform + ", or leave platform out.");
  ISOLINE_ASSIGN(const std::string name, backend_name(config));
  ISOLINE_ASSIGN(TensorModelOptions options, read_options(config));
  ISOLINE_ASSIGN(const Backend* backend, choose_backend(registry, name, options));
  config.backend = backend->name();
  if (!pictures) {
    ISOLINE_ASSIGN(const std::string file, onnx_file(source, config));
    return backend->open_tensor_model(file, options);
  }
  ISOLINE_ASSIGN(ImageModelSpec spec, read_image_model(source.version_folder));
  options.max_batch = std::max<int64_t>(1, options.max_batch);
  ISOLINE_ASSIGN(auto network, backend->open_tensor_model(spec.onnx_file, options));
  return make_picture_model(std::move(spec), std::move(network), limits);
}

}  // namespace

serve::ModelFactory make_model_factory(const BackendRegistry& registry, DecodeLimits limits) {
  return [&registry, limits](const ModelSource& source,
                             ModelConfig& config) -> Result<std::unique_ptr<TensorModel>> {
    ISOLINE_ASSIGN(auto model, open_network(registry, limits, source, config));
    // Who configures nothing gets batches of what is there, and nobody waits for company.
    if (!source.configured && model->info().max_batch > 1) config.dynamic_batching.emplace();
    return model;
  };
}

}  // namespace isoline
