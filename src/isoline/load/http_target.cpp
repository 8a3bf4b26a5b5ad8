#include "isoline/load/http_target.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <nlohmann/json.hpp>

#include "isoline/load/epoll.h"
#include "isoline/load/http_client.h"
#include "isoline/oip/json.h"
#include "isoline/stats/describe.h"

namespace isoline::load {
namespace {

using nlohmann::json;
constexpr size_t kKeepOfErrors = 4096;

Error bad_answer(const std::string& what, const std::string& path) {
  return {ErrorCode::kCorrupt, what, path, "Is this a server of the Open Inference Protocol?"};
}

// Requests as they go over the wire, one a payload.
using Wires = std::vector<std::vector<std::byte>>;

class HttpChannel final : public Channel {
 public:
  HttpChannel(Endpoint endpoint, Wires wires, size_t lanes)
      : endpoint_(std::move(endpoint)), wires_(std::move(wires)), lanes_(lanes) {}

  Status connect() {
    for (size_t i = 0; i < lanes_.size(); ++i) {
      ISOLINE_RETURN_IF_ERROR(reconnect(i));
      free_.push_back(i);
    }
    return {};
  }
  size_t capacity() const override { return lanes_.size(); }
  Status health() const override { return health_; }

  void send(uint64_t tag, size_t payload) override {
    const size_t i = free_.back();
    free_.pop_back();
    Lane& lane = lanes_[i];
    lane.tag = tag;
    lane.busy = true;
    if (!lane.connection) {
      if (Status s = reconnect(i); !s.ok()) {
        health_ = s;
        return fail(i, "no connection", s.error().to_string());
      }
    }
    lane.connection->start(wires_[payload], kKeepOfErrors);
    advance(i);
  }

  void wait(int64_t until_ns, std::vector<Completion>& done) override {
    if (completed_.empty())
      for (const epoll_event& e : poll_.wait(until_ns)) advance(size_t(e.data.u64));
    done.insert(done.end(), std::make_move_iterator(completed_.begin()),
                std::make_move_iterator(completed_.end()));
    completed_.clear();
  }

 private:
  struct Lane {
    std::unique_ptr<HttpConnection> connection;
    uint64_t tag = 0;
    bool busy = false, writing = false;
  };

  Status reconnect(size_t i) {
    auto connection = HttpConnection::connect(endpoint_);
    if (!connection.ok()) return connection.error();
    lanes_[i].connection = std::move(*connection);
    lanes_[i].writing = false;
    return poll_.add(lanes_[i].connection->fd(), i);
  }

  void advance(size_t i) {
    Lane& lane = lanes_[i];
    if (!lane.connection) return;
    if (!lane.busy) {  // the server ended an idle connection
      lane.connection.reset();
      return;
    }
    HttpConnection& c = *lane.connection;
    switch (c.progress()) {
      case HttpConnection::State::kBusy:
        if (c.wants_write() != lane.writing) poll_.watch(c.fd(), i, lane.writing = c.wants_write());
        return;
      case HttpConnection::State::kFailed:
        return fail(i, "connection lost", "the server closed the connection before its answer was complete");
      case HttpConnection::State::kDone:
        break;
    }
    const bool ok = c.status() == 200;
    completed_.push_back({lane.tag, c.sent_ns(), c.first_byte_ns(), c.end_ns(),
                          ok ? "" : "HTTP " + std::to_string(c.status()), ok ? "" : error_text(c.body())});
    if (lane.writing) poll_.watch(c.fd(), i, lane.writing = false);
    if (!c.reusable()) lane.connection.reset();
    lane.busy = false;
    free_.push_back(i);
  }

  void fail(size_t i, const char* status, std::string message) {
    completed_.push_back({lanes_[i].tag, 0, 0, now_ns(), status, std::move(message)});
    lanes_[i].connection.reset();
    lanes_[i].busy = false;
    free_.push_back(i);
  }

  const Endpoint endpoint_;
  const Wires wires_;
  Epoll poll_;
  std::vector<Lane> lanes_;
  std::vector<size_t> free_;
  std::vector<Completion> completed_;
  Status health_;
};

class HttpTarget final : public Target {
 public:
  HttpTarget(Endpoint endpoint, std::string model, std::string version, bool pictures)
      : endpoint_(std::move(endpoint)), pictures_(pictures) {
    path_ = "/v2/models/" + model + (version.empty() ? "" : "/versions/" + version);
    info_.model = std::move(model);
    info_.protocol = "HTTP/1.1";
    info_.tls = endpoint_.tls != nullptr;
    info_.boundary = pictures
                         ? "one request: from the first byte of a picture file sent to the answer's last byte"
                         : "one request: from the first byte of its tensors sent to the answer's last byte";
  }

  Status open() {
    ISOLINE_ASSIGN(const json server, get("/v2"));
    info_.server_name = server.value("name", "");
    info_.server_version = server.value("version", "");
    ISOLINE_ASSIGN(const json model, get(path_));
    if (model.contains("platform") && model["platform"].is_string()) info_.platform = model["platform"];
    if (model.contains("versions") && model["versions"].is_array() && !model["versions"].empty())
      info_.version = model["versions"].back().is_string() ? model["versions"].back().get<std::string>() : "";
    if (const auto config = get(path_ + "/config"); config.ok())
      info_.max_batch = config->value("max_batch_size", int64_t{0});
    ISOLINE_RETURN_IF_ERROR(read_tensors(model, "inputs", info_.inputs));
    return read_tensors(model, "outputs", info_.outputs);
  }

  const TargetInfo& info() const override { return info_; }

  Result<ServerCounts> counts() override {
    ISOLINE_ASSIGN(const json answer, get(path_ + "/stats"));
    if (!answer.contains("model_stats") || !answer["model_stats"].is_array() || answer["model_stats"].empty())
      return bad_answer("the statistics hold no model", path_ + "/stats");
    ServerCounts out;
    // Without a version named, requests go to the newest; others count nothing meanwhile.
    for (const json& m : answer["model_stats"]) {
      out.inferences += m.value("inference_count", uint64_t{0});
      out.executions += m.value("execution_count", uint64_t{0});
      const json s = m.value("inference_stats", json::object());
      const auto add = [&](const char* name, ServerCounts::Duration& d) {
        const json one = s.value(name, json::object());
        d.count += one.value("count", uint64_t{0});
        d.ns += one.value("ns", uint64_t{0});
      };
      add("success", out.success), add("fail", out.fail), add("queue", out.queue);
      add("compute_input", out.compute_input), add("compute_infer", out.compute_infer);
      add("compute_output", out.compute_output);
    }
    return out;
  }

  Result<double> round_trip_ms(int n) override {
    ISOLINE_ASSIGN(auto connection, HttpConnection::connect(endpoint_));
    const auto request = http_request(endpoint_, "GET", "/v2/health/live", "", {});
    std::vector<double> ms;
    for (int i = 0; i < n; ++i) {
      const int64_t start = now_ns();
      ISOLINE_ASSIGN(const auto answer, connection->request(request, endpoint_.timeout_s));
      if (answer.status != 200)
        return bad_answer("health is HTTP " + std::to_string(answer.status), "/v2/health/live");
      if (i) ms.push_back(double(connection->end_ns() - start) * 1e-6);  // the first also opens the way
    }
    return median(ms);
  }

  Result<std::unique_ptr<Channel>> open(std::shared_ptr<const Payloads> payloads, size_t lanes) override {
    Wires wires;
    for (const Payload& p : *payloads) wires.push_back(wire(p));
    auto channel = std::make_unique<HttpChannel>(endpoint_, std::move(wires), lanes);
    ISOLINE_RETURN_IF_ERROR(channel->connect());
    return std::unique_ptr<Channel>(std::move(channel));
  }

 private:
  // A GET on a connection kept for this.
  Result<json> get(const std::string& path) {
    const auto request = http_request(endpoint_, "GET", path, "", {});
    for (int attempt = 0;; ++attempt) {
      if (!control_) {
        ISOLINE_ASSIGN(control_, HttpConnection::connect(endpoint_));
      }
      const auto answer = control_->request(request, endpoint_.timeout_s);
      if (!answer.ok() || !control_->reusable()) control_.reset();
      if (!answer.ok()) {
        if (attempt == 0) continue;  // an idle connection that the server closed
        return answer.error().in(endpoint_.authority() + path);
      }
      if (answer->status != 200)
        return Error{answer->status == 404 || answer->status == 400 ? ErrorCode::kNotFound : ErrorCode::kIo,
                     "HTTP " + std::to_string(answer->status) + ": " + error_text(answer->body),
                     endpoint_.authority() + path, answer->status == 401 ? "Give --token-file." : ""};
      json parsed = json::parse(answer->body, nullptr, false);
      if (!parsed.is_object()) return bad_answer("the answer is no JSON object", path);
      return parsed;
    }
  }

  Status read_tensors(const json& model, const char* which, std::vector<TensorSpec>& out) {
    if (!model.contains(which) || !model[which].is_array())
      return bad_answer(std::string("the metadata have no ") + which, path_);
    for (const json& t : model[which]) {
      if (!t.is_object() || !t.contains("shape") || !t["shape"].is_array())
        return bad_answer("a tensor has no shape", path_);
      TensorSpec spec;
      spec.name = t.value("name", "");
      ISOLINE_ASSIGN(spec.type, parse_element_type(t.value("datatype", "")));
      for (const json& d : t["shape"]) {
        // Some servers write extents as text.
        if (!d.is_number_integer() && !d.is_string()) return bad_answer("a shape holds no numbers", path_);
        spec.shape.push_back(d.is_string() ? std::atoll(d.get<std::string>().c_str()) : d.get<int64_t>());
      }
      if (info_.max_batch > 0 && !spec.shape.empty()) spec.shape.erase(spec.shape.begin());
      out.push_back(std::move(spec));
    }
    return {};
  }

  std::vector<std::byte> wire(const Payload& p) const {
    if (pictures_) {
      const std::span<const std::byte> body = p.picture;
      return http_request(endpoint_, "POST", path_ + "/infer", "Content-Type: application/octet-stream\r\n",
                          {&body, 1});
    }
    oip::JsonWriter w;
    w.begin_object().key("inputs").begin_array();
    for (size_t i = 0; i < p.inputs.size(); ++i) {
      w.begin_object().key("name").string(info_.inputs[i].name);
      w.key("datatype").string(to_string(info_.inputs[i].type));
      w.key("shape").begin_array();
      for (int64_t d : p.inputs[i].shape) w.integer(d);
      w.end_array().key("parameters").begin_object().key("binary_data_size");
      w.unsigned_integer(p.inputs[i].data.size()).end_object().end_object();
    }
    w.end_array().key("parameters").begin_object().key("binary_data_output").boolean(true).end_object();
    w.end_object();
    const std::string head = w.take();
    std::vector<std::span<const std::byte>> body{std::as_bytes(std::span(head))};
    for (const OwnedTensor& t : p.inputs) body.emplace_back(t.data);
    return http_request(endpoint_, "POST", path_ + "/infer",
                        "Content-Type: application/octet-stream\r\nInference-Header-Content-Length: " +
                            std::to_string(head.size()) + "\r\n",
                        body);
  }

  const Endpoint endpoint_;
  const bool pictures_;
  std::string path_;
  TargetInfo info_;
  std::unique_ptr<HttpConnection> control_;
};

}  // namespace

Result<std::unique_ptr<Target>> open_http_target(const Endpoint& endpoint, const std::string& model,
                                                 const std::string& version, bool pictures) {
  auto target = std::make_unique<HttpTarget>(endpoint, model, version, pictures);
  ISOLINE_RETURN_IF_ERROR(target->open());
  return std::unique_ptr<Target>(std::move(target));
}

}  // namespace isoline::load
