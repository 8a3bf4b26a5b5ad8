// What the server's loop and its connections know of each other. Internal to the room.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "isoline/net/server.h"

namespace isoline::net {

using Clock = std::chrono::steady_clock;

class Connection;

// How often each code below `kCodes` was said. Counted in the loop's thread, read from any.
template <size_t kCodes>
class TallyByCode {
 public:
  void add(int code) {
    if (code >= 0 && size_t(code) < kCodes) counts_[size_t(code)].fetch_add(1, std::memory_order_relaxed);
  }
  std::map<int, uint64_t> seen() const {
    std::map<int, uint64_t> out;
    for (size_t i = 0; i < kCodes; ++i)
      if (const uint64_t n = counts_[i].load(std::memory_order_relaxed)) out.emplace(int(i), n);
    return out;
  }

 private:
  std::array<std::atomic<uint64_t>, kCodes> counts_{};
};

class Reactor {
 public:
  explicit Reactor(ServerLimits limits);
  ~Reactor();

  Result<int> listen(const std::string& address, int port,
                     std::function<std::shared_ptr<Connection>(int fd)> make_connection,
                     std::shared_ptr<TlsContext> tls);
  void run();
  void post(std::function<void()> work);
  void drain(std::chrono::milliseconds timeout);
  // In the loop's thread: does what was posted, and what that posts, for some rounds. False: more waits, and
  // sockets have their turn first.
  bool run_posted();

  const ServerLimits limits;
  const std::shared_ptr<MemoryBudget> budget;
  std::atomic<uint64_t> open{0}, connections_total{0}, rejected_total{0}, requests_total{0};
  TallyByCode<600> http_responses;
  TallyByCode<17> grpc_calls;

 private:
  struct Listener;
  void accept(Listener& listener);
  void tick();

  int epoll_ = -1, wake_ = -1;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::unordered_map<Connection*, std::shared_ptr<Connection>> connections_;
  std::mutex mutex_;
  std::vector<std::function<void()>> posted_;
  bool woken_ = false;
  std::atomic<std::thread::id> loop_thread_;
  bool draining_ = false;
  Clock::time_point drain_until_;
  int spare_fd_ = -1;  // given up for a moment to refuse a connection when descriptors ran out
};

// What one connection may read before the others have their turn.
inline constexpr size_t kTurnBytes = size_t{256} << 10;

// One socket. All calls in the loop's thread.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Reactor& reactor, std::unique_ptr<Transport> transport)
      : reactor_(reactor), transport_(std::move(transport)) {}
  virtual ~Connection() = default;

  // The socket may have become readable, writable or dead; edges, not levels.
  void event(bool readable, bool writable, bool gone) {
    readable_ = readable_ || readable || gone;
    writable_ = writable_ || writable || gone;
    gone_ = gone_ || gone;
    progress();
  }
  virtual void progress() = 0;                   // do whatever can be done now
  virtual void tick(Clock::time_point now) = 0;  // look at the clock
  virtual void drain() = 0;                      // finish what runs, then close
  bool closed() const { return closed_; }
  virtual void close() { closed_ = true; }

 protected:
  // Time for so many bytes at the slowest speed that is accepted.
  Clock::duration time_for(uint64_t bytes) const {
    return reactor_.limits.transfer_timeout +
           std::chrono::milliseconds(bytes * 1000 / std::max<uint64_t>(1, reactor_.limits.min_bytes_per_s));
  }
  // Goes on with progress() once others had their turn.
  void progress_later() {
    if (std::exchange(later_, true)) return;
    reactor_.post([weak = weak_from_this()] {
      const auto c = weak.lock();
      if (!c) return;
      c->later_ = false;
      if (!c->closed_) c->progress();
    });
  }
  Reactor& reactor_;
  std::unique_ptr<Transport> transport_;
  bool readable_ = false, writable_ = true, gone_ = false, closed_ = false, draining_ = false;

 private:
  bool later_ = false;  // progress_later() is under way
};

struct HttpService {
  HttpHandler handler;
  BodyPlanner planner;  // may be empty
};
std::shared_ptr<Connection> make_http_connection(Reactor& reactor, std::unique_ptr<Transport> transport,
                                                 std::shared_ptr<const HttpService> service);
std::shared_ptr<Connection> make_grpc_connection(Reactor& reactor, std::unique_ptr<Transport> transport,
                                                 std::shared_ptr<const GrpcHandler> handler);

}  // namespace isoline::net
