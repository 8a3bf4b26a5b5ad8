#include "isoline/backends/cuda/device.h"

namespace isoline::cuda {
namespace {

std::string version(int v) {
  return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10);
}

Result<DeviceInfo> find_device() {
  const std::string elsewhere = "Use --backend native.";
  int driver = 0, count = 0;
  // 0: libcuda.so.1 is missing. The runtime itself reports that case and an old driver alike.
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
    return Error{ErrorCode::kUnsupported, "no NVIDIA driver on this machine", "cuda",
                 "Install NVIDIA's driver (in containers: start them with the GPU). " + elsewhere};
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code == cudaErrorInsufficientDriver)
    return Error{ErrorCode::kUnsupported,
                 "the NVIDIA driver runs CUDA up to " + version(driver) + ", this program needs " +
                     version(CUDART_VERSION),
                 "cuda", "Update the driver, or build with an older CUDA toolkit. " + elsewhere};
  if (code == cudaErrorNoDevice || (code == cudaSuccess && count == 0))
    return Error{ErrorCode::kUnsupported, "the NVIDIA driver lists no GPU", "cuda",
                 "Look at nvidia-smi and CUDA_VISIBLE_DEVICES. " + elsewhere};
  if (code != cudaSuccess) return cuda_error(code, "looking for a GPU");
  DeviceInfo d;
  cudaDeviceProp p{};
  ISOLINE_CUDA(cudaGetDeviceProperties(&p, d.id), "asking for the GPU's properties");
  d.name = p.name;
  d.major = p.major;
  d.minor = p.minor;
  d.processors = p.multiProcessorCount;
  d.memory_bytes = p.totalGlobalMem;
  d.driver = version(driver);
  if (d.major < 8)
    return Error{ErrorCode::kUnsupported,
                 d.name + " has compute capability " + std::to_string(d.major) + "." +
                     std::to_string(d.minor) + ", the cuda backend needs 8.0 (Ampere) or newer",
                 "cuda", elsewhere};
  return d;
}

}  // namespace

Error cuda_error(cudaError_t code, const std::string& what) {
  const std::string text = std::string(cudaGetErrorString(code)) + " (" + cudaGetErrorName(code) + ")";
  cudaGetLastError();  // an error that is not sticky must not be found again by the next call
  switch (code) {
    case cudaErrorMemoryAllocation: {
      size_t free = 0, total = 0;
      std::string memory;
      if (cudaMemGetInfo(&free, &total) == cudaSuccess)
        memory = ": " + std::to_string(free >> 20) + " of " + std::to_string(total >> 20) + " MiB are free";
      return {ErrorCode::kResourceExhausted, "GPU memory ran out while " + what + memory, "cuda",
              "Close other programs on the GPU, use --precision fp16 or bf16, or --backend native."};
    }
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorInvalidPtx:
      return {ErrorCode::kUnsupported, "this build has no code for this GPU: " + text, "cuda",
              "Configure with -DCMAKE_CUDA_ARCHITECTURES=native, or use --backend native."};
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInvalidDevice:
      return {ErrorCode::kUnsupported, "no usable GPU: " + text, "cuda", "Use --backend native."};
    case cudaErrorInvalidValue:
    case cudaErrorInvalidConfiguration:
    case cudaErrorNotSupported:
      return {ErrorCode::kInternal, "CUDA refused a call while " + what + ": " + text, "cuda",
              "Please report this; --backend native runs meanwhile."};
    default:
      break;
  }
  return {ErrorCode::kInternal, "the GPU failed while " + what + ": " + text, "cuda",
          "Start again; if it comes back, look at nvidia-smi and the kernel log (Xid messages)."};
}

const Result<DeviceInfo>& device_info() {
  static const Result<DeviceInfo> info = find_device();
  return info;
}

}  // namespace isoline::cuda
