// The one interface between Isoline and whatever executes a network.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/base/shape.h"
#include "isoline/engine/profile.h"
#include "isoline/engine/tensor_model.h"
#include "isoline/network/graph.h"

namespace isoline {

// kTensorFloat32: float32 in memory and in sums, factors of products rounded to TF32 (10 bits after the
// point); GPUs only.
enum class Precision { kFloat32, kTensorFloat32, kBFloat16, kFloat16 };
const char* to_string(Precision p);
// "fp32", "tf32", "bf16" or "fp16".
Result<Precision> parse_precision(const std::string& text);

// May a backend time kernels on the device when a session is made, and keep the fastest? kSameBits: only
// among kernels that give the same bits, so that results do not depend on it. kAll: among all; low bits then
// depend on what was found (and kept) to be fastest.
enum class Autotune { kOff, kSameBits, kAll };
// "off", "same-bits" or "all".
const char* to_string(Autotune a);
Result<Autotune> parse_autotune(const std::string& text);

struct SessionOptions {
  Shape3 patch{0, 0, 0};  // spatial shape [z, y, x] of every run
  int batch = 1;
  Precision precision = Precision::kFloat32;
  int threads = 0;  // 0: one per available core
  Autotune autotune = Autotune::kSameBits;
};

// How an ONNX file is opened as a TensorModel.
struct TensorModelOptions {
  Precision precision = Precision::kFloat32;
  // Largest batch of a run; counts only where the file leaves the first axis of every input and output free.
  // 0: that axis is none of a batch but an ordinary one.
  int64_t max_batch = 32;
  // Sessions that will run at the same time. 1: all threads work on one run (latency); more: the threads are
  // shared out among so many runs (throughput). Further sessions are allowed and wait for each other.
  int instances = 1;
  int threads = 0;  // of all instances together; 0: one per available core
};

// A network compiled for one shape, batch and precision. Not thread-safe: one run at a time.
class Session {
 public:
  virtual ~Session() = default;
  // in: [batch, input_channels, z, y, x], out: [batch, output_channels, z, y, x], float32, contiguous,
  // caller-owned, 64-byte aligned. Blocks until `out` is complete.
  virtual Status run(const float* in, float* out) = 0;
  // Test-time augmentation in one call, where has_run_mirrored(): out = mean over `mirrors` (axes to turn
  // around) of the network's answer to the turned input, turned back; added up in the order given, in
  // float32, and divided once, so that the bits are those of doing it with run(). Batch 1; in and out as for
  // run().
  virtual bool has_run_mirrored() const { return false; }
  virtual Status run_mirrored(const float* in, std::span<const Vec3<bool>> mirrors, float* out);
  // Runs the network's steps one after the other, `runs` (at least 1) times after a warm-up, on inputs of its
  // own choice. kUnsupported, naming the backend, unless overridden.
  virtual Result<std::vector<LayerTime>> layer_times(int runs);
  // What really runs, e.g. "openvino 2026.1 CPU, bf16, 2 threads".
  virtual std::string description() const = 0;
};

class ScanRunner;  // scan_runner.h
struct ScanRunnerOptions;

// A way to execute networks. Stateless; safe to use from several threads.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string name() const = 0;
  // Whose energy and memory an execution costs: "cpu" or "gpu".
  virtual std::string device_kind() const { return "cpu"; }
  // Whether this machine has what it runs on (a GPU and its driver, say). `auto` skips a backend that is not
  // available; device_description() says why it is not.
  virtual bool available() const { return true; }
  // One line on what it would run on here, e.g. "CPU, AVX-512, bf16 in hardware".
  virtual std::string device_description() const = 0;
  // Explains a refusal; ok means create() is expected to succeed.
  virtual Status supports(const NetworkGraph& graph, const SessionOptions& options) const = 0;
  // The graph may be destroyed after the call.
  virtual Result<std::unique_ptr<Session>> create(const NetworkGraph& graph,
                                                  const SessionOptions& options) const = 0;
  // Whether whole scans can stay on the device (scan_runner.h); then create_scan_runner() takes the networks
  // of all folds, one or more of the same shapes, and their options as supports() accepts them.
  virtual bool has_scan_runner() const { return false; }
  virtual Result<std::unique_ptr<ScanRunner>> create_scan_runner(std::vector<NetworkGraph> folds,
                                                                 const ScanRunnerOptions& options) const;
  // Measures what the device reaches at this precision, in a fraction of a second. kUnsupported, naming the
  // backend, unless overridden.
  virtual Result<DeviceCeilings> measure_ceilings(Precision precision) const;
  // Whether create_from_onnx() can work at all with these options; refused unless overridden.
  virtual Status supports_onnx(const SessionOptions& options) const;
  // An ONNX file with one input [n, c, (z,) y, x] and one output; refused unless overridden.
  virtual Result<std::unique_ptr<Session>> create_from_onnx(const std::string& file, int input_channels,
                                                            int output_channels, int spatial_dims,
                                                            const SessionOptions& options) const;
  // Whether open_tensor_model() can work at all with these options; refused unless overridden.
  virtual Status supports_tensor_model(const TensorModelOptions& options) const;
  // An ONNX file with any inputs and outputs; what it is stands in info() of the answer. Compiled when this
  // returns. kNotFound, kCorrupt (not ONNX), kUnsupported (elements such as strings, by name).
  virtual Result<std::unique_ptr<TensorModel>> open_tensor_model(const std::string& file,
                                                                 const TensorModelOptions& options) const;
};

// Backends compiled into this program, best first, those that are not available last. Filled by
// backends/registry.
class BackendRegistry {
 public:
  void add(std::unique_ptr<Backend> backend);
  // An unknown name is an error that lists what there is and how to get the rest.
  Result<const Backend*> find(const std::string& name) const;
  std::vector<const Backend*> all() const;

 private:
  std::vector<std::unique_ptr<Backend>> backends_;
};

}  // namespace isoline
