#include "isoline/measure/process.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <string>

#include "isoline/base/resources.h"

namespace isoline::measure {
namespace {

Reading cpu_clock(clockid_t id) {
  timespec t{};
  if (::clock_gettime(id, &t) != 0)
    return Reading::unavailable(std::string("the system does not count CPU time: ") + std::strerror(errno));
  return Reading::of(double(t.tv_sec) + double(t.tv_nsec) * 1e-9);
}

}  // namespace

Reading process_cpu_s() {
  return cpu_clock(CLOCK_PROCESS_CPUTIME_ID);
}
Reading thread_cpu_s() {
  return cpu_clock(CLOCK_THREAD_CPUTIME_ID);
}

Reading rss_bytes() {
  const uint64_t now = current_rss_bytes();
  return now ? Reading::of(double(now)) : Reading::unavailable("the system does not say the resident set");
}

Reading peak_rss_bytes_since_reset() {
  const uint64_t peak = isoline::peak_rss_bytes();
  return peak ? Reading::of(double(peak))
              : Reading::unavailable("the system does not say the peak resident set");
}

Status reset_peak_rss() {
  const char* path = "/proc/self/clear_refs";
  const int fd = ::open(path, O_WRONLY | O_CLOEXEC);
  const bool ok = fd >= 0 && ::write(fd, "5", 1) == 1;
  const int reason = errno;
  if (fd >= 0) ::close(fd);
  if (ok) {
    // Some kernels and sandboxes take the write and do nothing.
    const uint64_t peak = isoline::peak_rss_bytes(), now = current_rss_bytes();
    if (peak <= now + now / 16 + (uint64_t(1) << 20)) return {};
    return Error{ErrorCode::kIo, "the kernel accepts but ignores the reset of the peak resident set", path,
                 "Measure in a process of its own instead"};
  }
  return Error{ErrorCode::kIo, std::string("cannot reset the peak resident set: ") + std::strerror(reason),
               path, "Measure in a process of its own instead"};
}

ProcessWindow::ProcessWindow() : cpu_begin_(process_cpu_s()), reset_(reset_peak_rss()) {}

Reading ProcessWindow::cpu_s() const {
  const Reading now = process_cpu_s();
  if (!cpu_begin_.ok()) return cpu_begin_;
  return now.ok() ? Reading::of(*now - *cpu_begin_) : now;
}

Reading ProcessWindow::peak_rss_bytes() const {
  if (!reset_.ok()) return Reading::unavailable(reset_.error().to_string());
  return peak_rss_bytes_since_reset();
}

}  // namespace isoline::measure
