// Any bytes as the body of a REST inference, through parsing, the model's checks, a model that returns its
// inputs, and the answer's JSON; and as the bodies of control requests. The first two bytes choose the model
// and the length of the JSON header.
#include <cstdlib>
#include <future>

#include "isoline/oip/rest.h"
#include "isoline/serve/identity.h"

using namespace isoline;
using namespace isoline::serve;

namespace {

// One model for each datatype, with and without a batch axis.
const std::vector<std::shared_ptr<ServedModel>>& models() {
  static const auto made = [] {
    std::vector<std::shared_ptr<ServedModel>> out;
    for (int i = 0; i < 28; ++i) {
      ModelConfig c;
      c.platform = kIdentityPlatform;
      c.has_max_batch_size = true;
      c.max_batch_size = i % 2 ? 4 : 0;
      c.input = {{"A", ElementType(i / 2), {-1}}, {"B", ElementType::kFloat32, {2, -1}}};
      if (i % 3) c.input.resize(1);
      c.output = c.input;
      auto model = open_identity_model(c);
      if (!model.ok()) std::abort();
      auto served = ServedModel::start(std::move(*model), c, "m", 1, {});
      if (!served.ok()) std::abort();
      out.push_back(std::move(*served));
    }
    return out;
  }();
  return made;
}

void infer(ServedModel& model, oip::RestInfer parsed) {
  std::promise<Result<InferResponse>> promise;
  auto future = promise.get_future();
  const auto inputs = parsed.request.inputs;
  const auto memory = parsed.request.memory;
  parsed.request.model = "m";
  model.infer(std::move(parsed.request), [&](Result<InferResponse> r) { promise.set_value(std::move(r)); });
  const auto response = future.get();
  if (!response.ok()) {
    if (response.error().message.empty()) std::abort();
    return;
  }
  for (const NamedTensor& o : response->outputs)
    for (const NamedTensor& i : inputs)
      if (i.name == o.name &&
          (i.shape != o.shape || !std::equal(i.data.begin(), i.data.end(), o.data.begin(), o.data.end())))
        std::abort();
  const auto answer = oip::write_infer(*response, parsed.outputs);
  if (!answer.ok()) return;
  oip::JsonReader in(answer->json);
  if (!in.skip().ok() || !in.end().ok()) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const auto body = std::as_bytes(std::span(data + 2, size - 2));
  const std::string_view text(reinterpret_cast<const char*>(body.data()), body.size());
  ServedModel& model = *models()[data[0] % models().size()];
  std::optional<uint64_t> header;
  // The header ends behind the last '}', before it, or is not there at all.
  if (const size_t end = text.rfind('}'); data[1] & 1 && end != std::string_view::npos)
    header = end + 1 - (data[1] & 2 ? 1 : 0);
  if (data[1] == 4) header = 0;
  auto parsed = oip::parse_infer(body, nullptr, header, model.info());
  if (parsed.ok())
    infer(model, std::move(*parsed));
  else if (parsed.error().message.empty())
    std::abort();
  static_cast<void>(oip::parse_index_request(text));
  static_cast<void>(oip::parse_load_request(text));
  oip::JsonWriter w;
  w.string(text);
  const std::string quoted = w.take();
  oip::JsonReader in(quoted);
  const auto back = in.string();
  if (!back.ok() || (oip::is_utf8(text) && *back != text)) std::abort();
  return 0;
}
