// Where a server is, and a connected non-blocking socket to it.
#pragma once

#include <memory>
#include <string>

#include "isoline/base/result.h"
#include "isoline/net/transport.h"

namespace isoline::load {

struct Endpoint {
  enum class Protocol { kHttp, kGrpc } protocol = Protocol::kHttp;
  std::string host;
  int port = 0;
  std::string token;                     // Authorization: Bearer ...; empty: none
  std::shared_ptr<net::TlsContext> tls;  // null: plain
  double timeout_s = 30;                 // of connecting, and of an answer

  std::string authority() const;  // host:port, an IPv6 address in brackets
};

struct ClientTls {
  std::string ca_file;  // PEM; empty: the system's
  bool any_certificate = false;
};
// http://HOST[:8000], https://..., grpc://HOST[:8001], grpcs://...
Result<Endpoint> parse_endpoint(const std::string& url, const ClientTls& tls);
bool is_url(const std::string& text);
// Whether the host is this machine by its name or address (localhost, 127.x, ::1).
bool is_this_machine(const Endpoint& endpoint);

struct ClientSocket {
  int fd = -1;  // owned by the transport
  std::unique_ptr<net::Transport> transport;
};
// Blocks until connected and, under TLS, shaken hands with.
Result<ClientSocket> connect_to(const Endpoint& endpoint);

// Waits for the descriptor: POLLIN or POLLOUT. False: `until_ns` passed.
bool wait_for_fd(int fd, bool writing, int64_t until_ns);

}  // namespace isoline::load
