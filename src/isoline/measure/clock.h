// Clock: monotonic time that code under test can be given instead of the machine's.
#pragma once

#include <cstdint>

namespace isoline::measure {

// Nanoseconds on one monotonic axis; the origin means nothing. Threads: all calls from any thread.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual int64_t now_ns() = 0;
  // Returns at or after `t_ns`; at once if that is past.
  virtual void sleep_until(int64_t t_ns) = 0;
  // A thread that sleeps on this clock says when it starts and stops doing so (before it blocks on anything
  // else for long, such as joining a thread). Only a simulated clock, which advances when all are asleep,
  // cares.
  virtual void attach() {}
  virtual void detach() {}
};

// CLOCK_MONOTONIC; lives as long as the program.
Clock& real_clock();

inline constexpr double kSecondsPerNs = 1e-9;
inline int64_t ns_from_s(double seconds) {
  return int64_t(seconds * 1e9 + (seconds < 0 ? -0.5 : 0.5));
}
inline double s_from_ns(int64_t ns) {
  return double(ns) * kSecondsPerNs;
}

}  // namespace isoline::measure
