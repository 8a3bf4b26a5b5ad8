#include "isoline/load/epoll.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <stdexcept>

#include "isoline/load/channel.h"

namespace isoline::load {

Epoll::Epoll() : fd_(::epoll_create1(EPOLL_CLOEXEC)) {
  if (fd_ < 0) throw std::runtime_error("epoll_create1 failed");
}

Epoll::~Epoll() {
  ::close(fd_);
}

Status Epoll::add(int fd, uint64_t key) {
  epoll_event e{};
  e.events = EPOLLIN;
  e.data.u64 = key;
  if (::epoll_ctl(fd_, EPOLL_CTL_ADD, fd, &e) == 0) return {};
  return Error{ErrorCode::kIo, "the system watches no more sockets", "epoll", ""};
}

void Epoll::watch(int fd, uint64_t key, bool writing) {
  epoll_event e{};
  e.events = EPOLLIN | (writing ? uint32_t(EPOLLOUT) : 0u);
  e.data.u64 = key;
  ::epoll_ctl(fd_, EPOLL_CTL_MOD, fd, &e);
}

std::span<const epoll_event> Epoll::wait(int64_t until_ns) {
  const int64_t left = std::max<int64_t>(0, until_ns - now_ns());
  int n = -1;
  if (fine_) {
    const timespec time{time_t(left / 1'000'000'000), long(left % 1'000'000'000)};
    n = ::epoll_pwait2(fd_, events_, std::size(events_), &time, nullptr);
    if (n < 0 && (errno == ENOSYS || errno == EPERM)) fine_ = false;
  }
  // Milliseconds, rounded down, so that nothing is sent late; the last one is spent looking.
  if (!fine_)
    n = ::epoll_wait(fd_, events_, std::size(events_), int(std::min<int64_t>(left / 1'000'000, 1 << 30)));
  return {events_, size_t(std::max(n, 0))};
}

}  // namespace isoline::load
