#include "isoline/load/grpc_client.h"

#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <new>

#include "isoline/load/channel.h"
#include "isoline/net/grpc_frame.h"
#include "isoline/net/http1.h"

namespace isoline::load {
namespace {

using Kind = net::IoResult::Kind;
constexpr size_t kReadBytes = 256 << 10;
constexpr size_t kOutHighWater = size_t{1} << 20;  // more is not framed before the socket takes some
constexpr int32_t kWindow = 64 << 20;
constexpr size_t kGrpcHead = 5;

nghttp2_nv field(std::string_view name, std::string_view value) {
  return {reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),
          reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(),
          NGHTTP2_NV_FLAG_NONE};
}

}  // namespace

struct GrpcConnection::Stream {
  uint64_t tag = 0;
  SharedBytes message;
  size_t sent = 0;
  bool keep = false;
  int64_t sent_ns = 0, first_byte_ns = 0;
  std::string http_status, status, text;
  std::vector<std::byte> body;
};

// nghttp2's callbacks, with access to the connection.
struct GrpcConnection::Callbacks {
  static GrpcConnection& self(void* user) { return *static_cast<GrpcConnection*>(user); }
  static Stream* find(GrpcConnection& c, int32_t id) {
    const auto it = c.streams_.find(id);
    return it == c.streams_.end() ? nullptr : it->second.get();
  }

  static ssize_t send(nghttp2_session*, const uint8_t* data, size_t length, int, void* user) {
    GrpcConnection& c = self(user);
    if (c.out_.byte_size() > kOutHighWater) return NGHTTP2_ERR_WOULDBLOCK;
    c.out_.text({reinterpret_cast<const char*>(data), length});
    return ssize_t(length);
  }

  static ssize_t read_data(nghttp2_session*, int32_t, uint8_t*, size_t length, uint32_t* flags,
                           nghttp2_data_source* source, void*) {
    const Stream& s = *static_cast<Stream*>(source->ptr);
    const size_t n = std::min(length, s.message->size() - s.sent);
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (n == s.message->size() - s.sent) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return ssize_t(n);
  }

  static int send_data(nghttp2_session*, nghttp2_frame*, const uint8_t* frame_head, size_t length,
                       nghttp2_data_source* source, void* user) {
    GrpcConnection& c = self(user);
    if (c.out_.byte_size() > kOutHighWater) return NGHTTP2_ERR_WOULDBLOCK;
    Stream& s = *static_cast<Stream*>(source->ptr);
    c.out_.text({reinterpret_cast<const char*>(frame_head), 9});
    c.out_.segment({s.message, std::span(*s.message).subspan(s.sent, length)});
    s.sent += length;
    if (s.sent == s.message->size()) s.sent_ns = now_ns();
    return 0;
  }

  static int header(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name_bytes, size_t name_size,
                    const uint8_t* value_bytes, size_t value_size, uint8_t, void* user) {
    Stream* s = find(self(user), frame->hd.stream_id);
    if (!s) return 0;
    const std::string_view name(reinterpret_cast<const char*>(name_bytes), name_size);
    const std::string_view value(reinterpret_cast<const char*>(value_bytes), value_size);
    if (!s->first_byte_ns) s->first_byte_ns = now_ns();
    if (name == ":status") s->http_status = value;
    if (name == "grpc-status") s->status = value;
    if (name == "grpc-message") s->text = net::percent_decode(value).value_or(std::string(value));
    return 0;
  }

  static int data(nghttp2_session*, uint8_t, int32_t id, const uint8_t* bytes, size_t length, void* user) {
    Stream* s = find(self(user), id);
    if (!s || !s->keep) return 0;
    const auto part = std::as_bytes(std::span(bytes, length));
    s->body.insert(s->body.end(), part.begin(), part.end());
    return 0;
  }

  static int stream_close(nghttp2_session*, int32_t id, uint32_t code, void* user) {
    GrpcConnection& c = self(user);
    Stream* s = find(c, id);
    if (!s) return 0;
    if (s->status == "0" && code == NGHTTP2_NO_ERROR)
      c.end(*s, "", "");
    else if (!s->status.empty())
      c.end(*s, "gRPC " + s->status, s->text);
    else if (!s->http_status.empty() && s->http_status != "200")
      c.end(*s, "HTTP " + s->http_status, "");
    else
      c.end(*s, "stream reset", nghttp2_http2_strerror(code));
    c.streams_.erase(id);
    return 0;
  }
};

GrpcConnection::GrpcConnection(const Endpoint& endpoint, ClientSocket socket)
    : endpoint_(endpoint),
      authority_(endpoint.authority()),
      authorization_("Bearer " + endpoint.token),
      socket_(std::move(socket)),
      buffer_(kReadBytes) {
  nghttp2_session_callbacks* callbacks = nullptr;
  if (nghttp2_session_callbacks_new(&callbacks)) throw std::bad_alloc();
  const std::unique_ptr<nghttp2_session_callbacks, void (*)(nghttp2_session_callbacks*)> free_them(
      callbacks, nghttp2_session_callbacks_del);
  nghttp2_session_callbacks_set_send_callback(callbacks, Callbacks::send);
  nghttp2_session_callbacks_set_send_data_callback(callbacks, Callbacks::send_data);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, Callbacks::header);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, Callbacks::data);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, Callbacks::stream_close);
  if (nghttp2_session_client_new(&session_, callbacks, this)) throw std::bad_alloc();
  const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
                                             {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, uint32_t(kWindow)},
                                             {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, 256 << 10}};
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, std::size(settings));
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, kWindow);
}

GrpcConnection::~GrpcConnection() {
  nghttp2_session_del(session_);
}

Result<std::unique_ptr<GrpcConnection>> GrpcConnection::connect(const Endpoint& endpoint) {
  ISOLINE_ASSIGN(ClientSocket socket, connect_to(endpoint));
  return std::unique_ptr<GrpcConnection>(new GrpcConnection(endpoint, std::move(socket)));
}

void GrpcConnection::end(Stream& s, std::string error, std::string message) {
  done_.push_back(
      {s.tag, s.sent_ns, s.first_byte_ns, now_ns(), std::move(error), std::move(message), std::move(s.body)});
}

void GrpcConnection::start(uint64_t tag, std::string_view path, SharedBytes message, bool keep_body) {
  auto stream = std::make_unique<Stream>();
  stream->tag = tag;
  stream->message = std::move(message);
  stream->keep = keep_body;
  const std::array<nghttp2_nv, 8> headers = {field(":method", "POST"),
                                             field(":scheme", endpoint_.tls ? "https" : "http"),
                                             field(":path", path),
                                             field(":authority", authority_),
                                             field("te", "trailers"),
                                             field("content-type", "application/grpc"),
                                             field("user-agent", "isoline-bench"),
                                             field("authorization", authorization_)};
  nghttp2_data_provider provider{};
  provider.source.ptr = stream.get();
  provider.read_callback = Callbacks::read_data;
  const size_t count = headers.size() - (endpoint_.token.empty() ? 1 : 0);
  const int32_t id = nghttp2_submit_request(session_, nullptr, headers.data(), count, &provider, nullptr);
  if (id < 0) {  // no more stream numbers, or the server said goodbye
    end(*stream, "no stream", nghttp2_strerror(id));
    return;
  }
  streams_.emplace(id, std::move(stream));
}

bool GrpcConnection::write() {
  for (;;) {
    if (nghttp2_session_send(session_)) return false;
    if (out_.empty()) return true;
    uint64_t written = 0;
    switch (out_.flush(*socket_.transport, written)) {
      case net::OutQueue::Flushed::kFailed:
        return false;
      case net::OutQueue::Flushed::kBlocked:
        return true;
      case net::OutQueue::Flushed::kAll:
        if (!nghttp2_session_want_write(session_)) return true;
    }
  }
}

bool GrpcConnection::progress(std::vector<GrpcDone>& done) {
  bool alive = write();
  while (alive) {
    const net::IoResult r = socket_.transport->read(buffer_);
    if (r.kind == Kind::kBlocked) break;
    alive =
        r.kind == Kind::kOk &&
        nghttp2_session_mem_recv(session_, reinterpret_cast<const uint8_t*>(buffer_.data()), r.bytes) >= 0;
    if (alive && r.drained) break;
  }
  alive = alive && write() && (nghttp2_session_want_read(session_) || nghttp2_session_want_write(session_));
  if (!alive) {
    for (auto& [id, stream] : streams_)
      end(*stream, "connection lost", "the server closed the connection before its answer was complete");
    streams_.clear();
  }
  done.insert(done.end(), std::make_move_iterator(done_.begin()), std::make_move_iterator(done_.end()));
  done_.clear();
  return alive;
}

Result<std::vector<std::byte>> GrpcConnection::call(std::string_view path, std::string_view message,
                                                    double timeout_s) {
  const int64_t until = now_ns() + int64_t(timeout_s * 1e9);
  start(0, path, grpc_frame(message), true);
  std::vector<GrpcDone> done;
  for (;;) {
    const bool alive = progress(done);
    if (!done.empty()) break;
    if (!alive)
      return Error{ErrorCode::kIo, "the server closed the connection", std::string(path),
                   "Check that the port is the server's gRPC port, and grpc or grpcs."};
    if (!wait_for_fd(fd(), wants_write(), until))
      return Error{ErrorCode::kIo, "the server did not answer in time", std::string(path),
                   "Check that the port is the server's gRPC port; raise --timeout."};
  }
  GrpcDone& answer = done.front();
  if (!answer.error.empty()) {
    const bool missing = answer.error == "gRPC 5" || answer.error == "gRPC 3";
    return Error{missing ? ErrorCode::kNotFound : ErrorCode::kIo, answer.error + ": " + answer.message,
                 std::string(path), answer.error == "gRPC 16" ? "Give --token-file." : ""};
  }
  if (answer.body.size() < kGrpcHead || answer.body[0] != std::byte{0})
    return Error{ErrorCode::kCorrupt, "the answer holds no uncompressed message", std::string(path), ""};
  answer.body.erase(answer.body.begin(), answer.body.begin() + kGrpcHead);
  return std::move(answer.body);
}

SharedBytes grpc_frame(std::string_view head, std::span<const std::span<const std::byte>> rest) {
  size_t size = head.size();
  for (const auto& r : rest) size += r.size();
  auto out = std::make_shared<std::vector<std::byte>>();
  out->reserve(kGrpcHead + size);
  const auto append = [&](std::span<const std::byte> bytes) {
    out->insert(out->end(), bytes.begin(), bytes.end());
  };
  const std::string frame = net::grpc_frame_head(size);
  append(std::as_bytes(std::span(frame)));
  append(std::as_bytes(std::span(head)));
  for (const auto& r : rest) append(r);
  return out;
}

}  // namespace isoline::load
