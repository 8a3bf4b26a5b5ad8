#include "isoline/engine/backend.h"

#include "isoline/engine/scan_runner.h"

namespace isoline {
namespace {

Error no_layer_times(const std::string& what_runs) {
  return {ErrorCode::kUnsupported, "'" + what_runs + "' does not time its layers", "--profile",
          "Use --backend native or cuda."};
}

}  // namespace

const char* to_string(SpanKind kind) {
  switch (kind) {
    case SpanKind::kPreprocess:
      return "preprocess";
    case SpanKind::kNetwork:
      return "network";
    case SpanKind::kForward:
      return "forward";
    case SpanKind::kExport:
      return "export";
  }
  return "unknown";
}

const char* to_string(Precision p) {
  switch (p) {
    case Precision::kFloat32:
      return "fp32";
    case Precision::kTensorFloat32:
      return "tf32";
    case Precision::kBFloat16:
      return "bf16";
    case Precision::kFloat16:
      return "fp16";
  }
  return "unknown";
}

Result<Precision> parse_precision(const std::string& text) {
  for (const Precision p :
       {Precision::kFloat32, Precision::kTensorFloat32, Precision::kBFloat16, Precision::kFloat16})
    if (text == to_string(p)) return p;
  return Error{ErrorCode::kInvalidArgument, "'" + text + "' is no precision", "",
               "Use fp32, tf32, bf16 or fp16."};
}

const char* to_string(Autotune a) {
  switch (a) {
    case Autotune::kOff:
      return "off";
    case Autotune::kSameBits:
      return "same-bits";
    case Autotune::kAll:
      return "all";
  }
  return "unknown";
}

Result<Autotune> parse_autotune(const std::string& text) {
  for (const Autotune a : {Autotune::kOff, Autotune::kSameBits, Autotune::kAll})
    if (text == to_string(a)) return a;
  return Error{ErrorCode::kInvalidArgument, "'" + text + "' is no way to choose kernels", "",
               "Use off, same-bits or all."};
}

Status Session::run_mirrored(const float*, std::span<const Vec3<bool>>, float*) {
  return Error{ErrorCode::kInternal, description() + " does not mirror by itself", "", ""};
}

Result<std::vector<LayerTime>> Session::layer_times(int) {
  return no_layer_times(description());
}

Result<std::vector<LayerTime>> ScanRunner::layer_times(int) {
  return no_layer_times(description());
}

Result<DeviceCeilings> Backend::measure_ceilings(Precision) const {
  return Error{ErrorCode::kUnsupported, "backend '" + name() + "' does not measure its device's ceilings",
               "--profile", "Use --backend cuda."};
}

Result<std::unique_ptr<ScanRunner>> Backend::create_scan_runner(std::vector<NetworkGraph>,
                                                                const ScanRunnerOptions&) const {
  return Error{ErrorCode::kInternal, "backend '" + name() + "' does not keep scans on a device", "", ""};
}

Status Backend::supports_onnx(const SessionOptions&) const {
  return Error{ErrorCode::kUnsupported, "backend '" + name() + "' does not run ONNX files", "--backend",
               "Use --backend openvino."};
}

Result<std::unique_ptr<Session>> Backend::create_from_onnx(const std::string& file, int, int, int,
                                                           const SessionOptions& options) const {
  const Status status = supports_onnx(options);
  if (!status.ok()) return status.error().in(file);
  return Error{ErrorCode::kInternal, "backend '" + name() + "' says it runs ONNX files but does not", file,
               ""};
}

Status Backend::supports_tensor_model(const TensorModelOptions&) const {
  return Error{ErrorCode::kUnsupported, "backend '" + name() + "' does not run ONNX files", "--backend",
               "Use --backend openvino."};
}

Result<std::unique_ptr<TensorModel>> Backend::open_tensor_model(const std::string& file,
                                                                const TensorModelOptions& options) const {
  const Status status = supports_tensor_model(options);
  if (!status.ok()) return status.error().in(file);
  return Error{ErrorCode::kInternal, "backend '" + name() + "' says it runs ONNX files but does not", file,
               ""};
}

void BackendRegistry::add(std::unique_ptr<Backend> backend) {
  backends_.push_back(std::move(backend));
}

Result<const Backend*> BackendRegistry::find(const std::string& name) const {
  std::string names;
  for (const auto& b : backends_) {
    if (b->name() == name) return static_cast<const Backend*>(b.get());
    names += (names.empty() ? "" : ", ") + b->name();
  }
  return Error{ErrorCode::kNotFound, "backend '" + name + "' is not in this build (it has: " + names + ")",
               "--backend",
               "Configure with -DISOLINE_BACKEND_<NAME>=ON; docs/guides/build.md says what each needs."};
}

std::vector<const Backend*> BackendRegistry::all() const {
  std::vector<const Backend*> out;
  for (const auto& b : backends_) out.push_back(b.get());
  return out;
}

}  // namespace isoline
