// Any bytes as each of the protocol's gRPC messages; what a request holds comes back from an answer made of
// it.
#include <cstdlib>

#include "isoline/net/grpc_frame.h"
#include "isoline/oip/grpc_messages.h"
#include "isoline/oip/wire.h"

using namespace isoline;

namespace {

void answer(const serve::InferRequest& request, bool stream) {
  serve::InferResponse response;
  response.model = request.model;
  response.version = "1";
  response.id = request.id;
  response.outputs = request.inputs;
  const oip::GrpcAnswer made = oip::write_model_infer(response, stream, stream);
  std::string whole;
  for (const auto& part : made.parts) whole.append(reinterpret_cast<const char*>(part.data()), part.size());
  if (whole.size() != made.byte_size) std::abort();
  oip::WireReader in(std::as_bytes(std::span(whole)));
  oip::WireField field;
  std::span<const std::byte> inner;
  if (stream) {
    if (!*in.next(field) || field.id != 2) std::abort();
    inner = field.bytes;
    if (*in.next(field)) std::abort();
    in = oip::WireReader(inner);
  }
  size_t tensor = 0;
  for (;;) {
    const auto more = in.next(field);
    if (!more.ok()) std::abort();
    if (!*more) break;
    if (field.id != 6) continue;
    const auto want = request.inputs.at(tensor++).data;
    if (!std::equal(field.bytes.begin(), field.bytes.end(), want.begin(), want.end())) std::abort();
  }
  if (tensor != request.inputs.size()) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto message = std::as_bytes(std::span(data, size));
  const auto infer = oip::parse_model_infer(message, nullptr);
  if (infer.ok()) {
    answer(infer->request, false);
    answer(infer->request, true);
  } else if (infer.error().message.empty()) {
    std::abort();
  }
  static_cast<void>(oip::parse_model_name(message));
  static_cast<void>(oip::parse_index_message(message));
  static_cast<void>(oip::parse_load_message(message));
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (char c : net::percent_encode_message(text))
    if (c < 0x20 || c > 0x7e) std::abort();
  static_cast<void>(net::parse_grpc_timeout(text));
  return 0;
}
