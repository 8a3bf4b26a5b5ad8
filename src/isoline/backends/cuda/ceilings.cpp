#include "isoline/backends/cuda/ceilings.h"

#include <algorithm>
#include <functional>
#include <vector>

#include "isoline/backends/cuda/session.h"

namespace isoline::cuda {
namespace {

constexpr int64_t kCopyBytes = int64_t{256} << 20;  // far more than any cache holds
constexpr int kRepeats = 9;

// Median over repeats after a warm-up, in milliseconds.
Result<double> median_ms(cudaStream_t stream, const std::function<cudaError_t()>& launch) {
  Event begin, end;
  ISOLINE_CUDA(cudaEventCreate(begin.out()), "making an event");
  ISOLINE_CUDA(cudaEventCreate(end.out()), "making an event");
  std::vector<float> ms;
  for (int r = 0; r <= kRepeats; ++r) {
    ISOLINE_CUDA(cudaEventRecord(begin.get(), stream), "timing");
    ISOLINE_CUDA(launch(), "measuring the GPU's ceilings");
    ISOLINE_CUDA(cudaEventRecord(end.get(), stream), "timing");
    ISOLINE_CUDA(cudaEventSynchronize(end.get()), "measuring the GPU's ceilings");
    float t = 0;
    ISOLINE_CUDA(cudaEventElapsedTime(&t, begin.get(), end.get()), "timing");
    if (r) ms.push_back(t);
  }
  std::nth_element(ms.begin(), ms.begin() + kRepeats / 2, ms.end());
  return double(ms[kRepeats / 2]);
}

}  // namespace

Result<DeviceCeilings> measure_ceilings(const DeviceInfo& device, Precision precision) {
  ISOLINE_CUDA(cudaSetDevice(device.id), "choosing the GPU");
  Stream stream;
  ISOLINE_CUDA(cudaStreamCreateWithFlags(stream.out(), cudaStreamNonBlocking), "making a stream");
  DeviceCeilings out;
  {
    ISOLINE_ASSIGN(const DeviceMemory from,
                   DeviceMemory::allocate(size_t(kCopyBytes), "taking memory to measure its bandwidth"));
    ISOLINE_ASSIGN(const DeviceMemory to,
                   DeviceMemory::allocate(size_t(kCopyBytes), "taking memory to measure its bandwidth"));
    ISOLINE_CUDA(cudaMemsetAsync(from.at(), 0x5a, from.bytes(), stream.get()), "filling memory");
    ISOLINE_ASSIGN(const double ms, median_ms(stream.get(), [&] {
                     return copy_memory(from.at(), to.at(), kCopyBytes, stream.get());
                   }));
    out.bytes_per_s = 2e3 * double(kCopyBytes) / ms;
  }
  ISOLINE_ASSIGN(const DeviceMemory sums,
                 DeviceMemory::allocate(size_t(device.processors) * kProductThreads * sizeof(float),
                                        "taking memory for products"));
  Products products;
  ISOLINE_ASSIGN(const double ms, median_ms(stream.get(), [&] {
                   return multiply(data_type(precision), device, sums.at<float>(), &products, stream.get());
                 }));
  out.flops_per_s = 1e3 * products.flops / ms;
  out.how = std::string(products.how) + "; a copy of " + std::to_string(kCopyBytes >> 20) +
            " MiB on the device, read and written";
  return out;
}

}  // namespace isoline::cuda
