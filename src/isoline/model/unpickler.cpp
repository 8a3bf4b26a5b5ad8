#include "isoline/model/unpickler.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <cstring>
#include <unordered_map>

#include "isoline/base/half.h"
#include "isoline/model/printable.h"

namespace isoline {

const char* to_string(PickleKind kind) {
  switch (kind) {
    case PickleKind::kNone:
      return "None";
    case PickleKind::kBool:
      return "bool";
    case PickleKind::kInt:
    case PickleKind::kBigInt:
      return "int";
    case PickleKind::kFloat:
      return "float";
    case PickleKind::kString:
      return "str";
    case PickleKind::kBytes:
      return "bytes";
    case PickleKind::kList:
      return "list";
    case PickleKind::kTuple:
      return "tuple";
    case PickleKind::kSet:
      return "set";
    case PickleKind::kDict:
      return "dict";
    case PickleKind::kName:
      return "class or function";
    case PickleKind::kDtype:
      return "dtype";
    case PickleKind::kArray:
      return "numpy.ndarray";
    case PickleKind::kDevice:
      return "torch.device";
    case PickleKind::kStorage:
      return "torch storage";
    case PickleKind::kTensor:
      return "torch.Tensor";
  }
  return "object";
}

const char* to_string(StorageType type) {
  switch (type) {
    case StorageType::kFloat32:
      return "float32";
    case StorageType::kFloat16:
      return "float16";
    case StorageType::kBFloat16:
      return "bfloat16";
    case StorageType::kFloat64:
      return "float64";
    case StorageType::kInt64:
      return "int64";
    case StorageType::kInt32:
      return "int32";
    case StorageType::kInt16:
      return "int16";
    case StorageType::kInt8:
      return "int8";
    case StorageType::kUInt8:
      return "uint8";
    case StorageType::kBool:
      return "bool";
  }
  return "?";
}

int byte_size(StorageType type) {
  switch (type) {
    case StorageType::kFloat64:
    case StorageType::kInt64:
      return 8;
    case StorageType::kFloat32:
    case StorageType::kInt32:
      return 4;
    case StorageType::kFloat16:
    case StorageType::kBFloat16:
    case StorageType::kInt16:
      return 2;
    default:
      return 1;
  }
}

const PickleObject* Pickle::find(const PickleObject& dict, std::string_view key) const {
  if (dict.kind != PickleKind::kDict) return nullptr;
  for (size_t i = dict.items.size(); i >= 2; i -= 2) {
    const PickleObject& k = objects_[dict.items[i - 2]];
    if (k.kind == PickleKind::kString && k.text == key) return &objects_[dict.items[i - 1]];
  }
  return nullptr;
}

namespace {

// The only classes and functions this reader knows, by what calling them means here.
enum class Known : uint8_t {
  kOrderedDict,
  kSet,
  kBytes,
  kEncode,
  kRebuildTensor,
  kRebuildParameter,
  kStorageClass,
  kTorchSize,
  kTorchDevice,
  kNumpyDtype,
  kNumpyNdarray,
  kNumpyScalar,
  kNumpyReconstruct,
  kNumpyFromBuffer,
};

struct KnownName {
  std::string_view name;  // "module name"
  Known known;
  bool torch = false;
  StorageType storage = StorageType::kFloat32;
};

constexpr KnownName kKnown[] = {
    {"collections OrderedDict", Known::kOrderedDict},
    {"builtins set", Known::kSet},
    {"__builtin__ set", Known::kSet},
    {"builtins frozenset", Known::kSet},
    {"__builtin__ frozenset", Known::kSet},
    {"builtins bytes", Known::kBytes},
    {"__builtin__ bytes", Known::kBytes},
    {"builtins bytearray", Known::kBytes},
    {"__builtin__ bytearray", Known::kBytes},
    {"_codecs encode", Known::kEncode},
    {"numpy dtype", Known::kNumpyDtype},
    {"numpy ndarray", Known::kNumpyNdarray},
    {"numpy.core.multiarray scalar", Known::kNumpyScalar},
    {"numpy._core.multiarray scalar", Known::kNumpyScalar},
    {"numpy.core.multiarray _reconstruct", Known::kNumpyReconstruct},
    {"numpy._core.multiarray _reconstruct", Known::kNumpyReconstruct},
    {"numpy.core.numeric _frombuffer", Known::kNumpyFromBuffer},
    {"numpy._core.numeric _frombuffer", Known::kNumpyFromBuffer},
    {"torch._utils _rebuild_tensor_v2", Known::kRebuildTensor, true},
    {"torch._utils _rebuild_parameter", Known::kRebuildParameter, true},
    {"torch Size", Known::kTorchSize, true},
    {"torch device", Known::kTorchDevice, true},
    {"torch FloatStorage", Known::kStorageClass, true, StorageType::kFloat32},
    {"torch HalfStorage", Known::kStorageClass, true, StorageType::kFloat16},
    {"torch BFloat16Storage", Known::kStorageClass, true, StorageType::kBFloat16},
    {"torch DoubleStorage", Known::kStorageClass, true, StorageType::kFloat64},
    {"torch LongStorage", Known::kStorageClass, true, StorageType::kInt64},
    {"torch IntStorage", Known::kStorageClass, true, StorageType::kInt32},
    {"torch ShortStorage", Known::kStorageClass, true, StorageType::kInt16},
    {"torch CharStorage", Known::kStorageClass, true, StorageType::kInt8},
    {"torch ByteStorage", Known::kStorageClass, true, StorageType::kUInt8},
    {"torch BoolStorage", Known::kStorageClass, true, StorageType::kBool},
};

constexpr std::string_view kTorchDtypes[] = {"float32", "float64", "float16", "bfloat16", "int64",
                                             "int32",   "int16",   "int8",    "uint8",    "bool"};

constexpr size_t kMaxDimensions = 8;
constexpr size_t kMaxMarks = 10'000;  // lists or tuples begun and not ended

std::string hex_byte(unsigned v) {
  char s[8];
  std::snprintf(s, sizeof s, "0x%02x", v & 0xff);
  return s;
}

}  // namespace

class Unpickler {
 public:
  Unpickler(std::span<const std::byte> bytes, const UnpickleOptions& options)
      : bytes_(bytes), options_(options) {}

  Result<Pickle> run() {
    if (bytes_.size() > options_.max_bytes)
      return Error{ErrorCode::kResourceExhausted,
                   "the pickle has " + std::to_string(bytes_.size()) + " bytes; at most " +
                       std::to_string(options_.max_bytes) + " are read",
                   "", ""};
    if (bytes_.size() < 2 || u8(0) != 0x80)
      return Error{ErrorCode::kCorrupt, "not a pickle of protocol 2 to 5", "", ""};
    if (u8(1) < 2 || u8(1) > 5)
      return Error{ErrorCode::kUnsupported, "pickle protocol " + std::to_string(u8(1)) + "; 2 to 5 are read",
                   "", ""};
    at_ = 2;
    while (!done_) {
      op_at_ = at_;
      if (at_ >= bytes_.size()) return corrupt("ends without STOP");
      ISOLINE_RETURN_IF_ERROR(step(u8(at_++)));
    }
    return std::move(out_);
  }

 private:
  static constexpr uint32_t kNoClass = UINT32_MAX;

  Error corrupt(const std::string& what) const {
    return Error{ErrorCode::kCorrupt, "the pickle " + what + " (byte " + std::to_string(op_at_) + ")", "",
                 "Copy or download the file again"};
  }
  Error refused(const std::string& what) const {
    return Error{ErrorCode::kUnsupported, what + " (byte " + std::to_string(op_at_) + " of the pickle)", "",
                 "Only plain data and tensors are read; nothing in a file is executed"};
  }

  unsigned u8(size_t at) const { return std::to_integer<unsigned>(bytes_[at]); }
  // `n` bytes at the cursor, or an empty optional past the end.
  std::optional<std::string_view> take(uint64_t n) {
    if (n > bytes_.size() - at_) return std::nullopt;
    std::string_view v(reinterpret_cast<const char*>(bytes_.data()) + at_, size_t(n));
    at_ += size_t(n);
    return v;
  }
  static uint64_t little_endian(std::string_view v) {
    uint64_t x = 0;
    for (size_t i = v.size(); i-- > 0;) x = x << 8 | uint8_t(v[i]);
    return x;
  }
  std::optional<std::string_view> line() {
    const auto* begin = reinterpret_cast<const char*>(bytes_.data()) + at_;
    const auto* end = static_cast<const char*>(std::memchr(begin, '\n', bytes_.size() - at_));
    if (!end) return std::nullopt;
    std::string_view v(begin, size_t(end - begin));
    at_ += v.size() + 1;
    return v;
  }

  // Copied text and item lists are charged, so that re-using one long object many times stays bounded.
  Status charge(uint64_t n) {
    spent_ += n;
    if (spent_ > 8 * options_.max_bytes)
      return Error{ErrorCode::kResourceExhausted, "the pickle expands beyond its limit", "", ""};
    return {};
  }
  Result<PickleRef> add(PickleObject o) {
    if (out_.objects_.size() >= options_.max_objects)
      return Error{ErrorCode::kResourceExhausted,
                   "the pickle holds more than " + std::to_string(options_.max_objects) + " objects", "", ""};
    ISOLINE_RETURN_IF_ERROR(charge(o.text.size() + o.items.size() * sizeof(PickleRef)));
    out_.objects_.push_back(std::move(o));
    class_of_.push_back(kNoClass);
    return PickleRef(out_.objects_.size() - 1);
  }
  Status push(PickleObject o) {
    ISOLINE_ASSIGN(const PickleRef r, add(std::move(o)));
    stack_.push_back(r);
    return {};
  }
  Status push_text(PickleKind kind, std::optional<std::string_view> text) {
    if (!text) return corrupt("is cut off");
    return push({kind, 0, 0, std::string(*text), {}});
  }
  // A length field of `width` bytes, then that many bytes of text.
  Status push_counted(PickleKind kind, size_t width) {
    const auto n = take(width);
    if (!n) return corrupt("is cut off");
    return push_text(kind, take(little_endian(*n)));
  }
  Status push_int(int64_t v) { return push({PickleKind::kInt, v, 0, {}, {}}); }
  Status push_signed(std::string_view v) {  // two's complement, little endian, any length
    if (v.empty()) return push_int(0);
    while (v.size() > 8) {  // drop sign extension
      const char fill = v[v.size() - 2] & 0x80 ? '\xff' : '\0';
      if (v.back() != fill) return push({PickleKind::kBigInt, 0, 0, {}, {}});
      v.remove_suffix(1);
    }
    uint64_t x = little_endian(v);
    if (v.size() < 8 && (v.back() & 0x80)) x |= ~uint64_t(0) << (8 * v.size());
    return push_int(int64_t(x));
  }

  size_t floor() const {
    return marks_.empty() ? 0 : marks_.back();
  }  // objects below belong to an outer MARK
  Result<PickleRef> pop() {
    if (stack_.size() <= floor()) return corrupt("takes from an empty stack");
    const PickleRef r = stack_.back();
    stack_.pop_back();
    return r;
  }
  Result<PickleRef> top() const {
    if (stack_.size() <= floor()) return corrupt("takes from an empty stack");
    return stack_.back();
  }
  Result<std::vector<PickleRef>> pop_to_mark() {
    if (marks_.empty()) return corrupt("lacks a MARK");
    const size_t from = marks_.back();
    marks_.pop_back();
    std::vector<PickleRef> items(stack_.begin() + ptrdiff_t(from), stack_.end());
    stack_.resize(from);
    return items;
  }
  PickleObject& object(PickleRef r) { return out_.objects_[r]; }

  Status memo_put(uint64_t slot) {
    ISOLINE_ASSIGN(const PickleRef r, top());
    if (slot == memo_.size())  // the usual case: slots are handed out in order
      memo_.push_back(r);
    else if (slot < memo_.size())
      memo_[size_t(slot)] = r;
    else
      far_memo_[slot] = r;
    return {};
  }
  Status memo_get(uint64_t slot) {
    if (const auto far = far_memo_.find(slot); far != far_memo_.end() && slot >= memo_.size()) {
      stack_.push_back(far->second);
      return {};
    }
    if (slot >= memo_.size()) return corrupt("reads an empty memo slot");
    stack_.push_back(memo_[size_t(slot)]);
    return {};
  }

  Status push_global(std::string_view module, std::string_view name) {
    const std::string full = std::string(module) + " " + std::string(name);
    for (uint32_t i = 0; i < std::size(kKnown); ++i)
      if (kKnown[i].name == full && (options_.torch || !kKnown[i].torch)) {
        ISOLINE_RETURN_IF_ERROR(push({PickleKind::kName, 0, 0, full, {}}));
        class_of_.back() = i;
        return {};
      }
    if (options_.torch && module == "torch")
      for (const std::string_view t : kTorchDtypes)
        if (name == t) return push({PickleKind::kDtype, 0, 0, full, {}});
    if (std::find(options_.functions.begin(), options_.functions.end(), full) != options_.functions.end())
      return push({PickleKind::kName, 0, 0, full, {}});
    return refused("the pickle names '" + printable(module) + "." + printable(name) +
                   "', which is not allowed");
  }

  Status append(PickleRef to, const std::vector<PickleRef>& items, bool pairs) {
    PickleObject& o = object(to);
    const bool fits =
        pairs ? o.kind == PickleKind::kDict : o.kind == PickleKind::kList || o.kind == PickleKind::kSet;
    if (!fits) return corrupt(std::string("adds items to a ") + to_string(o.kind));
    if (pairs && items.size() % 2) return corrupt("has a key without a value");
    ISOLINE_RETURN_IF_ERROR(charge(items.size() * sizeof(PickleRef)));
    o.items.insert(o.items.end(), items.begin(), items.end());
    return {};
  }

  // NumPy type codes like "f8" or "<i4" with the byte order left out.
  static bool is_scalar_code(const std::string& code) {
    for (const char* c : {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"})
      if (code == c) return true;
    return false;
  }

  Status numpy_scalar(const PickleObject& dtype, const PickleObject& data) {
    if (dtype.kind != PickleKind::kDtype || data.kind != PickleKind::kBytes)
      return corrupt("has a NumPy scalar without type or bytes");
    const std::string code = dtype.text;
    if (!is_scalar_code(code)) return refused("a NumPy scalar of type '" + printable(code) + "' is not read");
    std::string raw = data.text;
    if (raw.size() != size_t(code[1] - '0')) return corrupt("has a NumPy scalar of the wrong size");
    if (dtype.integer) std::reverse(raw.begin(), raw.end());  // big endian
    const uint64_t bits = little_endian(raw);
    if (code == "f2") return push({PickleKind::kFloat, 0, half_to_float(half_t(bits)), {}, {}});
    if (code == "f4") return push({PickleKind::kFloat, 0, std::bit_cast<float>(uint32_t(bits)), {}, {}});
    if (code == "f8") return push({PickleKind::kFloat, 0, std::bit_cast<double>(bits), {}, {}});
    if (code == "b1") return push({PickleKind::kBool, bits != 0, 0, {}, {}});
    if (code[0] == 'i') return push_signed(raw);
    if (bits > uint64_t(INT64_MAX)) return push({PickleKind::kBigInt, 0, 0, {}, {}});
    return push_int(int64_t(bits));
  }

  Result<std::vector<int64_t>> integers(PickleRef r, const char* what) {
    const PickleObject& o = object(r);
    if (o.kind != PickleKind::kTuple && o.kind != PickleKind::kList)
      return corrupt(std::string("has a tensor whose ") + what + " is a " + to_string(o.kind));
    if (o.items.size() > kMaxDimensions)
      return refused("a tensor has " + std::to_string(o.items.size()) + " dimensions; at most 8 are read");
    std::vector<int64_t> v;
    for (PickleRef i : o.items) {
      if (object(i).kind != PickleKind::kInt || object(i).integer < 0)
        return corrupt(std::string("has a tensor with a bad ") + what);
      v.push_back(object(i).integer);
    }
    return v;
  }

  Status rebuild_tensor(const std::vector<PickleRef>& args) {
    // storage, storage_offset, size, stride, requires_grad, backward_hooks[, metadata]
    if (args.size() < 6 || args.size() > 7) return corrupt("rebuilds a tensor with the wrong arguments");
    if (object(args[0]).kind != PickleKind::kStorage) return corrupt("rebuilds a tensor without a storage");
    if (object(args[1]).kind != PickleKind::kInt || object(args[1]).integer < 0)
      return corrupt("has a tensor with a bad offset");
    PickleTensor t;
    t.storage = out_.storage(object(args[0]));
    t.offset = object(args[1]).integer;
    ISOLINE_ASSIGN(t.shape, integers(args[2], "size"));
    ISOLINE_ASSIGN(t.strides, integers(args[3], "stride"));
    if (t.shape.size() != t.strides.size())
      return corrupt("has a tensor whose size and stride differ in length");
    ISOLINE_RETURN_IF_ERROR(charge(t.storage.key.size() + sizeof(PickleTensor) + 16 * t.shape.size()));
    out_.tensors_.push_back(std::move(t));
    return push({PickleKind::kTensor, int64_t(out_.tensors_.size() - 1), 0, {}, {}});
  }

  Status persistent_id(PickleRef id) {
    // ("storage", torch.FloatStorage, key, location, number of elements)
    const PickleObject& o = object(id);
    if (!options_.torch) return refused("the pickle refers to data outside itself");
    if (o.kind != PickleKind::kTuple || o.items.size() != 5) return corrupt("has an unknown persistent id");
    const PickleObject &tag = object(o.items[0]), &key = object(o.items[2]), &count = object(o.items[4]);
    const uint32_t cls = class_of_[o.items[1]];
    if (tag.kind != PickleKind::kString || tag.text != "storage" || cls == kNoClass ||
        kKnown[cls].known != Known::kStorageClass || key.kind != PickleKind::kString ||
        count.kind != PickleKind::kInt || count.integer < 0)
      return corrupt("has an unknown persistent id");
    ISOLINE_RETURN_IF_ERROR(charge(key.text.size() + sizeof(PickleStorage)));
    out_.storages_.push_back({kKnown[cls].storage, key.text, count.integer});
    return push({PickleKind::kStorage, int64_t(out_.storages_.size() - 1), 0, {}, {}});
  }

  // Calls `function` with `args`: the one place where a pickle "does" something. Each case builds data only.
  Status reduce(PickleRef function, PickleRef arguments) {
    const uint32_t cls = class_of_[function];
    if (cls == kNoClass) {
      const PickleObject& f = object(function);
      return refused("the pickle calls " + (f.kind == PickleKind::kName
                                                ? "'" + printable(f.text) + "'"
                                                : std::string("a ") + to_string(f.kind)));
    }
    if (object(arguments).kind != PickleKind::kTuple)
      return corrupt("calls with something other than a tuple");
    ISOLINE_RETURN_IF_ERROR(charge(object(arguments).items.size() * sizeof(PickleRef)));
    const std::vector<PickleRef> args = object(arguments).items;
    const std::string name(kKnown[cls].name);
    const auto wrong = [&] { return corrupt("calls '" + name + "' with the wrong arguments"); };
    switch (kKnown[cls].known) {
      case Known::kOrderedDict: {
        if (args.size() > 1) return wrong();
        PickleObject dict{PickleKind::kDict, 0, 0, {}, {}};
        if (args.size() == 1) {  // a list of pairs
          if (object(args[0]).kind != PickleKind::kList) return wrong();
          for (PickleRef pair : object(args[0]).items) {
            if (object(pair).items.size() != 2 || object(pair).kind == PickleKind::kDict) return wrong();
            dict.items.insert(dict.items.end(), object(pair).items.begin(), object(pair).items.end());
          }
        }
        return push(std::move(dict));
      }
      case Known::kSet: {
        PickleObject set{PickleKind::kSet, 0, 0, {}, {}};
        if (args.size() > 1) return wrong();
        if (args.size() == 1) {
          const PickleObject& from = object(args[0]);
          if (from.kind != PickleKind::kList && from.kind != PickleKind::kTuple) return wrong();
          set.items = from.items;
        }
        return push(std::move(set));
      }
      case Known::kBytes:
        if (args.empty()) return push({PickleKind::kBytes, 0, 0, {}, {}});
        if (object(args[0]).kind == PickleKind::kBytes && args.size() == 1)
          return push({PickleKind::kBytes, 0, 0, object(args[0]).text, {}});
        [[fallthrough]];  // bytearray(text, "latin-1")
      case Known::kEncode: {
        if (args.size() != 2 || object(args[0]).kind != PickleKind::kString ||
            object(args[1]).kind != PickleKind::kString ||
            (object(args[1]).text != "latin1" && object(args[1]).text != "latin-1"))
          return wrong();
        ISOLINE_RETURN_IF_ERROR(charge(object(args[0]).text.size()));
        std::string raw;
        const std::string& utf8 = object(args[0]).text;
        for (size_t i = 0; i < utf8.size(); ++i) {
          const unsigned c = uint8_t(utf8[i]);
          if (c < 0x80) {
            raw += char(c);
          } else {  // U+0080 to U+00FF take two bytes; anything above is no Latin-1
            if ((c & 0xfc) != 0xc0 || i + 1 >= utf8.size() || (uint8_t(utf8[i + 1]) & 0xc0) != 0x80)
              return wrong();
            raw += char((c & 0x03) << 6 | (uint8_t(utf8[++i]) & 0x3f));
          }
        }
        return push({PickleKind::kBytes, 0, 0, std::move(raw), {}});
      }
      case Known::kRebuildTensor:
        return rebuild_tensor(args);
      case Known::kRebuildParameter:  // data, requires_grad, backward_hooks
        if (args.size() != 3 || object(args[0]).kind != PickleKind::kTensor) return wrong();
        stack_.push_back(args[0]);
        return {};
      case Known::kTorchSize: {
        if (args.size() != 1) return wrong();
        const PickleObject& from = object(args[0]);
        if (from.kind != PickleKind::kTuple && from.kind != PickleKind::kList) return wrong();
        return push({PickleKind::kTuple, 0, 0, {}, from.items});
      }
      case Known::kTorchDevice:
        if (args.empty() || args.size() > 2 || object(args[0]).kind != PickleKind::kString) return wrong();
        return push({PickleKind::kDevice, 0, 0, object(args[0]).text, {}});
      case Known::kNumpyDtype: {
        if (args.empty() || args.size() > 3 || object(args[0]).kind != PickleKind::kString) return wrong();
        std::string code = object(args[0]).text;
        bool big_endian = false;
        if (!code.empty() && std::strchr("<>|=", code[0])) {
          big_endian = code[0] == '>';
          code.erase(0, 1);
        }
        if (code == "O8" || code == "O") return refused("a NumPy array of Python objects is not read");
        return push({PickleKind::kDtype, big_endian, 0, std::move(code), {}});
      }
      case Known::kNumpyScalar:
        if (args.size() != 2) return wrong();
        return numpy_scalar(object(args[0]), object(args[1]));
      case Known::kNumpyReconstruct:
        if (args.size() != 3 || class_of_[args[0]] == kNoClass ||
            kKnown[class_of_[args[0]]].known != Known::kNumpyNdarray)
          return wrong();
        return push({PickleKind::kArray, 0, 0, {}, {}});
      case Known::kNumpyFromBuffer:  // buffer, dtype, shape, order
        if (args.size() != 4 || object(args[0]).kind != PickleKind::kBytes ||
            object(args[1]).kind != PickleKind::kDtype)
          return wrong();
        return push({PickleKind::kArray, 0, 0, {}, {}});
      case Known::kNumpyNdarray:
      case Known::kStorageClass:
        break;
    }
    return refused("the pickle calls '" + name + "'");
  }

  // Sets an object's state.
  Status build(PickleRef target, PickleRef state_ref) {
    PickleObject& o = object(target);
    const PickleObject& state = object(state_ref);
    switch (o.kind) {
      case PickleKind::kDict:  // attributes of an OrderedDict, e.g. a state dict's _metadata: not needed
        return {};
      case PickleKind::kDtype: {
        // version, byte order, subdtype, names, fields, itemsize, alignment, flags
        if (state.kind != PickleKind::kTuple || state.items.size() < 8 ||
            object(state.items[1]).kind != PickleKind::kString)
          return corrupt("has a NumPy type with an unknown state");
        for (size_t i : {2, 3, 4})
          if (object(state.items[i]).kind != PickleKind::kNone)
            return refused("a structured NumPy type is not read");
        o.integer = object(state.items[1]).text == ">";
        return {};
      }
      case PickleKind::kArray:  // version, shape, dtype, is_fortran, bytes
        if (state.kind != PickleKind::kTuple || state.items.size() != 5 ||
            object(state.items[2]).kind != PickleKind::kDtype ||
            object(state.items[4]).kind != PickleKind::kBytes)
          return refused("a NumPy array whose contents are not plain bytes is not read");
        return {};
      default:
        return refused(std::string("the pickle sets attributes of a ") + to_string(o.kind));
    }
  }

  Status push_tuple(size_t n) {
    PickleObject t{PickleKind::kTuple, 0, 0, {}, std::vector<PickleRef>(n)};
    for (size_t i = n; i-- > 0;) {
      ISOLINE_ASSIGN(t.items[i], pop());
    }
    return push(std::move(t));
  }

  Status step(unsigned op) {
    switch (op) {
      case '.': {  // STOP
        ISOLINE_ASSIGN(out_.root_, pop());
        done_ = true;
        return {};
      }
      case 0x80:  // PROTO
        return take(1) ? Status() : corrupt("is cut off");
      case 0x95:  // FRAME: a hint for buffering
        return take(8) ? Status() : corrupt("is cut off");
      case '(':
        if (marks_.size() >= kMaxMarks) return refused("the pickle is nested too deeply");
        marks_.push_back(stack_.size());
        return {};
      case '0': {  // POP, also of a MARK
        if (!marks_.empty() && stack_.size() == marks_.back()) {
          marks_.pop_back();
          return {};
        }
        ISOLINE_ASSIGN([[maybe_unused]] const PickleRef r, pop());
        return {};
      }
      case '1': {  // POP_MARK
        ISOLINE_ASSIGN([[maybe_unused]] const auto items, pop_to_mark());
        return {};
      }
      case '2': {  // DUP
        ISOLINE_ASSIGN(const PickleRef r, top());
        stack_.push_back(r);
        return {};
      }
      case 'N':
        return push({});
      case 0x88:
        return push({PickleKind::kBool, 1, 0, {}, {}});
      case 0x89:
        return push({PickleKind::kBool, 0, 0, {}, {}});
      case 'J': {  // BININT
        const auto v = take(4);
        return v ? push_int(int32_t(little_endian(*v))) : corrupt("is cut off");
      }
      case 'K':
      case 'M': {  // BININT1, BININT2
        const auto v = take(op == 'K' ? 1 : 2);
        return v ? push_int(int64_t(little_endian(*v))) : corrupt("is cut off");
      }
      case 0x8a:
      case 0x8b: {  // LONG1, LONG4
        const auto n = take(op == 0x8a ? 1 : 4);
        if (!n) return corrupt("is cut off");
        const auto v = take(little_endian(*n));
        return v ? push_signed(*v) : corrupt("is cut off");
      }
      case 'G': {  // BINFLOAT, big endian
        const auto v = take(8);
        if (!v) return corrupt("is cut off");
        uint64_t bits = 0;
        for (char c : *v) bits = bits << 8 | uint8_t(c);
        return push({PickleKind::kFloat, 0, std::bit_cast<double>(bits), {}, {}});
      }
      case 0x8c:
        return push_counted(PickleKind::kString, 1);
      case 'X':
        return push_counted(PickleKind::kString, 4);
      case 0x8d:
        return push_counted(PickleKind::kString, 8);
      case 'C':
        return push_counted(PickleKind::kBytes, 1);
      case 'B':
        return push_counted(PickleKind::kBytes, 4);
      case 0x8e:
        return push_counted(PickleKind::kBytes, 8);
      case 0x96:
        return push_counted(PickleKind::kBytes, 8);  // BYTEARRAY8
      case ']':
        return push({PickleKind::kList, 0, 0, {}, {}});
      case ')':
        return push({PickleKind::kTuple, 0, 0, {}, {}});
      case '}':
        return push({PickleKind::kDict, 0, 0, {}, {}});
      case 0x8f:
        return push({PickleKind::kSet, 0, 0, {}, {}});
      case 'l':
      case 't':
      case 'd':
      case 0x91: {  // LIST, TUPLE, DICT, FROZENSET
        ISOLINE_ASSIGN(auto items, pop_to_mark());
        if (op == 'd' && items.size() % 2) return corrupt("has a key without a value");
        const PickleKind kind = op == 'l'   ? PickleKind::kList
                                : op == 't' ? PickleKind::kTuple
                                : op == 'd' ? PickleKind::kDict
                                            : PickleKind::kSet;
        return push({kind, 0, 0, {}, std::move(items)});
      }
      case 0x85:
        return push_tuple(1);
      case 0x86:
        return push_tuple(2);
      case 0x87:
        return push_tuple(3);
      case 'a': {  // APPEND
        ISOLINE_ASSIGN(const PickleRef v, pop());
        ISOLINE_ASSIGN(const PickleRef to, top());
        return append(to, {v}, false);
      }
      case 'e':
      case 0x90: {  // APPENDS, ADDITEMS
        ISOLINE_ASSIGN(const auto items, pop_to_mark());
        ISOLINE_ASSIGN(const PickleRef to, top());
        return append(to, items, false);
      }
      case 's': {  // SETITEM
        ISOLINE_ASSIGN(const PickleRef v, pop());
        ISOLINE_ASSIGN(const PickleRef k, pop());
        ISOLINE_ASSIGN(const PickleRef to, top());
        return append(to, {k, v}, true);
      }
      case 'u': {  // SETITEMS
        ISOLINE_ASSIGN(const auto items, pop_to_mark());
        ISOLINE_ASSIGN(const PickleRef to, top());
        return append(to, items, true);
      }
      case 'h':
      case 'j': {  // BINGET, LONG_BINGET
        const auto v = take(op == 'h' ? 1 : 4);
        return v ? memo_get(little_endian(*v)) : corrupt("is cut off");
      }
      case 'q':
      case 'r': {  // BINPUT, LONG_BINPUT
        const auto v = take(op == 'q' ? 1 : 4);
        return v ? memo_put(little_endian(*v)) : corrupt("is cut off");
      }
      case 0x94:
        return memo_put(memo_.size());  // MEMOIZE
      case 'c': {                       // GLOBAL
        const auto module = line();
        const auto name = module ? line() : std::nullopt;
        if (!name) return corrupt("is cut off");
        return push_global(*module, *name);
      }
      case 0x93: {  // STACK_GLOBAL
        ISOLINE_ASSIGN(const PickleRef name, pop());
        ISOLINE_ASSIGN(const PickleRef module, pop());
        if (object(name).kind != PickleKind::kString || object(module).kind != PickleKind::kString)
          return corrupt("names a class by something other than text");
        ISOLINE_RETURN_IF_ERROR(charge(object(name).text.size() + object(module).text.size()));
        return push_global(object(module).text, object(name).text);
      }
      case 'R': {  // REDUCE
        ISOLINE_ASSIGN(const PickleRef args, pop());
        ISOLINE_ASSIGN(const PickleRef function, pop());
        return reduce(function, args);
      }
      case 'b': {  // BUILD
        ISOLINE_ASSIGN(const PickleRef state, pop());
        ISOLINE_ASSIGN(const PickleRef to, top());
        return build(to, state);
      }
      case 'Q': {  // BINPERSID
        ISOLINE_ASSIGN(const PickleRef id, pop());
        return persistent_id(id);
      }
      case 0x81:
      case 0x92:
      case 'i':
      case 'o':
        return refused("the pickle constructs an object of a class (opcode " + hex_byte(op) + ")");
      default:
        return refused("pickle opcode " + hex_byte(op) + " is not read");
    }
  }

  std::span<const std::byte> bytes_;
  UnpickleOptions options_;
  size_t at_ = 0, op_at_ = 0;
  bool done_ = false;
  uint64_t spent_ = 0;
  Pickle out_;
  std::vector<uint32_t> class_of_;  // per object: index into kKnown, or kNoClass
  std::vector<PickleRef> stack_, memo_;
  std::unordered_map<uint64_t, PickleRef> far_memo_;  // slots beyond the dense ones
  std::vector<size_t> marks_;
};

Result<Pickle> unpickle(std::span<const std::byte> bytes, const UnpickleOptions& options) {
  return Unpickler(bytes, options).run();
}

}  // namespace isoline
