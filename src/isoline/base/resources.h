// What this process uses and may still use.
#pragma once

#include <cstdint>

namespace isoline {

// Largest resident set of this process so far, in bytes; 0 where the system does not say.
uint64_t peak_rss_bytes();
// Resident set now, in bytes; 0 where the system does not say.
uint64_t current_rss_bytes();
// Bytes that can still be allocated without swapping: the smaller of the machine's available memory and what
// the control group (container) leaves. UINT64_MAX where the system does not say.
uint64_t available_memory_bytes();

}  // namespace isoline
