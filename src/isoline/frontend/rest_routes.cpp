#include "isoline/frontend/routes.h"

#include <charconv>

#include "isoline/frontend/answers.h"
#include "isoline/frontend/job_routes.h"
#include "isoline/page/page.h"

namespace isoline::frontend {
namespace {

using net::HttpResponse;

HttpResponse page_file(const page::PageFile& file) {
  HttpResponse r = json(std::string(file.text));
  r.content_type = file.content_type;
  r.headers = page::security_headers();
  return r;
}
HttpResponse picture_failure(const Error& error) {
  const ErrorCode code = error.code;
  return failure(code == ErrorCode::kResourceExhausted ? 413
                 : code == ErrorCode::kUnsupported     ? 415
                                                       : http_status(code),
                 error.to_string());
}

// The decoded sample of a request, counted against the server's memory.
Result<serve::InferRequest> decode_picture(const serve::ServedModel& model, std::span<const std::byte> file,
                                           const std::shared_ptr<net::MemoryBudget>& budget) {
  const auto start = serve::Clock::now();
  const SampleDecoder& decoder = *model.decoder();
  const size_t bytes = decoder.bytes_per_sample();
  auto sample = std::make_shared<net::Bytes>(budget);
  if (!sample->grow(bytes, bytes)) return Error{ErrorCode::kIo, "too much memory is in use", "", ""};
  ISOLINE_RETURN_IF_ERROR(decoder.decode(file, sample->room().first(bytes)));
  sample->advance(bytes);
  const TensorModelInfo& info = model.info();
  serve::NamedTensor tensor{info.inputs[0].name, info.inputs[0].type, info.inputs[0].shape, sample->span()};
  if (info.max_batch > 0) tensor.shape.insert(tensor.shape.begin(), 1);
  serve::InferRequest request;
  request.inputs.push_back(std::move(tensor));
  request.memory = std::move(sample);
  request.decode_ns =
      uint64_t(std::chrono::duration_cast<std::chrono::nanoseconds>(serve::Clock::now() - start).count());
  return request;
}

}  // namespace

// One inference from its body to its answer.
struct RestRoutes::Infer {
  std::shared_ptr<net::HttpExchange> exchange;
  std::shared_ptr<serve::ServedModel> model;
  std::optional<uint64_t> header_length;
  net::Coding coding = net::Coding::kIdentity, answer_coding = net::Coding::kIdentity;
  serve::Clock::time_point received = serve::Clock::now();
  bool picture = false;  // the body is one, and no tensors
  oip::RestOutputs outputs;
  Abandonable abandonable;
};

void RestRoutes::in_pool(TaskPool& pool, const std::shared_ptr<net::HttpExchange>& exchange,
                         std::function<void()> work) {
  const bool taken = pool.post([exchange, work = std::move(work)] { answer_exceptions(*exchange, work); });
  if (!taken) exchange->respond(failure(503, "too many requests wait already"));
}

void RestRoutes::handle(const std::shared_ptr<net::HttpExchange>& exchange) {
  const net::HttpHead& head = exchange->head();
  const bool get = head.method == "GET" || head.method == "HEAD", post = head.method == "POST";
  const auto path = split_path(head.path);
  if (!path) return exchange->respond(failure(400, "the path is malformed"));
  const std::vector<std::string>& p = *path;
  const auto is = [&](size_t i, std::string_view word) { return i < p.size() && p[i] == word; };
  const auto wrong_method = [&](const char* allowed) { exchange->respond(not_allowed(allowed)); };

  // Health is for whoever watches the process; it says nothing else.
  if (p.size() == 3 && is(0, "v2") && is(1, "health") && (is(2, "live") || is(2, "ready"))) {
    if (!get) return wrong_method("GET");
    return exchange->respond(nothing(is(2, "live") || f_.ready_ ? 200 : 503));
  }
  // The page is the same for everybody; what it shows, it asks for with the token it was given.
  if (const page::PageFile* file = page::find_file(head.path)) {
    if (!get) return wrong_method("GET");
    return exchange->respond(page_file(*file));
  }
  if (auto refusal = refuse_stranger(f_.options_, head)) return exchange->respond(std::move(*refusal));
  if (p.size() == 1 && is(0, "metrics")) {
    if (!get) return wrong_method("GET");
    const net::ServerFigures s = f_.server_.figures();
    HttpResponse r =
        json(oip::write_metrics(f_.repository_.served(),
                                {s.connections, s.connections_total, s.rejected_total, s.requests_total,
                                 s.bytes_in_flight, s.http_responses, s.grpc_calls},
                                f_.host_.figures()));
    r.content_type = "text/plain; version=0.0.4; charset=utf-8";
    return exchange->respond(std::move(r));
  }
  if (JobRoutes::is_path(p)) {
    if (f_.jobs_) return f_.jobs_->handle(exchange, p);
    return exchange->respond(failure(404, "no models for scans are served here"));
  }
  if (!is(0, "v2")) return exchange->respond(failure(404, "nothing is served at this path"));
  if (p.size() == 1) {
    if (!get) return wrong_method("GET");
    return exchange->respond(json(oip::write_server_metadata(f_.options_.server)));
  }
  if (is(1, "repository")) {
    if (!post) return wrong_method("POST");
    if (exchange->body().size() > kMaxControlBytes)
      return exchange->respond(failure(413, "the body is above the limit of " +
                                                std::to_string(kMaxControlBytes) +
                                                " bytes for requests of this kind"));
    if (p.size() == 3 && is(2, "index")) {
      const auto ready = oip::parse_index_request(text_of(exchange->body()));
      if (!ready.ok()) return exchange->respond(failure(ready.error()));
      return in_pool(f_.pool_, exchange, [this, exchange, only = *ready] {
        exchange->respond(json(oip::write_index(f_.repository_.index(only))));
      });
    }
    if (p.size() == 5 && is(2, "models") && (is(4, "load") || is(4, "unload")))
      return control(exchange, p[3], is(4, "load"));
  }
  if (is(1, "models")) {
    if (p.size() == 3 && is(2, "stats")) {
      if (!get) return wrong_method("GET");
      return statistics(exchange, "", "");
    }
    const bool versioned = p.size() >= 5 && is(3, "versions");
    const std::string version = versioned ? p[4] : std::string();
    const size_t rest = versioned ? 5 : 3;
    if (p.size() == rest || p.size() == rest + 1) {
      const std::string what = p.size() == rest ? std::string() : p[rest];
      if (Status s = serve::check_model_name(p[2]); !s.ok()) return exchange->respond(failure(s.error()));
      if (what == "infer") {
        if (!post) return wrong_method("POST");
        return infer(exchange, p[2], version);
      }
      if (what.empty() || what == "ready" || what == "config" || what == "stats") {
        if (!get) return wrong_method("GET");
        return model_get(exchange, p[2], version, what);
      }
    }
  }
  exchange->respond(failure(404, "nothing is served at this path"));
}

void RestRoutes::statistics(const std::shared_ptr<net::HttpExchange>& exchange, const std::string& model,
                            const std::string& version) {
  const auto models = select_models(f_.repository_, model, version);
  exchange->respond(models.ok() ? json(oip::write_statistics(*models)) : failure(models.error()));
}

void RestRoutes::model_get(const std::shared_ptr<net::HttpExchange>& exchange, const std::string& model,
                           const std::string& version, const std::string& what) {
  if (what == "stats") return statistics(exchange, model, version);
  if (what == "ready" && f_.repository_.ready(model, version)) return exchange->respond(nothing());
  const auto found = f_.repository_.find(model, version);
  if (!found.ok()) return exchange->respond(failure(found.error()));
  if (what == "ready") return exchange->respond(nothing());
  if (what == "config") return exchange->respond(json(oip::write_model_config(**found)));
  exchange->respond(json(oip::write_model_metadata(**found, versions_of(f_.repository_, model))));
}

void RestRoutes::control(const std::shared_ptr<net::HttpExchange>& exchange, const std::string& model,
                         bool load) {
  if (!f_.options_.model_control)
    return exchange->respond(failure({ErrorCode::kUnsupported, "loading and unloading is switched off", "",
                                      "Start with --model-control."}));
  if (Status s = serve::check_model_name(model); !s.ok()) return exchange->respond(failure(s.error()));
  const auto config = oip::parse_load_request(text_of(exchange->body()));
  if (load && !config.ok()) return exchange->respond(failure(config.error()));
  in_pool(f_.control_, exchange, [this, exchange, model, load, config = load ? *config : std::nullopt] {
    const Status s = load ? f_.repository_.load(model, config) : f_.repository_.unload(model);
    exchange->respond(s.ok() ? nothing() : failure(s.error()));
  });
}

void RestRoutes::infer(const std::shared_ptr<net::HttpExchange>& exchange, const std::string& model,
                       const std::string& version) {
  const net::HttpHead& head = exchange->head();
  auto request = std::make_shared<Infer>();
  request->exchange = exchange;
  auto found = f_.repository_.find(model, version);
  if (!found.ok()) return exchange->respond(failure(found.error()));
  request->model = std::move(*found);
  if (const auto text = head.header("inference-header-content-length"); !text.empty()) {
    uint64_t n = 0;
    const auto r = std::from_chars(text.data(), text.data() + text.size(), n);
    if (r.ec != std::errc() || r.ptr != text.data() + text.size())
      return exchange->respond(failure(400, "Inference-Header-Content-Length is no number"));
    request->header_length = n;
  }
  const std::string type = media_type(head.header("content-type"));
  if (!request->header_length && (type == "application/octet-stream" || type.starts_with("image/"))) {
    request->picture = request->model->decoder() != nullptr;
    if (!request->picture && type != "application/octet-stream")
      return exchange->respond(failure(415, "model '" + request->model->name() + "' takes no pictures"));
  }
  const auto coding = net::parse_coding(head.header("content-encoding"));
  if (!coding.ok()) return exchange->respond(failure(415, coding.error().to_string()));
  request->coding = *coding;
  if (const auto accept = head.header("accept-encoding"); !accept.empty())
    request->answer_coding = net::choose_coding(accept);
  exchange->on_gone([request] { request->abandonable.gone(); });
  if (!request->picture && request->coding == net::Coding::kIdentity &&
      exchange->body().size() <= kInlineBytes)
    return start(request);
  in_pool(f_.pool_, exchange, [this, request] { start(request); });
}

void RestRoutes::start(const std::shared_ptr<Infer>& infer) {
  net::HttpExchange& exchange = *infer->exchange;
  std::span<const std::byte> body = exchange.body();
  std::shared_ptr<const void> owner = exchange.body_owner();
  if (infer->coding != net::Coding::kIdentity) {
    auto plain =
        net::decompress(body, infer->coding, size_t(f_.server_.limits().max_body_bytes), f_.server_.budget());
    if (!plain.ok()) {
      const ErrorCode code = plain.error().code;
      return exchange.respond(failure(code == ErrorCode::kResourceExhausted ? 413
                                      : code == ErrorCode::kIo              ? 503
                                                                            : 400,
                                      plain.error().to_string()));
    }
    const auto bytes = std::make_shared<const net::Bytes>(std::move(*plain));
    body = bytes->span();
    owner = bytes;
  }
  if (infer->picture) {
    if (infer->abandonable.is_gone()) return;
    auto request = decode_picture(*infer->model, body, f_.server_.budget());
    if (request.ok()) return submit(infer, std::move(*request));
    return exchange.respond(request.error().code == ErrorCode::kIo ? failure(503, request.error().to_string())
                                                                   : picture_failure(request.error()));
  }
  auto parsed = oip::parse_infer(body, std::move(owner), infer->header_length, infer->model->info());
  if (!parsed.ok()) return exchange.respond(failure(parsed.error()));
  infer->outputs = std::move(parsed->outputs);
  submit(infer, std::move(parsed->request));
}

void RestRoutes::submit(const std::shared_ptr<Infer>& infer, serve::InferRequest request) {
  request.model = infer->model->name();
  request.received = infer->received;
  infer->abandonable.started(
      infer->model->infer(std::move(request), [this, infer](Result<serve::InferResponse> response) {
        // Writing much JSON or compressing much would hold up the model's instance.
        answer_exceptions(*infer->exchange, [&] {
          size_t bytes = 0;
          if (response.ok())
            for (const auto& t : response->outputs)
              if (!infer->outputs.is_binary(t.name) || infer->answer_coding != net::Coding::kIdentity)
                bytes += t.data.size();
          if (bytes <= kInlineBytes / 8) return finish(infer, std::move(response));
          auto held = std::make_shared<Result<serve::InferResponse>>(std::move(response));
          in_pool(f_.pool_, infer->exchange, [this, infer, held] { finish(infer, std::move(*held)); });
        });
      }));
}

void RestRoutes::finish(const std::shared_ptr<Infer>& infer, Result<serve::InferResponse> response) {
  if (!response.ok()) return infer->exchange->respond(failure(response.error()));
  auto answer = oip::write_infer(*response, infer->outputs);
  if (!answer.ok()) return infer->exchange->respond(failure(answer.error()));
  HttpResponse r;
  if (!answer->binary.empty()) {
    r.content_type = "application/octet-stream";
    r.headers.emplace_back("Inference-Header-Content-Length", std::to_string(answer->json.size()));
  }
  if (infer->answer_coding != net::Coding::kIdentity) {
    std::vector<std::span<const std::byte>> parts = {std::as_bytes(std::span(answer->json))};
    parts.insert(parts.end(), answer->binary.begin(), answer->binary.end());
    r.text = net::compress(parts, infer->answer_coding);
    r.headers.emplace_back("Content-Encoding", net::to_string(infer->answer_coding));
  } else {
    r.text = std::move(answer->json);
    for (const auto& bytes : answer->binary) r.segments.push_back({response->memory, bytes});
  }
  infer->exchange->respond(std::move(r));
}

}  // namespace isoline::frontend
