// TensorModel: a network as servers see it, named tensors in and out, one batch at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "isoline/base/result.h"

namespace isoline {

// Element types of the Open Inference Protocol. kBytes: each element a byte string of its own length.
enum class ElementType {
  kBool,
  kUInt8,
  kUInt16,
  kUInt32,
  kUInt64,
  kInt8,
  kInt16,
  kInt32,
  kInt64,
  kFloat16,
  kBFloat16,
  kFloat32,
  kFloat64,
  kBytes
};
// "BOOL", "UINT8", ..., "FP16", "BF16", "FP32", "FP64", "BYTES", as the protocol writes them.
const char* to_string(ElementType type);
Result<ElementType> parse_element_type(const std::string& text);
// Bytes of one element; 0 for kBytes.
size_t element_size(ElementType type);

// One input or output. `shape` has no batch axis; -1: any extent.
struct TensorSpec {
  std::string name;
  ElementType type = ElementType::kFloat32;
  std::vector<int64_t> shape;
};

// A tensor's memory: row-major, little-endian, [batch, shape...]; kBytes: 4-byte length before each element.
// Not owned.
struct InputTensor {
  std::vector<int64_t> shape;  // with the batch axis, where the model has one
  std::span<const std::byte> data;
};
struct OwnedTensor {
  std::vector<int64_t> shape;
  std::vector<std::byte> data;
};

// What a loaded model looks like from outside. max_batch 0: tensors have no batch axis.
struct TensorModelInfo {
  std::string platform;  // e.g. "openvino_onnx", "isoline_identity"
  int64_t max_batch = 0;
  std::vector<TensorSpec> inputs, outputs;
  std::string description;  // what really runs, e.g. "openvino 2026.4 CPU, fp32, 2 threads, 1 instance"
};

// One executable copy of a model ("instance"). Not thread-safe: one run at a time.
class TensorSession {
 public:
  virtual ~TensorSession() = default;
  // inputs in the order of info.inputs, all of the same batch size, shapes already checked against info by
  // the caller; outputs are filled in the order of info.outputs.
  virtual Status run(std::span<const InputTensor> inputs, std::vector<OwnedTensor>& outputs) = 0;
};

// Makes one sample of a model's only input from an encoded file, a picture say. Immutable, thread-safe.
class SampleDecoder {
 public:
  virtual ~SampleDecoder() = default;
  virtual size_t bytes_per_sample() const = 0;
  // `out`: bytes_per_sample(); indeterminate after an error. kCorrupt, kUnsupported (another format) or
  // kResourceExhausted (larger than the limits), each without having used more memory than the limits allow.
  virtual Status decode(std::span<const std::byte> file, std::span<std::byte> out) const = 0;
};

// A model from which instances are made. Thread-safe.
class TensorModel {
 public:
  virtual ~TensorModel() = default;
  virtual const TensorModelInfo& info() const = 0;
  // Where samples may also come as encoded files; may outlive the model.
  virtual std::shared_ptr<const SampleDecoder> decoder() const { return nullptr; }
  virtual Result<std::unique_ptr<TensorSession>> create_session() const = 0;
};

}  // namespace isoline
