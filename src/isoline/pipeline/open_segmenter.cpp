#include "isoline/pipeline/open_segmenter.h"

namespace isoline {

Result<std::optional<std::vector<int>>> parse_mirror_axes(const std::string& text) {
  std::optional<std::vector<int>> axes;
  if (text == "all") return axes;
  axes.emplace();
  if (text == "none") return axes;
  for (size_t i = 0;; i += 2) {
    const bool axis = i < text.size() && text[i] >= '0' && text[i] <= '2';
    const bool last = i + 1 == text.size();
    if (!axis || (!last && text[i + 1] != ','))
      return Error{ErrorCode::kInvalidArgument, "'" + text.substr(0, 64) + "' names no axes", "--tta",
                   "Use all, none or a list such as 0,1."};
    axes->push_back(text[i] - '0');
    if (last) return axes;
  }
}

Result<OpenedSegmenter> open_segmenter(
    LoadedModel model, const BackendRegistry& registry, const BackendChoice& choice,
    const SegmenterOptions& options,
    const std::function<void(const Backend& backend, const Error& why)>& passed_over) {
  std::vector<const Backend*> candidates = registry.all();
  std::erase_if(candidates, [&](const Backend* b) {
    return !b->available() || (choice.cpu_only && b->device_kind() != "cpu");
  });
  if (choice.name != "auto") {
    ISOLINE_ASSIGN(const Backend* named, registry.find(choice.name));
    candidates = {named};
  }
  for (size_t i = 0; i < candidates.size(); ++i) {
    const bool last = i + 1 == candidates.size();
    auto segmenter = last ? Segmenter::create(std::move(model), *candidates[i], options)
                          : Segmenter::create(model, *candidates[i], options);
    if (segmenter.ok())
      return OpenedSegmenter{std::make_unique<Segmenter>(std::move(segmenter).value()), candidates[i]};
    if (last || segmenter.error().code != ErrorCode::kUnsupported) return segmenter.error();
    passed_over(*candidates[i], segmenter.error());
  }
  return Error{ErrorCode::kUnsupported, "no backend of this build is available here", "backend",
               "See `isoline devices`."};
}

}  // namespace isoline
