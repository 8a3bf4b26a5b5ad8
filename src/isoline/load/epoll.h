// An epoll instance whose waits end at a nanosecond.
#pragma once

#include <sys/epoll.h>

#include <span>

#include "isoline/base/result.h"

namespace isoline::load {

// Level-triggered. A descriptor leaves by being closed. One thread at a time.
class Epoll {
 public:
  Epoll();
  ~Epoll();
  Epoll(const Epoll&) = delete;
  Epoll& operator=(const Epoll&) = delete;

  // For reading. `key` comes back in data.u64.
  Status add(int fd, uint64_t key);
  // For reading, and for writing too.
  void watch(int fd, uint64_t key, bool writing);
  // What is ready; nothing once `until_ns` passed. The result is good until the next call.
  std::span<const epoll_event> wait(int64_t until_ns);

 private:
  int fd_;
  bool fine_ = true;  // the kernel knows epoll_pwait2
  epoll_event events_[64];
};

}  // namespace isoline::load
