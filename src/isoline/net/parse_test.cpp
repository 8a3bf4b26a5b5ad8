// The pure parts: heads, chunks, inflation, frames, the queue of what is to be written.
#include <gtest/gtest.h>

#include <random>

#include "isoline/net/compression.h"
#include "isoline/net/grpc_frame.h"
#include "isoline/net/http1.h"
#include "isoline/net/memory_transport.h"
#include "isoline/net/out_queue.h"

namespace isoline::net {
namespace {

HeadResult parse(std::string_view text, HttpHead& head, const HttpLimits& limits = {}) {
  return parse_head(text, limits, head);
}
int status_of(std::string_view text) {
  HttpHead head;
  const HeadResult r = parse(text, head);
  EXPECT_EQ(r.reason.empty(), r.kind != HeadResult::Kind::kRefused) << text;
  return r.kind == HeadResult::Kind::kRefused ? r.status : r.kind == HeadResult::Kind::kComplete ? 200 : 0;
}

TEST(ParseHead, ReadsARequest) {
  HttpHead head;
  const std::string text =
      "POST /v2/models/a%20b/infer?x=1?2 HTTP/1.1\r\nHost: h\r\nCONTENT-length:  12 \r\nX-Empty:\r\n\r\nbody";
  const HeadResult r = parse(text, head);
  ASSERT_EQ(r.kind, HeadResult::Kind::kComplete) << r.reason;
  EXPECT_EQ(r.consumed, text.size() - 4);
  EXPECT_EQ(head.method, "POST");
  EXPECT_EQ(head.path, "/v2/models/a%20b/infer");
  EXPECT_EQ(head.query, "x=1?2");
  EXPECT_EQ(head.content_length, uint64_t{12});
  EXPECT_EQ(head.header("x-empty"), "");
  EXPECT_EQ(head.header("host"), "h");
  EXPECT_TRUE(head.keep_alive);
}

TEST(ParseHead, EveryPrefixIsIncomplete) {
  const std::string text = "GET /v2 HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n";
  for (size_t n = 0; n < text.size(); ++n) EXPECT_EQ(status_of(text.substr(0, n)), 0) << n;
  EXPECT_EQ(status_of(text), 200);
}

TEST(ParseHead, StatusOfEach) {
  const std::string get = "GET /v2 HTTP/1.1\r\nHost: h\r\n", post = "POST /v2 HTTP/1.1\r\nHost: h\r\n";
  const std::pair<std::string, int> cases[] = {
      {get + "\r\n", 200},
      {"GET http://h/v2 HTTP/1.1\r\nHost: h\r\n\r\n", 200},
      {"GET http://h HTTP/1.0\r\n\r\n", 200},
      {"GET  /v2 HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET /v2  HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET /v2 x HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {" GET /v2 HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET v2 HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET * HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"G(T /v2 HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET /v2 HTTP/1.2\r\nHost: h\r\n\r\n", 505},
      {"GET /v2 HTTP/2\r\nHost: h\r\n\r\n", 505},
      {"GET /v2 FTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET /v2 http/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET /v2\r\nHost: h\r\n\r\n", 400},
      {get + "No colon\r\n\r\n", 400},
      {get + ": no name\r\n\r\n", 400},
      {get + "Space : x\r\n\r\n", 400},
      {get + "A: b\r\n folded\r\n\r\n", 400},
      {get + "A: b\nB: c\r\n\r\n", 400},
      {get + "A: b\rB: c\r\n\r\n", 400},
      {get + std::string("A: \0\r\n\r\n", 8), 400},
      {get + "Host: h\r\n\r\n", 400},
      {"GET /v2 HTTP/1.1\r\nA: b\r\n\r\n", 400},
      {"GET /v2 HTTP/1.0\r\nA: b\r\n\r\n", 200},
      {"POST /v2 HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {"POST /v2 HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {post + "Content-Length: 0\r\n\r\n", 200},
      {post + "Content-Length: 3\r\nContent-Length: 3\r\n\r\n", 200},
      {post + "Content-Length: 3\r\nContent-Length: 4\r\n\r\n", 400},
      {post + "Content-Length: 3, 3\r\n\r\n", 400},
      {post + "Content-Length:\r\n\r\n", 400},
      {post + "Content-Length: +3\r\n\r\n", 400},
      {post + "Content-Length: -3\r\n\r\n", 400},
      {post + "Content-Length: 0x3\r\n\r\n", 400},
      {post + "Content-Length: 3.0\r\n\r\n", 400},
      {post + "Content-Length: 3 3\r\n\r\n", 400},
      {post + "Content-Length: 67108864\r\n\r\n", 200},
      {post + "Content-Length: 67108865\r\n\r\n", 413},
      {post + "Content-Length: 18446744073709551616\r\n\r\n", 413},
      {post + "Content-Length: 99999999999999999999999999\r\n\r\n", 413},
      {post + "Transfer-Encoding: chunked\r\n\r\n", 200},
      {post + "Transfer-Encoding: CHUNKED\r\n\r\n", 200},
      {post + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 400},
      {post + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 501},
      {post + "Transfer-Encoding: chunked, chunked\r\n\r\n", 501},
      {post + "Transfer-Encoding: gzip, chunked\r\n\r\n", 501},
      {post + "Transfer-Encoding: identity\r\n\r\n", 501},
      {post + "Transfer-Encoding: xchunked\r\n\r\n", 501},
      {post + "Transfer-Encoding:\r\n\r\n", 501},
      {post + "Transfer-Encoding : chunked\r\n\r\n", 400},
      {post + "Expect: 100-continue\r\n\r\n", 200},
      {post + "Expect: 200-ok\r\n\r\n", 417},
  };
  for (const auto& [text, want] : cases) EXPECT_EQ(status_of(text), want) << text;
}

TEST(ParseHead, Limits) {
  HttpLimits limits;
  limits.max_head_bytes = 200;
  limits.max_headers = 3;
  HttpHead head;
  const std::string start = "GET /v2 HTTP/1.1\r\nHost: h\r\n";
  EXPECT_EQ(parse(start + "A: b\r\nA: b\r\n\r\n", head, limits).kind, HeadResult::Kind::kComplete);
  EXPECT_EQ(parse(start + "A: b\r\nA: b\r\nA: b\r\n\r\n", head, limits).status, 431);
  EXPECT_EQ(parse(start + "A: " + std::string(150, 'b'), head, limits).kind, HeadResult::Kind::kIncomplete);
  EXPECT_EQ(parse(start + "A: " + std::string(200, 'b'), head, limits).status, 431);
}

TEST(ParseHead, KeepAlive) {
  const std::tuple<std::string, std::string, bool> cases[] = {
      {"1.1", "", true},
      {"1.0", "", false},
      {"1.1", "Connection: close\r\n", false},
      {"1.1", "Connection: Keep-Alive, CLOSE\r\n", false},
      {"1.0", "Connection: keep-alive\r\n", true},
      {"1.1", "Connection: closed\r\n", true},
  };
  for (const auto& [version, line, want] : cases) {
    HttpHead head;
    ASSERT_EQ(parse("GET / HTTP/" + version + "\r\nHost: h\r\n" + line + "\r\n", head).kind,
              HeadResult::Kind::kComplete);
    EXPECT_EQ(head.keep_alive, want) << version << " " << line;
  }
}

struct Decoded {
  ChunkDecoder::State state;
  std::string body;
  size_t consumed = 0;
};
// Fed in pieces of `step` bytes.
Decoded decode(std::string_view text, size_t step, uint64_t max_bytes = 1000,
               std::shared_ptr<MemoryBudget> budget = nullptr) {
  ChunkDecoder decoder;
  Bytes body(std::move(budget));
  Decoded out{ChunkDecoder::State::kMore, "", 0};
  while (out.consumed < text.size() && out.state == ChunkDecoder::State::kMore) {
    size_t n = 0;
    out.state = decoder.feed(text.substr(out.consumed, step), n, body, max_bytes);
    out.consumed += n;
  }
  out.body.assign(reinterpret_cast<const char*>(body.data()), body.size());
  return out;
}

TEST(ChunkDecoder, WholeAndByteByByte) {
  const std::string text =
      "5\r\nhello\r\nA;name=\"v\"\r\n0123456789\r\n01 \r\n!\r\n0\r\nTrailer: x\r\n\r\nGET /";
  for (size_t step : {size_t{1}, size_t{2}, size_t{7}, text.size()}) {
    const Decoded d = decode(text, step);
    EXPECT_EQ(d.state, ChunkDecoder::State::kDone);
    EXPECT_EQ(d.body, "hello0123456789!");
    EXPECT_EQ(text.substr(d.consumed), "GET /");
  }
}

TEST(ChunkDecoder, Refuses) {
  using State = ChunkDecoder::State;
  const std::pair<std::string, State> cases[] = {
      {"\r\n", State::kMalformed},
      {"x\r\n", State::kMalformed},
      {"-1\r\n", State::kMalformed},
      {"0x5\r\nhello\r\n", State::kMalformed},
      {"5\nhello\r\n", State::kMalformed},
      {"5\r\nhelloX\r\n", State::kMalformed},
      {"5\r\nhello\rX", State::kMalformed},
      {"5\r\nhello\n", State::kMalformed},
      {"5;a\nb\r\nhello\r\n", State::kMalformed},
      {"00000000000000005\r\n", State::kMalformed},  // 17 digits
      {"5;" + std::string(2000, 'a'), State::kMalformed},
      {"0\r\n" + std::string(2000, 'a'), State::kMalformed},
      {"0\r\nA: b\nC", State::kMalformed},
      {"3E9\r\n", State::kTooLarge},
      {"FFFFFFFFFFFFFFFF\r\n", State::kTooLarge},
      {"3E8\r\n" + std::string(1000, 'x') + "\r\n1\r\n", State::kTooLarge},
      {"3E8\r\n" + std::string(1000, 'x') + "\r\n0\r\n\r\n", State::kDone},
  };
  for (const auto& [text, want] : cases)
    for (size_t step : {size_t{1}, text.size()})
      EXPECT_EQ(decode(text, step).state, want) << text.substr(0, 40);
  // Many trailers are as long as one.
  std::string trailers = "0\r\n";
  for (int i = 0; i < 400; ++i) trailers += "A: b\r\n";
  EXPECT_EQ(decode(trailers, 100).state, State::kMalformed);
  EXPECT_EQ(
      decode("1000\r\n" + std::string(4096, 'x'), 8192, 1 << 20, std::make_shared<MemoryBudget>(100)).state,
      State::kNoMemory);
}

TEST(PercentDecode, Table) {
  EXPECT_EQ(percent_decode("a%2Fb%20c"), "a/b c");
  EXPECT_EQ(percent_decode(""), "");
  for (const char* bad : {"%", "%2", "%zz", "a%", "%2x", "%00", "%-1", "%+1"})
    EXPECT_FALSE(percent_decode(bad)) << bad;
}

std::span<const std::byte> bytes(std::string_view text) {
  return std::as_bytes(std::span(text));
}
std::string text_of(const Bytes& b) {
  return {reinterpret_cast<const char*>(b.data()), b.size()};
}

TEST(Compression, RoundTrip) {
  std::mt19937 random(1);
  std::string noise(100000, '\0');
  for (char& c : noise) c = char(random());
  const std::string zeros(300000, '\0'), word = "word";
  for (Coding coding : {Coding::kGzip, Coding::kDeflate}) {
    const std::span<const std::byte> parts[] = {bytes(word), {}, bytes(noise), bytes(zeros)};
    const std::string packed = compress(parts, coding);
    const auto plain = decompress(bytes(packed), coding, 1 << 20, nullptr);
    ASSERT_TRUE(plain.ok()) << plain.error().to_string();
    EXPECT_EQ(text_of(*plain), word + noise + zeros);
    // Exactly the limit is fine, a byte less is not.
    EXPECT_TRUE(decompress(bytes(packed), coding, plain->size(), nullptr).ok());
    const auto less = decompress(bytes(packed), coding, plain->size() - 1, nullptr);
    ASSERT_FALSE(less.ok());
    EXPECT_EQ(less.error().code, ErrorCode::kResourceExhausted);
    for (size_t cut : {size_t{0}, size_t{1}, size_t{10}, packed.size() / 2, packed.size() - 1}) {
      const auto r = decompress(bytes(std::string_view(packed).substr(0, cut)), coding, 1 << 20, nullptr);
      ASSERT_FALSE(r.ok()) << cut;
      EXPECT_EQ(r.error().code, ErrorCode::kInvalidArgument) << cut;
    }
    EXPECT_FALSE(decompress(bytes(packed + "x"), coding, 1 << 20, nullptr).ok());
  }
}

TEST(Compression, BombsStopAtTheLimitAndGiveTheirMemoryBack) {
  const std::string zeros(64 << 20, '\0');
  const std::span<const std::byte> parts[] = {bytes(zeros)};
  const std::string bomb = compress(parts, Coding::kGzip);
  ASSERT_LT(bomb.size(), zeros.size() / 200);
  const auto budget = std::make_shared<MemoryBudget>(16 << 20);
  const auto large = decompress(bytes(bomb), Coding::kGzip, 8 << 20, budget);
  ASSERT_FALSE(large.ok());
  EXPECT_EQ(large.error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(budget->used(), 0u);
  const auto poor = decompress(bytes(bomb), Coding::kGzip, 64 << 20, budget);
  ASSERT_FALSE(poor.ok());
  EXPECT_EQ(poor.error().code, ErrorCode::kIo);
  EXPECT_EQ(budget->used(), 0u);
}

TEST(Compression, CodingNames) {
  EXPECT_EQ(*parse_coding(" x-gzip"), Coding::kGzip);
  EXPECT_EQ(*parse_coding(""), Coding::kIdentity);
  EXPECT_FALSE(parse_coding("br").ok());
  EXPECT_FALSE(parse_coding("gzip, gzip").ok());
  EXPECT_EQ(choose_coding("deflate, gzip"), Coding::kGzip);
  EXPECT_EQ(choose_coding("gzip;q=0, deflate"), Coding::kDeflate);
  EXPECT_EQ(choose_coding("br, *"), Coding::kIdentity);
}

TEST(Bytes, GrowsWithinItsBudgetAndGivesItBack) {
  const auto budget = std::make_shared<MemoryBudget>(10000);
  {
    Bytes a(budget, 12), b(budget);
    EXPECT_TRUE(a.append(bytes(std::string(5000, 'a')), 5000));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(a.data()) % 16, 12u);
    EXPECT_EQ(budget->used(), 5012u);
    EXPECT_FALSE(b.append(bytes(std::string(5000, 'b')), 5000));
    EXPECT_EQ(b.size(), 0u);
    a = Bytes();
    EXPECT_TRUE(b.append(bytes(std::string(5000, 'b')), 5000));
    b.drop_front(4999);
    EXPECT_EQ(text_of(b), "b");
  }
  EXPECT_EQ(budget->used(), 0u);
}

std::string framed(std::string_view message, bool compressed = false) {
  std::string head = grpc_frame_head(message.size());
  head[0] = compressed;
  return head + std::string(message);
}

TEST(GrpcDeframer, PiecesOfAnySize) {
  const std::string text = framed("") + framed("one") + framed(std::string(3000, 'x'), true) + framed("last");
  for (size_t step : {size_t{1}, size_t{4}, size_t{6}, text.size()}) {
    GrpcDeframer deframer(nullptr, 3000);
    std::vector<std::pair<size_t, bool>> got;
    for (size_t at = 0; at < text.size(); at += step) {
      const auto state = deframer.feed(bytes(std::string_view(text).substr(at, step)),
                                       [&](Bytes m, bool c) { got.emplace_back(m.size(), c); });
      ASSERT_EQ(state, GrpcDeframer::State::kMore);
    }
    EXPECT_TRUE(deframer.at_boundary());
    const std::vector<std::pair<size_t, bool>> want = {{0, false}, {3, false}, {3000, true}, {4, false}};
    EXPECT_EQ(got, want);
  }
}

TEST(GrpcDeframer, Refuses) {
  const auto never = [](Bytes, bool) { FAIL(); };
  GrpcDeframer large(nullptr, 100), flags(nullptr, 100), poor(std::make_shared<MemoryBudget>(10), 5000);
  EXPECT_EQ(large.feed(bytes(std::string("\0\0\0\0\x65", 5)), never), GrpcDeframer::State::kTooLarge);
  EXPECT_EQ(flags.feed(bytes(std::string("\2\0\0\0\1", 5)), never), GrpcDeframer::State::kMalformed);
  EXPECT_EQ(poor.feed(bytes(std::string("\0\0\0\1\0x", 6)), never), GrpcDeframer::State::kNoMemory);
  GrpcDeframer inside(nullptr, 100);
  EXPECT_EQ(inside.feed(bytes(std::string("\0\0", 2)), never), GrpcDeframer::State::kMore);
  EXPECT_FALSE(inside.at_boundary());
}

TEST(GrpcTimeout, Table) {
  using namespace std::chrono_literals;
  EXPECT_EQ(parse_grpc_timeout("100m"), 100ms);
  EXPECT_EQ(parse_grpc_timeout("2S"), 2s);
  EXPECT_EQ(parse_grpc_timeout("1H"), 1h);
  EXPECT_EQ(parse_grpc_timeout("99999999H"), 24h * 365);  // capped
  for (const char* bad : {"", "1", "m", "1x", "-1m", "1.5S", "123456789m", " 1m", "+1m"})
    EXPECT_FALSE(parse_grpc_timeout(bad)) << bad;
}

TEST(GrpcMessage, IsPrintableAndBounded) {
  EXPECT_EQ(percent_encode_message("50% of\r\n\xC3\xBC"), "50%25 of%0D%0A%C3%BC");
  EXPECT_LE(percent_encode_message(std::string(5000, '\n')).size(), 3u * 1024);
}

TEST(OutQueue, WritesEverythingInOrderHoweverLittleIsTaken) {
  std::mt19937 random(3);
  OutQueue queue;
  std::string want;
  for (int i = 0; i < 200; ++i) {
    auto piece = std::make_shared<std::string>(random() % (i % 7 ? 100 : 9000), char('a' + i % 26));
    want += *piece;
    if (i % 3)
      queue.segment({piece, std::as_bytes(std::span(*piece))});
    else
      queue.text(*piece);
  }
  EXPECT_EQ(queue.byte_size(), want.size());
  auto wire = std::make_shared<MemoryWire>();
  MemoryTransport transport(wire);
  uint64_t written = 0;
  wire->write_room = 0;
  EXPECT_EQ(queue.flush(transport, written), OutQueue::Flushed::kBlocked);
  while (!queue.empty()) {
    wire->write_room = 1 + random() % 5000;
    const auto r = queue.flush(transport, written);
    EXPECT_EQ(r == OutQueue::Flushed::kAll, queue.empty());
    EXPECT_EQ(queue.byte_size(), want.size() - written);
  }
  EXPECT_EQ(written, want.size());
  EXPECT_EQ(wire->out, want);
}

}  // namespace
}  // namespace isoline::net
