// What this process itself costs: CPU time and peak memory, with a peak that can be started anew.
#pragma once

#include <cstdint>

#include "isoline/base/result.h"
#include "isoline/measure/reading.h"

namespace isoline::measure {

// User plus system time of all threads of this process so far, in seconds.
Reading process_cpu_s();
// The same of the calling thread alone.
Reading thread_cpu_s();

// Resident set of this process now, in bytes.
Reading rss_bytes();
// Largest resident set since the process began or since the last successful reset_peak_rss(), in bytes.
Reading peak_rss_bytes_since_reset();
// Starts the peak anew at what is resident now (writes 5 to /proc/self/clear_refs). kIo with the reason where
// the kernel refuses; the peak then stays that of the whole process, and the caller must say so.
Status reset_peak_rss();

// CPU time and peak memory since construction. One at a time: a second one restarts the peak of the first. If
// the peak could not be reset it is unavailable, because it would be that of the whole process.
class ProcessWindow {
 public:
  ProcessWindow();
  Reading cpu_s() const;
  Reading peak_rss_bytes() const;

 private:
  Reading cpu_begin_;
  Status reset_;
};

}  // namespace isoline::measure
