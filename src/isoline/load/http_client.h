// HTTP/1.1 as a client speaks it: requests one after the other on a connection that stays.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "isoline/load/client_socket.h"
#include "isoline/net/http1.h"

namespace isoline::load {

// Never blocks but in connect() and request(). One thread at a time.
class HttpConnection {
 public:
  static Result<std::unique_ptr<HttpConnection>> connect(const Endpoint& endpoint);

  int fd() const { return socket_.fd; }
  // Begins a request: the bytes of a whole one, which stay where they are until it ended. The last one must
  // have ended. Of the answer's body the first `keep` bytes are kept.
  void start(std::span<const std::byte> request, size_t keep);
  enum class State { kBusy, kDone, kFailed };
  // As far as the socket goes without waiting.
  State progress();
  bool wants_write() const { return sent_ < request_.size(); }

  // Of the answer, once kDone.
  int status() const { return status_; }
  const std::string& body() const { return body_; }
  bool reusable() const { return reusable_; }
  // Of the request under way or ended; 0: not yet.
  int64_t sent_ns() const { return sent_ns_; }
  int64_t first_byte_ns() const { return first_byte_ns_; }
  int64_t end_ns() const { return end_ns_; }

  // One request, waited for.
  struct Answer {
    int status = 0;
    std::string body;
  };
  Result<Answer> request(std::span<const std::byte> request, double timeout_s);

 private:
  explicit HttpConnection(ClientSocket socket) : socket_(std::move(socket)) {}
  bool write();
  bool take(std::string_view bytes);
  bool take_head();
  void take_body(std::string_view bytes);
  State done();

  ClientSocket socket_;
  std::span<const std::byte> request_;
  size_t sent_ = 0, keep_ = 0;
  std::string head_;
  bool in_body_ = false, ended_ = true, reusable_ = true, until_close_ = false;
  int status_ = 0;
  uint64_t left_ = 0;  // of a body of known length
  std::optional<net::ChunkDecoder> chunks_;
  std::string body_;
  int64_t sent_ns_ = 0, first_byte_ns_ = 0, end_ns_ = 0;
};

// The bytes of a request. `headers`: whole lines, each with its end.
std::vector<std::byte> http_request(const Endpoint& endpoint, std::string_view method, std::string_view path,
                                    std::string_view headers,
                                    std::span<const std::span<const std::byte>> body);
// What an error answer says: its JSON "error", or the beginning of its body.
std::string error_text(const std::string& body);

}  // namespace isoline::load
