// One gRPC connection: HTTP/2 through nghttp2, calls as streams.
#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <cstring>

#include "isoline/net/connection.h"

namespace isoline::net {
namespace {

constexpr size_t kReadBytes = size_t{64} << 10;
constexpr size_t kOutHighWater = size_t{1} << 20;  // more is not framed before the socket takes some
constexpr size_t kMaxHeaderBytes = size_t{16} << 10;
constexpr uint32_t kMaxFrameBytes = 256 << 10;
constexpr int32_t kStreamWindow = 4 << 20, kConnectionWindow = 16 << 20;
// A call's answers that wait for the client; a stream whose client reads nothing is ended beyond this.
constexpr size_t kMaxAnswersWaiting = 1024;
// Frames that carry nothing (pings, settings, resets, windows, empty data), in a second: so many, and more
// for those whose calls and bytes ask for them.
constexpr uint64_t kMaxIdleFrames = 1000, kIdleFramesPerCall = 50, kIdleFramesPerData = 4,
                   kBytesPerIdleFrame = 256;
constexpr int kMaxContinuations = 8;

class GrpcConnection;

class Call final : public GrpcCall, public std::enable_shared_from_this<Call> {
 public:
  Call(Reactor& reactor, std::weak_ptr<GrpcConnection> connection, int32_t stream)
      : reactor_(reactor), connection_(std::move(connection)), stream_(stream) {}
  ~Call() override;
  void send(std::vector<Segment> parts, bool finish) override;
  void finish(GrpcStatus status, const std::string& message) override;
  void gone() {
    if (auto f = std::exchange(gone_, nullptr)) f();
    state.reset();
  }

 private:
  friend class GrpcConnection;
  void post(std::vector<Segment> parts, bool has_message, bool finish, GrpcStatus status,
            std::string message);
  Reactor& reactor_;
  const std::weak_ptr<GrpcConnection> connection_;
  const int32_t stream_;
  std::atomic<bool> finished_{false};
};

// Bytes of one direction since they began to move.
struct Flow {
  Clock::time_point since = Clock::now();
  uint64_t bytes = 0;
};

// One stream of the connection, this side's view.
struct Stream {
  Stream(std::shared_ptr<MemoryBudget> b, uint64_t max_message_bytes)
      : budget(b), deframer(std::move(b), max_message_bytes) {}
  ~Stream() { budget->give(out_bytes); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  const std::shared_ptr<MemoryBudget> budget;
  int32_t id = 0;
  std::shared_ptr<Call> call;
  std::string method, content_type, encoding;
  size_t header_bytes = 0;
  GrpcDeframer deframer;
  bool half_closed = false, headers_sent = false, finish = false, deferred = false, handling = false;
  GrpcStatus status = GrpcStatus::kOk;
  std::string message;
  std::deque<Segment> out;
  size_t out_done = 0;                // of the first segment
  size_t out_bytes = 0;               // of all of them, less out_done; held in `budget`
  std::deque<uint64_t> out_messages;  // what is left of each message
  uint64_t discarded = 0;
  Flow in, out_flow;  // of the message that comes; of what is to go
  const Clock::time_point began = Clock::now();
};

class GrpcConnection final : public Connection {
 public:
  GrpcConnection(Reactor& reactor, std::unique_ptr<Transport> transport,
                 std::shared_ptr<const GrpcHandler> handler)
      : Connection(reactor, std::move(transport)), handler_(std::move(handler)), since_(Clock::now()) {
    nghttp2_session_callbacks* callbacks = nullptr;
    if (nghttp2_session_callbacks_new(&callbacks)) throw std::bad_alloc();
    const std::unique_ptr<nghttp2_session_callbacks, void (*)(nghttp2_session_callbacks*)> free_them(
        callbacks, nghttp2_session_callbacks_del);
    nghttp2_session_callbacks_set_send_callback(callbacks, on_send);
    nghttp2_session_callbacks_set_send_data_callback(callbacks, on_send_data);
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    if (nghttp2_session_server_new(&session_, callbacks, this)) throw std::bad_alloc();
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, uint32_t(reactor.limits.max_streams)},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, uint32_t(kStreamWindow)},
        {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, kMaxFrameBytes},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, uint32_t(kMaxHeaderBytes)},
    };
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, std::size(settings));
    nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, kConnectionWindow);
  }
  ~GrpcConnection() override { nghttp2_session_del(session_); }

  void progress() override {
    if (closed_) return;
    if (!shaken_) {
      const IoResult r = transport_->handshake();
      if (r.kind == IoResult::Kind::kBlocked) return;
      if (r.kind != IoResult::Kind::kOk) return close();
      shaken_ = true;
    }
    // Frames in, frames out; again while more can be read and what it causes can be written.
    for (size_t turn_bytes = 0;;) {
      if (!write()) return close();
      if (!readable_ || out_.byte_size() > kOutHighWater) break;
      if (!nghttp2_session_want_read(session_)) break;  // it ends; the rest of a flood is not looked at
      if (turn_bytes >= kTurnBytes) return progress_later();
      const IoResult r = transport_->read(buffer_);
      turn_bytes += r.bytes;
      if (r.kind == IoResult::Kind::kBlocked || r.drained) readable_ = gone_;
      if (r.kind == IoResult::Kind::kBlocked) break;
      if (r.kind != IoResult::Kind::kOk) return close();
      const ssize_t n =
          nghttp2_session_mem_recv(session_, reinterpret_cast<const uint8_t*>(buffer_.data()), r.bytes);
      if (n < 0) {
        ++reactor_.rejected_total;
        write();  // a GOAWAY that says why, if the session made one
        return close();
      }
    }
    if (out_.empty() && !nghttp2_session_want_read(session_) && !nghttp2_session_want_write(session_))
      close();
  }

  void tick(Clock::time_point now) override {
    const auto& limits = reactor_.limits;
    if (!out_.empty() && now > write_since_ + time_for(written_)) return close();
    if (!greeted_ && now > since_ + limits.head_timeout) return close();
    if (streams_.empty() && (draining_ || now > since_ + limits.idle_timeout)) {
      if (draining_ && out_.empty()) return close();
      if (!draining_) drain();
      return;
    }
    std::vector<int32_t> stuck;
    for (const auto& [id, s] : streams_) {
      // The connection as a whole must move at the slowest speed accepted; its streams share that.
      const auto slow = [&](const Flow& f) { return now > f.since + time_for(f.bytes * streams_.size()); };
      const bool receiving = !s->half_closed && !s->finish && !s->deframer.at_boundary();
      const bool sending = s->out_bytes > 0 || s->finish;  // or it should have ended by now
      if ((receiving && slow(s->in)) || (sending && slow(s->out_flow)) ||
          (!s->handling && now > s->began + limits.head_timeout))
        stuck.push_back(id);
    }
    for (int32_t id : stuck) {
      ++reactor_.rejected_total;
      nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
    }
    if (!stuck.empty()) progress();
  }

  void drain() override {
    if (std::exchange(draining_, true)) return;
    nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session_),
                          NGHTTP2_NO_ERROR, nullptr, 0);
    progress();
  }

  void close() override {
    closed_ = true;
    auto streams = std::move(streams_);
    streams_.clear();
    for (const auto& [id, s] : streams)
      if (s->call) {
        if (!s->finish) reactor_.grpc_calls.add(int(GrpcStatus::kCancelled));
        s->call->gone();
      }
  }

  void answer(int32_t id, const Call* from, std::vector<Segment>& parts, bool has_message, bool finish,
              GrpcStatus status, std::string& message) {
    const auto it = streams_.find(id);
    if (closed_ || it == streams_.end() || it->second->call.get() != from || it->second->finish) return;
    Stream& s = *it->second;
    if (has_message && !push_message(s, parts)) {
      finish = true;
      status = GrpcStatus::kResourceExhausted;
      message = "the answer is longer than a message can be";
    }
    if (!finish && s.out_messages.size() > kMaxAnswersWaiting) {
      finish = true;
      status = GrpcStatus::kResourceExhausted;
      message = "the client does not read its answers";
    }
    if (finish) set_finished(s, status, std::move(message));
    respond(s);
    progress();
  }

 private:
  static GrpcConnection& self(void* user) { return *static_cast<GrpcConnection*>(user); }
  Stream* find(int32_t id) {
    const auto it = streams_.find(id);
    return it == streams_.end() ? nullptr : it->second.get();
  }

  static ssize_t on_send(nghttp2_session*, const uint8_t* data, size_t length, int, void* user) {
    GrpcConnection& c = self(user);
    if (c.out_.byte_size() > kOutHighWater) return NGHTTP2_ERR_WOULDBLOCK;
    c.push_text({reinterpret_cast<const char*>(data), length});
    return ssize_t(length);
  }

  static int on_send_data(nghttp2_session*, nghttp2_frame*, const uint8_t* frame_head, size_t length,
                          nghttp2_data_source* source, void* user) {
    GrpcConnection& c = self(user);
    if (c.out_.byte_size() > kOutHighWater) return NGHTTP2_ERR_WOULDBLOCK;
    Stream& s = *static_cast<Stream*>(source->ptr);
    c.push_text({reinterpret_cast<const char*>(frame_head), 9});
    s.out_flow.bytes += length;
    c.idle_allowed_ += kIdleFramesPerData + length / kBytesPerIdleFrame;
    s.out_bytes -= length;
    s.budget->give(length);
    for (uint64_t left = length; left;) {
      const uint64_t n = std::min(left, s.out_messages.front());
      left -= n;
      if (!(s.out_messages.front() -= n)) s.out_messages.pop_front();
    }
    while (length) {
      const Segment& first = s.out.front();
      const auto rest = first.bytes.subspan(s.out_done);
      const size_t n = std::min(length, rest.size());
      c.out_.segment({first.owner, rest.subspan(0, n)});
      s.out_done += n;
      length -= n;
      if (n == rest.size()) {
        s.out.pop_front();
        s.out_done = 0;
      }
    }
    return 0;
  }

  static ssize_t read_data(nghttp2_session* session, int32_t id, uint8_t*, size_t length, uint32_t* flags,
                           nghttp2_data_source* source, void*) {
    Stream& s = *static_cast<Stream*>(source->ptr);
    if (!s.out_bytes && !s.finish) {
      s.deferred = true;
      return NGHTTP2_ERR_DEFERRED;
    }
    const size_t n = std::min(length, s.out_bytes);
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (n == s.out_bytes && s.finish) {
      *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
      const std::string status = std::to_string(int(s.status)), message = percent_encode_message(s.message);
      nghttp2_nv trailers[] = {field("grpc-status", status), field("grpc-message", message)};
      if (nghttp2_submit_trailer(session, id, trailers, message.empty() ? 1 : 2))
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    return ssize_t(n);
  }

  static nghttp2_nv field(std::string_view name, std::string_view value) {
    return {reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),
            reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(),
            NGHTTP2_NV_FLAG_NONE};
  }

  // Counts what costs the peer next to nothing: a flood of it ends the connection.
  static int on_begin_frame(nghttp2_session* session, const nghttp2_frame_hd* head, void* user) {
    GrpcConnection& c = self(user);
    if (head->type == NGHTTP2_CONTINUATION)
      return ++c.continuations_ > kMaxContinuations ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
    c.continuations_ = 0;
    if (head->type == NGHTTP2_HEADERS) {
      c.idle_allowed_ += kIdleFramesPerCall;
      return 0;
    }
    if (head->type == NGHTTP2_DATA && head->length) {
      c.idle_allowed_ += kIdleFramesPerData + head->length / kBytesPerIdleFrame;
      return 0;
    }
    if (const auto now = Clock::now(); now > c.idle_since_ + std::chrono::seconds(1)) {
      c.idle_since_ = now;
      c.idle_frames_ = 0;
      c.idle_allowed_ = kMaxIdleFrames + kIdleFramesPerCall * c.streams_.size();
    }
    if (++c.idle_frames_ > c.idle_allowed_) {
      ++c.reactor_.rejected_total;
      nghttp2_session_terminate_session(session, NGHTTP2_ENHANCE_YOUR_CALM);
    }
    return 0;
  }

  static int on_begin_headers(nghttp2_session*, const nghttp2_frame* frame, void* user) {
    GrpcConnection& c = self(user);
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    auto s = std::make_unique<Stream>(c.reactor_.budget, c.reactor_.limits.max_body_bytes);
    s->id = frame->hd.stream_id;
    s->call = std::make_shared<Call>(c.reactor_,
                                     std::static_pointer_cast<GrpcConnection>(c.shared_from_this()), s->id);
    c.streams_.emplace(s->id, std::move(s));
    return 0;
  }

  static int on_header(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name_bytes,
                       size_t name_size, const uint8_t* value_bytes, size_t value_size, uint8_t, void* user) {
    GrpcConnection& c = self(user);
    Stream* s = c.find(frame->hd.stream_id);
    if (!s || frame->hd.type != NGHTTP2_HEADERS) return 0;
    const std::string_view name(reinterpret_cast<const char*>(name_bytes), name_size);
    const std::string_view value(reinterpret_cast<const char*>(value_bytes), value_size);
    s->header_bytes += name_size + value_size + 32;
    if (s->header_bytes > kMaxHeaderBytes) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;  // resets the stream
    if (name == ":path")
      s->call->path_ = value;
    else if (name == ":method")
      s->method = value;
    else if (name == "content-type")
      s->content_type = value;
    else if (name == "authorization")
      s->call->authorization_ = value;
    else if (name == "grpc-encoding")
      s->encoding = value;
    else if (name == "grpc-timeout") {
      if (const auto t = parse_grpc_timeout(value)) s->call->deadline_ = Clock::now() + *t;
    }
    return 0;
  }

  static int on_frame(nghttp2_session*, const nghttp2_frame* frame, void* user) {
    GrpcConnection& c = self(user);
    if (frame->hd.type == NGHTTP2_SETTINGS) c.greeted_ = true;
    Stream* s = c.find(frame->hd.stream_id);
    if (!s || (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)) return 0;
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
      ++c.reactor_.requests_total;
      s->handling = true;
      if (s->method != "POST" || !s->content_type.starts_with("application/grpc")) {
        c.reject(*s);
        return 0;
      }
    }
    if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
      if (s->finish) return 0;
      s->half_closed = true;
      if (!s->deframer.at_boundary()) {
        c.end(*s, GrpcStatus::kInternal, "the call ends inside a message");
        return 0;
      }
      const auto call = s->call;
      c.handler_->on_half_close(call);
    }
    return 0;
  }

  static int on_data(nghttp2_session*, uint8_t, int32_t id, const uint8_t* data, size_t length, void* user) {
    GrpcConnection& c = self(user);
    Stream* s = c.find(id);
    if (!s) return 0;
    if (s->finish) {  // what a refused call still sends, for a while
      if ((s->discarded += length) > 4 * c.reactor_.limits.max_body_bytes)
        nghttp2_submit_rst_stream(c.session_, NGHTTP2_FLAG_NONE, id, NGHTTP2_ENHANCE_YOUR_CALM);
      return 0;
    }
    if (s->deframer.at_boundary()) s->in = {};
    s->in.bytes += length;
    const auto call = s->call;
    const auto coding = parse_coding(s->encoding);
    bool refused = false;
    const auto state =
        s->deframer.feed(std::as_bytes(std::span(data, length)), [&](Bytes message, bool compressed) {
          s->in = {};  // whatever follows belongs to another message
          if (refused) return;
          if (compressed && (!coding.ok() || *coding == Coding::kIdentity)) {
            refused = true;
            return;
          }
          c.handler_->on_message(call, std::move(message), compressed ? *coding : Coding::kIdentity);
        });
    if (refused)
      c.end(*s, GrpcStatus::kUnimplemented,
            "the message's compression is not known: use gzip, deflate or none");
    else if (state == GrpcDeframer::State::kTooLarge)
      c.end(
          *s, GrpcStatus::kResourceExhausted,
          "the message is above the limit of " + std::to_string(c.reactor_.limits.max_body_bytes) + " bytes");
    else if (state == GrpcDeframer::State::kNoMemory)
      c.end(*s, GrpcStatus::kUnavailable, "too many bytes of requests are held already");
    else if (state == GrpcDeframer::State::kMalformed)
      c.end(*s, GrpcStatus::kInternal, "the message's frame is malformed");
    return 0;
  }

  static int on_stream_close(nghttp2_session*, int32_t id, uint32_t, void* user) {
    GrpcConnection& c = self(user);
    const auto it = c.streams_.find(id);
    if (it == c.streams_.end()) return 0;
    const auto stream = std::move(it->second);
    c.streams_.erase(it);
    c.since_ = Clock::now();
    if (!stream->finish) c.reactor_.grpc_calls.add(int(GrpcStatus::kCancelled));  // the client's doing
    stream->call->gone();
    return 0;
  }

  void reject(Stream& s) {
    ++reactor_.rejected_total;
    s.finish = true;
    s.out_flow = {};
    s.headers_sent = true;
    const nghttp2_nv headers[] = {field(":status", s.method != "POST" ? "405" : "415")};
    nghttp2_submit_response(session_, s.id, headers, 1, nullptr);
  }

  // The connection's own verdict on a call; what still comes of it is thrown away.
  void end(Stream& s, GrpcStatus status, const std::string& message) {
    ++reactor_.rejected_total;
    if (s.finish) return;
    set_finished(s, status, message);
    s.call->gone();
    respond(s);
  }

  void set_finished(Stream& s, GrpcStatus status, std::string message) {
    if (!s.out_bytes) s.out_flow = {};
    s.finish = true;
    s.status = status;
    s.message = std::move(message);
    reactor_.grpc_calls.add(int(status));
  }

  // False: longer than the frame's length can say.
  bool push_message(Stream& s, std::vector<Segment>& parts) {
    uint64_t bytes = 0;
    for (const Segment& p : parts) bytes += p.bytes.size();
    if (bytes > UINT32_MAX) return false;
    if (!s.out_bytes) s.out_flow = {};
    auto head = std::make_shared<std::string>(grpc_frame_head(bytes));
    s.out.push_back({head, std::as_bytes(std::span(*head))});
    for (Segment& p : parts)
      if (!p.bytes.empty()) s.out.push_back(std::move(p));
    s.out_bytes += bytes + head->size();
    s.out_messages.push_back(bytes + head->size());
    s.budget->hold(bytes + head->size());
    return true;
  }

  // Headers with the first message, or headers that end the call where there is none.
  void respond(Stream& s) {
    if (!s.headers_sent) {
      s.headers_sent = true;
      if (!s.out_bytes && s.finish) {
        const std::string status = std::to_string(int(s.status)), message = percent_encode_message(s.message);
        const nghttp2_nv headers[] = {field(":status", "200"), field("content-type", "application/grpc"),
                                      field("grpc-status", status), field("grpc-message", message)};
        nghttp2_submit_response(session_, s.id, headers, message.empty() ? 3 : 4, nullptr);
        return;
      }
      const nghttp2_nv headers[] = {field(":status", "200"), field("content-type", "application/grpc"),
                                    field("grpc-accept-encoding", "identity,deflate,gzip")};
      nghttp2_data_provider provider{};
      provider.source.ptr = &s;
      provider.read_callback = read_data;
      nghttp2_submit_response(session_, s.id, headers, std::size(headers), &provider);
    } else if (std::exchange(s.deferred, false)) {
      nghttp2_session_resume_data(session_, s.id);
    }
  }

  void push_text(std::string_view text) {
    if (out_.empty()) {
      write_since_ = Clock::now();
      written_ = 0;
    }
    out_.text(text);
  }

  bool write() {
    for (;;) {
      if (nghttp2_session_send(session_)) return false;
      if (out_.empty()) return true;
      if (!writable_) return true;
      const auto r = out_.flush(*transport_, written_);
      if (r == OutQueue::Flushed::kFailed) return false;
      writable_ = r == OutQueue::Flushed::kAll;
      if (!writable_) return true;
      if (!nghttp2_session_want_write(session_)) return true;
    }
  }

  const std::shared_ptr<const GrpcHandler> handler_;
  nghttp2_session* session_ = nullptr;
  std::unordered_map<int32_t, std::unique_ptr<Stream>> streams_;
  OutQueue out_;
  Clock::time_point since_, write_since_;
  uint64_t written_ = 0;
  int continuations_ = 0;
  uint64_t idle_frames_ = 0, idle_allowed_ = kMaxIdleFrames;
  Clock::time_point idle_since_ = Clock::now();
  bool shaken_ = false, greeted_ = false;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(kReadBytes);
};

Call::~Call() {
  if (!finished_) post({}, false, true, GrpcStatus::kInternal, "the call was dropped");
}

void Call::post(std::vector<Segment> parts, bool has_message, bool finish, GrpcStatus status,
                std::string message) {
  struct Answer {
    std::vector<Segment> parts;
    std::string message;
  };
  auto answer = std::make_shared<Answer>(Answer{std::move(parts), std::move(message)});
  reactor_.post([weak = connection_, stream = stream_, self = this, answer, has_message, finish, status] {
    // `self` is compared only: the stream holds the call while it lives.
    if (const auto c = weak.lock())
      c->answer(stream, self, answer->parts, has_message, finish, status, answer->message);
  });
}

void Call::send(std::vector<Segment> parts, bool finish) {
  if (finish ? finished_.exchange(true) : finished_.load()) return;
  post(std::move(parts), true, finish, GrpcStatus::kOk, "");
}

void Call::finish(GrpcStatus status, const std::string& message) {
  if (finished_.exchange(true)) return;
  post({}, false, true, status, message);
}

}  // namespace

std::shared_ptr<Connection> make_grpc_connection(Reactor& reactor, std::unique_ptr<Transport> transport,
                                                 std::shared_ptr<const GrpcHandler> handler) {
  return std::make_shared<GrpcConnection>(reactor, std::move(transport), std::move(handler));
}

}  // namespace isoline::net
