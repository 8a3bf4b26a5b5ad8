#include "isoline/frontend/job_routes.h"

#include <charconv>
#include <cmath>
#include <ctime>
#include <limits>

#include <nlohmann/json.hpp>

#include "isoline/base/file.h"
#include "isoline/frontend/answers.h"

namespace isoline::frontend {
namespace {

using Json = nlohmann::ordered_json;
using net::HttpResponse;

constexpr size_t kListed = 100;  // jobs
constexpr uint64_t kMaxResultBytes = uint64_t{1} << 32;

HttpResponse answer(int status, const Json& json_value) {
  HttpResponse r = json(json_value.dump(-1, ' ', false, Json::error_handler_t::replace));
  r.status = status;
  return r;
}

HttpResponse refuse(const jobs::Refusal& refusal) {
  const auto status = [&] {
    switch (refusal.why) {
      case jobs::Refused::kWrong:
        return 400;
      case jobs::Refused::kUnknown:
        return 404;
      case jobs::Refused::kForbidden:
        return 403;
      case jobs::Refused::kNotYet:
        return 409;
      case jobs::Refused::kTooLarge:
        return 413;
      case jobs::Refused::kQueueFull:
        return 429;
      case jobs::Refused::kDiskFull:
        return 507;
      case jobs::Refused::kUnavailable:
        break;
    }
    return 503;
  }();
  HttpResponse r = failure(status, refusal.text);
  if (status == 429) r.headers.emplace_back("Retry-After", "10");
  return r;
}

// "2026-01-02T03:04:05.678Z"; null for never.
Json time_json(int64_t ms) {
  if (!ms) return nullptr;
  const std::time_t seconds = std::time_t(ms / 1000);
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  char text[40], fraction[8];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
  std::snprintf(fraction, sizeof fraction, ".%03dZ", int(ms % 1000));
  return std::string(text) + fraction;
}

Json job_json(const jobs::JobView& view) {
  const jobs::Job& job = view.job;
  Json j{{"id", job.id},
         {"model", job.model},
         {"status", jobs::to_string(job.status)},
         {"progress", view.progress},
         {"settings", {{"step", job.settings.step}, {"tta", job.settings.tta}}},
         {"created", time_json(job.created_ms)},
         {"started", time_json(job.started_ms)},
         {"finished", time_json(job.finished_ms)}};
  if (!job.error.empty()) j["error"] = job.error;
  if (!job.report.empty()) j["report"] = Json::parse(job.report, nullptr, false);
  return j;
}

HttpResponse accepted(const jobs::Outcome<jobs::JobView>& view) {
  if (!view.ok()) return refuse(view.refusal());
  HttpResponse r = answer(202, job_json(*view));
  r.headers.emplace_back("Location", "/v1/segmentations/" + view->job.id);
  return r;
}

Json model_json(const jobs::VolumeModel& m) {
  Json channels = Json::array(), labels = Json::object();
  for (const ChannelSpec& c : m.spec.channels) channels.push_back(c.name);
  for (const Region& r : m.spec.labels.foreground) labels[r.name] = r.labels;
  return {{"name", m.name},
          {"version", std::to_string(m.version)},
          {"dataset", m.spec.dataset_name},
          {"configuration", m.spec.configuration},
          {"channels", channels},
          {"labels", labels}};
}

struct Wanted {
  std::string model;
  jobs::JobSettings settings;
};
jobs::Refusal wrong(const std::string& text) {
  return {jobs::Refused::kWrong, text};
}

std::optional<jobs::Refusal> read_step(const std::string& text, double& step) {
  const auto r = std::from_chars(text.data(), text.data() + text.size(), step);
  if (r.ec == std::errc() && r.ptr == text.data() + text.size() && std::isfinite(step)) return std::nullopt;
  return wrong("step is no number");
}

// "model=m&step=0.5&tta=none".
std::optional<jobs::Refusal> read_query(std::string_view query, Wanted& wanted) {
  while (!query.empty()) {
    const size_t end = std::min(query.find('&'), query.size());
    const std::string_view pair = query.substr(0, end);
    query.remove_prefix(std::min(end + 1, query.size()));
    const size_t equals = std::min(pair.find('='), pair.size());
    const auto name = net::percent_decode(pair.substr(0, equals));
    const auto value = net::percent_decode(pair.substr(std::min(equals + 1, pair.size())));
    if (!name || !value) return wrong("the query is malformed");
    if (*name == "model")
      wanted.model = *value;
    else if (*name == "tta")
      wanted.settings.tta = *value;
    else if (*name == "step") {
      if (auto refusal = read_step(*value, wanted.settings.step)) return refusal;
    } else {
      return wrong("'" + name->substr(0, 64) + "' is no parameter: there are model, step and tta");
    }
  }
  return std::nullopt;
}

// {"model": "m", "file": "/data/scan.nii.gz", "step": 0.5, "tta": "none"}.
std::optional<jobs::Refusal> read_json(std::string_view body, Wanted& wanted, std::string& file) {
  const Json j = Json::parse(body, nullptr, false);
  if (!j.is_object()) return wrong("the body is no JSON object");
  for (const auto& [key, value] : j.items()) {
    const bool text = key == "model" || key == "file" || key == "tta";
    if (!text && key != "step")
      return wrong("'" + key.substr(0, 64) + "' is no field: there are model, file, step and tta");
    if (text ? !value.is_string() : !value.is_number())
      return wrong(key + " must be a " + (text ? "string" : "number"));
    if (key == "model") wanted.model = value.get<std::string>();
    if (key == "file") file = value.get<std::string>();
    if (key == "tta") wanted.settings.tta = value.get<std::string>();
    if (key == "step") wanted.settings.step = value.get<double>();
  }
  if (file.empty()) return wrong("file is missing");
  return std::nullopt;
}

bool is_json(const net::HttpHead& head) {
  return media_type(head.header("content-type")) == "application/json";
}

}  // namespace

// A scan on its way to the disk. Its place in the queue is taken with its first piece, in the disk's threads.
class JobRoutes::ScanSink final : public net::BodySink, public std::enable_shared_from_this<ScanSink> {
 public:
  ScanSink(JobRoutes& routes, Wanted wanted, std::optional<uint64_t> bytes)
      : routes_(routes), wanted_(std::move(wanted)), bytes_(bytes) {}
  // What was written of a scan that did not come whole goes; that takes its time for large files.
  ~ScanSink() override {
    if (upload_) routes_.disk_.post([upload = std::move(upload_)]() mutable { upload.reset(); });
  }

  void take(std::shared_ptr<const net::Bytes> piece,
            std::function<void(std::optional<HttpResponse>)> taken) override {
    const bool posted = routes_.disk_.post([self = shared_from_this(), piece = std::move(piece), taken] {
      std::optional<jobs::Refusal> refusal;
      if (!self->upload_) refusal = self->begin();
      if (!refusal) refusal = self->upload_->write(piece->span());
      taken(refusal ? std::optional(refuse(*refusal)) : std::nullopt);
    });
    if (!posted) taken(failure(503, "too many scans are on their way"));
  }

  // In the disk's threads, once all of it was taken.
  HttpResponse accept() {
    if (!upload_)
      if (const auto refusal = begin()) return refuse(*refusal);  // an empty body
    auto upload = std::move(upload_);
    upload_ = nullptr;
    return accepted(routes_.service_.accept(*upload));
  }

 private:
  std::optional<jobs::Refusal> begin() {
    auto begun = routes_.service_.begin(wanted_.model, wanted_.settings, bytes_);
    if (!begun.ok()) return begun.refusal();
    upload_ = std::move(*begun);
    return std::nullopt;
  }
  JobRoutes& routes_;
  const Wanted wanted_;
  const std::optional<uint64_t> bytes_;
  std::shared_ptr<jobs::Upload> upload_;
};

JobRoutes::JobRoutes(jobs::JobService& service, TaskPool& pool)
    : service_(service), pool_(pool), disk_(2, 4096) {}

bool JobRoutes::is_path(const std::vector<std::string>& path) {
  return path.size() >= 2 && path[0] == "v1" && path[1] == "segmentations";
}

net::BodyPlan JobRoutes::plan(const net::HttpHead& head, const std::vector<std::string>& path) {
  net::BodyPlan plan;
  if (path.size() != 2 || head.method != "POST" || is_json(head)) return plan;
  plan.max_bytes = service_.options().max_volume_bytes;
  const std::string type = media_type(head.header("content-type")), coding(head.header("content-encoding"));
  if (type.starts_with("multipart/")) {
    plan.refusal = failure(415, "send the scan itself as the body, not a form");
  } else if (!coding.empty() && coding != "identity") {
    plan.refusal = failure(415, "send a .nii.gz as it is, without Content-Encoding");
  } else {
    Wanted wanted{"", service_.options().defaults};
    auto refusal = read_query(head.query, wanted);
    if (!refusal && wanted.model.empty()) refusal = wrong("say which model: /v1/segmentations?model=NAME");
    if (!refusal) refusal = service_.check_request(wanted.model, wanted.settings, head.content_length);
    if (refusal)
      plan.refusal = refuse(*refusal);
    else
      plan.sink = std::make_shared<ScanSink>(*this, std::move(wanted), head.content_length);
  }
  return plan;
}

void JobRoutes::in_pool(TaskPool& pool, const std::shared_ptr<net::HttpExchange>& exchange,
                        std::function<HttpResponse()> work) {
  const bool taken = pool.post([exchange, work = std::move(work)] {
    try {
      exchange->respond(work());
    } catch (const std::bad_alloc&) {
      exchange->respond(failure(503, "memory ran out"));
    } catch (const std::exception& e) {
      exchange->respond(failure(500, e.what()));
    }
  });
  if (!taken) exchange->respond(failure(503, "too many requests wait already"));
}

void JobRoutes::handle(const std::shared_ptr<net::HttpExchange>& exchange,
                       const std::vector<std::string>& path) {
  const std::string& method = exchange->head().method;
  const bool get = method == "GET" || method == "HEAD";
  if (path.size() == 2) {
    if (get) return list(exchange);
    if (method != "POST") return exchange->respond(not_allowed("GET, POST"));
    if (!exchange->body_sink()) return accept_named_file(exchange);
    const auto sink = std::static_pointer_cast<ScanSink>(exchange->body_sink());
    return in_pool(disk_, exchange, [sink] { return sink->accept(); });
  }
  const std::string id = path[2];
  if (path.size() == 3) {
    if (get)
      return in_pool(pool_, exchange, [this, id] {
        const auto view = service_.find(id);
        return view.ok() ? answer(200, job_json(*view)) : refuse(view.refusal());
      });
    if (method != "DELETE") return exchange->respond(not_allowed("GET, DELETE"));
    return in_pool(disk_, exchange, [this, id] {
      const auto left = service_.remove(id);
      if (!left.ok()) return refuse(left.refusal());
      if (!*left) return nothing(204);
      return answer((*left)->job.status == jobs::JobStatus::kRunning ? 202 : 200, job_json(**left));
    });
  }
  if (path.size() == 4 && (path[3] == "labels" || path[3] == "overlay.png")) {
    if (!get) return exchange->respond(not_allowed("GET"));
    return send_file(exchange, id, path[3] == "labels");
  }
  exchange->respond(failure(404, "nothing is served at this path"));
}

void JobRoutes::accept_named_file(const std::shared_ptr<net::HttpExchange>& exchange) {
  in_pool(disk_, exchange, [this, exchange] {
    Wanted wanted{"", service_.options().defaults};
    std::string file;
    auto refusal = read_query(exchange->head().query, wanted);
    if (!refusal) refusal = read_json(text_of(exchange->body()), wanted, file);
    if (refusal) return refuse(*refusal);
    return accepted(service_.accept_file(wanted.model, wanted.settings, file));
  });
}

void JobRoutes::list(const std::shared_ptr<net::HttpExchange>& exchange) {
  in_pool(pool_, exchange, [this] {
    const auto views = service_.newest(kListed);
    if (!views.ok()) return refuse(views.refusal());
    Json j{{"models", Json::array()}, {"jobs", Json::array()}};
    for (const jobs::VolumeModel& m : service_.models())
      if (!m.error) j["models"].push_back(model_json(m));
    for (const jobs::JobView& v : *views) j["jobs"].push_back(job_json(v));
    return answer(200, j);
  });
}

void JobRoutes::send_file(const std::shared_ptr<net::HttpExchange>& exchange, const std::string& id,
                          bool labels) {
  in_pool(pool_, exchange, [this, id, labels] {
    const auto file = labels ? service_.labels_file(id) : service_.picture_file(id);
    if (!file.ok()) return refuse(file.refusal());
    auto bytes = read_whole_file(*file, kMaxResultBytes);
    if (!bytes.ok())  // removed a moment ago, or the disk is broken
      return bytes.error().code == ErrorCode::kNotFound ? failure(404, "the result is not there any more")
                                                        : failure(503, "the result cannot be read");
    HttpResponse r;
    r.content_type = labels ? "application/gzip" : "image/png";
    if (labels)
      r.headers.emplace_back("Content-Disposition", "attachment; filename=\"labels-" + id + ".nii.gz\"");
    r.headers.emplace_back("X-Content-Type-Options", "nosniff");
    const auto held = std::make_shared<const Buffer<std::byte>>(std::move(*bytes));
    r.segments.push_back({held, std::span<const std::byte>(held->data(), held->size())});
    return r;
  });
}

}  // namespace isoline::frontend
