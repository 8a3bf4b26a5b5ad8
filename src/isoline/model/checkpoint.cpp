#include "isoline/model/checkpoint.h"

#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <tuple>
#include <utility>

#include "isoline/base/buffer.h"
#include "isoline/base/file.h"
#include "isoline/model/printable.h"
#include "isoline/model/unpickler.h"
#include "isoline/model/zip_archive.h"

namespace isoline {
namespace {

constexpr uint64_t kMaxPickleBytes = 64u << 20;
constexpr uint64_t kMaxEntryBytes = uint64_t(16) << 30;

Error not_a_checkpoint(const std::string& what) {
  return Error{ErrorCode::kCorrupt, what, "", "Give a checkpoint_*.pth that nnU-Net's trainer wrote"};
}

bool starts_with(std::span<const std::byte> bytes, std::initializer_list<unsigned> prefix) {
  size_t i = 0;
  for (unsigned b : prefix)
    if (i >= bytes.size() || std::to_integer<unsigned>(bytes[i++]) != b) return false;
  return true;
}

// Keeps everything the tensors point at.
struct Storage {
  std::shared_ptr<const void> archive;
  std::vector<Buffer<std::byte>> copies;
};

using StorageBytes = std::span<const std::byte>;

// Turns tensors of the pickle into views; opens, checks and (if it must) copies each storage once.
class TensorReader {
 public:
  TensorReader(const ZipArchive& zip, std::string prefix, std::shared_ptr<Storage> keep,
               uint64_t archive_bytes)
      : zip_(zip),
        prefix_(std::move(prefix)),
        keep_(std::move(keep)),
        copy_budget_((64u << 20) + 8 * archive_bytes) {}

  Result<TensorView> read(const PickleTensor& t) {
    TensorView view;
    view.shape = t.shape;
    switch (t.storage.type) {
      case StorageType::kFloat32:
        view.type = TensorType::kFloat32;
        break;
      case StorageType::kFloat16:
        view.type = TensorType::kFloat16;
        break;
      case StorageType::kBFloat16:
        view.type = TensorType::kBFloat16;
        break;
      case StorageType::kFloat64:
        view.type = TensorType::kFloat64;
        break;
      default:
        return Error{ErrorCode::kUnsupported, std::string("has type ") + to_string(t.storage.type), "",
                     "Weights are float32, float16, bfloat16 or float64"};
    }
    const int64_t item = byte_size(t.storage.type);
    int64_t elements = 1, last = t.offset;
    bool overflow = false;
    for (size_t d = 0; d < t.shape.size(); ++d) {
      overflow |= __builtin_mul_overflow(elements, t.shape[d], &elements);
      int64_t reach = 0;
      overflow |= t.shape[d] > 0 && __builtin_mul_overflow(t.shape[d] - 1, t.strides[d], &reach);
      overflow |= __builtin_add_overflow(last, reach, &last);
    }
    if (overflow || elements > INT64_MAX / 8)
      return Error{ErrorCode::kCorrupt, "has an impossible shape", "", ""};
    if (elements == 0) return view;
    if (last >= t.storage.elements || t.storage.elements > INT64_MAX / 8)
      return Error{ErrorCode::kCorrupt, "reaches past the end of its storage", "", ""};
    ISOLINE_ASSIGN(const StorageBytes bytes, open(t.storage));
    int64_t dense = 1;
    bool contiguous = true;
    for (size_t d = t.shape.size(); d-- > 0;) {
      contiguous &= t.shape[d] == 1 || t.strides[d] == dense;
      dense *= t.shape[d];
    }
    const std::byte* first = bytes.data() + t.offset * item;
    if (contiguous) {
      view.data = first;
      return view;
    }
    // Names often share one tensor: gather it once.
    const auto key = std::make_tuple(t.storage.key, item, t.offset, t.shape, t.strides);
    if (const auto it = gathered_.find(key); it != gathered_.end()) {
      view.data = it->second;
      return view;
    }
    ISOLINE_ASSIGN(std::byte * to, allocate(uint64_t(elements) * uint64_t(item)));
    view.data = to;
    gathered_.emplace(key, to);
    std::vector<int64_t> index(t.shape.size(), 0);
    uint64_t at = 0;  // unsigned: the stride of an axis of length 1 may be anything and wraps back
    for (int64_t i = 0; i < elements; ++i) {
      std::memcpy(to + i * item, first + at * uint64_t(item), size_t(item));
      for (size_t d = t.shape.size(); d-- > 0;) {
        at += uint64_t(t.strides[d]);
        if (++index[d] < t.shape[d]) break;
        at -= uint64_t(t.strides[d]) * uint64_t(t.shape[d]);
        index[d] = 0;
      }
    }
    return view;
  }

 private:
  Result<std::byte*> allocate(uint64_t bytes) {
    if (bytes > copy_budget_)
      return Error{ErrorCode::kResourceExhausted, "needs more memory than a file of this size may", "", ""};
    copy_budget_ -= bytes;
    keep_->copies.emplace_back(size_t(bytes));
    return keep_->copies.back().data();
  }

  // The storage's bytes, aligned to its type.
  Result<StorageBytes> open(const PickleStorage& s) {
    const uint64_t need = uint64_t(s.elements) * uint64_t(byte_size(s.type));
    const std::string name = prefix_ + "/data/" + s.key;
    auto it = opened_.find(s.key);
    if (it == opened_.end()) {
      const ZipEntry* e = zip_.find(name);
      if (e && e->deflated) {
        if (e->size > copy_budget_)
          return Error{ErrorCode::kResourceExhausted, "needs more memory than a file of this size may", "",
                       ""};
        copy_budget_ -= e->size;
      }
      ISOLINE_ASSIGN(ZipContent content, zip_.read(name, kMaxEntryBytes));
      StorageBytes bytes = content.bytes;
      if (!content.owned.empty()) {
        keep_->copies.push_back(std::move(content.owned));
      } else if (reinterpret_cast<uintptr_t>(bytes.data()) % 8 != 0) {
        ISOLINE_ASSIGN(std::byte * copy, allocate(bytes.size()));
        if (!bytes.empty()) std::memcpy(copy, bytes.data(), bytes.size());
        bytes = {copy, bytes.size()};
      }
      it = opened_.emplace(s.key, bytes).first;
    }
    if (it->second.size() < need)
      return Error{ErrorCode::kCorrupt,
                   "has a storage of " + std::to_string(it->second.size()) + " bytes instead of " +
                       std::to_string(need),
                   "", "Copy or download the file again"};
    return it->second;
  }

  const ZipArchive& zip_;
  std::string prefix_;
  std::shared_ptr<Storage> keep_;
  uint64_t copy_budget_;
  std::map<std::string, StorageBytes> opened_;
  std::map<std::tuple<std::string, int64_t, int64_t, std::vector<int64_t>, std::vector<int64_t>>, std::byte*>
      gathered_;  // by storage, item size, offset, shape, strides
};

// The folder inside the archive: the one that holds data.pkl.
Result<std::string> archive_prefix(const ZipArchive& zip) {
  std::optional<std::string> prefix;
  for (const auto& [name, entry] : zip.entries()) {
    const size_t slash = name.find('/');
    if (slash == std::string::npos || name.substr(slash) != "/data.pkl") continue;
    if (prefix) return not_a_checkpoint("the archive holds two data.pkl");
    prefix = name.substr(0, slash);
  }
  if (!prefix) return not_a_checkpoint("the archive holds no data.pkl");
  if (zip.find(*prefix + "/constants.pkl"))
    return Error{ErrorCode::kUnsupported, "this is a TorchScript file", "",
                 "Give nnU-Net's checkpoint, or export the model to ONNX"};
  return *prefix;
}

Result<std::optional<std::vector<int>>> read_mirror_axes(const Pickle& pickle, const PickleObject& root) {
  const PickleObject* axes = pickle.find(root, "inference_allowed_mirroring_axes");
  if (!axes || axes->kind == PickleKind::kNone) return std::optional<std::vector<int>>();
  const Error bad{ErrorCode::kCorrupt, "is not a list of axis numbers", "inference_allowed_mirroring_axes",
                  ""};
  if (axes->kind != PickleKind::kTuple && axes->kind != PickleKind::kList) return bad;
  std::vector<int> out;
  for (PickleRef r : axes->items) {
    const PickleObject& axis = pickle.at(r);
    if (axis.kind != PickleKind::kInt || axis.integer < 0 || axis.integer > 2) return bad;
    for (int seen : out)
      if (seen == int(axis.integer)) return bad;
    out.push_back(int(axis.integer));
  }
  return std::optional(std::move(out));
}

Result<std::string> read_text(const Pickle& pickle, const PickleObject& dict, const char* key) {
  const PickleObject* o = pickle.find(dict, key);
  if (!o) return not_a_checkpoint(std::string("lacks '") + key + "'");
  if (o->kind != PickleKind::kString)
    return not_a_checkpoint(std::string("'") + key + "' is a " + to_string(o->kind) + ", not a str");
  return o->text;
}

}  // namespace

Result<Checkpoint> read_checkpoint(std::span<const std::byte> bytes, std::shared_ptr<const void> owner) {
  // torch.save before 1.6, or with _use_new_zipfile_serialization=False: a pickled magic number comes first.
  if (starts_with(bytes,
                  {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19}))
    return Error{ErrorCode::kUnsupported, "legacy PyTorch file (the format before PyTorch 1.6)", "",
                 "Load it with PyTorch and save it again with torch.save"};
  if (!starts_with(bytes, {'P', 'K'})) return not_a_checkpoint("not a PyTorch checkpoint (no zip file)");
  ISOLINE_ASSIGN(const ZipArchive zip, ZipArchive::open(bytes));
  ISOLINE_ASSIGN(const std::string prefix, archive_prefix(zip));
  if (zip.find(prefix + "/byteorder")) {
    ISOLINE_ASSIGN(const ZipContent order, zip.read(prefix + "/byteorder", 64));
    if (std::string_view(reinterpret_cast<const char*>(order.bytes.data()), order.bytes.size()) != "little")
      return Error{ErrorCode::kUnsupported, "the checkpoint was not written in little-endian byte order", "",
                   "Load it with PyTorch on this machine and save it again"};
  }
  Checkpoint out;
  if (!zip.has_checksums())
    out.warnings.push_back("the checkpoint carries no checksums; damage cannot be noticed");

  ISOLINE_ASSIGN(const ZipContent data, zip.read(prefix + "/data.pkl", kMaxPickleBytes));
  UnpickleOptions options;
  options.torch = true;
  options.max_bytes = kMaxPickleBytes;
  ISOLINE_ASSIGN(const Pickle pickle, unpickle(data.bytes, options));

  const PickleObject& root = pickle.root();
  if (root.kind != PickleKind::kDict)
    return not_a_checkpoint(std::string("holds a ") + to_string(root.kind) + " instead of a dict");
  ISOLINE_ASSIGN(out.trainer_name, read_text(pickle, root, "trainer_name"));
  const PickleObject* init_args = pickle.find(root, "init_args");
  if (!init_args || init_args->kind != PickleKind::kDict)
    return not_a_checkpoint("lacks the dict 'init_args'");
  ISOLINE_ASSIGN(out.configuration, read_text(pickle, *init_args, "configuration"));
  ISOLINE_ASSIGN(out.mirror_axes, read_mirror_axes(pickle, root));

  const PickleObject* state = pickle.find(root, "network_weights");
  if (!state || state->kind != PickleKind::kDict) return not_a_checkpoint("lacks the dict 'network_weights'");
  auto storage = std::make_shared<Storage>();
  storage->archive = std::move(owner);
  TensorReader reader(zip, prefix, storage, bytes.size());
  for (size_t i = 0; i + 1 < state->items.size(); i += 2) {
    const PickleObject &key = pickle.at(state->items[i]), &value = pickle.at(state->items[i + 1]);
    if (key.kind != PickleKind::kString)
      return not_a_checkpoint("'network_weights' has a key that is no str");
    std::string name = key.text;
    for (const std::string_view wrapper : {"module.", "_orig_mod.", "module."})  // DDP, torch.compile
      if (name.starts_with(wrapper)) name.erase(0, wrapper.size());
    const std::string where = "network_weights['" + printable(key.text) + "']";
    if (value.kind != PickleKind::kTensor)
      return Error{ErrorCode::kUnsupported, std::string("is a ") + to_string(value.kind) + ", not a tensor",
                   where, ""};
    auto view = reader.read(pickle.tensor(value));
    if (!view) return view.error().in(where);
    if (!out.weights.tensors.emplace(std::move(name), std::move(view).value()).second)
      return Error{ErrorCode::kCorrupt, "occurs twice", where, ""};
  }
  out.weights.storage = std::move(storage);
  return out;
}

Result<Checkpoint> read_checkpoint(const std::string& path) {
  auto file = MappedFile::open(path);
  if (!file) return std::move(file).error();
  auto mapping = std::make_shared<MappedFile>(std::move(file).value());
  const auto bytes = mapping->bytes();
  auto checkpoint = read_checkpoint(bytes, std::move(mapping));
  if (!checkpoint) return checkpoint.error().in(path);
  return checkpoint;
}

}  // namespace isoline
