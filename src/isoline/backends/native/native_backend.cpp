#include "isoline/backends/native/native_backend.h"

#include <new>

#include "isoline/backends/native/session.h"

namespace isoline {
namespace {

using native::KernelTable;

constexpr int kMaxThreads = 1024;

struct Processor {
  bool avx2 = false, avx512 = false, bf16 = false;
  Processor() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
#endif
  }
};

const Processor& processor() {
  static const Processor p;
  return p;
}

const KernelTable* kernels_for(Precision precision) {
  const Processor& p = processor();
  if (precision == Precision::kBFloat16) return p.bf16 ? native::avx512_bf16_table() : nullptr;
  if (precision != Precision::kFloat32) return nullptr;
  if (p.avx512 && native::avx512_table()) return native::avx512_table();
  return p.avx2 ? native::avx2_table() : nullptr;
}

class NativeBackend final : public Backend {
 public:
  std::string name() const override { return "native"; }

  std::string device_description() const override {
    const KernelTable* fp32 = kernels_for(Precision::kFloat32);
    if (!fp32) return "CPU without AVX2: unusable";
    return std::string("CPU, ") + fp32->name +
           (kernels_for(Precision::kBFloat16) ? ", bf16 in hardware" : ", no bf16 in hardware");
  }

  Status supports(const NetworkGraph& graph, const SessionOptions& options) const override {
    if (!kernels_for(Precision::kFloat32))
      return Error{ErrorCode::kUnsupported, "the native backend needs a processor with AVX2 and FMA",
                   "--backend", "Use --backend openvino or --backend reference."};
    if (!kernels_for(options.precision))
      return Error{ErrorCode::kUnsupported,
                   std::string("the native backend cannot run ") + to_string(options.precision) +
                       " on this CPU" +
                       (options.precision == Precision::kBFloat16 ? " (it has no AVX-512 BF16)" : ""),
                   "--precision", "Use --precision fp32."};
    ISOLINE_RETURN_IF_ERROR(validate(graph));
    if (options.batch < 1)
      return Error{ErrorCode::kInvalidArgument, "batch " + std::to_string(options.batch) + " is not positive",
                   "batch", ""};
    if (options.threads < 0 || options.threads > kMaxThreads)
      return Error{ErrorCode::kInvalidArgument, std::to_string(options.threads) + " threads", "threads",
                   "Use 0 (all cores) to " + std::to_string(kMaxThreads) + "."};
    const Vec3<int> d = graph.patch_divisor();
    for (size_t a = 0; a < 3; ++a)
      if (options.patch[a] < 1 || options.patch[a] % d[a])
        return Error{ErrorCode::kInvalidArgument, "patch " + to_string(options.patch) + " does not divide",
                     "patch_size", "Use multiples of the network's total stride."};
    return {};
  }

  Result<std::unique_ptr<Session>> create(const NetworkGraph& graph,
                                          const SessionOptions& options) const override {
    ISOLINE_RETURN_IF_ERROR(supports(graph, options));
    try {
      std::unique_ptr<Session> session =
          std::make_unique<native::NativeSession>(graph, options, *kernels_for(options.precision));
      return session;
    } catch (const std::bad_alloc&) {
      return Error{ErrorCode::kResourceExhausted,
                   "not enough memory for this network at patch " + to_string(options.patch),
                   "native backend", "Use a smaller patch, --precision bf16, or close other programs."};
    }
  }
};

}  // namespace

std::unique_ptr<Backend> make_native_backend() {
  return std::make_unique<NativeBackend>();
}

std::vector<NativeStepTime> native_step_times(const Session& session) {
  return dynamic_cast<const native::NativeSession&>(session).step_times();
}
NativeMemory native_memory(const Session& session) {
  return dynamic_cast<const native::NativeSession&>(session).memory();
}

}  // namespace isoline
