// CudaSession: a plan (plan.h) with memory, weights and one CUDA graph on one device.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "isoline/backends/cuda/cuda_backend.h"
#include "isoline/backends/cuda/device.h"
#include "isoline/backends/cuda/elementwise.h"
#include "isoline/backends/cuda/kernels.h"
#include "isoline/backends/cuda/plan.h"
#include "isoline/base/parallel.h"
#include "isoline/engine/backend.h"

namespace isoline::cuda {

struct CudaTuning {
  bool fold_into_convolutions = true;
  bool naive_convolutions = false;  // conv_naive.cu only; transposed ones in tiles
  // Where choices of kernels are kept; empty: TuningCache::default_folder().
  std::string tuning_folder = {};
};

// What choosing kernels by measurement came to when a session was made.
struct TuningReport {
  int layers_timed = 0, layers_kept = 0, layers_changed = 0;  // kept: from the cache; changed: not as by rule
  int candidates_refused = 0;                                 // other bits than the rule's choice
  double duration_s = 0;
  std::string note;
  std::string text() const;
};
// ", tuned" where kernels are chosen by measurement, for descriptions.
std::string tuning_words(const SessionOptions& options);

ConvShape conv_shape(const Vec3<int>& kernel, const Vec3<int>& stride);
DataType data_type(Precision precision);
int element_bytes(Precision precision);
Error fp16_overflow();

class CudaSession final : public Session {
 public:
  static Result<std::unique_ptr<CudaSession>> create(const NetworkGraph& graph, const SessionOptions& options,
                                                     const DeviceInfo& device, const CudaTuning& tuning = {});
  ~CudaSession() override;
  Status run(const float* in, float* out) override;
  bool has_run_mirrored() const override { return options_.batch == 1; }
  Status run_mirrored(const float* in, std::span<const Vec3<bool>> mirrors, float* out) override;
  std::string description() const override;
  Result<std::vector<LayerTime>> layer_times(int runs) override;

  // For whoever keeps its data on the device: one forward pass of the whole batch on `stream`, from input()
  // to output(), both planar float32 as in run(). *not_finite() becomes 1 where an output is infinite or NaN.
  float* input() const { return in_device_.at<float>(); }
  const float* output() const { return out_device_.at<const float>(); }
  int* not_finite() const { return flag_device_.at<int>(); }
  cudaError_t enqueue_forward(cudaStream_t stream) const { return cudaGraphLaunch(graph_.get(), stream); }

  Result<std::vector<CudaStepTime>> step_times(int runs);
  Result<double> graph_ms(int runs);
  const CudaMemory& memory() const { return memory_; }
  const TuningReport& tuning() const { return tuning_; }

 private:
  // Device addresses of a step's constants, as byte offsets into constants_; SIZE_MAX: none.
  struct StepData {
    size_t weights = SIZE_MAX, bias = SIZE_MAX, positions = SIZE_MAX;
    bool naive = false;
    bool planar = false;   // reads the planar input itself
    bool skipped = false;  // the input step, where that is so
    int blocks = 0;        // of the statistics it gathers or finishes
    int channels = 0;
    int64_t voxels = 0, macs = 0, bytes = 0;  // bytes: least_bytes()
    float eps = 0;
    ConvShape shape;
    TransposeKernel transpose = TransposeKernel::kTiles;
  };
  CudaSession(const SessionOptions& options, const DeviceInfo& device) : options_(options), device_(device) {}
  Status prepare(const NetworkGraph& graph, const CudaTuning& tuning);
  // For each step the kernel that its convolution runs on; needs the plan and the arena, whose contents it
  // overwrites. `first`: the step that reads the planar input, which has one kernel.
  std::vector<ConvChoice> choose_kernels(const NetworkGraph& graph, const CudaTuning& tuning, size_t first);
  struct Contest;
  Status time_candidates(Contest& contest, const NetworkGraph& graph);
  Status capture();
  Status make_staging();                               // page-locked memory, at the first run()
  Status send(const float* in, DeviceMemory& to);      // and clears the overflow flag
  Status fetch(const DeviceMemory& from, float* out);  // waits; fp16 overflow is an error
  void copy_in_parallel(std::byte* to, const std::byte* from, size_t bytes);
  cudaError_t enqueue(size_t step);
  cudaError_t enqueue_all();
  Tensor tensor(const Slice& slice) const;
  LoadTransform load(const Source& source) const;
  template <class T>
  const T* constant(size_t offset) const {
    return offset == SIZE_MAX ? nullptr : constants_.at<const T>(offset);
  }

  SessionOptions options_;
  DeviceInfo device_;
  Plan plan_;
  std::vector<StepData> data_;
  std::vector<size_t> norm_offsets_;  // into norms_, bytes
  int in_channels_ = 0, out_channels_ = 0;
  int64_t out_voxels_ = 0;
  size_t in_bytes_ = 0, out_bytes_ = 0;
  DeviceMemory arena_, constants_, scratch_, norms_, partial_, in_device_, out_device_;
  DeviceMemory original_, sum_;  // run_mirrored()'s, taken by its first call
  PinnedMemory in_host_, out_host_, flag_host_;
  DeviceMemory flag_device_;
  Stream stream_;
  GraphExec graph_;
  std::vector<Event> chunk_done_;
  std::unique_ptr<ThreadPool> pool_;
  CudaMemory memory_;
  TuningReport tuning_;
};

}  // namespace isoline::cuda
