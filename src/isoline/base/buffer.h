// Buffer<T>: an owned, 64-byte aligned, *uninitialised* array; large ones ask for huge pages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>

namespace isoline {

namespace detail {
// Returns memory of at least `bytes`, 64-byte aligned; throws std::bad_alloc.
void* allocate_aligned(size_t bytes);
void free_aligned(void* p, size_t bytes) noexcept;
// From this size on an allocation is a mapping of its own, zero until written: huge pages where the kernel
// has them, and memory that goes back to the system the moment it is freed (peak RSS is a promise of this
// project).
inline constexpr size_t kMapFromBytes = size_t{4} << 20;
}  // namespace detail

// Move-only; T must be trivially copyable. Contents are indeterminate until written.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t size)
      : data_(static_cast<T*>(detail::allocate_aligned(size * sizeof(T)))), size_(size) {}
  Buffer(Buffer&& o) noexcept : data_(std::exchange(o.data_, nullptr)), size_(std::exchange(o.size_, 0)) {}
  Buffer& operator=(Buffer&& o) noexcept {
    std::swap(data_, o.data_);
    std::swap(size_, o.size_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { detail::free_aligned(data_, size_ * sizeof(T)); }

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return size_; }
  size_t byte_size() const { return size_ * sizeof(T); }
  bool empty() const { return size_ == 0; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }
  std::span<T> span() { return {data_, size_}; }
  std::span<const T> span() const { return {data_, size_}; }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

// A zero-filled buffer; large ones are fresh pages, which cost neither time nor memory until they are
// written.
template <class T>
Buffer<T> zeroed(size_t size) {
  Buffer<T> b(size);
  if (size && b.byte_size() < detail::kMapFromBytes) std::memset(b.data(), 0, b.byte_size());
  return b;
}

}  // namespace isoline
