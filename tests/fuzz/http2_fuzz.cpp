// Any bytes as what a gRPC client sends, in pieces of any size: the same messages come of it however it is
// cut, every call hears once that it is gone, and all memory is given back. The first byte cuts, the second
// says whether the greeting is written for it and whether calls are answered.
#include <cstdlib>

#include "isoline/net/connection.h"
#include "isoline/net/memory_transport.h"

using namespace isoline;
using namespace isoline::net;

namespace {

struct Heard {
  std::vector<std::string> messages;
  size_t half_closes = 0;
};

Heard hear(std::string_view bytes, size_t step, bool answer, size_t write_room) {
  ServerLimits limits;
  limits.max_body_bytes = 16384;
  limits.max_bytes_in_flight = 1 << 20;
  limits.max_streams = 16;
  Heard heard;
  const auto wire = std::make_shared<MemoryWire>();
  wire->write_room = write_room;
  Reactor reactor(limits);
  std::vector<std::shared_ptr<int>> gone;  // of each call, how often
  {
    GrpcHandler handler;
    handler.on_message = [&](const std::shared_ptr<GrpcCall>& call, Bytes message, Coding coding) {
      if (!call->state) {
        gone.push_back(std::make_shared<int>());
        call->state = gone.back();
        call->on_gone([n = gone.back()] { ++*n; });
      }
      heard.messages.push_back(call->path() + "\n" +
                               std::string(reinterpret_cast<const char*>(message.data()), message.size()));
      if (coding != Coding::kIdentity) {
        const auto plain = decompress(message.span(), coding, 16384, reactor.budget);
        if (plain.ok() && plain->size() > 16384) std::abort();
      }
      if (!answer) return;
      const auto held = std::make_shared<const Bytes>(std::move(message));
      call->send({{held, held->span()}}, false);
    };
    handler.on_half_close = [&](const std::shared_ptr<GrpcCall>& call) {
      ++heard.half_closes;
      if (answer) call->finish(GrpcStatus::kOk, "");
    };
    const auto connection = make_grpc_connection(reactor, std::make_unique<MemoryTransport>(wire),
                                                 std::make_shared<const GrpcHandler>(std::move(handler)));
    for (size_t at = 0; at < bytes.size() && !connection->closed(); at += step) {
      wire->in.append(bytes.substr(at, step));
      connection->event(true, true, false);
      while (!reactor.run_posted()) {
      }
    }
    if (!connection->closed()) connection->tick(Clock::now() + std::chrono::hours(1));
    if (!connection->closed()) connection->close();
    while (!reactor.run_posted()) {
    }
  }
  for (const auto& n : gone)
    if (*n != 1) std::abort();
  if (reactor.budget->used()) std::abort();
  return heard;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  std::string bytes(reinterpret_cast<const char*>(data + 2), size - 2);
  if (data[1] & 1)
    bytes = std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") + std::string("\0\0\0\4\0\0\0\0\0", 9) + bytes;
  const bool answer = data[1] & 2;
  const size_t room = data[1] & 4 ? 100 + data[1] : SIZE_MAX;
  const Heard whole = hear(bytes, std::max<size_t>(1, bytes.size()), answer, room);
  const Heard cut = hear(bytes, size_t{1} + data[0], answer, room);
  // Answers that meet a window or a full socket may end calls at another point; without them nothing may
  // differ.
  if (!answer && room == SIZE_MAX && whole.messages != cut.messages) std::abort();
  return 0;
}
