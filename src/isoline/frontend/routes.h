// The two handlers behind Frontend. Internal to the room.
#pragma once

#include "isoline/frontend/frontend.h"

namespace isoline::frontend {

// Larger bodies are parsed, and larger JSON answers written, by the pool.
inline constexpr size_t kInlineBytes = size_t{256} << 10;
// Requests that hold no tensors; they are read in the server's thread. A configuration has at most 1 MiB.
inline constexpr size_t kMaxControlBytes = size_t{2} << 20;

// Runs `work`; memory that ran out, or a mistake of this program, becomes the request's answer.
template <class Work>
void answer_exceptions(net::HttpExchange& exchange, Work&& work) {
  const auto answer = [&](int status, const char* message) {
    net::HttpResponse r;
    r.status = status;
    r.text = oip::write_error(message);
    if (status == 503) r.headers.emplace_back("Retry-After", "1");
    exchange.respond(std::move(r));
  };
  try {
    work();
  } catch (const std::bad_alloc&) {
    answer(503, "memory ran out");
  } catch (const std::exception& e) {
    answer(500, e.what());
  }
}
template <class Work>
void answer_exceptions(net::GrpcCall& call, Work&& work) {
  try {
    work();
  } catch (const std::bad_alloc&) {
    call.finish(net::GrpcStatus::kUnavailable, "memory ran out");
  } catch (const std::exception& e) {
    call.finish(net::GrpcStatus::kInternal, e.what());
  }
}

class RestRoutes {
 public:
  explicit RestRoutes(Frontend& frontend) : f_(frontend) {}
  void handle(const std::shared_ptr<net::HttpExchange>& exchange);

 private:
  struct Infer;
  void infer(const std::shared_ptr<net::HttpExchange>& exchange, const std::string& model,
             const std::string& version);
  void start(const std::shared_ptr<Infer>& infer);
  void submit(const std::shared_ptr<Infer>& infer, serve::InferRequest request);
  void finish(const std::shared_ptr<Infer>& infer, Result<serve::InferResponse> response);
  void model_get(const std::shared_ptr<net::HttpExchange>& exchange, const std::string& model,
                 const std::string& version, const std::string& what);
  void statistics(const std::shared_ptr<net::HttpExchange>& exchange, const std::string& model,
                  const std::string& version);
  void control(const std::shared_ptr<net::HttpExchange>& exchange, const std::string& model, bool load);
  void in_pool(TaskPool& pool, const std::shared_ptr<net::HttpExchange>& exchange,
               std::function<void()> work);
  Frontend& f_;
};

class GrpcRoutes {
 public:
  explicit GrpcRoutes(Frontend& frontend) : f_(frontend) {}
  void message(const std::shared_ptr<net::GrpcCall>& call, net::Bytes message, net::Coding coding);
  void half_close(const std::shared_ptr<net::GrpcCall>& call);

 private:
  struct State;
  using CallPtr = std::shared_ptr<net::GrpcCall>;
  void unary(const CallPtr& call, std::shared_ptr<const net::Bytes> message, net::Coding coding);
  void infer(const CallPtr& call, const std::shared_ptr<State>& state,
             std::shared_ptr<const net::Bytes> message, net::Coding coding, bool stream);
  void control(const CallPtr& call, std::span<const std::byte> message, bool load);
  void in_pool(TaskPool& pool, const CallPtr& call, std::function<void()> work);
  Frontend& f_;
};

std::vector<std::string> versions_of(const serve::Repository& repository, const std::string& model);
// All versions of all models, of one model, or one version.
Result<std::vector<std::shared_ptr<serve::ServedModel>>> select_models(const serve::Repository& repository,
                                                                       const std::string& model,
                                                                       const std::string& version);

}  // namespace isoline::frontend
