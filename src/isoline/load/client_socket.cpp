#include "isoline/load/client_socket.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "isoline/load/channel.h"

namespace isoline::load {
namespace {

struct Scheme {
  const char* prefix;
  Endpoint::Protocol protocol;
  bool tls;
  int port;
};
constexpr Scheme kSchemes[] = {{"http://", Endpoint::Protocol::kHttp, false, 8000},
                               {"https://", Endpoint::Protocol::kHttp, true, 8000},
                               {"grpc://", Endpoint::Protocol::kGrpc, false, 8001},
                               {"grpcs://", Endpoint::Protocol::kGrpc, true, 8001}};

const Scheme* scheme_of(const std::string& url) {
  for (const Scheme& s : kSchemes)
    if (url.starts_with(s.prefix)) return &s;
  return nullptr;
}

// A socket connected within the time, or why not.
Result<int> connect_one(const addrinfo& address, int64_t until_ns) {
  const int fd = ::socket(address.ai_family, address.ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return Error{ErrorCode::kIo, std::string("no socket: ") + std::strerror(errno), "", ""};
  int problem = 0;
  if (::connect(fd, address.ai_addr, address.ai_addrlen) < 0) {
    problem = errno;
    if (problem == EINPROGRESS) {
      socklen_t size = sizeof problem;
      if (!wait_for_fd(fd, true, until_ns))
        problem = ETIMEDOUT;
      else
        ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &problem, &size);
    }
  }
  if (problem) {
    ::close(fd);
    return Error{ErrorCode::kIo, std::string("cannot connect: ") + std::strerror(problem), "", ""};
  }
  const int yes = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  return fd;
}

}  // namespace

std::string Endpoint::authority() const {
  const bool v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

bool is_url(const std::string& text) {
  return text.find("://") != std::string::npos;
}

Result<Endpoint> parse_endpoint(const std::string& url, const ClientTls& tls) {
  const auto wrong = [&](const std::string& what) {
    return Error{ErrorCode::kInvalidArgument, what, url,
                 "Write http://HOST:PORT, https://, grpc:// or grpcs://."};
  };
  const Scheme* scheme = scheme_of(url);
  if (!scheme) return wrong("is no URL of a server that can be measured");
  Endpoint out;
  out.protocol = scheme->protocol;
  out.port = scheme->port;
  std::string rest = url.substr(std::strlen(scheme->prefix));
  while (rest.ends_with('/')) rest.pop_back();
  std::string port;
  if (rest.starts_with('[')) {
    const size_t end = rest.find(']');
    if (end == std::string::npos) return wrong("the address has no closing bracket");
    out.host = rest.substr(1, end - 1);
    if (end + 1 < rest.size()) port = rest.substr(end + 1);
  } else {
    const size_t colon = rest.find(':');
    out.host = rest.substr(0, colon);
    if (colon != std::string::npos) port = rest.substr(colon);
  }
  if (!port.empty()) {
    const auto [end, ec] = std::from_chars(port.data() + 1, port.data() + port.size(), out.port);
    if (port[0] != ':' || ec != std::errc() || end != port.data() + port.size() || out.port < 1 ||
        out.port > 65535)
      return wrong("the port is no number from 1 to 65535");
  }
  if (out.host.empty() || out.host.find_first_of("/?#@ \t\r\n") != std::string::npos)
    return wrong("the host is not a plain name or address");
  if (scheme->tls) {
    ISOLINE_ASSIGN(out.tls, net::TlsContext::client(tls.ca_file, tls.any_certificate,
                                                    out.protocol == Endpoint::Protocol::kGrpc));
  }
  return out;
}

bool is_this_machine(const Endpoint& endpoint) {
  return endpoint.host == "localhost" || endpoint.host == "::1" || endpoint.host.starts_with("127.");
}

bool wait_for_fd(int fd, bool writing, int64_t until_ns) {
  for (;;) {
    const int64_t left = until_ns - now_ns();
    if (left <= 0) return false;
    pollfd p{fd, short(writing ? POLLOUT : POLLIN), 0};
    const int n = ::poll(&p, 1, int(std::min<int64_t>(left / 1'000'000 + 1, 1 << 30)));
    if (n > 0) return true;
    if (n < 0 && errno != EINTR) return true;  // whoever uses the descriptor finds out
  }
}

Result<ClientSocket> connect_to(const Endpoint& endpoint) {
  const int64_t until = now_ns() + int64_t(endpoint.timeout_s * 1e9);
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (const int problem =
          ::getaddrinfo(endpoint.host.c_str(), std::to_string(endpoint.port).c_str(), &hints, &found))
    return Error{ErrorCode::kNotFound, std::string("no such host: ") + ::gai_strerror(problem),
                 endpoint.authority(), ""};
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> free_them(found, ::freeaddrinfo);
  Result<int> fd = Error{ErrorCode::kNotFound, "the host has no address", "", ""};
  for (const addrinfo* a = found; a && !fd.ok(); a = a->ai_next) fd = connect_one(*a, until);
  if (!fd.ok()) return fd.error().in(endpoint.authority());
  ClientSocket out{*fd, net::make_client_transport(*fd, endpoint.tls, endpoint.host)};
  // The handshake asks for reads as well as writes; looking again every few milliseconds serves both.
  for (;;) {
    const net::IoResult r = out.transport->handshake();
    if (r.kind == net::IoResult::Kind::kOk) return out;
    if (r.kind != net::IoResult::Kind::kBlocked || now_ns() > until)
      return Error{ErrorCode::kIo, "no TLS connection", endpoint.authority(),
                   "Name the certificate's authority with --ca-file, or check that the port speaks TLS."};
    wait_for_fd(out.fd, false, std::min(until, now_ns() + 20'000'000));
  }
}

}  // namespace isoline::load
