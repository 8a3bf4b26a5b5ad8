// isoline bench: a model under load, behind a server's URL or in this process.
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <iostream>

#include "bench_output.h"
#include "cli.h"
#include "isoline/backends/registry/registry.h"
#include "isoline/base/file.h"
#include "isoline/bench/page.h"
#include "isoline/lab/sweep.h"
#include "isoline/load/client_socket.h"
#include "isoline/load/http_target.h"
#include "isoline/load/local_target.h"
#include "isoline/load/point.h"
#include "isoline/model_loader/model_loader.h"
#include "isoline/report/html.h"
#include "isoline_commit.h"

namespace isoline::cli {
namespace {

namespace fs = std::filesystem;

constexpr int kRoundTrips = 51;

struct Options {
  Output output;
  std::string target, model, version, token_file, json_file, html_file, title;
  load::ClientTls tls;
  std::vector<int64_t> batches{1};
  std::vector<size_t> concurrency;
  std::vector<double> rates;
  std::string arrivals = "poisson", data = "random";
  std::vector<std::string> shapes, pictures;
  bool bare = false, no_meter = false;
  int pool = 4, string_bytes = 16, max_windows = 10;
  size_t max_connections = 64;
  uint64_t seed = 1;
  double warmup_s = 1, window_s = 2, stability_percent = 10, timeout_s = 30;
  std::optional<double> price_per_hour;
  std::string currency = "USD";
};

std::string now_utc() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

// The first token of a file as `isoline serve` reads them.
Result<std::string> read_token(const std::string& file) {
  ISOLINE_ASSIGN(const auto bytes, read_whole_file(file, 65536));
  std::string line;
  for (size_t i = 0; i <= bytes.size(); ++i) {
    const char c = i < bytes.size() ? char(bytes[i]) : '\n';
    if (c != '\n' && c != '\r') {
      line += c;
      continue;
    }
    if (!line.empty() && line[0] != '#') {
      const bool printable = std::all_of(line.begin(), line.end(), [](char t) { return t > ' ' && t < 127; });
      if (printable) return line;
      return Error{ErrorCode::kInvalidArgument, "the token has characters that no header may hold", file, ""};
    }
    line.clear();
  }
  return Error{ErrorCode::kInvalidArgument, "holds no token", file, "Write one a line."};
}

// NAME:3,224,224
Result<std::map<std::string, std::vector<int64_t>>> parse_shapes(const std::vector<std::string>& texts) {
  std::map<std::string, std::vector<int64_t>> out;
  for (const std::string& text : texts) {
    const size_t colon = text.rfind(':');
    const auto wrong = [&] {
      return Error{ErrorCode::kInvalidArgument, "'" + text + "' is no shape", "--shape",
                   "Write NAME:D,D,..., without the batch axis."};
    };
    if (colon == std::string::npos || colon == 0) return wrong();
    std::vector<int64_t> shape;
    for (const std::string& part : split_commas(text.substr(colon + 1))) {
      char* end = nullptr;
      const long long d = std::strtoll(part.c_str(), &end, 10);
      if (*end || d < 1) return wrong();
      shape.push_back(d);
    }
    out[text.substr(0, colon)] = std::move(shape);
  }
  return out;
}

Result<load::PayloadOptions> payload_options(const Options& o) {
  load::PayloadOptions p;
  p.seed = o.seed;
  p.pool = o.pool;
  p.string_bytes = o.string_bytes;
  p.pictures = o.pictures;
  if (o.data == "zero")
    p.fill = load::PayloadOptions::Fill::kZero;
  else if (o.data != "random")
    p.npy_file = o.data;
  ISOLINE_ASSIGN(p.shapes, parse_shapes(o.shapes));
  return p;
}

std::string payload_name(const Options& o) {
  if (!o.pictures.empty())
    return std::to_string(o.pictures.size()) + (o.pictures.size() == 1 ? " picture file" : " picture files");
  if (o.data == "random") return "random, seed " + std::to_string(o.seed);
  return o.data == "zero" ? "zeros" : fs::path(o.data).filename().string();
}

Status check(const Options& o) {
  const auto wrong = [](const char* what, const char* option) {
    return Error{ErrorCode::kInvalidArgument, what, option, ""};
  };
  if (!o.concurrency.empty() && !o.rates.empty())
    return wrong("a load is a closed loop or an open one", "--concurrency, --rate");
  if (load::is_url(o.target)) {
    if (o.model.empty()) return wrong("which of the server's models is to be measured?", "--model");
    if (o.bare) return wrong("a server's sessions cannot be reached", "--bare");
    if (o.target.starts_with("grpc") && !o.pictures.empty())
      return wrong("pictures are sent over REST: use http:// or https://", "--image");
  } else {
    if (!o.model.empty() || !o.version.empty())
      return wrong("is for servers; give the model's folder", "--model");
    if (o.bare && !o.rates.empty()) return wrong("sessions alone have no queue; use --concurrency", "--bare");
    if (o.bare && !o.pictures.empty()) return wrong("sessions take tensors only", "--bare, --image");
  }
  return {};
}

// What is measured, and whatever must live as long.
struct Opened {
  std::unique_ptr<BackendRegistry> registry;
  std::unique_ptr<serve::Repository> repository;
  std::unique_ptr<load::Target> target;
  bool this_machine = true, grpc = false;
};

Result<Opened> open_local(const Options& o) {
  Opened out;
  std::error_code ec;
  fs::path folder = fs::canonical(o.target, ec);
  if (ec || !fs::is_directory(folder))
    return Error{ErrorCode::kNotFound, "is neither a URL nor a model's folder", o.target,
                 "Write http://HOST:PORT, grpc://HOST:PORT or the folder of one model."};
  const std::string name = folder.filename().string();
  out.registry = std::make_unique<BackendRegistry>(builtin_backends());
  serve::RepositoryOptions options;
  options.root = folder.parent_path().string();
  options.open_model = make_model_factory(*out.registry, DecodeLimits{});
  out.repository = std::make_unique<serve::Repository>(std::move(options));
  ISOLINE_RETURN_IF_ERROR(out.repository->load(name));
  ISOLINE_ASSIGN(auto model, out.repository->find(name, ""));
  ISOLINE_ASSIGN(out.target, o.bare ? load::open_session_target(model)
                                    : load::open_core_target(model, !o.pictures.empty()));
  return out;
}

Result<Opened> open_remote(const Options& o) {
  Opened out;
  ISOLINE_ASSIGN(load::Endpoint endpoint, load::parse_endpoint(o.target, o.tls));
  endpoint.timeout_s = o.timeout_s;
  if (!o.token_file.empty()) {
    ISOLINE_ASSIGN(endpoint.token, read_token(o.token_file));
  }
  out.this_machine = load::is_this_machine(endpoint);
  out.grpc = endpoint.protocol == load::Endpoint::Protocol::kGrpc;
  ISOLINE_ASSIGN(out.target, out.grpc
                                 ? load::open_grpc_target(endpoint, o.model, o.version)
                                 : load::open_http_target(endpoint, o.model, o.version, !o.pictures.empty()));
  return out;
}

// The meter, or why there is none; and what to call this machine.
struct Metering {
  std::unique_ptr<measure::Meter> meter;
  std::string why_not, source, device;
};
Metering open_meter(const Options& o, bool this_machine, const std::map<std::string, std::string>& machine) {
  Metering out;
  const auto cpu = machine.find("cpu");
  std::string gpus;
  out.device = this_machine ? (cpu == machine.end() ? "CPU" : cpu->second) : "another machine";
  if (o.no_meter)
    out.why_not = "--no-meter";
  else if (!this_machine)
    out.why_not = "the server is on another machine";
  if (out.why_not.empty()) {
    auto meter = measure::Meter::open();
    if (meter.ok())
      out.meter = std::move(*meter);
    else
      out.why_not = meter.error().to_string();
  }
  if (out.meter)
    for (const measure::SourceInfo& s : out.meter->sources()) {
      if (s.available && s.kind == measure::kKindGpu) gpus += (gpus.empty() ? "" : ", ") + s.name;
      const std::string one =
          s.available ? s.name + ": " + s.counter : s.name + " not available: " + s.reason;
      out.source += (out.source.empty() ? "" : "; ") + one;
    }
  if (!gpus.empty()) out.device = gpus;
  if (out.source.empty()) out.source = "not available: " + out.why_not;
  return out;
}

std::vector<bench::Tensor> tensors(const std::vector<TensorSpec>& specs) {
  std::vector<bench::Tensor> out;
  for (const TensorSpec& s : specs) out.push_back({s.name, to_string(s.type), s.shape});
  return out;
}

bench::BenchResult describe(const Options& o, load::Target& target) {
  const load::TargetInfo& info = target.info();
  bench::BenchResult r;
  r.created = now_utc();
  r.isoline_version = ISOLINE_VERSION;
  r.commit = ISOLINE_COMMIT;
  r.url = load::is_url(o.target) ? o.target : fs::path(o.target).filename().string();
  r.protocol = info.protocol;
  r.tls = info.tls;
  r.boundary = info.boundary;
  r.server_name = info.server_name;
  r.server_version = load::is_url(o.target) ? info.server_version : ISOLINE_VERSION;
  r.model = info.model;
  r.model_version = info.version;
  r.platform = info.platform;
  r.max_batch = info.max_batch;
  r.inputs = tensors(info.inputs);
  r.outputs = tensors(info.outputs);
  r.payload = payload_name(o);
  r.machine = lab::machine_facts();
  r.price_per_hour = o.price_per_hour;
  r.currency = o.currency;
  r.warmup_s = o.warmup_s;
  r.window_s = o.window_s;
  r.stability = o.stability_percent / 100;
  r.seed = o.seed;
  const auto rtt = target.round_trip_ms(kRoundTrips);
  r.round_trip_ms = rtt.ok() ? Reading::of(*rtt) : Reading::unavailable(rtt.error().message);
  return r;
}

// Every load asked for, in order of batch size.
std::vector<load::PointOptions> plans(const Options& o, const Opened& opened, const Metering& metering) {
  std::vector<load::PointOptions> out;
  load::PointOptions p;
  p.meter = metering.meter.get();
  p.why_no_meter = metering.why_not;
  p.price_per_hour = o.price_per_hour;
  p.plan.warmup_s = o.warmup_s;
  p.plan.window_s = o.window_s;
  p.plan.max_windows = o.max_windows;
  p.plan.stability = o.stability_percent / 100;
  p.plan.answer_timeout_s = o.timeout_s;
  p.plan.seed = o.seed;
  p.plan.cancel = &interrupted();
  p.plan.arrivals = o.arrivals == "poisson" ? load::Arrivals::kPoisson : load::Arrivals::kConstant;
  for (int64_t batch : o.batches) {
    p.batch = batch;
    for (double rate : o.rates) {
      p.plan.open_loop = true;
      p.plan.rate = rate;
      p.lanes = opened.grpc || !load::is_url(o.target) ? std::max<size_t>(256, o.max_connections)
                                                       : o.max_connections;
      out.push_back(p);
    }
    if (!o.rates.empty()) continue;
    for (size_t concurrency : o.concurrency.empty() ? std::vector<size_t>{1} : o.concurrency) {
      p.plan.concurrency = p.lanes = concurrency;
      out.push_back(p);
    }
  }
  return out;
}

void add_remarks(bench::BenchResult& r) {
  for (const bench::Point& p : r.points) {
    if (!p.stable) r.remarks.push_back(bench::load_name(p) + " is not stable: " + p.why_unstable);
    for (const auto& [status, count] : p.errors) {
      const auto said = p.error_examples.find(status);
      r.remarks.push_back(
          bench::load_name(p) + ": " + std::to_string(count) + " of " + std::to_string(p.sent) +
          " requests ended with " + status +
          (said == p.error_examples.end() || said->second.empty() ? "" : " (" + said->second + ")"));
    }
    if (p.server_requests.ok() && *p.server_requests != double(p.answered))
      r.remarks.push_back(bench::load_name(p) + ": the server counted " +
                          std::to_string(uint64_t(*p.server_requests)) + " requests, " +
                          std::to_string(p.answered) +
                          " were answered here: others use the model, or answers were lost");
  }
}

Status run_bench(const Options& o) {
  ISOLINE_RETURN_IF_ERROR(check(o));
  std::signal(SIGPIPE, SIG_IGN);
  ISOLINE_ASSIGN(const load::PayloadOptions payload, payload_options(o));
  ISOLINE_ASSIGN(const Opened opened, load::is_url(o.target) ? open_remote(o) : open_local(o));
  bench::BenchResult result = describe(o, *opened.target);
  const Metering metering = open_meter(o, opened.this_machine, result.machine);
  result.energy_source = metering.source;
  result.device = metering.device;
  std::shared_ptr<const load::Payloads> payloads;
  int64_t made_for = 0;
  const auto loads = plans(o, opened, metering);
  for (const load::PointOptions& p : loads) {
    if (!payloads || made_for != p.batch) {
      payloads.reset();
      ISOLINE_ASSIGN(auto made,
                     load::make_payloads(opened.target->info().inputs, result.max_batch, p.batch, payload));
      payloads = std::make_shared<const load::Payloads>(std::move(made));
      made_for = p.batch;
      result.request_bytes = int64_t(load::byte_size(payloads->front())) / p.batch;
    }
    ISOLINE_ASSIGN(bench::Point point, load::measure_point(*opened.target, payloads, p));
    if (o.output.progress() && !o.output.json)
      std::cerr << bench::load_name(point) << ": " << std::llround(point.inferences_per_s.value)
                << " inferences/s" << (point.stable ? "" : ", not stable") << "\n";
    result.points.push_back(std::move(point));
  }
  add_remarks(result);
  if (!o.json_file.empty())
    ISOLINE_RETURN_IF_ERROR(write_file_atomically(o.json_file, bench::to_json_text(result)));
  if (!o.html_file.empty())
    ISOLINE_RETURN_IF_ERROR(
        write_file_atomically(o.html_file, report::render_html(bench::make_page(result, o.title))));
  if (o.output.json)
    std::cout << bench::to_json_text(result);
  else if (!o.output.quiet)
    print_bench(result);
  return {};
}

}  // namespace

Action add_bench(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option(
         "target", o->target,
         "http://HOST:PORT, https://, grpc://, grpcs:// of any server of the Open Inference Protocol, or the "
         "folder of one model, which then runs in this process")
      ->required()
      ->type_name("URL|MODEL");
  app.add_option("-m,--model", o->model, "Which of the server's models");
  app.add_option("--model-version", o->version, "Which version of it (default: the server's choice)");
  app.add_flag("--bare", o->bare, "In this process: batches on the model's sessions alone, no queue");
  app.add_option("--concurrency", o->concurrency,
                 "Closed loop: requests always under way, e.g. 1,2,4,8 (default: 1)")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096));
  app.add_option("--rate", o->rates, "Open loop: requests a second, whatever the server does, e.g. 50,100")
      ->delimiter(',')
      ->check(CLI::Range(.001, 1e6));
  app.add_option("--arrivals", o->arrivals, "Open loop: poisson or constant")
      ->check(CLI::IsMember({"poisson", "constant"}))
      ->capture_default_str();
  app.add_option("--batch", o->batches, "Samples a request, e.g. 1,4,32")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, int64_t{65536}))
      ->capture_default_str();
  app.add_option("--max-connections", o->max_connections,
                 "Open loop over REST: connections at most; requests that are "
                 "due while all are in use wait, and that counts")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--warmup", o->warmup_s, "Seconds of load before anything counts")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  app.add_option("--window", o->window_s, "Seconds of one window; it holds ten requests at least")
      ->check(CLI::Range(0.05, 3600.0))
      ->capture_default_str();
  app.add_option("--max-windows", o->max_windows, "Windows before a load is called not stable")
      ->check(CLI::Range(3, 1000))
      ->capture_default_str();
  app.add_option(
         "--stability", o->stability_percent,
         "Percent that throughput and mean latency of the last three windows may differ from their mean")
      ->check(CLI::Range(0.1, 100.0))
      ->capture_default_str();
  app.add_option("--data", o->data, "random, zero, or a .npy file with samples of the model's only input")
      ->capture_default_str();
  app.add_option("--shape", o->shapes, "NAME:D,D,... where the model leaves extents open");
  app.add_option("--image", o->pictures, "Picture files, sent as they are, one a request")->type_name("FILE");
  app.add_option("--string-bytes", o->string_bytes, "Length of the elements of BYTES inputs")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  app.add_option("--pool", o->pool, "Different requests, made once and sent in turn")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--seed", o->seed, "Of data and arrivals")->capture_default_str();
  app.add_option("--timeout", o->timeout_s, "Seconds for connecting and for one answer")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  app.add_option("--token-file", o->token_file, "Its first token is sent as Authorization: Bearer TOKEN");
  app.add_option("--ca-file", o->tls.ca_file, "PEM certificates to trust (default: the system's)");
  app.add_flag("--any-certificate", o->tls.any_certificate, "Do not check the server's certificate");
  app.add_flag("--no-meter", o->no_meter, "Do not read energy and memory");
  app.add_option("--price-per-hour", o->price_per_hour, "What an hour of the machine costs")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--currency", o->currency, "Label of the price")->capture_default_str();
  app.add_option("-o,--output", o->json_file, "JSON file for 'isoline compare'");
  app.add_option("--html", o->html_file, "One self-contained page");
  app.add_option("--title", o->title, "Title of the page");
  add_output_options(app, o->output);
  return [o]() -> Status { return run_bench(*o); };
}

}  // namespace isoline::cli
