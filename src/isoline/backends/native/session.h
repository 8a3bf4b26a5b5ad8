// NativeSession: a NetworkGraph compiled to steps over blocked activations in one planned arena.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "isoline/backends/native/kernels.h"
#include "isoline/backends/native/native_backend.h"
#include "isoline/backends/native/packing.h"
#include "isoline/base/buffer.h"
#include "isoline/base/parallel.h"
#include "isoline/engine/backend.h"

namespace isoline::native {

using BufferId = int;
using NormId = int;

// Sixteen channels of a value: where they lie, and what is still to be done to them when they are read.
struct Block {
  BufferId buffer = -1;
  int64_t index = 0;  // block within the buffer
  int channels = 0;   // lanes in use, from lane 0
  NormId norm = -1;   // scale and shift of this InstanceNorm, at norm_offset
  int64_t norm_offset = 0;
  float slope = 1;
  bool raw() const { return norm < 0 && slope == 1; }
};
// A value of the graph: its channels are those of the blocks, one after the other.
struct View {
  std::vector<Block> blocks;
  Shape3 shape{0, 0, 0};
  int channels() const {
    int n = 0;
    for (const Block& b : blocks) n += b.channels;
    return n;
  }
};

class NativeSession;

// Sizes that decide how Winograd convolutions share out their work; measured on Zen 4 (1 MB L2 a core).
struct Tuning {
  int64_t large_weights_bytes = int64_t{20}
                                << 20;      // from here on, all threads work on the same round of tiles
  int64_t round_bytes = int64_t{24} << 20;  // transformed tiles of a round
  int64_t task_bytes = int64_t{800} << 10;  // transformed tiles of a task of one thread
};

// One thing to do per run. Steps read and write buffers of the session's arena.
class Step {
 public:
  virtual ~Step() = default;
  virtual void run(NativeSession& session) = 0;
  std::string name;
  int64_t macs = 0;
  int64_t bytes = 0;  // of what it reads, writes and multiplies by, each once
  double duration_ms = 0;
  std::vector<BufferId> reads, writes;  // for the memory plan
  int64_t task_scratch_bytes = 0;       // per running task
  int64_t shared_scratch_bytes = 0;     // for the whole step
  int64_t partial_sums = 0;             // doubles for statistics
  int64_t weight_bytes = 0;
};

class NativeSession final : public Session {
 public:
  NativeSession(const NetworkGraph& graph, const SessionOptions& options, const KernelTable& kernels,
                const Tuning& tuning = {});
  Status run(const float* in, float* out) override;
  std::string description() const override;
  Result<std::vector<LayerTime>> layer_times(int runs) override;

  std::vector<NativeStepTime> step_times() const;
  NativeMemory memory() const;

  // The rest is for steps.
  const KernelTable& kernels() const { return kernels_; }
  const Tuning& tuning() const { return tuning_; }
  bool bf16() const { return kernels_.element_bytes == 2; }
  ThreadPool& pool() { return pool_; }
  std::byte* data(BufferId buffer) {
    return buffers_[size_t(buffer)].external_input ? const_cast<std::byte*>(input_)
                                                   : arena_.data() + buffers_[size_t(buffer)].offset;
  }
  Source source(const Block& block, const Shape3& shape);
  const float* input() const { return reinterpret_cast<const float*>(input_); }
  float* output() { return output_; }
  std::byte* shared_scratch() { return shared_scratch_.data(); }
  double* partial_sums() { return partial_sums_.data(); }
  // body(task, scratch) for every task; scratch is private to the call while it runs.
  void parallel(int64_t tasks, const std::function<void(int64_t task, std::byte* scratch)>& body);
  // Scale and shift of `norm` from sums and sums of squares over `count` voxels per channel.
  // partial: [parts][channel blocks][2][16].
  void finish_norm(NormId norm, const double* partial, int64_t parts, int64_t blocks, int64_t count);

 private:
  friend class Compiler;
  struct BufferInfo {
    int64_t bytes = 0, offset = 0;
    int first_step = -1, last_step = -1;
    bool external_input = false;
  };
  struct Norm {
    std::vector<float> gamma, beta, scale, shift;  // padded to 16
    float eps = 0;
    int channels = 0;
  };
  const KernelTable& kernels_;
  SessionOptions options_;
  Tuning tuning_;
  int64_t in_size_ = 0, out_size_ = 0;
  ThreadPool pool_;
  std::vector<BufferInfo> buffers_;
  std::vector<Norm> norms_;
  std::vector<std::unique_ptr<Step>> steps_;
  Buffer<std::byte> arena_, shared_scratch_, task_scratch_;
  Buffer<double> partial_sums_;
  int64_t task_scratch_bytes_ = 0;
  std::unique_ptr<std::atomic<bool>[]> scratch_taken_;
  const std::byte* input_ = nullptr;
  float* output_ = nullptr;
};

}  // namespace isoline::native
