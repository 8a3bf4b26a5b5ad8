// RAII around the CUDA runtime, and its failures as Errors that say what to do.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "isoline/base/result.h"

namespace isoline::cuda {

// `what`: what was being done, e.g. "running the network".
Error cuda_error(cudaError_t code, const std::string& what);

#define ISOLINE_CUDA(call, what)                                              \
  do {                                                                        \
    if (const cudaError_t isoline_code = (call); isoline_code != cudaSuccess) \
      return ::isoline::cuda::cuda_error(isoline_code, what);                 \
  } while (0)

struct DeviceInfo {
  int id = 0, major = 0, minor = 0, processors = 0;
  std::string name, driver;  // driver: the highest CUDA version it runs, e.g. "13.0"
  size_t memory_bytes = 0;
};

// The device this process would use: the first that CUDA lists (CUDA_VISIBLE_DEVICES chooses). Errors: no
// driver, a driver older than this program's runtime, no device, a device this build has no code for. Asked
// for once per process.
const Result<DeviceInfo>& device_info();

// What this process has taken on devices, without the driver's own share.
struct DeviceUse {
  std::atomic<uint64_t> bytes{0}, peak_bytes{0};
  void add(uint64_t n) {
    const uint64_t now = bytes += n;
    for (uint64_t peak = peak_bytes; now > peak && !peak_bytes.compare_exchange_weak(peak, now);) {
    }
  }
};
inline DeviceUse device_use;

// Memory on the device (kDevice) or page-locked on the host (kPinned).
enum class MemoryKind { kDevice, kPinned };
template <MemoryKind kind>
class Memory {
 public:
  Memory() = default;
  Memory(Memory&& o) noexcept : data_(std::exchange(o.data_, nullptr)), bytes_(std::exchange(o.bytes_, 0)) {}
  Memory& operator=(Memory&& o) noexcept {
    std::swap(data_, o.data_);
    std::swap(bytes_, o.bytes_);
    return *this;
  }
  ~Memory() {
    if (!data_) return;
    if constexpr (kind == MemoryKind::kDevice) {
      cudaFree(data_);
      device_use.bytes -= bytes_;
    } else {
      cudaFreeHost(data_);
    }
  }
  static Result<Memory> allocate(size_t bytes, const std::string& what) {
    Memory m;
    if (!bytes) return m;
    if constexpr (kind == MemoryKind::kDevice) {
      ISOLINE_CUDA(cudaMalloc(&m.data_, bytes), what);
      device_use.add(bytes);
    } else {
      ISOLINE_CUDA(cudaMallocHost(&m.data_, bytes), what);
    }
    m.bytes_ = bytes;
    return m;
  }
  // At least `bytes`, contents undefined. What is too small goes first, so that both never exist together.
  Status grow(size_t bytes, const std::string& what) {
    if (bytes_ >= bytes) return {};
    *this = Memory();
    ISOLINE_ASSIGN(*this, allocate(bytes, what));
    return {};
  }
  template <class T = std::byte>
  T* at(size_t byte = 0) const {
    return reinterpret_cast<T*>(static_cast<std::byte*>(data_) + byte);
  }
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};
using DeviceMemory = Memory<MemoryKind::kDevice>;
using PinnedMemory = Memory<MemoryKind::kPinned>;

// A handle of the runtime with its destructor.
template <class Handle, cudaError_t (*destroy)(Handle)>
class Owned {
 public:
  Owned() = default;
  Owned(Owned&& o) noexcept : handle_(std::exchange(o.handle_, nullptr)) {}
  Owned& operator=(Owned&& o) noexcept {
    std::swap(handle_, o.handle_);
    return *this;
  }
  ~Owned() {
    if (handle_) destroy(handle_);
  }
  Handle get() const { return handle_; }
  Handle* out() { return &handle_; }

 private:
  Handle handle_ = nullptr;
};
using Stream = Owned<cudaStream_t, cudaStreamDestroy>;
using Event = Owned<cudaEvent_t, cudaEventDestroy>;
using Graph = Owned<cudaGraph_t, cudaGraphDestroy>;
using GraphExec = Owned<cudaGraphExec_t, cudaGraphExecDestroy>;

}  // namespace isoline::cuda
