#include "isoline/net/server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "isoline/net/connection.h"

namespace isoline::net {
namespace {

constexpr int kTickMs = 100;
constexpr int kPostedRounds = 16;

std::string errno_text() {
  return std::strerror(errno);
}

}  // namespace

struct Reactor::Listener {
  int fd = -1;
  std::function<std::shared_ptr<Connection>(int fd)> make_connection;
  std::shared_ptr<TlsContext> tls;
  ~Listener() {
    if (fd >= 0) ::close(fd);
  }
};

Reactor::Reactor(ServerLimits l) : limits(l), budget(std::make_shared<MemoryBudget>(l.max_bytes_in_flight)) {
  epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
  wake_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  spare_fd_ = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (epoll_ < 0 || wake_ < 0) throw std::runtime_error("epoll or eventfd: " + errno_text());
  epoll_event e{};
  e.events = EPOLLIN;
  e.data.ptr = &wake_;
  ::epoll_ctl(epoll_, EPOLL_CTL_ADD, wake_, &e);
}

Reactor::~Reactor() {
  connections_.clear();
  for (int fd : {epoll_, wake_, spare_fd_})
    if (fd >= 0) ::close(fd);
}

Result<int> Reactor::listen(const std::string& address, int port,
                            std::function<std::shared_ptr<Connection>(int fd)> make_connection,
                            std::shared_ptr<TlsContext> tls) {
  const std::string where = address + ":" + std::to_string(port);
  addrinfo hints{}, *found = nullptr;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  if (const int r = ::getaddrinfo(address.c_str(), std::to_string(port).c_str(), &hints, &found); r != 0)
    return Error{ErrorCode::kInvalidArgument, std::string("is no address to listen on: ") + ::gai_strerror(r),
                 where, ""};
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> free_it(found, ::freeaddrinfo);
  auto listener = std::make_unique<Listener>();
  listener->fd = ::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const int on = 1;
  if (listener->fd >= 0) ::setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (listener->fd < 0 || ::bind(listener->fd, found->ai_addr, found->ai_addrlen) != 0 ||
      ::listen(listener->fd, 1024) != 0)
    return Error{ErrorCode::kIo, "cannot listen: " + errno_text(), where,
                 "Choose another port, or 0 for any free one."};
  sockaddr_storage bound{};
  socklen_t length = sizeof bound;
  ::getsockname(listener->fd, reinterpret_cast<sockaddr*>(&bound), &length);
  listener->make_connection = std::move(make_connection);
  listener->tls = std::move(tls);
  epoll_event e{};
  e.events = EPOLLIN;
  e.data.ptr = listener.get();
  ::epoll_ctl(epoll_, EPOLL_CTL_ADD, listener->fd, &e);
  listeners_.push_back(std::move(listener));
  return int(ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                               : reinterpret_cast<sockaddr_in*>(&bound)->sin_port));
}

void Reactor::accept(Listener& listener) {
  for (;;) {
    const int fd = ::accept4(listener.fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if ((errno == EMFILE || errno == ENFILE) && spare_fd_ >= 0) {
        // No descriptor left: take the connection with the spare one and close it, or the loop would spin on
        // it.
        ::close(spare_fd_);
        spare_fd_ = ::accept(listener.fd, nullptr, nullptr);
        if (spare_fd_ >= 0) ::close(spare_fd_);
        spare_fd_ = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
        ++rejected_total;
      }
      return;
    }
    ++connections_total;
    if (connections_.size() >= limits.max_connections) {
      ++rejected_total;
      if (!listener.tls) {
        http_responses.add(503);
        static constexpr char kFull[] =
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 34\r\n"
            "Connection: close\r\nRetry-After: 1\r\n\r\n{\"error\": \"too many connections\" }";
        // Best effort: the socket is new, so it takes this at once.
        static_cast<void>(!::send(fd, kFull, sizeof kFull - 1, MSG_NOSIGNAL | MSG_DONTWAIT));
      }
      ::shutdown(fd, SHUT_WR);
      char rest[4096];  // what came already must be read, or the client sees a reset instead of the answer
      while (::recv(fd, rest, sizeof rest, MSG_DONTWAIT) > 0) {
      }
      ::close(fd);
      continue;
    }
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    auto connection = listener.make_connection(fd);
    epoll_event e{};
    e.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
    e.data.ptr = connection.get();
    if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &e) != 0) continue;
    connections_.emplace(connection.get(), std::move(connection));
    open = connections_.size();
  }
}

void Reactor::post(std::function<void()> work) {
  bool wake = false;
  {
    std::lock_guard lock(mutex_);
    posted_.push_back(std::move(work));
    // The loop looks here before it sleeps, so that its own thread need not wake it.
    if (loop_thread_ != std::this_thread::get_id()) wake = !std::exchange(woken_, true);
  }
  const uint64_t one = 1;
  if (wake) static_cast<void>(!::write(wake_, &one, sizeof one));
}

bool Reactor::run_posted() {
  for (int round = 0; round < kPostedRounds; ++round) {
    std::vector<std::function<void()>> work;
    {
      std::lock_guard lock(mutex_);
      work.swap(posted_);
      if (work.empty()) {
        woken_ = false;
        return true;
      }
    }
    for (auto& w : work) w();
  }
  return false;
}

void Reactor::tick() {
  const auto now = Clock::now();
  for (const auto& [key, connection] : connections_)
    if (!connection->closed()) connection->tick(now);
}

void Reactor::drain(std::chrono::milliseconds timeout) {
  post([this, timeout] {
    if (draining_) return;
    draining_ = true;
    drain_until_ = Clock::now() + timeout;
    listeners_.clear();
    for (const auto& [key, connection] : connections_)
      if (!connection->closed()) connection->drain();
  });
}

void Reactor::run() {
  std::vector<epoll_event> events(256);
  auto next_tick = Clock::now();
  loop_thread_ = std::this_thread::get_id();
  std::vector<std::shared_ptr<Connection>> finished;
  bool more = false;  // posted work waits
  for (;;) {
    const int timeout = more ? 0 : connections_.empty() && !draining_ ? 1000 : kTickMs;
    const int n = ::epoll_wait(epoll_, events.data(), int(events.size()), timeout);
    if (n < 0 && errno != EINTR) throw std::runtime_error("epoll_wait: " + errno_text());
    for (int i = 0; i < n; ++i) {
      void* const what = events[size_t(i)].data.ptr;
      if (what == &wake_) {
        uint64_t count = 0;
        static_cast<void>(!::read(wake_, &count, sizeof count));
        continue;  // the work is done below
      }
      Listener* listener = nullptr;
      bool was_listener = false;
      for (const auto& l : listeners_)
        was_listener = was_listener || (l.get() == what && (listener = l.get()));
      if (was_listener) {
        accept(*listener);
        continue;
      }
      // A listener closed by a drain in this very round has no connection of its address.
      const auto it = connections_.find(static_cast<Connection*>(what));
      if (it == connections_.end() || it->second->closed()) continue;
      const std::shared_ptr<Connection> connection = it->second;
      const uint32_t e = events[size_t(i)].events;
      connection->event(e & EPOLLIN, e & EPOLLOUT, e & (EPOLLRDHUP | EPOLLHUP | EPOLLERR));
      if (connection->closed()) finished.push_back(connection);
    }
    more = !run_posted();
    const auto now = Clock::now();
    if (now >= next_tick) {
      tick();
      more = !run_posted();
      next_tick = now + std::chrono::milliseconds(kTickMs);
      for (const auto& [key, connection] : connections_)  // closed by a posted answer or by the clock
        if (connection->closed()) finished.push_back(connection);
    }
    for (const auto& connection : finished) connections_.erase(connection.get());
    finished.clear();
    open = connections_.size();
    if (draining_ && (connections_.empty() || now >= drain_until_)) break;
  }
  // Whoever waits for what they sent or asked hears here, in this thread, that they are gone.
  for (const auto& [key, connection] : connections_)
    if (!connection->closed()) connection->close();
  connections_.clear();
}

Server::Server(ServerLimits limits) : reactor_(std::make_unique<Reactor>(limits)) {}
Server::~Server() = default;

Result<int> Server::listen_http(const std::string& address, int port, std::shared_ptr<TlsContext> tls,
                                HttpHandler handler, BodyPlanner planner) {
  auto shared = std::make_shared<const HttpService>(HttpService{std::move(handler), std::move(planner)});
  Reactor& r = *reactor_;
  return r.listen(
      address, port,
      [&r, tls, shared](int fd) { return make_http_connection(r, make_transport(fd, tls), shared); }, tls);
}
Result<int> Server::listen_grpc(const std::string& address, int port, std::shared_ptr<TlsContext> tls,
                                GrpcHandler handler) {
  auto shared = std::make_shared<const GrpcHandler>(std::move(handler));
  Reactor& r = *reactor_;
  return r.listen(
      address, port,
      [&r, tls, shared](int fd) { return make_grpc_connection(r, make_transport(fd, tls), shared); }, tls);
}
void Server::run() {
  reactor_->run();
}
void Server::post(std::function<void()> work) {
  reactor_->post(std::move(work));
}
void Server::drain(std::chrono::milliseconds timeout) {
  reactor_->drain(timeout);
}
ServerFigures Server::figures() const {
  return {reactor_->open,
          reactor_->connections_total,
          reactor_->rejected_total,
          reactor_->requests_total,
          reactor_->budget->used(),
          reactor_->http_responses.seen(),
          reactor_->grpc_calls.seen()};
}
const std::shared_ptr<MemoryBudget>& Server::budget() const {
  return reactor_->budget;
}
const ServerLimits& Server::limits() const {
  return reactor_->limits;
}

}  // namespace isoline::net
