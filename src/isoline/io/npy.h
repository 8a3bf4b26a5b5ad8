// NumPy's files: .npy arrays (C order; float16, float32, float64, int16, int64, uint8, uint16) and compressed
// .npz archives.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "isoline/base/buffer.h"
#include "isoline/base/half.h"
#include "isoline/base/parallel.h"
#include "isoline/base/result.h"

namespace isoline {

using NpyData = std::variant<Buffer<float>, Buffer<double>, Buffer<int16_t>, Buffer<int64_t>, Buffer<uint8_t>,
                             Buffer<uint16_t>>;

struct NpyArray {
  std::vector<int64_t> shape;
  NpyData data;
  bool is_half = false;  // float16: the bits stand in data as uint16_t (half_t)
  // The values if they are of type T; nullptr otherwise.
  template <class T>
  const Buffer<T>* as() const {
    return std::get_if<Buffer<T>>(&data);
  }
};

// kCorrupt: not .npy, or not as long as it says; kUnsupported, by name: other types, Fortran order,
// big-endian.
Result<NpyArray> read_npy(const std::string& path, uint64_t max_bytes = uint64_t{1} << 40);
// From memory, one array and nothing behind it.
Result<NpyArray> parse_npy(std::span<const std::byte> bytes);

// Atomic. T: float, double, int16_t, uint8_t, uint16_t. The product of `shape` must be values.size().
template <class T>
Status write_npy(const std::string& path, std::span<const T> values, const std::vector<int64_t>& shape);

// float16 from binary16 bits.
Status write_npy_half(const std::string& path, std::span<const half_t> values,
                      const std::vector<int64_t>& shape);

// What numpy.savez_compressed(path, **{name: values}) holds: one deflated member "<name>.npy" (zip64 fields
// always, as numpy writes them). Atomic; compressed by all threads at libdeflate's `level` 1..12.
template <class T>
Status write_npz(const std::string& path, const std::string& name, std::span<const T> values,
                 const std::vector<int64_t>& shape, ThreadPool& pool, int level = 1);

}  // namespace isoline
