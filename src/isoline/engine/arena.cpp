#include "isoline/engine/arena.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace isoline {

int64_t place_in_arena(std::span<ArenaBlock> blocks, int64_t alignment) {
  std::vector<ArenaBlock*> order;
  for (ArenaBlock& b : blocks)
    if (b.first_step >= 0) order.push_back(&b);
  std::stable_sort(order.begin(), order.end(),
                   [](const ArenaBlock* a, const ArenaBlock* b) { return a->bytes > b->bytes; });
  int64_t arena_bytes = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    ArenaBlock& b = *order[i];
    std::vector<std::pair<int64_t, int64_t>> taken;
    for (size_t k = 0; k < i; ++k) {
      const ArenaBlock& o = *order[k];
      if (o.first_step <= b.last_step && b.first_step <= o.last_step)
        taken.push_back({o.offset, o.offset + o.bytes});
    }
    std::sort(taken.begin(), taken.end());
    int64_t at = 0;
    for (const auto& [begin, end] : taken) {
      if (at + b.bytes <= begin) break;
      at = std::max(at, (end + alignment - 1) / alignment * alignment);
    }
    b.offset = at;
    arena_bytes = std::max(arena_bytes, at + b.bytes);
  }
  return arena_bytes;
}

}  // namespace isoline
