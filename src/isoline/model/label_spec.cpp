#include "isoline/model/label_spec.h"

#include <algorithm>

namespace isoline {
namespace {

constexpr int kMaxLabel = 65534;  // label maps are uint16
constexpr size_t kMaxLabels = 4096;

}  // namespace

Result<LabelSpec> parse_labels(const JsonField& root) {
  ISOLINE_ASSIGN(const JsonField labels, root.at("labels"));
  ISOLINE_RETURN_IF_ERROR(labels.require_object());
  if (labels.size() > kMaxLabels)
    return labels.corrupt("has more than " + std::to_string(kMaxLabels) + " labels");
  ISOLINE_ASSIGN(const JsonField background, labels.at("background"));
  ISOLINE_ASSIGN([[maybe_unused]] const int zero, background.as_int(0, 0));

  LabelSpec out;
  for (size_t i = 0; i < labels.size(); ++i) {
    const JsonField field = labels.item(i);
    const std::string& name = labels.keys()[i];
    if (name == "ignore") {
      if (field.is_null()) continue;
      ISOLINE_ASSIGN(const int ignore, field.as_int(1, kMaxLabel));
      out.ignore_label = ignore;
      continue;
    }
    Region region{name, {}};
    if (field.is(JsonKind::kArray)) {
      ISOLINE_ASSIGN(region.labels, field.as_ints(0, kMaxLabel));
      if (region.labels.empty()) return field.corrupt("is an empty region");
      out.has_regions |= region.labels.size() > 1;
    } else {
      ISOLINE_ASSIGN(const int label, field.as_int(0, kMaxLabel));
      region.labels = {label};
    }
    out.all_labels.insert(out.all_labels.end(), region.labels.begin(), region.labels.end());
    const bool is_background =
        std::all_of(region.labels.begin(), region.labels.end(), [](int l) { return l == 0; });
    if (!is_background) out.foreground.push_back(std::move(region));
  }
  std::sort(out.all_labels.begin(), out.all_labels.end());
  out.all_labels.erase(std::unique(out.all_labels.begin(), out.all_labels.end()), out.all_labels.end());
  if (out.ignore_label && *out.ignore_label != out.all_labels.back() + 1) {
    ISOLINE_ASSIGN(const JsonField ignore, labels.at("ignore"));
    return ignore.corrupt("is " + std::to_string(*out.ignore_label) +
                          "; the ignore label must be one above the highest label, " +
                          std::to_string(out.all_labels.back() + 1));
  }
  if (!out.has_regions) {
    out.heads = int(out.all_labels.size());
    return out;
  }
  if (!root.has("regions_class_order")) return root.corrupt("has regions but lacks 'regions_class_order'");
  ISOLINE_ASSIGN(const JsonField order, root.at("regions_class_order"));
  ISOLINE_ASSIGN(out.regions_class_order, order.as_ints(0, kMaxLabel));
  if (out.regions_class_order.size() != out.foreground.size())
    return order.corrupt("has " + std::to_string(out.regions_class_order.size()) + " entries for " +
                         std::to_string(out.foreground.size()) + " regions");
  out.heads = int(out.foreground.size());
  return out;
}

}  // namespace isoline
