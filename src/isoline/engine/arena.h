// Where the buffers of a plan lie in one block of memory, given when each is alive.
#pragma once

#include <cstdint>
#include <span>

namespace isoline {

struct ArenaBlock {
  int64_t bytes = 0;
  int first_step = -1, last_step = -1;  // alive from first to last, both included; first < 0: takes no place
  int64_t offset = 0;                   // set by place_in_arena(): a multiple of the alignment
};

// Greedy: larger blocks first (equal ones in their order), each at the lowest offset that is free while it
// lives. Returns the bytes needed.
int64_t place_in_arena(std::span<ArenaBlock> blocks, int64_t alignment);

}  // namespace isoline
