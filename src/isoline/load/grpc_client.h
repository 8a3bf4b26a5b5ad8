// gRPC as a client speaks it: unary calls side by side on one HTTP/2 connection.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "isoline/load/client_socket.h"
#include "isoline/net/out_queue.h"

struct nghttp2_session;

namespace isoline::load {

using SharedBytes = std::shared_ptr<const std::vector<std::byte>>;

// A call that ended.
struct GrpcDone {
  uint64_t tag = 0;
  int64_t sent_ns = 0, first_byte_ns = 0, end_ns = 0;  // as Completion
  std::string error, message;                          // "gRPC 8", what was said; empty: OK
  std::vector<std::byte> body;                         // the framed answer, where it was to be kept
};

// Never blocks but in connect() and call(). One thread at a time.
class GrpcConnection {
 public:
  static Result<std::unique_ptr<GrpcConnection>> connect(const Endpoint& endpoint);
  ~GrpcConnection();
  GrpcConnection(const GrpcConnection&) = delete;
  GrpcConnection& operator=(const GrpcConnection&) = delete;

  int fd() const { return socket_.fd; }
  // `message`: with its five-byte head, frame(). Nothing is written before progress().
  void start(uint64_t tag, std::string_view path, SharedBytes message, bool keep_body);
  // As far as the socket goes without waiting. False: the connection is lost; what was under way ended with
  // it.
  bool progress(std::vector<GrpcDone>& done);
  bool wants_write() const { return !out_.empty(); }

  // One call, waited for; the answer's message.
  Result<std::vector<std::byte>> call(std::string_view path, std::string_view message, double timeout_s);

 private:
  struct Stream;
  struct Callbacks;
  GrpcConnection(const Endpoint& endpoint, ClientSocket socket);
  bool write();
  void end(Stream& stream, std::string error, std::string message);

  const Endpoint endpoint_;
  const std::string authority_, authorization_;
  ClientSocket socket_;
  nghttp2_session* session_ = nullptr;
  std::unordered_map<int32_t, std::unique_ptr<Stream>> streams_;
  net::OutQueue out_;
  std::vector<GrpcDone> done_;
  std::vector<std::byte> buffer_;
};

// A message with the head gRPC puts in front.
SharedBytes grpc_frame(std::string_view head, std::span<const std::span<const std::byte>> rest = {});

}  // namespace isoline::load
