#include "isoline/net/transport.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <utility>

namespace isoline::net {
namespace {

using Kind = IoResult::Kind;

class PlainTransport final : public Transport {
 public:
  explicit PlainTransport(int fd) : fd_(fd) {}
  ~PlainTransport() override { ::close(fd_); }
  IoResult read(std::span<std::byte> to) override {
    const ssize_t n = ::recv(fd_, to.data(), to.size(), 0);
    if (n > 0) return {Kind::kOk, size_t(n), size_t(n) < to.size()};
    if (n == 0) return {Kind::kEnd, 0, true};
    return failed();
  }
  IoResult write(std::span<const iovec> parts) override {
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(parts.data());
    message.msg_iovlen = parts.size();
    const ssize_t n = ::sendmsg(fd_, &message, MSG_NOSIGNAL);
    if (n >= 0) return {Kind::kOk, size_t(n), false};
    return failed();
  }
  IoResult handshake() override { return {Kind::kOk, 0, false}; }
  void finish_writing() override { ::shutdown(fd_, SHUT_WR); }

 private:
  static IoResult failed() {
    return {errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? Kind::kBlocked : Kind::kFailed, 0,
            errno != EINTR};
  }
  const int fd_;
};

class TlsTransport final : public Transport {
 public:
  // `host`: of the server this side connects to; null: this side accepts.
  TlsTransport(int fd, std::shared_ptr<TlsContext> context, const std::string* host)
      : fd_(fd), context_(std::move(context)), ssl_(SSL_new(context_->get())) {
    if (!ssl_ || !SSL_set_fd(ssl_, fd)) return;
    SSL_set_mode(
        ssl_, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    if (!host) {
      SSL_set_accept_state(ssl_);
      return;
    }
    SSL_set_connect_state(ssl_);
    if (!X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl_), host->c_str())) {  // not an address: a name
      SSL_set1_host(ssl_, host->c_str());
      SSL_set_tlsext_host_name(ssl_, host->c_str());
    }
  }
  ~TlsTransport() override {
    if (ssl_) {
      if (ready_) SSL_shutdown(ssl_);
      SSL_free(ssl_);
    }
    ERR_clear_error();
    ::close(fd_);
  }
  IoResult handshake() override {
    if (!ssl_) return {Kind::kFailed, 0, true};
    ERR_clear_error();
    const int r = SSL_do_handshake(ssl_);
    ready_ = r == 1;
    return ready_ ? IoResult{Kind::kOk, 0, false} : failed(r);
  }
  IoResult read(std::span<std::byte> to) override {
    ERR_clear_error();
    const int r = SSL_read(ssl_, to.data(), int(std::min<size_t>(to.size(), INT_MAX)));
    return r > 0 ? IoResult{Kind::kOk, size_t(r), false} : failed(r);
  }
  IoResult write(std::span<const iovec> parts) override {
    size_t total = 0;
    for (const iovec& p : parts) {
      size_t at = 0;
      while (at < p.iov_len) {
        ERR_clear_error();
        const int r = SSL_write(ssl_, static_cast<const char*>(p.iov_base) + at,
                                int(std::min<size_t>(p.iov_len - at, INT_MAX)));
        if (r <= 0) return total ? IoResult{Kind::kOk, total, false} : failed(r);
        at += size_t(r);
        total += size_t(r);
      }
    }
    return {Kind::kOk, total, false};
  }
  void finish_writing() override {
    if (std::exchange(ready_, false)) SSL_shutdown(ssl_);
    ERR_clear_error();
    ::shutdown(fd_, SHUT_WR);
  }

 private:
  IoResult failed(int r) {
    switch (SSL_get_error(ssl_, r)) {
      case SSL_ERROR_WANT_READ:
      case SSL_ERROR_WANT_WRITE:
        return {Kind::kBlocked, 0, true};
      case SSL_ERROR_ZERO_RETURN:
        return {Kind::kEnd, 0, true};
      default:
        ready_ = false;  // no close_notify after a failure
        return {Kind::kFailed, 0, true};
    }
  }
  const int fd_;
  std::shared_ptr<TlsContext> context_;
  SSL* ssl_;
  bool ready_ = false;
};

int choose_h2(SSL*, const unsigned char** out, unsigned char* out_length, const unsigned char* in,
              unsigned in_length, void*) {
  static const unsigned char kH2[] = {2, 'h', '2'};
  return SSL_select_next_proto(const_cast<unsigned char**>(out), out_length, kH2, sizeof kH2, in,
                               in_length) == OPENSSL_NPN_NEGOTIATED
             ? SSL_TLSEXT_ERR_OK
             : SSL_TLSEXT_ERR_ALERT_FATAL;
}

int choose_http1(SSL*, const unsigned char** out, unsigned char* out_length, const unsigned char* in,
                 unsigned in_length, void*) {
  static const unsigned char kHttp1[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};
  return SSL_select_next_proto(const_cast<unsigned char**>(out), out_length, kHttp1, sizeof kHttp1, in,
                               in_length) == OPENSSL_NPN_NEGOTIATED
             ? SSL_TLSEXT_ERR_OK
             : SSL_TLSEXT_ERR_NOACK;
}

std::string last_error() {
  char text[256];
  ERR_error_string_n(ERR_get_error(), text, sizeof text);
  return text;
}

}  // namespace

Result<std::shared_ptr<TlsContext>> TlsContext::load(const std::string& certificate, const std::string& key,
                                                     bool h2) {
  SSL_CTX* raw = SSL_CTX_new(TLS_server_method());
  if (!raw) return Error{ErrorCode::kInternal, "TLS cannot be set up: " + last_error(), "", ""};
  std::shared_ptr<TlsContext> context(new TlsContext(raw));
  SSL_CTX_set_min_proto_version(raw, TLS1_2_VERSION);
  SSL_CTX_set_options(raw, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_IGNORE_UNEXPECTED_EOF);
  if (SSL_CTX_use_certificate_chain_file(raw, certificate.c_str()) != 1)
    return Error{ErrorCode::kInvalidArgument, "is no readable PEM certificate: " + last_error(), certificate,
                 ""};
  if (SSL_CTX_use_PrivateKey_file(raw, key.c_str(), SSL_FILETYPE_PEM) != 1 ||
      SSL_CTX_check_private_key(raw) != 1)
    return Error{ErrorCode::kInvalidArgument, "is no readable PEM key of that certificate: " + last_error(),
                 key, ""};
  SSL_CTX_set_alpn_select_cb(raw, h2 ? choose_h2 : choose_http1, nullptr);
  return context;
}

Result<std::shared_ptr<TlsContext>> TlsContext::client(const std::string& ca_file, bool any_certificate,
                                                       bool h2) {
  SSL_CTX* raw = SSL_CTX_new(TLS_client_method());
  if (!raw) return Error{ErrorCode::kInternal, "TLS cannot be set up: " + last_error(), "", ""};
  std::shared_ptr<TlsContext> context(new TlsContext(raw));
  SSL_CTX_set_min_proto_version(raw, TLS1_2_VERSION);
  SSL_CTX_set_options(raw, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_IGNORE_UNEXPECTED_EOF);
  SSL_CTX_set_verify(raw, any_certificate ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, nullptr);
  if (ca_file.empty())
    SSL_CTX_set_default_verify_paths(raw);
  else if (SSL_CTX_load_verify_locations(raw, ca_file.c_str(), nullptr) != 1)
    return Error{ErrorCode::kInvalidArgument, "holds no readable PEM certificate: " + last_error(), ca_file,
                 ""};
  static const unsigned char kH2[] = {2, 'h', '2'};
  static const unsigned char kHttp1[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};
  SSL_CTX_set_alpn_protos(raw, h2 ? kH2 : kHttp1, h2 ? sizeof kH2 : sizeof kHttp1);
  return context;
}

TlsContext::~TlsContext() {
  SSL_CTX_free(context_);
}

std::unique_ptr<Transport> make_transport(int fd, const std::shared_ptr<TlsContext>& tls) {
  if (tls) return std::make_unique<TlsTransport>(fd, tls, nullptr);
  return std::make_unique<PlainTransport>(fd);
}

std::unique_ptr<Transport> make_client_transport(int fd, const std::shared_ptr<TlsContext>& tls,
                                                 const std::string& host) {
  if (tls) return std::make_unique<TlsTransport>(fd, tls, &host);
  return std::make_unique<PlainTransport>(fd);
}

}  // namespace isoline::net
