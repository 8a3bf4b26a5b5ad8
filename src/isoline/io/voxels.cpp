#include "isoline/io/voxels.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <type_traits>

#include "isoline/base/simd.h"

namespace isoline {
namespace {

constexpr int64_t kGrain = int64_t{1} << 18;

template <class T>
T load(const std::byte* p, bool swap) {
  using Bits = std::conditional_t<
      sizeof(T) == 1, uint8_t,
      std::conditional_t<sizeof(T) == 2, uint16_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>>;
  Bits b;
  std::memcpy(&b, p, sizeof b);
  if (swap) {
    if constexpr (sizeof(T) == 2) b = __builtin_bswap16(b);
    if constexpr (sizeof(T) == 4) b = __builtin_bswap32(b);
    if constexpr (sizeof(T) == 8) b = __builtin_bswap64(b);
  }
  return std::bit_cast<T>(b);
}

// Calls f with a value of the C++ type that `type` stands for.
template <class F>
auto with_type(NiftiType type, F&& f) {
  switch (type) {
    case NiftiType::kUint8:
      return f(uint8_t{});
    case NiftiType::kInt8:
      return f(int8_t{});
    case NiftiType::kInt16:
      return f(int16_t{});
    case NiftiType::kUint16:
      return f(uint16_t{});
    case NiftiType::kInt32:
      return f(int32_t{});
    case NiftiType::kUint32:
      return f(uint32_t{});
    case NiftiType::kInt64:
      return f(int64_t{});
    case NiftiType::kUint64:
      return f(uint64_t{});
    case NiftiType::kFloat32:
      return f(float{});
    case NiftiType::kFloat64:
      break;
  }
  return f(double{});
}

template <class T, bool kSwap>
int64_t to_float_chunk(const std::byte* raw, int64_t n, const VoxelScaling& s, float* out) {
  int64_t first_bad = -1;
  const auto note = [&](int64_t i) {
    if (first_bad < 0) first_bad = i;
  };
  for (int64_t i = 0; i < n; ++i) {
    T v = load<T>(raw + size_t(i) * sizeof(T), kSwap);
    if constexpr (std::is_floating_point_v<T>) {
      if (!std::isfinite(v)) {
        note(i);
        if (s.nonfinite_to_zero) v = 0;
      }
    }
    float f;
    if (s.active) {
      const double d = std::is_integral_v<T> && s.through_float ? double(float(v)) : double(v);
      double scaled = d * s.slope;
      scaled += s.inter;
      f = float(scaled);
    } else if (std::is_integral_v<T> && !s.through_float) {
      f = float(double(v));  // 64-bit integers round twice, as through numpy's float64
    } else {
      f = float(v);
    }
    if (!std::isfinite(f)) note(i);
    out[i] = f;
  }
  return first_bad;
}

ISOLINE_MULTIVERSION
void int16_range_native(const int16_t* p, int64_t n, int16_t* lowest, int16_t* highest) {
  int16_t lo = p[0], hi = p[0];
  for (int64_t i = 0; i < n; ++i) {
    lo = std::min(lo, p[i]);
    hi = std::max(hi, p[i]);
  }
  *lowest = lo;
  *highest = hi;
}

ISOLINE_MULTIVERSION
void swap_copy(const uint16_t* in, int64_t n, uint16_t* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = uint16_t(in[i] << 8 | in[i] >> 8);
}

ISOLINE_MULTIVERSION
uint16_t low_bytes_or(const uint16_t* in, int64_t n, uint8_t* out) {
  uint16_t any = 0;
  for (int64_t i = 0; i < n; ++i) {
    any |= in[i];
    out[i] = uint8_t(in[i]);
  }
  return any;
}

// A float copy with the test for NaN and infinity: exponent bits all set.
ISOLINE_MULTIVERSION
bool copy_float_all_finite(const uint32_t* in, int64_t n, uint32_t* out) {
  uint32_t bad = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t v = in[i];
    bad |= uint32_t((v & 0x7f800000u) == 0x7f800000u);
    out[i] = v;
  }
  return bad == 0;
}

}  // namespace

IntegerRange integer_range(NiftiType type, bool swap, const std::byte* raw, int64_t n, ThreadPool& pool) {
  IntegerRange range{std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()};
  std::mutex mutex;
  with_type(type, [&](auto zero) {
    using T = decltype(zero);
    pool.for_each(n, kGrain, [&](int64_t begin, int64_t end) {
      int64_t lo_wide, hi_wide;
      const std::byte* p = raw + size_t(begin) * sizeof(T);
      if constexpr (std::is_floating_point_v<T>) {
        lo_wide = hi_wide = 0;  // not asked for
      } else {
        T lo = load<T>(p, swap), hi = lo;
        if (std::is_same_v<T, int16_t> && !swap && reinterpret_cast<uintptr_t>(p) % 2 == 0) {
          int16_t l, h;
          int16_range_native(reinterpret_cast<const int16_t*>(p), end - begin, &l, &h);
          lo = T(l);
          hi = T(h);
        } else {
          for (int64_t i = 0; i < end - begin; ++i) {
            const T v = load<T>(p + size_t(i) * sizeof(T), swap);
            lo = std::min(lo, v);
            hi = std::max(hi, v);
          }
        }
        constexpr auto kMost = uint64_t(std::numeric_limits<int64_t>::max());
        lo_wide = std::is_same_v<T, uint64_t> ? int64_t(std::min(uint64_t(lo), kMost)) : int64_t(lo);
        hi_wide = std::is_same_v<T, uint64_t> ? int64_t(std::min(uint64_t(hi), kMost)) : int64_t(hi);
      }
      const std::lock_guard lock(mutex);
      range.lowest = std::min(range.lowest, lo_wide);
      range.highest = std::max(range.highest, hi_wide);
    });
  });
  return range;
}

void to_int16(NiftiType type, bool swap, const std::byte* raw, int64_t n, int64_t inter, int16_t* out,
              ThreadPool& pool) {
  with_type(type, [&](auto zero) {
    using T = decltype(zero);
    pool.for_each(n, kGrain, [&](int64_t begin, int64_t end) {
      if constexpr (!std::is_floating_point_v<T>) {
        const std::byte* p = raw + size_t(begin) * sizeof(T);
        if (std::is_same_v<T, int16_t> && inter == 0 && reinterpret_cast<uintptr_t>(p) % 2 == 0) {
          auto* to = reinterpret_cast<uint16_t*>(out + begin);
          const auto* from = reinterpret_cast<const uint16_t*>(p);
          if (swap)
            swap_copy(from, end - begin, to);
          else if (from != to)
            std::memcpy(to, from, size_t(end - begin) * 2);
          return;
        }
        for (int64_t i = begin; i < end; ++i, p += sizeof(T))
          out[i] = int16_t(int64_t(load<T>(p, swap)) + inter);
      }
    });
  });
}

int64_t to_float(NiftiType type, bool swap, const std::byte* raw, int64_t n, const VoxelScaling& scaling,
                 float* out, ThreadPool& pool) {
  constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
  std::atomic<int64_t> first{kNone};
  with_type(type, [&](auto zero) {
    using T = decltype(zero);
    pool.for_each(n, kGrain, [&](int64_t begin, int64_t end) {
      const std::byte* p = raw + size_t(begin) * sizeof(T);
      if (std::is_same_v<T, float> && !swap && !scaling.active && reinterpret_cast<uintptr_t>(p) % 4 == 0) {
        if (copy_float_all_finite(reinterpret_cast<const uint32_t*>(p), end - begin,
                                  reinterpret_cast<uint32_t*>(out + begin)))
          return;
      }
      const int64_t bad = swap ? to_float_chunk<T, true>(p, end - begin, scaling, out + begin)
                               : to_float_chunk<T, false>(p, end - begin, scaling, out + begin);
      if (bad < 0) return;
      int64_t seen = first.load();
      while (begin + bad < seen && !first.compare_exchange_weak(seen, begin + bad)) {
      }
    });
  });
  return first == kNone ? -1 : first.load();
}

template <class T>
void remap(const AxisMap& map, const T* in, const std::array<int64_t, 3>& in_shape, T* out,
           ThreadPool& pool) {
  const std::array<int64_t, 3> in_stride{1, in_shape[0], in_shape[0] * in_shape[1]};
  std::array<int64_t, 3> shape, stride;
  int64_t start = 0;
  for (size_t i = 0; i < 3; ++i) {
    const size_t from = size_t(map.axis[i]);
    shape[i] = in_shape[from];
    stride[i] = map.flip[i] ? -in_stride[from] : in_stride[from];
    if (map.flip[i]) start += (in_shape[from] - 1) * in_stride[from];
  }
  const int64_t rows = shape[1] * shape[2];
  pool.for_each(rows, std::max<int64_t>(1, kGrain / shape[0]), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T* from = in + start + (row % shape[1]) * stride[1] + (row / shape[1]) * stride[2];
      T* to = out + row * shape[0];
      if (stride[0] == 1)
        std::memcpy(to, from, size_t(shape[0]) * sizeof(T));
      else
        for (int64_t x = 0; x < shape[0]; ++x) to[x] = from[x * stride[0]];
    }
  });
}
template void remap<int16_t>(const AxisMap&, const int16_t*, const std::array<int64_t, 3>&, int16_t*,
                             ThreadPool&);
template void remap<float>(const AxisMap&, const float*, const std::array<int64_t, 3>&, float*, ThreadPool&);
template void remap<uint16_t>(const AxisMap&, const uint16_t*, const std::array<int64_t, 3>&, uint16_t*,
                              ThreadPool&);

template <class T>
void count_values(const T* values, int64_t n, int64_t* counts) {
  constexpr int64_t kWord = 8 / sizeof(T);
  constexpr uint64_t kOnes = sizeof(T) == 1 ? 0x0101010101010101u : 0x0001000100010001u;
  int64_t i = 0;
  while (i < n) {
    const T value = values[i];
    const uint64_t same = kOnes * value;
    const int64_t begin = i++;
    // Whole words of the same value, then what is left of the run.
    for (uint64_t word; i + kWord <= n; i += kWord) {
      std::memcpy(&word, values + i, 8);
      if (word != same) break;
    }
    while (i < n && values[i] == value) ++i;
    counts[value] += i - begin;
  }
}
template void count_values<uint8_t>(const uint8_t*, int64_t, int64_t*);
template void count_values<uint16_t>(const uint16_t*, int64_t, int64_t*);

bool low_bytes(const uint16_t* in, int64_t n, std::byte* out) {
  return low_bytes_or(in, n, reinterpret_cast<uint8_t*>(out)) < 256;
}

}  // namespace isoline
