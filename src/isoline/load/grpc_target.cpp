#include <algorithm>

#include "isoline/load/epoll.h"
#include "isoline/load/grpc_client.h"
#include "isoline/load/http_target.h"
#include "isoline/oip/wire.h"
#include "isoline/stats/describe.h"

namespace isoline::load {
namespace {

using oip::WireField;
using oip::WireReader;
using oip::WireWriter;

constexpr size_t kStreamsPerConnection = 64;
constexpr const char* kService = "/inference.GRPCInferenceService/";

// Calls body(field) for each field of a message.
template <class Body>
Status each_field(std::span<const std::byte> bytes, const Body& body) {
  WireReader reader(bytes);
  WireField f;
  for (;;) {
    ISOLINE_ASSIGN(const bool more, reader.next(f));
    if (!more) return {};
    ISOLINE_RETURN_IF_ERROR(body(f));
  }
}

class GrpcChannel final : public Channel {
 public:
  GrpcChannel(Endpoint endpoint, std::vector<SharedBytes> messages, size_t lanes)
      : endpoint_(std::move(endpoint)),
        messages_(std::move(messages)),
        lanes_(lanes),
        connections_((lanes + kStreamsPerConnection - 1) / kStreamsPerConnection) {}

  Status connect() {
    for (size_t i = 0; i < connections_.size(); ++i) ISOLINE_RETURN_IF_ERROR(reconnect(i));
    return {};
  }
  size_t capacity() const override { return lanes_; }
  Status health() const override { return health_; }

  void send(uint64_t tag, size_t payload) override {
    // The connection with the fewest calls under way.
    size_t i = 0;
    for (size_t k = 1; k < connections_.size(); ++k)
      if (connections_[k].calls < connections_[i].calls) i = k;
    if (!connections_[i].connection) {
      if (Status s = reconnect(i); !s.ok()) {
        health_ = s;
        completed_.push_back({tag, 0, 0, now_ns(), "no connection", s.error().to_string()});
        return;
      }
    }
    ++connections_[i].calls;
    connections_[i].connection->start(tag, path_, messages_[payload], false);
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
  struct Line {
    std::unique_ptr<GrpcConnection> connection;
    size_t calls = 0;
    bool writing = false;
  };

  Status reconnect(size_t i) {
    ISOLINE_ASSIGN(connections_[i].connection, GrpcConnection::connect(endpoint_));
    connections_[i].writing = false;
    return poll_.add(connections_[i].connection->fd(), i);
  }

  void advance(size_t i) {
    Line& line = connections_[i];
    if (!line.connection) return;
    const bool alive = line.connection->progress(done_);
    line.calls -= std::min(line.calls, done_.size());
    for (GrpcDone& d : done_)
      completed_.push_back(
          {d.tag, d.sent_ns, d.first_byte_ns, d.end_ns, std::move(d.error), std::move(d.message)});
    done_.clear();
    if (!alive) {
      line.connection.reset();
      line.calls = 0;
      return;
    }
    if (line.connection->wants_write() != line.writing)
      poll_.watch(line.connection->fd(), i, line.writing = line.connection->wants_write());
  }

  const Endpoint endpoint_;
  const std::string path_ = std::string(kService) + "ModelInfer";
  const std::vector<SharedBytes> messages_;
  const size_t lanes_;
  Epoll poll_;
  std::vector<Line> connections_;
  std::vector<GrpcDone> done_;
  std::vector<Completion> completed_;
  Status health_;
};

class GrpcTarget final : public Target {
 public:
  GrpcTarget(Endpoint endpoint, std::string model, std::string version)
      : endpoint_(std::move(endpoint)), asked_version_(std::move(version)) {
    info_.model = std::move(model);
    info_.protocol = "gRPC";
    info_.tls = endpoint_.tls != nullptr;
    info_.boundary = "one request: from the first byte of its tensors sent to the answer's last byte";
  }

  Status open() {
    ISOLINE_ASSIGN(const auto server, call("ServerMetadata", ""));
    ISOLINE_RETURN_IF_ERROR(each_field(server, [&](const WireField& f) -> Status {
      if (f.id == 1) info_.server_name = f.text();
      if (f.id == 2) info_.server_version = f.text();
      return {};
    }));
    if (const auto config = call("ModelConfig", model_name()); config.ok())
      ISOLINE_RETURN_IF_ERROR(each_field(*config, [&](const WireField& f) -> Status {
        if (f.id != 1) return {};
        return each_field(f.bytes, [&](const WireField& c) -> Status {
          if (c.id == 4) info_.max_batch = int64_t(c.number);
          return {};
        });
      }));
    ISOLINE_ASSIGN(const auto model, call("ModelMetadata", model_name()));
    return each_field(model, [&](const WireField& f) -> Status {
      if (f.id == 2) info_.version = f.text();
      if (f.id == 3) info_.platform = f.text();
      if (f.id == 4 || f.id == 5) return read_tensor(f.bytes, f.id == 4 ? info_.inputs : info_.outputs);
      return {};
    });
  }

  const TargetInfo& info() const override { return info_; }

  Result<ServerCounts> counts() override {
    ISOLINE_ASSIGN(const auto answer, call("ModelStatistics", model_name()));
    ServerCounts out;
    const auto add = [](std::span<const std::byte> bytes, ServerCounts::Duration& d) {
      return each_field(bytes, [&](const WireField& f) -> Status {
        if (f.id == 1) d.count += f.number;
        if (f.id == 2) d.ns += f.number;
        return {};
      });
    };
    ServerCounts::Duration* durations[] = {&out.success,       &out.fail,          &out.queue,
                                           &out.compute_input, &out.compute_infer, &out.compute_output};
    ISOLINE_RETURN_IF_ERROR(each_field(answer, [&](const WireField& m) -> Status {
      if (m.id != 1) return {};
      return each_field(m.bytes, [&](const WireField& f) -> Status {
        if (f.id == 4) out.inferences += f.number;
        if (f.id == 5) out.executions += f.number;
        if (f.id != 6) return {};
        return each_field(f.bytes, [&](const WireField& s) -> Status {
          return s.id >= 1 && s.id <= 6 ? add(s.bytes, *durations[s.id - 1]) : Status();
        });
      });
    }));
    return out;
  }

  Result<double> round_trip_ms(int n) override {
    std::vector<double> ms;
    for (int i = 0; i < n; ++i) {
      const int64_t start = now_ns();
      ISOLINE_RETURN_IF_ERROR(call("ServerLive", ""));
      if (i) ms.push_back(double(now_ns() - start) * 1e-6);  // the first also opens the way
    }
    return median(ms);
  }

  Result<std::unique_ptr<Channel>> open(std::shared_ptr<const Payloads> payloads, size_t lanes) override {
    std::vector<SharedBytes> messages;
    for (const Payload& p : *payloads) messages.push_back(message(p));
    auto channel = std::make_unique<GrpcChannel>(endpoint_, std::move(messages), lanes);
    ISOLINE_RETURN_IF_ERROR(channel->connect());
    return std::unique_ptr<Channel>(std::move(channel));
  }

 private:
  // ModelMetadataRequest, ModelConfigRequest, ModelStatisticsRequest alike.
  std::string model_name() const {
    WireWriter w;
    w.text(1, info_.model);
    w.text(2, asked_version_);
    return w.take();
  }

  Result<std::vector<std::byte>> call(const char* method, const std::string& message) {
    for (int attempt = 0;; ++attempt) {
      if (!control_) {
        ISOLINE_ASSIGN(control_, GrpcConnection::connect(endpoint_));
      }
      auto answer = control_->call(std::string(kService) + method, message, endpoint_.timeout_s);
      if (answer.ok() || answer.error().code != ErrorCode::kIo || attempt) {
        if (!answer.ok()) return answer.error().in(endpoint_.authority());
        return answer;
      }
      control_.reset();  // an idle connection that the server closed
    }
  }

  Status read_tensor(std::span<const std::byte> bytes, std::vector<TensorSpec>& out) {
    TensorSpec spec;
    std::string datatype;
    ISOLINE_RETURN_IF_ERROR(each_field(bytes, [&](const WireField& f) -> Status {
      if (f.id == 1) spec.name = f.text();
      if (f.id == 2) datatype = f.text();
      if (f.id == 3 && f.type == WireField::Type::kVarint) spec.shape.push_back(int64_t(f.number));
      if (f.id == 3 && f.type == WireField::Type::kBytes) {
        WireReader packed(f.bytes);
        uint64_t v = 0;
        for (;;) {
          ISOLINE_ASSIGN(const bool more, packed.next_varint(v));
          if (!more) break;
          spec.shape.push_back(int64_t(v));
        }
      }
      return {};
    }));
    ISOLINE_ASSIGN(spec.type, parse_element_type(datatype));
    if (info_.max_batch > 0 && !spec.shape.empty()) spec.shape.erase(spec.shape.begin());
    out.push_back(std::move(spec));
    return {};
  }

  // ModelInferRequest, its tensors raw behind it.
  SharedBytes message(const Payload& p) const {
    WireWriter w;
    w.text(1, info_.model);
    w.text(2, asked_version_);
    for (size_t i = 0; i < p.inputs.size(); ++i) {
      WireWriter t;
      t.text(1, info_.inputs[i].name);
      t.text(2, to_string(info_.inputs[i].type));
      t.numbers(3, p.inputs[i].shape);
      w.message(5, t);
    }
    std::vector<std::string> heads;
    for (const OwnedTensor& t : p.inputs) {
      WireWriter tag;
      tag.tag(7, WireField::Type::kBytes);
      tag.varint(t.data.size());
      heads.push_back(tag.take());
    }
    std::vector<std::span<const std::byte>> rest;
    for (size_t i = 0; i < p.inputs.size(); ++i) {
      rest.push_back(std::as_bytes(std::span(heads[i])));
      rest.emplace_back(p.inputs[i].data);
    }
    return grpc_frame(w.str(), rest);
  }

  const Endpoint endpoint_;
  const std::string asked_version_;
  TargetInfo info_;
  std::unique_ptr<GrpcConnection> control_;
};

}  // namespace

Result<std::unique_ptr<Target>> open_grpc_target(const Endpoint& endpoint, const std::string& model,
                                                 const std::string& version) {
  auto target = std::make_unique<GrpcTarget>(endpoint, model, version);
  ISOLINE_RETURN_IF_ERROR(target->open());
  return std::unique_ptr<Target>(std::move(target));
}

}  // namespace isoline::load
