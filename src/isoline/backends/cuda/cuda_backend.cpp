#include "isoline/backends/cuda/cuda_backend.h"

#include <cstdio>
#include <new>

#include "isoline/backends/cuda/ceilings.h"
#include "isoline/backends/cuda/scan_runner.h"
#include "isoline/backends/cuda/session.h"

namespace isoline {
namespace {

using cuda::CudaSession;

// Sizes are int on the device, and products of them are kept below 2^31 voxels.
constexpr int64_t kMaxVoxels = int64_t{1} << 30;
// What the driver and the runtime keep for themselves on a device.
constexpr int64_t kReservedBytes = int64_t{512} << 20;

class CudaBackend final : public Backend {
 public:
  std::string name() const override { return "cuda"; }
  std::string device_kind() const override { return "gpu"; }
  bool available() const override { return cuda::device_info().ok(); }

  std::string device_description() const override {
    const auto& device = cuda::device_info();
    if (!device.ok()) return "not usable here: " + device.error().message;
    char text[160];
    std::snprintf(text, sizeof text, "%.80s, sm_%d%d, %d SMs, %.1f GiB, driver for CUDA %s",
                  device->name.c_str(), device->major, device->minor, device->processors,
                  double(device->memory_bytes) / (1 << 30), device->driver.c_str());
    return text;
  }

  Status supports(const NetworkGraph& graph, const SessionOptions& options) const override {
    const auto& device = cuda::device_info();
    if (!device.ok()) return device.error();
    ISOLINE_RETURN_IF_ERROR(validate(graph));
    if (options.batch < 1 || options.batch > 65535)
      return Error{ErrorCode::kInvalidArgument, "batch " + std::to_string(options.batch) + " is not possible",
                   "batch", "Use 1 to 65535."};
    const Vec3<int> d = graph.patch_divisor();
    for (size_t a = 0; a < 3; ++a)
      if (options.patch[a] < 1 || options.patch[a] > kMaxVoxels || options.patch[a] % d[a])
        return Error{ErrorCode::kInvalidArgument, "patch " + to_string(options.patch) + " does not divide",
                     "patch_size", "Use multiples of the network's total stride."};
    if (options.patch[0] * options.patch[1] > kMaxVoxels || voxels(options.patch) > kMaxVoxels)
      return Error{ErrorCode::kUnsupported, "patch " + to_string(options.patch) + " is too large",
                   "patch_size", "Use --backend native."};
    // Without a device's help: activations as planned, weights as stored, input and output.
    cuda::PlanOptions po;
    po.patch = options.patch;
    po.batch = options.batch;
    po.element_bytes = cuda::element_bytes(options.precision);
    ISOLINE_ASSIGN(const cuda::Plan plan, cuda::make_plan(graph, po));
    const int64_t needed = plan.arena_bytes + graph.parameters() * po.element_bytes +
                           int64_t(options.batch) * voxels(options.patch) * 4 *
                               (graph.input_channels() + graph.output_channels()) +
                           kReservedBytes;
    if (needed > int64_t(device->memory_bytes))
      return Error{ErrorCode::kUnsupported,
                   "patch " + to_string(options.patch) + " needs about " + std::to_string(needed >> 20) +
                       " MiB of GPU memory, " + device->name + " has " +
                       std::to_string(device->memory_bytes >> 20) + " MiB",
                   "cuda",
                   po.element_bytes == 4 ? "Use --precision fp16 or bf16, or --backend native."
                                         : "Use --backend native."};
    return {};
  }

  Result<std::unique_ptr<Session>> create(const NetworkGraph& graph,
                                          const SessionOptions& options) const override {
    ISOLINE_RETURN_IF_ERROR(supports(graph, options));
    try {
      ISOLINE_ASSIGN(std::unique_ptr<CudaSession> session,
                     CudaSession::create(graph, options, *cuda::device_info()));
      return std::unique_ptr<Session>(std::move(session));
    } catch (const std::bad_alloc&) {
      return Error{ErrorCode::kResourceExhausted, "not enough memory to prepare the network for the GPU",
                   "cuda", "Close other programs."};
    }
  }

  Result<DeviceCeilings> measure_ceilings(Precision precision) const override {
    const auto& device = cuda::device_info();
    if (!device.ok()) return device.error();
    return cuda::measure_ceilings(*device, precision);
  }

  bool has_scan_runner() const override { return true; }
  Result<std::unique_ptr<ScanRunner>> create_scan_runner(std::vector<NetworkGraph> folds,
                                                         const ScanRunnerOptions& options) const override {
    for (const NetworkGraph& graph : folds) {
      SessionOptions so = options.session;
      so.batch = 1;
      ISOLINE_RETURN_IF_ERROR(supports(graph, so));
    }
    ISOLINE_ASSIGN(std::unique_ptr<cuda::CudaScanRunner> runner,
                   cuda::CudaScanRunner::create(std::move(folds), options, *cuda::device_info()));
    return std::unique_ptr<ScanRunner>(std::move(runner));
  }
};

}  // namespace

std::unique_ptr<Backend> make_cuda_backend() {
  return std::make_unique<CudaBackend>();
}
Result<std::vector<CudaStepTime>> cuda_step_times(Session& session, int runs) {
  return dynamic_cast<CudaSession&>(session).step_times(runs);
}
Result<double> cuda_graph_ms(Session& session, int runs) {
  return dynamic_cast<CudaSession&>(session).graph_ms(runs);
}
CudaMemory cuda_memory(const Session& session) {
  return dynamic_cast<const CudaSession&>(session).memory();
}

}  // namespace isoline
