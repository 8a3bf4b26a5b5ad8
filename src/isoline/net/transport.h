// A connected socket, plain or under TLS, non-blocking.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "isoline/base/result.h"

struct ssl_ctx_st;

namespace isoline::net {

struct IoResult {
  enum class Kind { kOk, kBlocked, kEnd, kFailed } kind = Kind::kFailed;
  size_t bytes = 0;
  // The socket has no more for now; no need to ask it again.
  bool drained = false;
};

class Transport {
 public:
  virtual ~Transport() = default;
  virtual IoResult read(std::span<std::byte> to) = 0;
  virtual IoResult write(std::span<const iovec> parts) = 0;
  // kOk once both sides agreed on keys; plain sockets at once.
  virtual IoResult handshake() = 0;
  // Tells the other side that no more comes.
  virtual void finish_writing() = 0;
};

// Certificate and key of a listener, or what a client trusts. Shared by its connections.
class TlsContext {
 public:
  // PEM files; the certificate's may hold a chain. TLS 1.2 or newer. `h2`: HTTP/2 is the only protocol
  // offered.
  static Result<std::shared_ptr<TlsContext>> load(const std::string& certificate, const std::string& key,
                                                  bool h2);
  // A client's: servers must show a certificate that `ca_file` (PEM; empty: the system's) vouches for, unless
  // `any_certificate`.
  static Result<std::shared_ptr<TlsContext>> client(const std::string& ca_file, bool any_certificate,
                                                    bool h2);
  ~TlsContext();
  ssl_ctx_st* get() const { return context_; }

 private:
  explicit TlsContext(ssl_ctx_st* context) : context_(context) {}
  ssl_ctx_st* context_;
};

// Takes over `fd`. `tls` may be null.
std::unique_ptr<Transport> make_transport(int fd, const std::shared_ptr<TlsContext>& tls);
// The connecting side of the same; under TLS the certificate must be for `host`, a name or an IP address.
std::unique_ptr<Transport> make_client_transport(int fd, const std::shared_ptr<TlsContext>& tls,
                                                 const std::string& host);

}  // namespace isoline::net
