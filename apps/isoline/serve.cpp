// isoline serve: a folder of models over the Open Inference Protocol, until SIGTERM or SIGINT.
#include <pthread.h>

#include <csignal>
#include <iostream>
#include <thread>

#include "cli.h"
#include "isoline/backends/registry/registry.h"
#include "isoline/base/file.h"
#include "isoline/base/parallel.h"
#include "isoline/frontend/frontend.h"
#include "isoline/model_loader/model_loader.h"
#include "isoline/net/server.h"
#include "isoline/serve/repository.h"
#include "serve_jobs.h"

namespace isoline::cli {
namespace {

// What the list of models says of an nnU-Net results folder.
constexpr const char* kVolumePlatform = "isoline_volume";

struct Options {
  std::string models, address = "127.0.0.1", tls_certificate, tls_key, token_file;
  std::vector<std::string> host_names;
  int http_port = 8000, grpc_port = 8001;
  bool no_model_control = false, strict = false, quiet = false;
  double max_body_mb = 64, max_in_flight_mb = 1024, head_timeout_s = 10, transfer_timeout_s = 10,
         drain_timeout_s = 30, min_kb_per_s = 64;
  size_t max_connections = 1024, max_queue = 4096;
  int run_here_us = 10;
  int64_t max_pixels = DecodeLimits{}.max_pixels;
  double max_decode_mb = 256;
  JobOptions jobs;
  frontend::HostWatchOptions host;
};

// One token a line; empty lines and # comments aside.
Result<std::vector<std::string>> read_tokens(const std::string& file) {
  ISOLINE_ASSIGN(const auto bytes, read_whole_file(file, 65536));
  std::vector<std::string> tokens;
  std::string line;
  for (size_t i = 0; i <= bytes.size(); ++i) {
    const char c = i < bytes.size() ? char(bytes[i]) : '\n';
    if (c == '\r') continue;
    if (c != '\n') {
      line += c;
      continue;
    }
    if (!line.empty() && line[0] != '#') {
      if (line.size() < 16)
        return Error{ErrorCode::kInvalidArgument, "a token has fewer than 16 characters", file,
                     "Make one with: openssl rand -hex 32"};
      tokens.push_back(line);
    }
    line.clear();
  }
  if (tokens.empty()) return Error{ErrorCode::kInvalidArgument, "holds no token", file, "Write one a line."};
  return tokens;
}

net::ServerLimits limits_of(const Options& o) {
  net::ServerLimits limits;
  limits.max_body_bytes = uint64_t(o.max_body_mb * (1 << 20));
  limits.max_bytes_in_flight = uint64_t(std::max(o.max_in_flight_mb, o.max_body_mb) * (1 << 20));
  limits.max_connections = o.max_connections;
  limits.head_timeout = std::chrono::milliseconds(int64_t(o.head_timeout_s * 1000));
  limits.transfer_timeout = std::chrono::milliseconds(int64_t(o.transfer_timeout_s * 1000));
  limits.min_bytes_per_s = uint64_t(o.min_kb_per_s * 1024);
  return limits;
}

Status serve_models(const Options& o) {
  if (o.tls_certificate.empty() != o.tls_key.empty())
    return Error{ErrorCode::kInvalidArgument, "TLS needs a certificate and its key",
                 "--tls-certificate, --tls-key", "Give both."};
  std::signal(SIGPIPE, SIG_IGN);
  frontend::FrontendOptions front;
  front.server = {"isoline", ISOLINE_VERSION};
  front.model_control = !o.no_model_control;
  front.host = o.host;
  front.threads = std::clamp(available_cores(), 1, 4);
  if (!o.token_file.empty()) {
    ISOLINE_ASSIGN(front.tokens, read_tokens(o.token_file));
  }
  front.only_known_hosts = front.tokens.empty() && (o.address == "::1" || o.address.starts_with("127."));
  front.host_names = o.host_names;
  std::shared_ptr<net::TlsContext> http_tls, grpc_tls;
  if (!o.tls_key.empty()) {
    ISOLINE_ASSIGN(http_tls, net::TlsContext::load(o.tls_certificate, o.tls_key, false));
    ISOLINE_ASSIGN(grpc_tls, net::TlsContext::load(o.tls_certificate, o.tls_key, true));
  }

  const BackendRegistry registry = builtin_backends();
  DecodeLimits decode;
  decode.max_pixels = o.max_pixels;
  decode.max_bytes = uint64_t(o.max_decode_mb * (1 << 20));
  ISOLINE_ASSIGN(const auto volume_models, jobs::find_volume_models(o.models));
  ISOLINE_ASSIGN(const auto jobs, open_jobs(o.jobs, volume_models, registry));
  net::Server server(limits_of(o));
  serve::Repository repository({o.models,
                                make_model_factory(registry, decode),
                                {o.max_queue, std::chrono::microseconds(o.run_here_us)},
                                volume_model_states(volume_models),
                                "Send scans to /v1/segmentations?model=NAME."});
  frontend::Frontend frontend(front, repository, jobs.get(), server);
  int http_port = -1, grpc_port = -1;
  if (o.http_port >= 0) {
    ISOLINE_ASSIGN(http_port, server.listen_http(o.address, o.http_port, http_tls, frontend.http(),
                                                 frontend.body_planner()));
  }
  if (o.grpc_port >= 0) {
    ISOLINE_ASSIGN(grpc_port, server.listen_grpc(o.address, o.grpc_port, grpc_tls, frontend.grpc()));
  }
  std::thread loop([&] {
    ::pthread_setname_np(::pthread_self(), "net");
    server.run();
  });
  // Health answers from here on; ready only once the models are.
  std::vector<Error> errors = repository.load_all();
  size_t volume_models_ready = 0;
  for (const jobs::VolumeModel& m : volume_models) {
    volume_models_ready += !m.error;
    if (m.error) errors.push_back(m.error->in(m.name));
  }
  for (const Error& e : errors) std::cerr << "isoline: " << e.to_string() << "\n";
  const auto served = repository.served();
  Status result;
  if (!errors.empty() && (o.strict || (served.empty() && !volume_models_ready))) {
    result = errors.front();
    server.drain(std::chrono::milliseconds(0));
  } else {
    frontend.set_ready(true);
    Json ready{{"address", o.address},
               {"http_port", http_port},
               {"grpc_port", grpc_port},
               {"models", Json::array()}};
    for (const auto& m : served)
      ready["models"].push_back(
          {{"name", m->name()}, {"version", m->version()}, {"platform", m->info().platform}});
    for (const jobs::VolumeModel& m : volume_models)
      if (!m.error)
        ready["models"].push_back(
            {{"name", m.name}, {"version", std::to_string(m.version)}, {"platform", kVolumePlatform}});
    std::cout << ready.dump(-1, ' ', false, Json::error_handler_t::replace)
              << std::endl;  // one line, for whoever started this
    while (!interrupted()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    frontend.set_ready(false);
    if (!o.quiet) std::cerr << "isoline: draining\n";
    if (jobs) jobs->stop_taking();
    server.drain(std::chrono::milliseconds(int64_t(o.drain_timeout_s * 1000)));
  }
  const auto deadline = std::chrono::steady_clock::now() +
                        std::chrono::milliseconds(result.ok() ? int64_t(o.drain_timeout_s * 1000) : 0);
  loop.join();
  repository.drain();
  if (jobs) jobs->stop(deadline);
  return result;
}

}  // namespace

Action add_serve(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("--models", o->models, "Folder of models: MODEL/config.pbtxt, MODEL/VERSION/...")
      ->required();
  app.add_option("--address", o->address, "Address to listen on; only this machine unless changed")
      ->capture_default_str();
  app.add_option("--http-port", o->http_port, "REST; 0: any free port, -1: none")
      ->check(CLI::Range(-1, 65535))
      ->capture_default_str();
  app.add_option("--grpc-port", o->grpc_port, "gRPC; 0: any free port, -1: none")
      ->check(CLI::Range(-1, 65535))
      ->capture_default_str();
  app.add_option("--tls-certificate", o->tls_certificate,
                 "PEM file with the certificate (and its chain), for both protocols");
  app.add_option("--tls-key", o->tls_key, "PEM file with the certificate's key");
  app.add_option("--token-file", o->token_file,
                 "Requests must carry one of this file's tokens (Authorization: Bearer ...)");
  app.add_option("--host-name", o->host_names,
                 "Without tokens and for this machine only: a name, beside localhost, that requests may be "
                 "for (repeatable)");
  app.add_flag("--no-model-control", o->no_model_control, "Clients may not load and unload models");
  app.add_flag("--strict", o->strict, "End if any model fails to load");
  app.add_option("--max-body-mb", o->max_body_mb, "Largest request, as sent and decompressed")
      ->check(CLI::Range(0.001, 4095.0))
      ->capture_default_str();
  app.add_option("--max-in-flight-mb", o->max_in_flight_mb, "All requests held together")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--max-connections", o->max_connections, "More are refused with 503")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  app.add_option("--run-here-us", o->run_here_us,
                 "Models without dynamic batching that usually run for less are run by the thread that reads "
                 "requests; 0: none")
      ->check(CLI::Range(0, 1000))
      ->capture_default_str();
  app.add_option("--max-queue", o->max_queue, "Requests that wait for one model")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  app.add_option("--max-pixels", o->max_pixels, "Refuse larger pictures")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 32))
      ->capture_default_str();
  app.add_option("--max-decode-mb", o->max_decode_mb, "Memory that decoding one picture may take")
      ->check(CLI::Range(1.0, 65536.0))
      ->capture_default_str();
  app.add_option("--head-timeout", o->head_timeout_s, "Seconds for a request's head")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  app.add_option("--transfer-timeout", o->transfer_timeout_s,
                 "Seconds for a body or an answer, longer for those at --min-kb-per-s")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  app.add_option("--min-kb-per-s", o->min_kb_per_s,
                 "Slower bodies and readers are given up after --transfer-timeout")
      ->check(CLI::Range(0.001, 1e9))
      ->capture_default_str();
  app.add_option("--drain-timeout", o->drain_timeout_s, "Seconds that running requests get after SIGTERM")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  app.add_option("--nvml", o->host.nvml_library, "NVML library that GPU figures of /metrics come from")
      ->capture_default_str();
  app.add_option("--rapl", o->host.rapl_root, "Folder of the powercap tree: CPU energy of /metrics")
      ->capture_default_str();
  add_job_options(app, o->jobs);
  app.add_flag("-q,--quiet", o->quiet, "No messages but errors");
  return [o]() -> Status { return serve_models(*o); };
}

}  // namespace isoline::cli
