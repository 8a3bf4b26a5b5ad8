// Fuzzes plans.json + dataset.json, isoline.json and the architecture they describe.
// Input: one byte choosing the reader, then text; plans and dataset are separated by a NUL byte.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>

#include "isoline/model/isoline_json.h"
#include "isoline/model/plans.h"

using namespace isoline;

namespace {

void check(bool ok) {
  if (!ok) std::abort();
}

// What readers promise of every spec they accept.
void check_promises(const ModelSpec& spec) {
  check(check_spec(spec, "").ok());
  check(!spec.channels.empty() && spec.labels.heads > 0);
  check(spec.labels.has_regions ? spec.labels.regions_class_order.size() == size_t(spec.labels.heads)
                                : spec.labels.all_labels.size() == size_t(spec.labels.heads));
  // Written as isoline.json, it is read back as the same. (Names that are not UTF-8 cannot occur: JSON has
  // none.) Two regions cannot share a name, and one called like a key of the format cannot be told from it.
  const std::string text = to_isoline_json(spec, "model.onnx");
  const auto tree = parse_json(std::as_bytes(std::span(text)));
  check(tree.ok());
  const auto again = parse_isoline_json(JsonField(*tree, "isoline.json"), "");
  check(again.ok());
  check(to_isoline_json(*again, "model.onnx") == text);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::span<const std::byte> text(reinterpret_cast<const std::byte*>(data) + 1, size - 1);
  if (data[0] == 'b') {
    const auto tree = parse_json(text);
    if (!tree) return 0;
    const auto spec = parse_isoline_json(JsonField(*tree, "isoline.json"), "folder");
    if (spec) check_promises(*spec);
    return 0;
  }
  const void* end = std::memchr(text.data(), 0, text.size());
  if (!end) return 0;
  const size_t split = size_t(static_cast<const std::byte*>(end) - text.data());
  const auto plans = parse_json(text.first(split)), dataset = parse_json(text.subspan(split + 1));
  if (!plans || !dataset) return 0;
  const JsonField root(*plans, "plans.json");
  const auto configurations = root.at("configurations");
  if (!configurations) return 0;
  for (const std::string& name : configurations->keys()) {
    std::vector<std::string> warnings;
    const auto spec = parse_plans(root, JsonField(*dataset, "dataset.json"), name, warnings);
    if (spec) check_promises(*spec);
  }
  return 0;
}
