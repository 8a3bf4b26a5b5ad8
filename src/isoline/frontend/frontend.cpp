#include "isoline/frontend/frontend.h"

#include "isoline/frontend/answers.h"
#include "isoline/frontend/job_routes.h"
#include "isoline/frontend/routes.h"

namespace isoline::frontend {

Frontend::Frontend(FrontendOptions options, serve::Repository& repository, jobs::JobService* jobs,
                   net::Server& server)
    : options_(std::move(options)),
      repository_(repository),
      server_(server),
      host_(options_.host, repository),
      rest_(std::make_unique<RestRoutes>(*this)),
      grpc_(std::make_unique<GrpcRoutes>(*this)),
      jobs_(jobs ? std::make_unique<JobRoutes>(*jobs, pool_) : nullptr),
      pool_(options_.threads, 1024),
      control_(1, 64) {}

Frontend::~Frontend() = default;

net::HttpHandler Frontend::http() {
  return [this](std::shared_ptr<net::HttpExchange> exchange) {
    answer_exceptions(*exchange, [&] { rest_->handle(exchange); });
  };
}

net::BodyPlanner Frontend::body_planner() {
  if (!jobs_) return {};
  return [this](const net::HttpHead& head) {
    const auto path = split_path(head.path);
    if (!path || !JobRoutes::is_path(*path)) return net::BodyPlan{};
    net::BodyPlan plan;
    plan.refusal = refuse_stranger(options_, head);
    return plan.refusal ? std::move(plan) : jobs_->plan(head, *path);
  };
}

net::GrpcHandler Frontend::grpc() {
  return {[this](const std::shared_ptr<net::GrpcCall>& call, net::Bytes message, net::Coding coding) {
            answer_exceptions(*call, [&] { grpc_->message(call, std::move(message), coding); });
          },
          [this](const std::shared_ptr<net::GrpcCall>& call) {
            answer_exceptions(*call, [&] { grpc_->half_close(call); });
          }};
}

void Abandonable::started(serve::InferTicket ticket) {
  bool cancel = false;
  {
    std::lock_guard lock(mutex_);
    ticket_ = ticket;
    started_ = true;
    cancel = gone_;
  }
  if (cancel) ticket.cancel();
}

void Abandonable::gone() {
  serve::InferTicket ticket;
  {
    std::lock_guard lock(mutex_);
    gone_ = true;
    if (!started_) return;
    ticket = ticket_;
  }
  ticket.cancel();
}

bool Abandonable::is_gone() const {
  std::lock_guard lock(mutex_);
  return gone_;
}

bool authorized(const std::vector<std::string>& tokens, std::string_view authorization) {
  if (tokens.empty()) return true;
  constexpr std::string_view kScheme = "Bearer ";
  if (authorization.substr(0, kScheme.size()) != kScheme) return false;
  const std::string_view given = authorization.substr(kScheme.size());
  bool any = false;
  for (const std::string& token : tokens) {
    // Every character of the token is looked at, whatever was given.
    volatile unsigned char difference = given.size() == token.size() ? 0 : 1;
    for (size_t i = 0; i < token.size(); ++i)
      difference = static_cast<unsigned char>(difference | (token[i] ^ (i < given.size() ? given[i] : 0)));
    any = any | (difference == 0);
  }
  return any;
}

std::vector<std::string> versions_of(const serve::Repository& repository, const std::string& model) {
  std::vector<std::string> out;
  for (const auto& m : repository.served())
    if (m->name() == model) out.push_back(m->version());
  return out;
}

Result<std::vector<std::shared_ptr<serve::ServedModel>>> select_models(const serve::Repository& repository,
                                                                       const std::string& model,
                                                                       const std::string& version) {
  auto all = repository.served();
  if (model.empty()) return all;
  ISOLINE_ASSIGN(auto found, repository.find(model, version));
  if (!version.empty()) return std::vector{found};
  std::erase_if(all, [&](const auto& m) { return m->name() != model; });
  return all;
}

}  // namespace isoline::frontend
