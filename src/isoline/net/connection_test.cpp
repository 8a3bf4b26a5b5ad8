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
    open(make_http_connection(reactor, transport(), std::make_shared<const HttpHandler>(std::move(handler))));
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

}  // namespace
}  // namespace isoline::net
