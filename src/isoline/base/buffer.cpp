#include "isoline/base/buffer.h"

#include <sys/mman.h>

#include <cstdlib>
#include <new>

namespace isoline::detail {
void* allocate_aligned(size_t bytes) {
  if (bytes == 0) return nullptr;
  if (bytes >= kMapFromBytes) {
    void* p = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    ::madvise(p, bytes, MADV_HUGEPAGE);
    return p;
  }
  void* p = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!p) throw std::bad_alloc();
  return p;
}

void free_aligned(void* p, size_t bytes) noexcept {
  if (!p) return;
  if (bytes >= kMapFromBytes)
    ::munmap(p, bytes);
  else
    std::free(p);
}

}  // namespace isoline::detail
