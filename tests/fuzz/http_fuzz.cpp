// Any bytes as what an HTTP client sends, in pieces of any size: the same requests come of it however it is
// cut, compressed bodies stay within their limit, and all memory is given back. The first byte cuts; odd ones
// feed the inflater alone.
#include <cstdlib>

#include "isoline/net/connection.h"
#include "isoline/net/memory_transport.h"

using namespace isoline;
using namespace isoline::net;

namespace {

ServerLimits limits() {
  ServerLimits l;
  l.max_head_bytes = 2048;
  l.max_body_bytes = 16384;
  l.max_bytes_in_flight = 1 << 20;
  return l;
}

void inflate(std::span<const std::byte> bytes, Coding coding) {
  const auto budget = std::make_shared<MemoryBudget>(1 << 20);
  {
    const auto plain = decompress(bytes, coding, 16384, budget);
    if (plain.ok() ? plain->size() > 16384 : plain.error().message.empty()) std::abort();
  }
  if (budget->used()) std::abort();
}

struct Heard {
  std::vector<std::string> requests;  // method, path, body
  size_t answers = 0;
};

Heard hear(std::string_view bytes, size_t step) {
  Heard heard;
  const auto wire = std::make_shared<MemoryWire>();
  Reactor reactor(limits());
  {
    const HttpHandler handler = [&](const std::shared_ptr<HttpExchange>& e) {
      const HttpHead& head = e->head();
      const std::string body(reinterpret_cast<const char*>(e->body().data()), e->body().size());
      heard.requests.push_back(head.method + "\n" + head.path + "\n" + body);
      if (const auto coding = parse_coding(head.header("content-encoding"));
          coding.ok() && *coding != Coding::kIdentity)
        inflate(e->body(), *coding);
      static_cast<void>(percent_decode(head.path));
      static_cast<void>(choose_coding(head.header("accept-encoding")));
      HttpResponse r;
      r.segments.push_back({e->body_owner(), e->body()});
      e->respond(std::move(r));
    };
    const auto connection =
        make_http_connection(reactor, std::make_unique<MemoryTransport>(wire),
                             std::make_shared<const HttpService>(HttpService{handler, {}}));
    for (size_t at = 0; at < bytes.size() && !connection->closed(); at += step) {
      wire->in.append(bytes.substr(at, step));
      connection->event(true, true, false);
      while (!reactor.run_posted()) {
      }
    }
    wire->ended = true;
    if (!connection->closed()) connection->event(true, true, true);
    while (!reactor.run_posted()) {
    }
    if (!connection->closed()) connection->close();
  }
  while (!reactor.run_posted()) {
  }
  if (reactor.budget->used()) std::abort();
  for (const auto& [status, n] : reactor.http_responses.seen()) heard.answers += n;
  return heard;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (!size) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data + 1), size - 1);
  if (data[0] & 1) {
    inflate(std::as_bytes(std::span(bytes)), data[0] & 2 ? Coding::kGzip : Coding::kDeflate);
    return 0;
  }
  const Heard whole = hear(bytes, std::max<size_t>(1, bytes.size())),
              cut = hear(bytes, 1 + size_t(data[0] / 2));
  if (whole.requests != cut.requests) std::abort();
  // One answer a request, and at most one refusal.
  if (whole.answers > whole.requests.size() + 1) std::abort();
  return 0;
}
