// A model and the first backend that can run it become a Segmenter.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "isoline/pipeline/segmenter.h"

namespace isoline {

// "all": those the model was trained with (unset); "none"; or a list such as "0,1".
Result<std::optional<std::vector<int>>> parse_mirror_axes(const std::string& text);

struct BackendChoice {
  std::string name = "auto";  // auto: the first of the registry that is available and supports the network
  bool cpu_only = false;      // auto passes over GPUs
};

struct OpenedSegmenter {
  std::unique_ptr<Segmenter> segmenter;
  const Backend* backend = nullptr;
};
// `registry` must outlive the segmenter. `passed_over` is told of every backend that auto leaves for the
// next.
Result<OpenedSegmenter> open_segmenter(
    LoadedModel model, const BackendRegistry& registry, const BackendChoice& choice,
    const SegmenterOptions& options,
    const std::function<void(const Backend& backend, const Error& why)>& passed_over);

}  // namespace isoline
