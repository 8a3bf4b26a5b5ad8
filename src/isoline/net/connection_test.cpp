// Connections of both protocols over a transport without a socket: what hostile and slow peers get.
#include "isoline/net/connection.h"

#include <gtest/gtest.h>

#include "isoline/net/memory_transport.h"

namespace isoline::net {
namespace {

using namespace std::chrono_literals;

// A reactor that nobody runs, one connection and its other side.
class Peer {
 public:
  explicit Peer(const ServerLimits& limits = {}) : reactor(limits) {}

  void open_http(HttpHandler handler) {
    open(make_http_connection(reactor, transport(),
                              std::make_shared<const HttpService>(HttpService{std::move(handler), {}})));
  }
  void open_grpc(GrpcHandler handler) {
    open(make_grpc_connection(reactor, transport(), std::make_shared<const GrpcHandler>(std::move(handler))));
  }
  void send(std::string_view bytes) {
    wire->in += bytes;
    event();
    settle();
  }
  void event() {
    if (!connection->closed()) connection->event(true, true, false);
  }
  void settle() {
    while (!reactor.run_posted()) {
    }
  }
  // What the connection wrote since the last call.
  std::string received() {
    const std::string out = wire->out.substr(seen_);
    seen_ = wire->out.size();
    return out;
  }
  // The clock as the connection sees it, so much later.
  void later(std::chrono::milliseconds by) {
    if (!connection->closed()) connection->tick(Clock::now() + by);
    settle();
  }

  std::shared_ptr<MemoryWire> wire = std::make_shared<MemoryWire>();
  Reactor reactor;
  std::shared_ptr<Connection> connection;

 private:
  std::unique_ptr<Transport> transport() { return std::make_unique<MemoryTransport>(wire); }
  void open(std::shared_ptr<Connection> made) {
    connection = std::move(made);
    event();
  }
  size_t seen_ = 0;
};

size_t count(std::string_view text, std::string_view what) {
  size_t n = 0;
  for (size_t at = text.find(what); at != std::string_view::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

HttpHandler echo() {
  return [](const std::shared_ptr<HttpExchange>& e) {
    HttpResponse r;
    r.text = std::string(reinterpret_cast<const char*>(e->body().data()), e->body().size());
    e->respond(std::move(r));
  };
}
std::string post(std::string_view body, std::string_view more = "") {
  return "POST / HTTP/1.1\r\nHost: h\r\n" + std::string(more) +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + std::string(body);
}

TEST(HttpConnection, AnswersWhateverTheCutsAre) {
  const std::string text =
      post("one") + "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n" +
      post("three", "Connection: close\r\n");
  for (size_t step : {size_t{1}, size_t{5}, text.size()}) {
    Peer peer;
    peer.wire->read_step = step;
    peer.wire->write_room = SIZE_MAX;
    peer.open_http(echo());
    for (size_t at = 0; at < text.size(); at += step) peer.send(std::string_view(text).substr(at, step));
    const std::string out = peer.received();
    EXPECT_EQ(count(out, "HTTP/1.1 200 OK"), 3u);
    EXPECT_LT(out.find("\r\n\r\none"), out.find("\r\n\r\ntwo"));
    EXPECT_LT(out.find("\r\n\r\ntwo"), out.find("\r\n\r\nthree"));
    EXPECT_TRUE(peer.wire->finished);
  }
}

TEST(HttpConnection, WhatFollowsAContradictionIsNeverARequest) {
  size_t handled = 0;
  const HttpHandler counting = [&](const std::shared_ptr<HttpExchange>& e) {
    ++handled;
    e->respond({});
  };
  const std::string hidden = "GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n";
  for (const std::string start :
       {"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n\r\n", "Transfer-Encoding: xchunked\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nabc\r\n", "Content-Length: x\r\n\r\n"}) {
    Peer peer;
    peer.open_http(counting);
    peer.send("POST / HTTP/1.1\r\nHost: h\r\n" + start + hidden + hidden);
    EXPECT_EQ(handled, 0u) << start;
    EXPECT_EQ(count(peer.received(), "HTTP/1.1 "), 1u) << start;
    EXPECT_TRUE(peer.wire->finished);
  }
}

TEST(HttpConnection, OneThatSendsWithoutEndLeavesOthersTheirTurn) {
  Peer peer;
  size_t handled = 0;
  peer.open_http([&](const std::shared_ptr<HttpExchange>& e) {
    ++handled;
    e->respond({});
  });
  // Requests one behind the other, more than the rounds of a turn.
  const std::string get = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
  for (int i = 0; i < 5000; ++i) peer.wire->in += get;
  peer.event();
  EXPECT_FALSE(peer.reactor.run_posted());
  EXPECT_GT(handled, 0u);
  EXPECT_LT(handled, 100u);
  peer.settle();
  EXPECT_EQ(handled, 5000u);
  // A large body.
  peer.wire->in += post(std::string(8 << 20, 'x'));
  peer.event();
  EXPECT_LT(peer.wire->in.size() - peer.wire->at, size_t{8} << 20);
  EXPECT_GT(peer.wire->in.size() - peer.wire->at, size_t{7} << 20);
  peer.settle();
  EXPECT_EQ(handled, 5001u);
}

TEST(HttpConnection, SlowOnesAreEnded) {
  ServerLimits limits;
  limits.head_timeout = 1s;
  limits.transfer_timeout = 2s;
  limits.min_bytes_per_s = 1000;
  {
    Peer head(limits);
    head.open_http(echo());
    head.send("GET / HT");
    head.later(900ms);
    EXPECT_EQ(head.received(), "");
    head.later(1100ms);
    EXPECT_EQ(count(head.received(), "HTTP/1.1 408 "), 1u);
  }
  {
    Peer body(limits);
    body.open_http(echo());
    body.send(post(std::string(5000, 'x')).substr(0, 3000));
    body.later(4000ms);
    EXPECT_EQ(body.received(), "");
    body.later(5100ms);
    EXPECT_EQ(count(body.received(), "HTTP/1.1 408 "), 1u);
  }
  {
    Peer reader(limits);
    reader.open_http(echo());
    reader.wire->write_room = 1000;
    reader.send(post(std::string(9000, 'x')));
    reader.later(2900ms);
    EXPECT_FALSE(reader.connection->closed());
    reader.later(3100ms);
    EXPECT_TRUE(reader.connection->closed());
  }
}

TEST(HttpConnection, AnswersThatWaitAreCounted) {
  ServerLimits limits;
  limits.max_bytes_in_flight = 1 << 20;
  Peer peer(limits);
  const auto large = std::make_shared<const std::string>(1 << 20, 'x');
  peer.open_http([&](const std::shared_ptr<HttpExchange>& e) {
    HttpResponse r;
    if (e->head().method == "GET") r.segments.push_back({large, std::as_bytes(std::span(*large))});
    e->respond(std::move(r));
  });
  peer.wire->write_room = 500000;
  peer.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_EQ(peer.reactor.budget->used(), 1u << 20);
  peer.wire->write_room = SIZE_MAX;
  peer.event();
  EXPECT_EQ(peer.reactor.budget->used(), 0u);
  peer.wire->write_room = 0;
  peer.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_EQ(peer.reactor.budget->used(), 1u << 20);
  peer.connection->close();
  peer.connection.reset();
  EXPECT_EQ(peer.reactor.budget->used(), 0u);
}

TEST(HttpConnection, DroppedAndLeftExchanges) {
  {
    Peer peer;
    peer.open_http([](const std::shared_ptr<HttpExchange>&) {});
    peer.send(post("x"));
    EXPECT_TRUE(peer.connection->closed());
  }
  std::shared_ptr<HttpExchange> kept;
  int gone = 0;
  Peer peer;
  peer.open_http([&](const std::shared_ptr<HttpExchange>& e) {
    kept = e;
    e->on_gone([&] { ++gone; });
  });
  peer.send(post("x"));
  peer.connection->event(false, false, true);
  peer.settle();
  EXPECT_EQ(gone, 1);
  EXPECT_TRUE(peer.connection->closed());
  kept->respond({});
  kept->respond({});
  peer.settle();
  EXPECT_EQ(peer.received(), "");
  EXPECT_EQ(gone, 1);
}

// HTTP/2 by hand.
constexpr char kData = 0, kHeaders = 1, kPriority = 2, kReset = 3, kSettings = 4, kPing = 6,
               kWindowUpdate = 8, kContinuation = 9;
constexpr char kEndStream = 1, kEndHeaders = 4;
const std::string kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

std::string number32(uint32_t n) {
  return {char(n >> 24), char(n >> 16), char(n >> 8), char(n)};
}
std::string frame(char type, char flags, uint32_t stream, std::string_view payload) {
  return number32(uint32_t(payload.size())).substr(1) + type + flags + number32(stream) +
         std::string(payload);
}
// A literal header field, without indexing or Huffman's code. Texts below 127 bytes.
std::string field(std::string_view name, std::string_view value) {
  return std::string(1, '\0') + char(name.size()) + std::string(name) + char(value.size()) +
         std::string(value);
}
std::string request_fields(std::string_view path = "/s/m") {
  return field(":method", "POST") + field(":scheme", "http") + field(":path", path) +
         field(":authority", "h") + field("content-type", "application/grpc") + field("te", "trailers");
}
std::string message(std::string_view text) {
  return grpc_frame_head(text.size()) + std::string(text);
}
std::string call(uint32_t stream, std::string_view text) {
  return frame(kHeaders, kEndHeaders, stream, request_fields()) +
         frame(kData, kEndStream, stream, message(text));
}
std::string setting(uint16_t id, uint32_t value) {
  return std::string{char(id >> 8), char(id)} + number32(value);
}

struct Frame {
  char type, flags;
  uint32_t stream;
  std::string payload;
};
std::vector<Frame> frames(std::string_view bytes) {
  const auto at = [&](size_t i) { return uint32_t(static_cast<unsigned char>(bytes[i])); };
  std::vector<Frame> out;
  while (bytes.size() >= 9) {
    const size_t n = at(0) << 16 | at(1) << 8 | at(2);
    out.push_back({bytes[3], bytes[4], at(5) << 24 | at(6) << 16 | at(7) << 8 | at(8),
                   std::string(bytes.substr(9, n))});
    bytes.remove_prefix(std::min(bytes.size(), 9 + n));
  }
  return out;
}
size_t count(const std::vector<Frame>& all, char type, uint32_t stream) {
  return size_t(std::count_if(all.begin(), all.end(),
                              [&](const Frame& f) { return f.type == type && f.stream == stream; }));
}

// Answers every message with itself; unary calls end with it.
class Echo {
 public:
  GrpcHandler handler(bool stream = false) {
    return {[this, stream](const std::shared_ptr<GrpcCall>& c, Bytes m, Coding) {
              ++messages;
              c->on_gone([this] { ++gone; });
              const auto held = std::make_shared<const Bytes>(std::move(m));
              c->send({{held, held->span()}}, !stream);
            },
            [this](const std::shared_ptr<GrpcCall>& c) {
              ++half_closes;
              c->finish(GrpcStatus::kOk, "");
            }};
  }
  size_t messages = 0, half_closes = 0, gone = 0;
};

TEST(GrpcConnection, AnswersWhateverTheCutsAre) {
  const std::string text =
      kPreface + frame(kSettings, 0, 0, "") + call(1, "one") + call(3, std::string(9000, 'x'));
  for (size_t step : {size_t{1}, size_t{10}, text.size()}) {
    Echo echo;
    Peer peer;
    peer.open_grpc(echo.handler());
    for (size_t at = 0; at < text.size(); at += step) peer.send(std::string_view(text).substr(at, step));
    const auto got = frames(peer.received());
    for (uint32_t stream : {1, 3}) {
      EXPECT_EQ(count(got, kHeaders, stream), 2u);  // and trailers
      std::string data;
      for (const Frame& f : got)
        if (f.type == kData && f.stream == stream) data += f.payload;
      EXPECT_EQ(data, message(stream == 1 ? "one" : std::string(9000, 'x')));
    }
    EXPECT_EQ(echo.messages, 2u);
    EXPECT_EQ(echo.half_closes, 2u);
    EXPECT_FALSE(peer.connection->closed());
    EXPECT_EQ(peer.reactor.budget->used(), 0u);
  }
}

TEST(GrpcConnection, FloodsEndIt) {
  const std::string open = kPreface + frame(kSettings, 0, 0, "");
  const auto many = [](const std::string& one, int n) {
    std::string out;
    for (int i = 0; i < n; ++i) out += one;
    return out;
  };
  std::string resets;
  for (uint32_t i = 1; i < 200001; i += 2) resets += call(i, "x") + frame(kReset, 0, i, number32(8));
  // A header block without end: fields that are dropped, in frames that cost nothing each.
  std::string endless = frame(kHeaders, 0, 1, request_fields());
  for (int i = 0; i < 100000; ++i) endless += frame(kContinuation, 0, 1, field("a", "b"));
  const std::pair<const char*, std::string> floods[] = {
      {"ping", many(frame(kPing, 0, 0, "12345678"), 200000)},
      {"settings", many(frame(kSettings, 0, 0, ""), 200000)},
      {"priority", many(frame(kPriority, 0, 5, std::string(5, '\0')), 200000)},
      {"window", many(frame(kWindowUpdate, 0, 0, number32(1)), 200000)},
      {"empty data",
       frame(kHeaders, kEndHeaders, 1, request_fields()) + many(frame(kData, 0, 1, ""), 200000)},
      {"resets", resets},
      {"continuation", endless},
  };
  for (const auto& [name, flood] : floods) {
    Echo echo;
    Peer peer;
    peer.open_grpc(echo.handler());
    peer.send(open);
    peer.send(call(1, "first"));
    EXPECT_FALSE(peer.connection->closed()) << name;
    peer.send(flood);
    EXPECT_TRUE(peer.connection->closed()) << name;
    EXPECT_GT(peer.wire->in.size() - peer.wire->at, 0u) << name << ": read to its end";
    EXPECT_EQ(peer.reactor.budget->used(), 0u) << name;
  }
}

TEST(GrpcConnection, BusyClientsAreNoFlood) {
  Echo echo;
  Peer peer;
  peer.open_grpc(echo.handler());
  peer.send(kPreface + frame(kSettings, 0, 0, ""));
  for (uint32_t i = 0; i < 3000; ++i)  // each call with a ping and windows, as grpc's own clients send them
    peer.send(call(2 * i + 1, "x") + frame(kPing, 0, 0, "12345678") +
              frame(kWindowUpdate, 0, 0, number32(5)) + frame(kWindowUpdate, 0, 0, number32(5)));
  EXPECT_FALSE(peer.connection->closed());
  EXPECT_EQ(echo.messages, 3000u);
}

TEST(GrpcConnection, LargeHeadersResetTheStreamOnly) {
  Echo echo;
  Peer peer;
  peer.open_grpc(echo.handler());
  std::string fields = request_fields();
  for (int i = 0; i < 200; ++i) fields += field("x-padding", std::string(100, 'x'));
  std::string block = frame(kHeaders, 0, 1, fields.substr(0, 16000));
  block += frame(kContinuation, kEndHeaders, 1, fields.substr(16000));
  peer.send(kPreface + frame(kSettings, 0, 0, "") + block + call(3, "ok"));
  const auto got = frames(peer.received());
  EXPECT_EQ(count(got, kReset, 1), 1u);
  EXPECT_EQ(count(got, kData, 3) > 0, true);
  EXPECT_EQ(echo.messages, 1u);
  EXPECT_FALSE(peer.connection->closed());
}

TEST(GrpcConnection, SlowCallsAreReset) {
  ServerLimits limits;
  limits.head_timeout = 1s;
  limits.transfer_timeout = 2s;
  limits.min_bytes_per_s = 1000;
  const std::string open = kPreface + frame(kSettings, 0, 0, setting(4, 2000));  // a window of 2000 bytes
  {
    Echo echo;
    Peer sender(limits);
    sender.open_grpc(echo.handler());
    // A byte now and then does not keep it alive: 3000 bytes buy 3 seconds.
    sender.send(open + frame(kHeaders, kEndHeaders, 1, request_fields()) +
                frame(kData, 0, 1, message(std::string(9000, 'x')).substr(0, 3000)));
    sender.later(4900ms);
    EXPECT_EQ(count(frames(sender.received()), kReset, 1), 0u);
    sender.send(frame(kData, 0, 1, "x"));
    sender.later(5100ms);
    EXPECT_EQ(count(frames(sender.received()), kReset, 1), 1u);
  }
  {
    Echo echo;
    Peer reader(limits);
    reader.open_grpc(echo.handler());
    reader.send(open + call(1, std::string(9000, 'x')));
    EXPECT_EQ(reader.reactor.budget->used(),
              9000u + 7005);  // the request, in place, and what waits for a window
    reader.send(frame(kWindowUpdate, 0, 1, number32(1)));
    reader.later(3900ms);
    EXPECT_EQ(count(frames(reader.received()), kReset, 1), 0u);
    reader.later(4100ms);
    EXPECT_EQ(count(frames(reader.received()), kReset, 1), 1u);
    EXPECT_EQ(reader.reactor.budget->used(), 0u);
  }
  {
    Echo echo;
    Peer silent(limits);
    silent.open_grpc(echo.handler());
    silent.later(1100ms);
    EXPECT_TRUE(silent.connection->closed());
  }
}

TEST(GrpcConnection, AStreamThatReadsMayHaveAnyNumberOfAnswers) {
  Echo echo;
  Peer peer;
  peer.open_grpc(echo.handler(true));
  peer.send(kPreface + frame(kSettings, 0, 0, setting(4, 100)) +
            frame(kHeaders, kEndHeaders, 1, request_fields()));
  // Always behind, never far: answers of 15 bytes, a window that lets out what came before.
  for (int i = 0; i < 5000; ++i) {
    peer.send(frame(kData, 0, 1, message("0123456789")));
    if (i >= 10)
      peer.send(frame(kWindowUpdate, 0, 1, number32(15)) + frame(kWindowUpdate, 0, 0, number32(15)));
  }
  EXPECT_EQ(echo.messages, 5000u);
  const auto got = frames(peer.received());
  EXPECT_EQ(count(got, kHeaders, 1), 1u);  // no trailers: it goes on
  EXPECT_EQ(count(got, kReset, 1), 0u);
  // One that reads nothing is ended, with what it has asked for still counted.
  for (int i = 0; i < 1100; ++i) peer.send(frame(kData, 0, 1, message("0123456789")));
  EXPECT_GT(peer.reactor.budget->used(), 15000u);
  peer.send(frame(kWindowUpdate, 0, 1, number32(1 << 20)));
  std::string all;
  for (const Frame& f : frames(peer.received()))
    if (f.type == kHeaders) all += f.payload;
  EXPECT_FALSE(all.empty());
  EXPECT_EQ(peer.reactor.budget->used(), 0u);
}

TEST(GrpcConnection, MalformedMessagesEndTheCallWithAStatus) {
  const std::string open = kPreface + frame(kSettings, 0, 0, "");
  ServerLimits limits;
  limits.max_body_bytes = 1000;
  const std::pair<std::string, int> cases[] = {
      {std::string("\2\0\0\0\1x", 6), int(GrpcStatus::kInternal)},
      {std::string("\1\0\0\0\1x", 6), int(GrpcStatus::kUnimplemented)},
      {std::string("\0\0\0\4\0x", 6), int(GrpcStatus::kResourceExhausted)},
      {std::string("\0\xff\xff\xff\xff", 5), int(GrpcStatus::kResourceExhausted)},
      {std::string("\0\0\0\0\5x", 6), int(GrpcStatus::kInternal)},  // ends inside
  };
  for (const auto& [bytes, status] : cases) {
    Echo echo;
    Peer peer(limits);
    peer.open_grpc(echo.handler());
    peer.send(open + frame(kHeaders, kEndHeaders, 1, request_fields()) + frame(kData, kEndStream, 1, bytes));
    EXPECT_EQ(echo.messages, 0u);
    EXPECT_EQ(peer.reactor.grpc_calls.seen(), (std::map<int, uint64_t>{{status, 1}}));
    EXPECT_FALSE(peer.connection->closed());
    peer.send(call(3, "goes on"));
    EXPECT_EQ(echo.messages, 1u);
  }
}

TEST(GrpcConnection, ClosingTellsEveryCallOnce) {
  size_t gone = 0;
  std::vector<std::shared_ptr<GrpcCall>> calls;
  Peer peer;
  peer.open_grpc({[&](const std::shared_ptr<GrpcCall>& c, Bytes, Coding) {
                    c->on_gone([&] { ++gone; });
                    calls.push_back(c);
                  },
                  [](const std::shared_ptr<GrpcCall>&) {}});
  peer.send(kPreface + frame(kSettings, 0, 0, "") + call(1, "x") + call(3, "y") +
            frame(kReset, 0, 1, number32(8)));
  EXPECT_EQ(gone, 1u);
  peer.wire->ended = true;
  peer.event();
  peer.settle();
  EXPECT_EQ(gone, 2u);
  EXPECT_TRUE(peer.connection->closed());
  for (const auto& c : calls) c->finish(GrpcStatus::kOk, "");
  peer.settle();
  EXPECT_EQ(gone, 2u);
  EXPECT_EQ(peer.reactor.grpc_calls.seen(), (std::map<int, uint64_t>{{int(GrpcStatus::kCancelled), 2}}));
}

}  // namespace
}  // namespace isoline::net
