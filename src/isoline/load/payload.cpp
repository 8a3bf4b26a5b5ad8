#include "isoline/load/payload.h"

#include <algorithm>
#include <cstring>
#include <random>

#include "isoline/base/file.h"
#include "isoline/base/half.h"
#include "isoline/io/npy.h"

namespace isoline::load {
namespace {

constexpr uint64_t kMaxRequestBytes = uint64_t{2} << 30;

Error invalid(std::string message, std::string context, std::string remedy = "") {
  return {ErrorCode::kInvalidArgument, std::move(message), std::move(context), std::move(remedy)};
}

std::string text(const std::vector<int64_t>& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? "," : "") + std::to_string(shape[i]);
  return out + "]";
}

Result<std::vector<int64_t>> sample_shape(const TensorSpec& spec, const PayloadOptions& options) {
  const std::string where = "input '" + spec.name + "'";
  const auto given = options.shapes.find(spec.name);
  if (given == options.shapes.end()) {
    if (std::any_of(spec.shape.begin(), spec.shape.end(), [](int64_t d) { return d < 0; }))
      return invalid("the model leaves extents open: " + text(spec.shape), where,
                     "Give --shape " + spec.name + ":D,D,...");
    return spec.shape;
  }
  bool fits = given->second.size() == spec.shape.size();
  for (size_t i = 0; fits && i < spec.shape.size(); ++i)
    fits = spec.shape[i] < 0 || spec.shape[i] == given->second[i];
  if (!fits)
    return invalid("--shape " + text(given->second) + " does not fit the model's " + text(spec.shape), where);
  return given->second;
}

template <class T>
void put(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof value);
}

// One element of a fixed size.
void fill_element(std::byte* to, ElementType type, std::mt19937_64& random) {
  const uint64_t r = random();
  const float unit = float(r >> 40) * 0x1p-24f;  // [0, 1)
  switch (type) {
    case ElementType::kFloat32:
      return put(to, unit);
    case ElementType::kFloat64:
      return put(to, double(r >> 11) * 0x1p-53);
    case ElementType::kFloat16:
      return put(to, float_to_half(unit));
    case ElementType::kBFloat16: {
      uint32_t bits = 0;
      std::memcpy(&bits, &unit, sizeof bits);
      return put(to, uint16_t(bits >> 16));
    }
    case ElementType::kBool:
      return put(to, uint8_t(r & 1));
    default:  // integers, little-endian: the low byte alone
      to[0] = std::byte(r & 0x7f);
  }
}

std::vector<std::byte> make_tensor(ElementType type, uint64_t elements, const PayloadOptions& options,
                                   std::mt19937_64& random) {
  const bool zero = options.fill == PayloadOptions::Fill::kZero;
  if (type == ElementType::kBytes) {
    const uint32_t length = zero ? 0 : uint32_t(options.string_bytes);
    std::vector<std::byte> out(size_t(elements) * (sizeof length + length));
    for (uint64_t e = 0; e < elements; ++e) {
      std::byte* at = out.data() + e * (sizeof length + length);
      put(at, length);
      for (uint32_t i = 0; i < length; ++i) at[sizeof length + i] = std::byte('a' + random() % 26);
    }
    return out;
  }
  const size_t size = element_size(type);
  std::vector<std::byte> out(size_t(elements) * size);
  if (!zero)
    for (uint64_t e = 0; e < elements; ++e) fill_element(out.data() + e * size, type, random);
  return out;
}

struct NpySamples {
  std::vector<int64_t> shape;  // of one
  size_t bytes_each = 0, count = 1;
  std::vector<std::byte> data;
};

Result<NpySamples> read_samples(const std::string& file, const TensorSpec& spec) {
  ISOLINE_ASSIGN(const NpyArray array, read_npy(file, kMaxRequestBytes));
  NpySamples out;
  ElementType type = ElementType::kFloat32;
  std::visit(
      [&](const auto& values) {
        using T = std::decay_t<decltype(values.data()[0])>;
        if constexpr (std::is_same_v<T, double>) type = ElementType::kFloat64;
        if constexpr (std::is_same_v<T, int16_t>) type = ElementType::kInt16;
        if constexpr (std::is_same_v<T, int64_t>) type = ElementType::kInt64;
        if constexpr (std::is_same_v<T, uint8_t>) type = ElementType::kUInt8;
        if constexpr (std::is_same_v<T, uint16_t>)
          type = array.is_half ? ElementType::kFloat16 : ElementType::kUInt16;
        const auto bytes = std::as_bytes(std::span(values.data(), values.size()));
        out.data.assign(bytes.begin(), bytes.end());
      },
      array.data);
  if (type != spec.type)
    return invalid(
        std::string("holds ") + to_string(type) + ", input '" + spec.name + "' takes " + to_string(spec.type),
        file);
  const auto fits = [&](size_t skip) {
    if (array.shape.size() != spec.shape.size() + skip) return false;
    for (size_t i = 0; i < spec.shape.size(); ++i)
      if (spec.shape[i] >= 0 && spec.shape[i] != array.shape[i + skip]) return false;
    return true;
  };
  const size_t skip = fits(1) ? 1 : 0;
  if (!fits(skip) || out.data.empty())
    return invalid("has the shape " + text(array.shape) + ", input '" + spec.name + "' takes " +
                       text(spec.shape) + " or several of them",
                   file);
  out.shape.assign(array.shape.begin() + std::ptrdiff_t(skip), array.shape.end());
  out.count = skip ? size_t(array.shape[0]) : 1;
  out.bytes_each = out.data.size() / out.count;
  return out;
}

Result<Payloads> picture_payloads(int64_t batch, const PayloadOptions& options) {
  if (batch != 1)
    return invalid("a request holds one picture; batch " + std::to_string(batch) + " cannot be sent",
                   "--image", "Leave --batch at 1; the server batches requests itself.");
  Payloads out;
  for (const std::string& file : options.pictures) {
    ISOLINE_ASSIGN(const auto bytes, read_whole_file(file, kMaxRequestBytes));
    if (bytes.size() == 0) return invalid("is empty", file);
    Payload p;
    p.picture.assign(bytes.data(), bytes.data() + bytes.size());
    out.push_back(std::move(p));
  }
  return out;
}

}  // namespace

Result<Payloads> make_payloads(const std::vector<TensorSpec>& inputs, int64_t max_batch, int64_t batch,
                               const PayloadOptions& options) {
  if (!options.pictures.empty()) return picture_payloads(batch, options);
  if (batch < 1 || batch > std::max<int64_t>(1, max_batch))
    return invalid("batch " + std::to_string(batch) + " is above the model's " +
                       std::to_string(std::max<int64_t>(1, max_batch)),
                   "--batch");
  if (!options.npy_file.empty() && inputs.size() != 1)
    return invalid("the model has " + std::to_string(inputs.size()) + " inputs, a file fills one", "--data");
  for (const auto& [name, shape] : options.shapes)
    if (std::none_of(inputs.begin(), inputs.end(), [&](const TensorSpec& s) { return s.name == name; }))
      return invalid("the model has no input '" + name + "'", "--shape");
  Payloads out;
  std::mt19937_64 random(options.seed);
  NpySamples samples;
  if (!options.npy_file.empty()) {
    ISOLINE_ASSIGN(samples, read_samples(options.npy_file, inputs[0]));
  }
  for (int k = 0; k < std::max(1, options.pool); ++k) {
    Payload p;
    p.batch = batch;
    uint64_t total = 0;
    for (const TensorSpec& spec : inputs) {
      OwnedTensor t;
      if (samples.bytes_each) {
        t.shape = samples.shape;
      } else {
        ISOLINE_ASSIGN(t.shape, sample_shape(spec, options));
      }
      if (max_batch > 0) t.shape.insert(t.shape.begin(), batch);
      uint64_t elements = 1;
      for (int64_t d : t.shape)
        if (d < 0 || __builtin_mul_overflow(elements, uint64_t(d), &elements))
          return invalid("a shape cannot be counted: " + text(t.shape), "input '" + spec.name + "'");
      const size_t size = spec.type == ElementType::kBytes ? sizeof(uint32_t) + size_t(options.string_bytes)
                                                           : element_size(spec.type);
      if (elements > kMaxRequestBytes / size || (total += elements * size) > kMaxRequestBytes)
        return invalid("a request would be above 2 GiB", "input '" + spec.name + "'");
      if (samples.bytes_each)
        for (int64_t b = 0; b < batch; ++b) {
          const size_t s = (size_t(k) * size_t(batch) + size_t(b)) % samples.count;
          const auto* from = samples.data.data() + s * samples.bytes_each;
          t.data.insert(t.data.end(), from, from + samples.bytes_each);
        }
      else
        t.data = make_tensor(spec.type, elements, options, random);
      p.inputs.push_back(std::move(t));
    }
    out.push_back(std::move(p));
  }
  return out;
}

uint64_t byte_size(const Payload& payload) {
  uint64_t n = payload.picture.size();
  for (const OwnedTensor& t : payload.inputs) n += t.data.size();
  return n;
}

}  // namespace isoline::load
