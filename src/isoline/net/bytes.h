// Bytes: a growable buffer that is never zeroed and whose memory counts against the server's budget.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <utility>

namespace isoline::net {

// Bytes of requests and answers held at the same time, over all connections.
class MemoryBudget {
 public:
  explicit MemoryBudget(uint64_t limit) : limit_(limit) {}
  bool take(uint64_t n) {
    if (used_.fetch_add(n) + n <= limit_) return true;
    used_.fetch_sub(n);
    return false;
  }
  // Counts what is there already, an answer, even above the limit: requests are refused meanwhile.
  void hold(uint64_t n) { used_.fetch_add(n); }
  void give(uint64_t n) { used_.fetch_sub(n); }
  uint64_t used() const { return used_.load(); }

 private:
  const uint64_t limit_;
  std::atomic<uint64_t> used_{0};
};

// Move-only. Grows by doubling up to a stated end; a failed growth leaves it as it was.
class Bytes {
 public:
  Bytes() = default;
  // The first byte lies `lead` bytes (< 16) behind a 16-byte boundary, so that what follows a header can be
  // aligned.
  explicit Bytes(std::shared_ptr<MemoryBudget> budget, size_t lead = 0)
      : budget_(std::move(budget)), lead_(lead) {}
  Bytes(Bytes&& o) noexcept { swap(o); }
  Bytes& operator=(Bytes&& o) noexcept {
    swap(o);
    return *this;
  }
  ~Bytes() {
    std::free(memory_);
    if (budget_ && capacity_) budget_->give(capacity_);
  }

  std::byte* data() { return memory_ ? memory_ + lead_ : nullptr; }
  const std::byte* data() const { return memory_ ? memory_ + lead_ : nullptr; }
  size_t size() const { return size_; }
  std::span<const std::byte> span() const { return {data(), size_}; }
  // Room behind size(), at least one byte once grow() said yes.
  std::span<std::byte> room() { return {data() + size_, capacity_ ? capacity_ - lead_ - size_ : 0}; }
  void advance(size_t n) { size_ += n; }
  void truncate(size_t n) { size_ = n; }
  void drop_front(size_t n) {
    if (n) std::memmove(data(), data() + n, size_ - n);
    size_ -= n;
  }

  // Makes room for `n` more bytes, with more to spare but never beyond `most` in all. False: the budget is
  // used up.
  bool grow(size_t n, size_t most) {
    const size_t need = lead_ + size_ + n;
    if (need <= capacity_) return true;
    size_t want = capacity_ * 2 > need ? capacity_ * 2 : need;
    if (want < 4096) want = 4096;
    if (want > lead_ + most && need <= lead_ + most) want = lead_ + most;
    if (budget_ && !budget_->take(want - capacity_)) return false;
    void* moved = std::realloc(memory_, want);
    if (!moved) {
      if (budget_) budget_->give(want - capacity_);
      return false;
    }
    memory_ = static_cast<std::byte*>(moved);
    capacity_ = want;
    return true;
  }
  bool append(std::span<const std::byte> bytes, size_t most) {
    if (bytes.empty()) return true;
    if (!grow(bytes.size(), most)) return false;
    std::memcpy(data() + size_, bytes.data(), bytes.size());
    size_ += bytes.size();
    return true;
  }

 private:
  void swap(Bytes& o) {
    std::swap(budget_, o.budget_);
    std::swap(memory_, o.memory_);
    std::swap(size_, o.size_);
    std::swap(capacity_, o.capacity_);
    std::swap(lead_, o.lead_);
  }
  std::shared_ptr<MemoryBudget> budget_;
  std::byte* memory_ = nullptr;
  size_t size_ = 0, capacity_ = 0, lead_ = 0;
};

}  // namespace isoline::net
