#include "isoline/measure/clock.h"

#include <cerrno>
#include <ctime>

namespace isoline::measure {
namespace {

class RealClock : public Clock {
 public:
  int64_t now_ns() override {
    timespec t{};
    ::clock_gettime(CLOCK_MONOTONIC, &t);
    return int64_t(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
  }
  void sleep_until(int64_t t_ns) override {
    if (t_ns <= now_ns()) return;
    const timespec t{time_t(t_ns / 1'000'000'000), long(t_ns % 1'000'000'000)};
    while (::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, nullptr) == EINTR) {
    }
  }
};

}  // namespace

Clock& real_clock() {
  static RealClock clock;
  return clock;
}

}  // namespace isoline::measure
