#include "isoline/io/npy.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cctype>
#include <cstring>

#include "isoline/base/file.h"
#include "isoline/io/gzip.h"

namespace isoline {
namespace {

static_assert(std::endian::native == std::endian::little, "arrays are written as they lie in memory");

template <class T>
constexpr const char* kDescr = nullptr;
template <>
constexpr const char* kDescr<float> = "<f4";
template <>
constexpr const char* kDescr<double> = "<f8";
template <>
constexpr const char* kDescr<int16_t> = "<i2";
template <>
constexpr const char* kDescr<uint8_t> = "|u1";
template <>
constexpr const char* kDescr<uint16_t> = "<u2";

Error corrupt(const std::string& what) {
  return Error{ErrorCode::kCorrupt, what, "npy", ""};
}

// numpy.lib.format version 1.0: padded with spaces to a multiple of 64.
std::string npy_header(const char* descr, const std::vector<int64_t>& shape) {
  std::string dict = std::string("{'descr': '") + descr + "', 'fortran_order': False, 'shape': (";
  for (size_t i = 0; i < shape.size(); ++i)
    dict += std::to_string(shape[i]) + (i + 1 < shape.size() ? ", " : "");
  dict += shape.size() == 1 ? ",), }" : "), }";
  const size_t unpadded = 10 + dict.size() + 1;
  dict.append((64 - unpadded % 64) % 64, ' ');
  dict += '\n';
  std::string out("\x93NUMPY\x01\x00", 8);
  out += char(dict.size() & 0xff);
  out += char(dict.size() >> 8);
  return out + dict;
}

// The text behind 'key': in the header's dictionary, or nothing.
std::string value_of(const std::string& dict, const std::string& key) {
  size_t at = dict.find("'" + key + "'");
  if (at == std::string::npos) return "";
  at = dict.find(':', at);
  if (at == std::string::npos) return "";
  ++at;
  while (at < dict.size() && dict[at] == ' ') ++at;
  return dict.substr(at);
}

template <class T>
NpyData payload(std::span<const std::byte> bytes) {
  Buffer<T> data(bytes.size() / sizeof(T));
  if (!bytes.empty()) std::memcpy(data.data(), bytes.data(), bytes.size());
  return data;
}

template <class T>
Status check_shape(const std::string& path, size_t size, const std::vector<int64_t>& shape) {
  int64_t n = 1;
  for (int64_t d : shape)
    if (d < 0 || __builtin_mul_overflow(n, d, &n))
      return Error{ErrorCode::kInvalidArgument, "impossible array shape", path, ""};
  if (uint64_t(n) != size)
    return Error{ErrorCode::kInvalidArgument,
                 "the shape asks for " + std::to_string(n) + " values, there are " + std::to_string(size),
                 path, ""};
  return {};
}

template <class V>
void put(std::vector<std::byte>& out, V value) {
  const auto raw = std::bit_cast<std::array<std::byte, sizeof(V)>>(value);
  out.insert(out.end(), raw.begin(), raw.end());
}
void put_text(std::vector<std::byte>& out, const std::string& text) {
  const auto raw = std::as_bytes(std::span(text.data(), text.size()));
  out.insert(out.end(), raw.begin(), raw.end());
}

}  // namespace

Result<NpyArray> parse_npy(std::span<const std::byte> bytes) {
  if (bytes.size() < 10 || std::memcmp(bytes.data(), "\x93NUMPY", 6) != 0)
    return corrupt("this is not a .npy file");
  const int version = int(bytes[6]);
  if (version < 1 || version > 3) return corrupt("unknown version " + std::to_string(version));
  const size_t length_bytes = version == 1 ? 2 : 4;
  uint64_t length = 0;
  if (bytes.size() < 8 + length_bytes) return corrupt("the header is cut off");
  for (size_t i = 0; i < length_bytes; ++i) length |= uint64_t(bytes[8 + i]) << (8 * i);
  const uint64_t start = 8 + length_bytes + length;
  if (start > bytes.size() || length > (1u << 20)) return corrupt("the header is cut off");
  const std::string dict(reinterpret_cast<const char*>(bytes.data()) + 8 + length_bytes, size_t(length));

  const std::string order = value_of(dict, "fortran_order");
  if (order.rfind("False", 0) != 0) {
    if (order.rfind("True", 0) == 0)
      return Error{ErrorCode::kUnsupported, "arrays in Fortran order are not read", "npy",
                   "Save numpy.ascontiguousarray(a)"};
    return corrupt("the header names no array order");
  }
  const std::string descr = value_of(dict, "descr");
  if (descr.size() < 2 || (descr[0] != '\'' && descr[0] != '"'))
    return Error{ErrorCode::kUnsupported, "only plain numeric arrays are read", "npy", ""};
  const std::string type = descr.substr(1, descr.find(descr[0], 1) - 1);

  NpyArray array;
  const std::string shape = value_of(dict, "shape");
  if (shape.empty() || shape[0] != '(') return corrupt("the header names no shape");
  int64_t n = 1;
  size_t i = 1;
  for (; i < shape.size() && shape[i] != ')';) {
    if (shape[i] == ',' || shape[i] == ' ') {
      ++i;
      continue;
    }
    if (!std::isdigit(static_cast<unsigned char>(shape[i]))) return corrupt("the shape is no list of sizes");
    int64_t d = 0;
    for (; i < shape.size() && std::isdigit(static_cast<unsigned char>(shape[i])); ++i)
      if (__builtin_mul_overflow(d, int64_t{10}, &d) ||
          __builtin_add_overflow(d, int64_t(shape[i] - '0'), &d))
        return corrupt("the shape overflows");
    if (__builtin_mul_overflow(n, d, &n)) return corrupt("the shape overflows");
    array.shape.push_back(d);
    if (array.shape.size() > 32) return corrupt("more than 32 axes");
  }
  if (i >= shape.size()) return corrupt("the shape has no end");

  const std::span<const std::byte> body = bytes.subspan(size_t(start));
  const auto take = [&](auto zero) -> Status {
    using T = decltype(zero);
    int64_t want = 0;
    if (__builtin_mul_overflow(n, int64_t(sizeof(T)), &want) || uint64_t(want) != body.size())
      return corrupt("it holds " + std::to_string(body.size()) + " bytes of values, not the " +
                     std::to_string(want) + " its shape asks for");
    array.data = payload<T>(body);
    return {};
  };
  Status s;
  if (type == "<f4") {
    s = take(float{});
  } else if (type == "<f8") {
    s = take(double{});
  } else if (type == "<i2") {
    s = take(int16_t{});
  } else if (type == "<i8") {
    s = take(int64_t{});
  } else if (type == "<u2") {
    s = take(uint16_t{});
  } else if (type == "<f2") {
    s = take(half_t{});
    array.is_half = true;
  } else if (type == "|u1" || type == "<u1") {
    s = take(uint8_t{});
  } else {
    return Error{ErrorCode::kUnsupported, "arrays of type '" + type + "' are not read", "npy",
                 "Supported: float16, float32, float64, int16, int64, uint16, uint8, little-endian"};
  }
  ISOLINE_RETURN_IF_ERROR(std::move(s));
  return array;
}

Result<NpyArray> read_npy(const std::string& path, uint64_t max_bytes) {
  ISOLINE_ASSIGN(const Buffer<std::byte> bytes, read_whole_file(path, max_bytes));
  Result<NpyArray> array = parse_npy(bytes.span());
  return array.ok() ? std::move(array) : Result<NpyArray>(array.error().in(path));
}

namespace {

template <class T>
Status write_array(const std::string& path, const char* descr, std::span<const T> values,
                   const std::vector<int64_t>& shape) {
  ISOLINE_RETURN_IF_ERROR(check_shape<T>(path, values.size(), shape));
  ISOLINE_ASSIGN(AtomicFile file, AtomicFile::create(path));
  const std::string header = npy_header(descr, shape);
  ISOLINE_RETURN_IF_ERROR(file.write(std::as_bytes(std::span(header.data(), header.size()))));
  ISOLINE_RETURN_IF_ERROR(file.write(std::as_bytes(values)));
  return file.commit();
}

}  // namespace

template <class T>
Status write_npy(const std::string& path, std::span<const T> values, const std::vector<int64_t>& shape) {
  return write_array(path, kDescr<T>, values, shape);
}
Status write_npy_half(const std::string& path, std::span<const half_t> values,
                      const std::vector<int64_t>& shape) {
  return write_array(path, "<f2", values, shape);
}

template <class T>
Status write_npz(const std::string& path, const std::string& name, std::span<const T> values,
                 const std::vector<int64_t>& shape, ThreadPool& pool, int level) {
  ISOLINE_RETURN_IF_ERROR(check_shape<T>(path, values.size(), shape));
  // The .npy header and the values form one stream without being copied together: the header's stored block
  // (raw deflate, type 0, not the last) stands before the compressed values.
  const std::string npy = npy_header(kDescr<T>, shape);
  const auto npy_bytes = std::as_bytes(std::span(npy.data(), npy.size()));
  const std::string member = name + ".npy";
  constexpr uint16_t kVersion = 45;         // zip64
  constexpr uint32_t kNoTime = 0x00210000;  // 1980-01-01: the same array gives the same file

  ISOLINE_ASSIGN(AtomicFile file, AtomicFile::create(path));
  std::vector<std::byte> local;
  const auto local_header = [&](uint32_t crc, uint64_t packed, uint64_t unpacked) {
    local.clear();
    put(local, uint32_t{0x04034b50});
    put(local, kVersion);
    put(local, uint16_t{0});
    put(local, uint16_t{8});
    put(local, kNoTime);
    put(local, crc);
    put(local, uint32_t{0xffffffff});
    put(local, uint32_t{0xffffffff});
    put(local, uint16_t(member.size()));
    put(local, uint16_t{20});
    put_text(local, member);
    put(local, uint16_t{1});
    put(local, uint16_t{16});
    put(local, unpacked);
    put(local, packed);
  };
  local_header(0, 0, 0);
  const uint64_t local_bytes = local.size();
  ISOLINE_RETURN_IF_ERROR(file.write(local));

  std::vector<std::byte> stored;
  put(stored, uint8_t{0});
  put(stored, uint16_t(npy.size()));
  put(stored, uint16_t(~uint16_t(npy.size())));
  stored.insert(stored.end(), npy_bytes.begin(), npy_bytes.end());
  ISOLINE_RETURN_IF_ERROR(file.write(stored));
  ISOLINE_ASSIGN(const DeflateResult body,
                 deflate_parallel(std::as_bytes(values), level, pool,
                                  [&](std::span<const std::byte> b) { return file.write(b); }));
  const uint64_t packed = stored.size() + body.compressed_bytes;
  const uint64_t unpacked = npy.size() + values.size_bytes();
  const uint32_t crc = crc32_join(crc32_of(npy_bytes), body.crc32, values.size_bytes());
  local_header(crc, packed, unpacked);
  ISOLINE_RETURN_IF_ERROR(file.write_at(0, local));

  std::vector<std::byte> tail;
  const uint64_t directory = local_bytes + packed;
  put(tail, uint32_t{0x02014b50});
  put(tail, uint16_t(3 << 8 | kVersion));  // made on Unix
  put(tail, kVersion);
  put(tail, uint16_t{0});
  put(tail, uint16_t{8});
  put(tail, kNoTime);
  put(tail, crc);
  put(tail, uint32_t{0xffffffff});
  put(tail, uint32_t{0xffffffff});
  put(tail, uint16_t(member.size()));
  put(tail, uint16_t{20});
  put(tail, uint16_t{0});  // comment
  put(tail, uint16_t{0});  // disk
  put(tail, uint16_t{0});  // internal attributes
  put(tail, uint32_t{0100600u << 16});
  put(tail, uint32_t{0});  // offset of the local header
  put_text(tail, member);
  put(tail, uint16_t{1});
  put(tail, uint16_t{16});
  put(tail, unpacked);
  put(tail, packed);
  const uint64_t directory_bytes = tail.size();
  put(tail, uint32_t{0x06064b50});
  put(tail, uint64_t{44});
  put(tail, uint16_t(3 << 8 | kVersion));
  put(tail, kVersion);
  put(tail, uint32_t{0});
  put(tail, uint32_t{0});
  put(tail, uint64_t{1});
  put(tail, uint64_t{1});
  put(tail, directory_bytes);
  put(tail, directory);
  put(tail, uint32_t{0x07064b50});
  put(tail, uint32_t{0});
  put(tail, uint64_t(directory + directory_bytes));
  put(tail, uint32_t{1});
  put(tail, uint32_t{0x06054b50});
  put(tail, uint16_t{0});
  put(tail, uint16_t{0});
  put(tail, uint16_t{1});
  put(tail, uint16_t{1});
  put(tail, uint32_t(directory_bytes));
  put(tail, uint32_t(std::min<uint64_t>(directory, 0xffffffff)));
  put(tail, uint16_t{0});
  ISOLINE_RETURN_IF_ERROR(file.write(tail));
  return file.commit();
}

#define ISOLINE_INSTANTIATE(T)                                                                       \
  template Status write_npy<T>(const std::string&, std::span<const T>, const std::vector<int64_t>&); \
  template Status write_npz<T>(const std::string&, const std::string&, std::span<const T>,           \
                               const std::vector<int64_t>&, ThreadPool&, int);
ISOLINE_INSTANTIATE(float)
ISOLINE_INSTANTIATE(double)
ISOLINE_INSTANTIATE(int16_t)
ISOLINE_INSTANTIATE(uint8_t)
ISOLINE_INSTANTIATE(uint16_t)
#undef ISOLINE_INSTANTIATE

}  // namespace isoline
