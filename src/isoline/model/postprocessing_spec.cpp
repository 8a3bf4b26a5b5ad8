#include "isoline/model/postprocessing_spec.h"

#include <algorithm>

#include "isoline/base/file.h"
#include "isoline/model/printable.h"
#include "isoline/model/unpickler.h"

namespace isoline {
namespace {

constexpr uint64_t kMaxBytes = 1u << 20;
constexpr const char* kFunction =
    "nnunetv2.postprocessing.remove_connected_components remove_all_but_largest_component_from_segmentation";

Error corrupt(const std::string& message) {
  return Error{ErrorCode::kCorrupt, message, "", "Give the postprocessing.pkl that nnU-Net wrote"};
}

bool is_sequence(const PickleObject& o) {
  return o.kind == PickleKind::kList || o.kind == PickleKind::kTuple;
}

Status add_label(const PickleObject& o, std::vector<int>& to) {
  if (o.kind != PickleKind::kInt || o.integer < 0 || o.integer > 65535)
    return corrupt("labels_or_regions holds something that is no label");
  to.push_back(int(o.integer));
  return {};
}

// A label, a region (tuple of labels), or a list of labels and regions: the mask is their union in every
// case.
Status add_labels(const Pickle& pickle, const PickleObject& o, std::vector<int>& to) {
  if (!is_sequence(o)) return add_label(o, to);
  for (const PickleRef r : o.items) {
    const PickleObject& member = pickle.at(r);
    if (!is_sequence(member)) {
      ISOLINE_RETURN_IF_ERROR(add_label(member, to));
      continue;
    }
    if (o.kind == PickleKind::kTuple) return corrupt("labels_or_regions is nested too deeply");
    for (const PickleRef inner : member.items) ISOLINE_RETURN_IF_ERROR(add_label(pickle.at(inner), to));
    if (to.size() > 100'000) return corrupt("labels_or_regions is too long");
  }
  return {};
}

Result<KeepLargestComponent> parse_step(const Pickle& pickle, const PickleObject& function,
                                        const PickleObject& kwargs) {
  if (function.kind != PickleKind::kName)
    return corrupt(std::string("a function is a ") + to_string(function.kind));
  if (function.text != kFunction)
    return Error{ErrorCode::kUnsupported, "the function '" + printable(function.text) + "' is not supported",
                 "", ""};
  if (kwargs.kind != PickleKind::kDict) return corrupt("a function has no keyword arguments");
  for (size_t i = 0; i + 1 < kwargs.items.size(); i += 2) {
    const PickleObject& key = pickle.at(kwargs.items[i]);
    if (key.kind != PickleKind::kString ||
        (key.text != "labels_or_regions" && key.text != "background_label"))
      return Error{ErrorCode::kUnsupported, "the argument '" + printable(key.text) + "' is not supported", "",
                   ""};
  }
  KeepLargestComponent out;
  const PickleObject* labels = pickle.find(kwargs, "labels_or_regions");
  if (!labels) return corrupt("labels_or_regions is missing");
  ISOLINE_RETURN_IF_ERROR(add_labels(pickle, *labels, out.labels));
  std::sort(out.labels.begin(), out.labels.end());
  out.labels.erase(std::unique(out.labels.begin(), out.labels.end()), out.labels.end());
  if (const PickleObject* background = pickle.find(kwargs, "background_label")) {
    if (background->kind != PickleKind::kInt || background->integer < 0 || background->integer > 65535)
      return corrupt("background_label is no label");
    out.background_label = int(background->integer);
  }
  return out;
}

Result<PostprocessingSpec> parse(std::span<const std::byte> bytes) {
  UnpickleOptions options;
  options.functions = {kFunction};
  options.max_bytes = kMaxBytes;
  ISOLINE_ASSIGN(const Pickle pickle, unpickle(bytes, options));
  const PickleObject& root = pickle.root();
  if (!is_sequence(root) || root.items.size() != 2) return corrupt("holds no pair of lists");
  const PickleObject &functions = pickle.at(root.items[0]), &kwargs = pickle.at(root.items[1]);
  if (!is_sequence(functions) || !is_sequence(kwargs) || functions.items.size() != kwargs.items.size())
    return corrupt("holds no two lists of equal length");
  if (functions.items.size() > 10'000) return corrupt("lists too many functions");
  PostprocessingSpec out;
  for (size_t i = 0; i < functions.items.size(); ++i) {
    ISOLINE_ASSIGN(auto step, parse_step(pickle, pickle.at(functions.items[i]), pickle.at(kwargs.items[i])));
    out.steps.push_back(std::move(step));
  }
  return out;
}

}  // namespace

Result<PostprocessingSpec> load_postprocessing(const std::string& path) {
  ISOLINE_ASSIGN(const auto bytes, read_whole_file(path, kMaxBytes));
  auto spec = parse(bytes.span());
  if (!spec) return spec.error().in(path);
  return spec;
}

}  // namespace isoline
