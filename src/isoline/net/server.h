// Server: listeners and their connections in one thread; whoever answers may do so from any other.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/net/compression.h"
#include "isoline/net/grpc_frame.h"
#include "isoline/net/http1.h"
#include "isoline/net/out_queue.h"
#include "isoline/net/transport.h"

namespace isoline::net {

struct ServerLimits : HttpLimits {
  uint64_t max_bytes_in_flight = uint64_t{1} << 30;  // request bodies of all connections together
  size_t max_connections = 1024;
  size_t max_streams = 256;                        // gRPC calls of one connection
  std::chrono::milliseconds head_timeout{10'000};  // from a head's first byte to its last; TLS handshakes too
  std::chrono::milliseconds transfer_timeout{
      10'000};                          // bodies and answers, longer for those that move at ...
  uint64_t min_bytes_per_s = 64 << 10;  // ... this speed or faster
  std::chrono::milliseconds idle_timeout{600'000};
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers;
  std::string text;               // the body's beginning
  std::vector<Segment> segments;  // and what follows it
};

// Takes a request's body piece by piece as it comes, instead of memory.
class BodySink {
 public:
  virtual ~BodySink() = default;  // in any thread
  // Called in the server's thread; must not block. The next piece is read once `taken` was called, from any
  // thread. Called with a refusal, the request is answered with that and the rest of the body thrown away.
  virtual void take(std::shared_ptr<const Bytes> piece,
                    std::function<void(std::optional<HttpResponse> refusal)> taken) = 0;
};

// What is to become of a body, decided when the head is there.
struct BodyPlan {
  std::shared_ptr<BodySink> sink;       // null: into memory, at most ServerLimits::max_body_bytes
  uint64_t max_bytes = 0;               // with a sink
  std::optional<HttpResponse> refusal;  // no body is wanted: this is the answer
};
// Called in the server's thread; must not block.
using BodyPlanner = std::function<BodyPlan(const HttpHead&)>;

// A request that came whole, and its answer. Answering twice is a mistake that is ignored; dropping it
// without an answer closes the connection.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;
  const HttpHead& head() const { return head_; }
  std::span<const std::byte> body() const { return body_->span(); }
  std::shared_ptr<const void> body_owner() const { return body_; }
  // Where the body went, if its plan said so; body() is empty then.
  const std::shared_ptr<BodySink>& body_sink() const { return sink_; }
  // From any thread.
  virtual void respond(HttpResponse response) = 0;
  // Called in the server's thread if the client leaves before the answer. Set it in the handler, in that
  // thread.
  void on_gone(std::function<void()> gone) { gone_ = std::move(gone); }

 protected:
  HttpHead head_;
  std::shared_ptr<Bytes> body_;
  std::shared_ptr<BodySink> sink_;
  std::function<void()> gone_;
};
// Called in the server's thread; must not block.
using HttpHandler = std::function<void(std::shared_ptr<HttpExchange>)>;

// One gRPC call, unary or streaming.
class GrpcCall {
 public:
  virtual ~GrpcCall() = default;
  const std::string& path() const { return path_; }  // "/inference.GRPCInferenceService/ModelInfer"
  const std::string& authorization() const { return authorization_; }
  const std::optional<std::chrono::steady_clock::time_point>& deadline() const { return deadline_; }
  // From any thread. A message that goes to the client, in pieces; `finish` ends the call with OK besides.
  virtual void send(std::vector<Segment> parts, bool finish) = 0;
  virtual void finish(GrpcStatus status, const std::string& message) = 0;
  // As HttpExchange::on_gone.
  void on_gone(std::function<void()> gone) { gone_ = std::move(gone); }
  // Whatever the handler wants to find again at the call's next event.
  std::shared_ptr<void> state;

 protected:
  std::string path_, authorization_;
  std::optional<std::chrono::steady_clock::time_point> deadline_;
  std::function<void()> gone_;
};
// Called in the server's thread; must not block.
struct GrpcHandler {
  std::function<void(const std::shared_ptr<GrpcCall>&, Bytes message, Coding)> on_message;
  std::function<void(const std::shared_ptr<GrpcCall>&)> on_half_close;  // no more messages come
};

struct ServerFigures {
  uint64_t connections = 0, connections_total = 0, rejected_total = 0, requests_total = 0,
           bytes_in_flight = 0;
  std::map<int, uint64_t> http_responses;  // by status; refusals for a limit too
  std::map<int, uint64_t> grpc_calls;      // that ended, by the code of gRPC
};

class Server {
 public:
  explicit Server(ServerLimits limits);
  ~Server();

  // Before run(). `port` 0 takes a free one; the port is returned. `tls` may be null. Without a planner all
  // bodies go into memory.
  Result<int> listen_http(const std::string& address, int port, std::shared_ptr<TlsContext> tls,
                          HttpHandler handler, BodyPlanner planner = {});
  Result<int> listen_grpc(const std::string& address, int port, std::shared_ptr<TlsContext> tls,
                          GrpcHandler handler);

  // Serves until drained or stopped.
  void run();
  // From any thread: run `work` in the server's.
  void post(std::function<void()> work);
  // From any thread: takes no more connections, finishes what runs, then run() returns; after `timeout` at
  // the latest.
  void drain(std::chrono::milliseconds timeout);

  ServerFigures figures() const;
  const std::shared_ptr<MemoryBudget>& budget() const;
  const ServerLimits& limits() const;

 private:
  std::unique_ptr<class Reactor> reactor_;
};

}  // namespace isoline::net
