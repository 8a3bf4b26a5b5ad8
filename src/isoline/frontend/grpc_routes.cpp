#include <algorithm>

#include "isoline/frontend/routes.h"
#include "isoline/oip/grpc_messages.h"

namespace isoline::frontend {
namespace {

using net::GrpcStatus;
constexpr std::string_view kService = "/inference.GRPCInferenceService/";

GrpcStatus grpc_status(ErrorCode code) {
  switch (code) {
    case ErrorCode::kNotFound:
      return GrpcStatus::kNotFound;
    case ErrorCode::kResourceExhausted:
      return GrpcStatus::kUnavailable;
    case ErrorCode::kUnsupported:
      return GrpcStatus::kUnimplemented;
    case ErrorCode::kInternal:
    case ErrorCode::kIo:
      return GrpcStatus::kInternal;
    case ErrorCode::kCancelled:
      return GrpcStatus::kCancelled;
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kCorrupt:
      break;
  }
  return GrpcStatus::kInvalidArgument;
}

void fail(net::GrpcCall& call, const Error& error) {
  call.finish(grpc_status(error.code), error.to_string());
}

// A message that could not be inflated.
void fail_inflating(net::GrpcCall& call, const Error& error) {
  call.finish(error.code == ErrorCode::kResourceExhausted ? GrpcStatus::kResourceExhausted
              : error.code == ErrorCode::kIo              ? GrpcStatus::kUnavailable
                                                          : GrpcStatus::kInvalidArgument,
              error.to_string());
}

void reply(net::GrpcCall& call, std::string text, bool finish = true) {
  const auto owner = std::make_shared<std::string>(std::move(text));
  call.send({{owner, std::as_bytes(std::span(*owner))}}, finish);
}

void reply(net::GrpcCall& call, const serve::InferResponse& response, bool stream, bool final_flag) {
  struct Memory {
    oip::GrpcAnswer answer;
    std::shared_ptr<const void> tensors;
  };
  const auto owner =
      std::make_shared<Memory>(Memory{oip::write_model_infer(response, stream, final_flag), response.memory});
  std::vector<net::Segment> parts;
  for (const auto& bytes : owner->answer.parts) parts.push_back({owner, bytes});
  call.send(std::move(parts), !stream);
}

// The message, inflated if it came compressed.
Result<std::shared_ptr<const net::Bytes>> plain(std::shared_ptr<const net::Bytes> message, net::Coding coding,
                                                size_t max_bytes, const net::Server& server) {
  if (coding == net::Coding::kIdentity) return message;
  ISOLINE_ASSIGN(auto bytes, net::decompress(message->span(), coding, max_bytes, server.budget()));
  return std::make_shared<const net::Bytes>(std::move(bytes));
}

}  // namespace

// What is known of a call between its events. One of them for a unary call's message, or for a stream.
struct GrpcRoutes::State {
  // Unary: the one message.
  std::shared_ptr<const net::Bytes> message;
  net::Coding coding = net::Coding::kIdentity;
  bool too_many = false;

  // Infer and stream.
  std::mutex mutex;
  size_t running = 0;
  bool half_closed = false;
  std::vector<std::weak_ptr<Abandonable>> requests;
};

void GrpcRoutes::in_pool(TaskPool& pool, const CallPtr& call, std::function<void()> work) {
  const bool taken = pool.post([call, work = std::move(work)] { answer_exceptions(*call, work); });
  if (!taken) call->finish(GrpcStatus::kUnavailable, "too many requests wait already");
}

void GrpcRoutes::message(const CallPtr& call, net::Bytes message, net::Coding coding) {
  auto state = std::static_pointer_cast<State>(call->state);
  if (!state) {
    state = std::make_shared<State>();
    call->state = state;
    call->on_gone([state] {
      std::vector<std::weak_ptr<Abandonable>> requests;
      {
        std::lock_guard lock(state->mutex);
        requests.swap(state->requests);
      }
      for (const auto& weak : requests)
        if (const auto r = weak.lock()) r->gone();
    });
  }
  auto bytes = std::make_shared<const net::Bytes>(std::move(message));
  if (call->path() == "/inference.GRPCInferenceService/ModelStreamInfer") {
    if (!authorized(f_.options_.tokens, call->authorization()))
      return call->finish(GrpcStatus::kUnauthenticated, "a valid bearer token is needed");
    return infer(call, state, std::move(bytes), coding, true);
  }
  state->too_many = state->message != nullptr;
  state->message = std::move(bytes);
  state->coding = coding;
}

void GrpcRoutes::half_close(const CallPtr& call) {
  const auto state = std::static_pointer_cast<State>(call->state);
  if (call->path() == "/inference.GRPCInferenceService/ModelStreamInfer") {
    bool done = !state;
    if (state) {
      std::lock_guard lock(state->mutex);
      state->half_closed = true;
      done = state->running == 0;
    }
    if (done) call->finish(GrpcStatus::kOk, "");
    return;
  }
  if (!state || state->too_many)
    return call->finish(GrpcStatus::kInvalidArgument, "a unary call has exactly one message");
  unary(call, std::move(state->message), state->coding);
}

void GrpcRoutes::unary(const CallPtr& call, std::shared_ptr<const net::Bytes> message, net::Coding coding) {
  const std::string& path = call->path();
  if (path == "/grpc.health.v1.Health/Check")
    return reply(*call, std::string("\x08", 1) + char(f_.ready_ ? 1 : 2));
  if (!path.starts_with(kService)) return call->finish(GrpcStatus::kUnimplemented, "no such service");
  const std::string method = path.substr(kService.size());
  if (method == "ServerLive") return reply(*call, oip::write_bool_message(true));
  if (method == "ServerReady") return reply(*call, oip::write_bool_message(f_.ready_));
  if (!authorized(f_.options_.tokens, call->authorization()))
    return call->finish(GrpcStatus::kUnauthenticated, "a valid bearer token is needed");
  if (method == "ModelInfer") {
    const auto state = std::static_pointer_cast<State>(call->state);
    return infer(call, state, std::move(message), coding, false);
  }
  const size_t most = std::min<size_t>(kMaxControlBytes, f_.server_.limits().max_body_bytes);
  if (message->size() > most)
    return call->finish(
        GrpcStatus::kResourceExhausted,
        "the message is above the limit of " + std::to_string(most) + " bytes for calls of this kind");
  const auto raw = plain(std::move(message), coding, most, f_.server_);
  if (!raw.ok()) return fail_inflating(*call, raw.error());
  const std::span<const std::byte> bytes = (*raw)->span();
  if (method == "ServerMetadata") return reply(*call, oip::write_server_metadata_message(f_.options_.server));
  if (method == "RepositoryIndex") {
    const auto ready = oip::parse_index_message(bytes);
    if (!ready.ok()) return fail(*call, ready.error());
    return in_pool(f_.pool_, call, [this, call, only = *ready] {
      reply(*call, oip::write_index_message(f_.repository_.index(only)));
    });
  }
  if (method == "RepositoryModelLoad" || method == "RepositoryModelUnload")
    return control(call, bytes, method == "RepositoryModelLoad");

  const auto name = oip::parse_model_name(bytes);
  if (!name.ok()) return fail(*call, name.error());
  if (method == "ModelReady")
    return reply(*call, oip::write_bool_message(f_.repository_.ready(name->name, name->version)));
  if (method == "ModelStatistics") {
    const auto models = select_models(f_.repository_, name->name, name->version);
    return models.ok() ? reply(*call, oip::write_statistics_message(*models)) : fail(*call, models.error());
  }
  if (method == "ModelMetadata" || method == "ModelConfig") {
    const auto found = f_.repository_.find(name->name, name->version);
    if (!found.ok()) return fail(*call, found.error());
    return reply(*call, method == "ModelConfig" ? oip::write_model_config_message(**found)
                                                : oip::write_model_metadata_message(
                                                      **found, versions_of(f_.repository_, name->name)));
  }
  call->finish(GrpcStatus::kUnimplemented, "'" + method.substr(0, 64) + "' is not served");
}

void GrpcRoutes::control(const CallPtr& call, std::span<const std::byte> message, bool load) {
  if (!f_.options_.model_control)
    return fail(*call, {ErrorCode::kUnsupported, "loading and unloading is switched off", "",
                        "Start with --model-control."});
  auto parsed = oip::parse_load_message(message);
  if (!parsed.ok()) return fail(*call, parsed.error());
  in_pool(f_.control_, call, [this, call, load, request = std::move(*parsed)] {
    const Status s =
        load ? f_.repository_.load(request.name, request.config) : f_.repository_.unload(request.name);
    s.ok() ? reply(*call, std::string()) : fail(*call, s.error());
  });
}

void GrpcRoutes::infer(const CallPtr& call, const std::shared_ptr<State>& state,
                       std::shared_ptr<const net::Bytes> message, net::Coding coding, bool stream) {
  const auto received = serve::Clock::now();
  {
    std::lock_guard lock(state->mutex);
    ++state->running;
  }
  // Every way out of a stream's request: an answer on the stream, and its end once nothing runs and nothing
  // comes.
  const auto settled = [call, state] {
    std::unique_lock lock(state->mutex);
    const bool done = --state->running == 0 && state->half_closed;
    lock.unlock();
    if (done) call->finish(GrpcStatus::kOk, "");
  };
  const auto failed = [call, stream, settled](const Error& error, const std::string& id) {
    if (!stream) return fail(*call, error);
    reply(*call, oip::write_stream_error(error.to_string(), id), false);
    settled();
  };
  const auto run = [this, call, state, message, coding, stream, received, failed, settled] {
    const auto raw = plain(message, coding, size_t(f_.server_.limits().max_body_bytes), f_.server_);
    if (!raw.ok()) return stream ? failed(raw.error(), "") : fail_inflating(*call, raw.error());
    auto parsed = oip::parse_model_infer((*raw)->span(), *raw);
    if (!parsed.ok()) return failed(parsed.error(), "");
    const std::string id = parsed->request.id;
    const auto model = f_.repository_.find(parsed->request.model, parsed->request.version);
    if (!model.ok()) return failed(model.error(), id);
    parsed->request.received = received;
    parsed->request.deadline = call->deadline();
    const auto abandonable = std::make_shared<Abandonable>();
    {
      std::lock_guard lock(state->mutex);
      std::erase_if(state->requests, [](const auto& weak) { return weak.expired(); });
      state->requests.push_back(abandonable);
    }
    // The callback keeps `abandonable` alive while the request runs.
    abandonable->started((*model)->infer(
        std::move(parsed->request), [call, stream, id, final_flag = parsed->wants_final_flag, failed, settled,
                                     abandonable](Result<serve::InferResponse> response) {
          if (!response.ok()) return failed(response.error(), id);
          reply(*call, *response, stream, stream && final_flag);
          if (stream) settled();
        }));
  };
  if (coding == net::Coding::kIdentity && message->size() <= 4 * kInlineBytes) return run();
  in_pool(f_.pool_, call, run);
}

}  // namespace isoline::frontend
