// One HTTP/1.1 connection: head, body, handler, answer, again.
#include <algorithm>
#include <cstring>

#include "isoline/net/connection.h"

namespace isoline::net {
namespace {

constexpr size_t kReadBytes = 16384;
constexpr size_t kBodyStep = 65536;
constexpr size_t kPieceBytes = size_t{1} << 20;  // of a body that does not stay in memory

class HttpConnection;

class Exchange final : public HttpExchange, public std::enable_shared_from_this<Exchange> {
 public:
  Exchange(Reactor& reactor, std::weak_ptr<HttpConnection> connection, HttpHead head, Bytes body,
           std::shared_ptr<BodySink> sink)
      : reactor_(reactor), connection_(std::move(connection)) {
    head_ = std::move(head);
    body_ = std::make_shared<Bytes>(std::move(body));
    sink_ = std::move(sink);
  }
  ~Exchange() override;
  void respond(HttpResponse response) override;
  void gone() {
    if (auto f = std::exchange(gone_, nullptr)) f();
  }

 private:
  Reactor& reactor_;
  const std::weak_ptr<HttpConnection> connection_;
  std::atomic<bool> answered_{false};
};

class HttpConnection final : public Connection {
 public:
  HttpConnection(Reactor& reactor, std::unique_ptr<Transport> transport,
                 std::shared_ptr<const HttpService> service)
      : Connection(reactor, std::move(transport)), service_(std::move(service)), since_(Clock::now()) {}
  ~HttpConnection() override { reactor_.budget->give(held_); }

  void progress() override {
    turn_bytes_ = 0;
    while (!closed_ && step())
      if (turn_bytes_ >= kTurnBytes) return progress_later();
  }

  void tick(Clock::time_point now) override {
    if (!out_.empty()) {
      if (now > write_since_ + time_for(written_)) close();
      return;
    }
    switch (phase_) {
      case Phase::kHandshake:
        if (now > since_ + reactor_.limits.head_timeout) close();
        return;
      case Phase::kHead:
        if (!in_.size()) {
          if (draining_ || now > since_ + reactor_.limits.idle_timeout) close();
        } else if (now > since_ + reactor_.limits.head_timeout) {
          refuse(408, "the request's head did not arrive in time");
          progress();
        }
        return;
      case Phase::kBody:
        if (!taking_ && now > since_ + time_for(handed_ + body_.size())) {
          refuse(408, "the request's body did not arrive in time");
          progress();
        }
        return;
      case Phase::kHandling:
        return;
      case Phase::kDiscarding:
        if (now > since_ + (discard_planned_ ? time_for(discarded_) : time_for(0))) close();
        return;
    }
  }

  void drain() override {
    draining_ = true;
    if (phase_ == Phase::kHead && !in_.size() && out_.empty()) close();
  }

  void close() override {
    closed_ = true;
    if (const auto e = exchange_.lock()) e->gone();
    exchange_.reset();
    plan_ = {};  // a sink hears of it by going
  }

  void answer(const Exchange* from, HttpResponse& response) {
    if (closed_ || phase_ != Phase::kHandling || exchange_.lock().get() != from) return;
    exchange_.reset();
    write(response, keep_alive_ && !draining_);
    if (keep_alive_ && !draining_)
      start_head();
    else
      start_discarding();
    progress();
  }
  void taken(std::optional<HttpResponse>& refusal) {
    if (closed_ || !std::exchange(taking_, false)) return;
    since_ += Clock::now() - taking_since_;  // the client did not have to send meanwhile
    if (refusal)
      refuse(*refusal);
    else if (body_ended_)
      dispatch();
    progress();
  }
  void abandoned() {  // nobody can answer any more
    if (!closed_ && phase_ == Phase::kHandling) close();
  }

 private:
  enum class Phase { kHandshake, kHead, kBody, kHandling, kDiscarding };

  void start_head() {
    phase_ = Phase::kHead;
    since_ = Clock::now();
    body_ = Bytes();
  }
  void start_discarding() {
    phase_ = Phase::kDiscarding;
    since_ = Clock::now();
  }

  // One thing that can be done; false: nothing until something happens.
  bool step() {
    if (phase_ == Phase::kHandshake) {
      const IoResult r = transport_->handshake();
      if (r.kind == IoResult::Kind::kBlocked) return false;
      if (r.kind != IoResult::Kind::kOk) return fail();
      start_head();
      return true;
    }
    if (!out_.empty()) {
      if (!writable_) return false;
      const uint64_t before = written_;
      const auto r = out_.flush(*transport_, written_);
      if (r == OutQueue::Flushed::kFailed) return fail();
      writable_ = r == OutQueue::Flushed::kAll;
      if (!writable_) {
        if (written_ == before && gone_) return fail();
        return false;
      }
      reactor_.budget->give(std::exchange(held_, 0));
    }
    switch (phase_) {
      case Phase::kHead:
        return step_head();
      case Phase::kBody:
        return step_body();
      case Phase::kHandling:
        if (gone_) return fail();  // the client left; the request's sender is told
        return false;
      case Phase::kDiscarding:
        return step_discard();
      case Phase::kHandshake:
        break;
    }
    return false;
  }

  bool fail() {
    close();
    return false;
  }

  IoResult read(std::span<std::byte> to) {
    const IoResult r = transport_->read(to);
    if (r.kind == IoResult::Kind::kBlocked || r.drained) readable_ = gone_;
    turn_bytes_ += r.bytes;
    return r;
  }

  bool step_head() {
    if (in_.size()) {
      if (!head_seen_) since_ = Clock::now();
      head_seen_ = true;
      HttpHead head;
      const std::string_view text(reinterpret_cast<const char*>(in_.data()), in_.size());
      HttpLimits limits = reactor_.limits;
      if (service_->planner) limits.max_body_bytes = UINT64_MAX;  // the plan says how much: begin_body()
      const HeadResult r = parse_head(text, limits, head);
      if (r.kind == HeadResult::Kind::kRefused) {
        consume(in_.size());
        refuse(r.status, r.reason);
        return true;
      }
      if (r.kind == HeadResult::Kind::kComplete) {
        consume(r.consumed);
        head_seen_ = false;
        begin_body(std::move(head));
        return true;
      }
    }
    if (!readable_) return false;
    if (!in_.make_room(std::max(kReadBytes, reactor_.limits.max_head_bytes))) return fail();
    const IoResult r = read(in_.room());
    if (r.kind == IoResult::Kind::kBlocked) return false;
    if (r.kind != IoResult::Kind::kOk) return fail();
    in_.advance(r.bytes);
    return true;
  }

  void begin_body(HttpHead head) {
    request_ = std::move(head);
    keep_alive_ = request_.keep_alive;
    phase_ = Phase::kBody;
    since_ = Clock::now();
    chunks_ = ChunkDecoder();
    handed_ = 0;
    body_ended_ = false;
    plan_ = service_->planner ? service_->planner(request_) : BodyPlan{};
    if (plan_.refusal) return refuse(*plan_.refusal);
    if (request_.content_length.value_or(0) > max_body_bytes()) return refuse_size();
    // A body's tensors follow a JSON header: with this lead they begin aligned.
    const std::string_view text = request_.header("inference-header-content-length");
    const size_t header = std::strtoull(std::string(text.substr(0, 20)).c_str(), nullptr, 10) % 16;
    body_ = Bytes(reactor_.budget, (16 - header) % 16);
    if (request_.expects_continue && !in_.size() && (request_.chunked || request_.content_length.value_or(0)))
      push_text("HTTP/1.1 100 Continue\r\n\r\n");
  }

  uint64_t max_body_bytes() const { return plan_.sink ? plan_.max_bytes : reactor_.limits.max_body_bytes; }
  void refuse_size() {
    refuse(413, "the body is above the limit of " + std::to_string(max_body_bytes()) + " bytes");
  }

  // Gives what came to the sink; nothing is read until it is taken.
  void hand_over() {
    taking_ = true;
    taking_since_ = Clock::now();
    handed_ += body_.size();
    auto piece = std::make_shared<const Bytes>(std::move(body_));
    body_ = Bytes(reactor_.budget);
    const std::shared_ptr<BodySink> sink = plan_.sink;
    sink->take(std::move(piece),
               [&reactor = reactor_, weak = std::weak_ptr(std::static_pointer_cast<HttpConnection>(
                                         shared_from_this()))](std::optional<HttpResponse> refusal) {
                 reactor.post([weak, refusal = std::move(refusal)]() mutable {
                   if (const auto c = weak.lock()) c->taken(refusal);
                 });
               });
  }

  void end_body() {
    if (!plan_.sink || !body_.size()) return dispatch();
    body_ended_ = true;
    hand_over();
  }

  bool step_body() {
    if (taking_) return false;
    if (plan_.sink && body_.size() >= kPieceBytes) {
      hand_over();
      return true;
    }
    if (request_.chunked) {
      if (in_.size()) {
        size_t consumed = 0;
        const std::string_view text(reinterpret_cast<const char*>(in_.data()), in_.size());
        const auto state = chunks_.feed(text, consumed, body_, max_body_bytes() - handed_);
        consume(consumed);
        switch (state) {
          case ChunkDecoder::State::kMore:
            return true;
          case ChunkDecoder::State::kDone:
            end_body();
            return true;
          case ChunkDecoder::State::kMalformed:
            refuse(400, "the chunked body is malformed");
            return true;
          case ChunkDecoder::State::kTooLarge:
            refuse_size();
            return true;
          case ChunkDecoder::State::kNoMemory:
            refuse(503, "too many bytes of requests are held already");
            return true;
        }
      }
      if (!readable_) return false;
      if (!in_.make_room(kReadBytes)) return fail();
      const IoResult r = read(in_.room());
      if (r.kind == IoResult::Kind::kBlocked) return false;
      if (r.kind != IoResult::Kind::kOk) return fail();
      in_.advance(r.bytes);
      return true;
    }
    const uint64_t length = request_.content_length.value_or(0);
    const uint64_t left = length - handed_ - body_.size();
    if (!left) {
      end_body();
      return true;
    }
    const size_t most = plan_.sink ? kPieceBytes + kBodyStep : size_t(length);
    if (!body_.grow(size_t(std::min<uint64_t>(left, kBodyStep)), most)) {
      refuse(503, "too many bytes of requests are held already");
      return true;
    }
    auto room = body_.room();
    room = room.subspan(0, size_t(std::min<uint64_t>(room.size(), left)));
    if (in_.size()) {
      const size_t n = std::min(in_.size(), room.size());
      std::memcpy(room.data(), in_.data(), n);
      body_.advance(n);
      consume(n);
      return true;
    }
    if (!readable_) return false;
    const IoResult r = read(room);
    if (r.kind == IoResult::Kind::kBlocked) return false;
    if (r.kind != IoResult::Kind::kOk) return fail();
    body_.advance(r.bytes);
    return true;
  }

  void dispatch() {
    ++reactor_.requests_total;
    phase_ = Phase::kHandling;
    const bool head_only = request_.method == "HEAD";
    head_only_ = head_only;
    auto exchange =
        std::make_shared<Exchange>(reactor_, std::static_pointer_cast<HttpConnection>(shared_from_this()),
                                   std::move(request_), std::move(body_), std::move(plan_.sink));
    body_ = Bytes();
    plan_ = {};
    exchange_ = exchange;
    service_->handler(exchange);
  }

  bool step_discard() {
    // The answer is written. Whoever still sends is read from for a while: closing now would reset the
    // connection and the answer could be lost. A client that has seen the end closes its side.
    if (!std::exchange(shut_, true)) transport_->finish_writing();
    consume(in_.size());
    if (discarded_ > std::max(4 * reactor_.limits.max_body_bytes, discard_planned_)) return fail();
    if (!readable_) return false;
    std::byte waste[kReadBytes];
    const IoResult r = read(waste);
    if (r.kind == IoResult::Kind::kBlocked) return false;
    if (r.kind != IoResult::Kind::kOk) return fail();
    discarded_ += r.bytes;
    return true;
  }

  // An answer before the request came whole: the rest of it is read and thrown away, then the connection
  // ends.
  void refuse(int status, const std::string& reason) {
    HttpResponse response;
    response.status = status;
    response.text = "{\"error\":\"" + reason + "\"}";
    ++reactor_.rejected_total;
    answer_early(response);
  }
  // The same, by the plan or the sink of the body.
  void refuse(HttpResponse& response) {
    const int s = response.status;
    if (s == 413 || s == 429 || s == 503 || s == 507) ++reactor_.rejected_total;
    // Whoever sends a large body looks for the answer at its end only.
    discard_planned_ = std::min(request_.content_length.value_or(UINT64_MAX), plan_.max_bytes);
    answer_early(response);
  }
  void answer_early(HttpResponse& response) {
    head_only_ = false;
    write(response, false);
    body_ = Bytes();
    plan_ = {};
    start_discarding();
  }

  void write(HttpResponse& response, bool keep_alive) {
    reactor_.http_responses.add(response.status);
    size_t length = response.text.size();
    for (const Segment& s : response.segments) length += s.bytes.size();
    std::string head;
    head.reserve(256 + response.text.size());
    head += "HTTP/1.1 ";
    head += std::to_string(response.status);
    head += ' ';
    head += status_reason(response.status);
    if (length || response.status != 204) head += "\r\nContent-Type: " + response.content_type;
    for (const auto& [name, value] : response.headers) head += "\r\n" + name + ": " + value;
    head += "\r\nContent-Length: ";
    head += std::to_string(length);
    head += keep_alive ? "\r\n\r\n" : "\r\nConnection: close\r\n\r\n";
    if (!head_only_) {
      head += response.text;
      reactor_.budget->hold(length);  // until it is written; one answer at a time
      held_ += length;
    }
    push_text(head);
    if (!head_only_)
      for (Segment& s : response.segments) out_.segment(std::move(s));
  }
  void push_text(const std::string& text) {
    if (out_.empty()) {
      write_since_ = Clock::now();
      written_ = 0;
    }
    out_.text(text);
  }

  // Bytes that were read and not used yet.
  struct Input {
    Bytes bytes;
    size_t at = 0;
    size_t size() const { return bytes.size() - at; }
    std::byte* data() { return bytes.data() + at; }
    std::span<std::byte> room() { return bytes.room(); }
    void advance(size_t n) { bytes.advance(n); }
    bool make_room(size_t most) {
      if (at == bytes.size()) {
        bytes.truncate(0);
        at = 0;
      }
      if (bytes.room().size() >= 1024) return true;
      bytes.drop_front(at);
      at = 0;
      return bytes.grow(4096, most + 4096);
    }
  } in_;
  void consume(size_t n) { in_.at += n; }

  const std::shared_ptr<const HttpService> service_;
  Phase phase_ = Phase::kHandshake;
  Clock::time_point since_, write_since_;
  uint64_t written_ = 0, discarded_ = 0, turn_bytes_ = 0, held_ = 0;
  HttpHead request_;
  bool keep_alive_ = true, head_only_ = false, head_seen_ = false, shut_ = false;
  ChunkDecoder chunks_;
  Bytes body_;
  BodyPlan plan_;
  uint64_t handed_ = 0;           // bytes of this body that its sink has
  bool taking_ = false;           // the sink has a piece that it has not taken yet
  bool body_ended_ = false;       // that piece is the last
  uint64_t discard_planned_ = 0;  // so much of a refused body is read and thrown away
  Clock::time_point taking_since_;
  OutQueue out_;
  std::weak_ptr<Exchange> exchange_;
};

Exchange::~Exchange() {
  if (answered_) return;
  reactor_.post([weak = connection_] {
    if (const auto c = weak.lock()) c->abandoned();
  });
}

void Exchange::respond(HttpResponse response) {
  if (answered_.exchange(true)) return;
  reactor_.post([self = shared_from_this(), r = std::make_shared<HttpResponse>(std::move(response))] {
    self->gone_ = nullptr;  // what it holds may hold this exchange, and its body
    if (const auto c = self->connection_.lock()) c->answer(self.get(), *r);
  });
}

}  // namespace

std::shared_ptr<Connection> make_http_connection(Reactor& reactor, std::unique_ptr<Transport> transport,
                                                 std::shared_ptr<const HttpService> service) {
  return std::make_shared<HttpConnection>(reactor, std::move(transport), std::move(service));
}

}  // namespace isoline::net
