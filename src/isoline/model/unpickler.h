// A restricted reader of Python pickles: builds plain data, runs nothing.
//
// Understands protocols 2 to 5 and constructs only None, bool, int, float, str, bytes, list, tuple, dict
// (OrderedDict), set, NumPy scalars, arrays and dtypes, and PyTorch tensors, storages, devices, sizes and
// dtypes. Every other class or function is refused with its name. No recursion; time and memory grow at most
// linearly with the pickle's size, within the limits below.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "isoline/base/result.h"

namespace isoline {

enum class PickleKind : uint8_t {
  kNone,
  kBool,
  kInt,
  kBigInt,  // an integer beyond 64 bits; its value is not kept
  kFloat,
  kString,
  kBytes,
  kList,
  kTuple,
  kSet,
  kDict,
  kName,     // a class or function that was only named: "module name"
  kDtype,    // numpy.dtype or torch.dtype
  kArray,    // numpy.ndarray; contents are not kept
  kDevice,   // torch.device
  kStorage,  // torch.*Storage, bytes not read yet
  kTensor,
};
const char* to_string(PickleKind kind);

// Index of an object in Pickle. Objects may refer to each other in cycles.
using PickleRef = uint32_t;

enum class StorageType : uint8_t {
  kFloat32,
  kFloat16,
  kBFloat16,
  kFloat64,
  kInt64,
  kInt32,
  kInt16,
  kInt8,
  kUInt8,
  kBool
};
const char* to_string(StorageType type);
int byte_size(StorageType type);

struct PickleStorage {
  StorageType type = StorageType::kFloat32;
  std::string key;       // names the archive entry data/<key>
  int64_t elements = 0;  // >= 0
};

// As written: bounds against the storage are for the reader to check.
struct PickleTensor {
  PickleStorage storage;
  int64_t offset = 0;                   // elements
  std::vector<int64_t> shape, strides;  // elements; equal length, at most 8
};

struct PickleObject {
  PickleKind kind = PickleKind::kNone;
  int64_t integer = 0;           // kBool, kInt; index for kStorage and kTensor
  double number = 0;             // kFloat
  std::string text;              // kString (UTF-8 as written), kBytes, kName, kDtype, kDevice
  std::vector<PickleRef> items;  // kList, kTuple, kSet; kDict: key, value, key, value, ...
};

// What one pickle held. Immutable.
class Pickle {
 public:
  const PickleObject& root() const { return objects_[root_]; }
  const PickleObject& at(PickleRef ref) const { return objects_[ref]; }
  // The value of a string key; the last one wins, as in Python. nullptr if there is none or `dict` is no
  // kDict.
  const PickleObject* find(const PickleObject& dict, std::string_view key) const;
  const PickleStorage& storage(const PickleObject& o) const { return storages_[size_t(o.integer)]; }
  const PickleTensor& tensor(const PickleObject& o) const { return tensors_[size_t(o.integer)]; }

 private:
  friend class Unpickler;
  std::vector<PickleObject> objects_;
  std::vector<PickleStorage> storages_;
  std::vector<PickleTensor> tensors_;
  PickleRef root_ = 0;
};

struct UnpickleOptions {
  bool torch = false;                  // accept tensors and storages (persistent ids)
  std::vector<std::string> functions;  // "module name" accepted as kName values beyond the list above
  uint64_t max_bytes = 64u << 20;      // of the pickle
  uint32_t max_objects = 2'000'000;
};

// kUnsupported: a class, function or opcode that is not on the list, named; kCorrupt: not a pickle, or cut
// off; kResourceExhausted: beyond a limit. Bytes after the pickle's end are ignored, as Python does.
Result<Pickle> unpickle(std::span<const std::byte> bytes, const UnpickleOptions& options);

}  // namespace isoline
