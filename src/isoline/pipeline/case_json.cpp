#include "isoline/pipeline/case_json.h"

namespace isoline {
namespace {

using Json = nlohmann::ordered_json;

Json shape_json(const Shape3& s) {
  return Json::array({s[0], s[1], s[2]});
}

// What a scan took on a device; null where it did not live on one.
Json device_json(const std::optional<ScanReport>& r) {
  if (!r) return nullptr;
  return {{"batch", r->batch},
          {"preprocessed_on_device", r->preprocessed_on_device},
          {"streamed_in_slabs", r->streamed},
          {"tuning", r->tuning.empty() ? Json(nullptr) : Json(r->tuning)},
          {"tuning_s", r->tuning_s},
          {"peak_vram_bytes", r->peak_device_bytes}};
}

}  // namespace

Json to_json(const CaseResult& r) {
  const Segmentation& s = r.segmentation;
  const StageTimes& t = s.times;
  Json voxels = Json::object();
  for (size_t l = 0; l < r.label_voxels.size(); ++l)
    if (r.label_voxels[l]) voxels[std::to_string(l)] = r.label_voxels[l];
  return {{"shape_zyx", shape_json(r.shape)},
          {"spacing_zyx_mm", Json::array({r.spacing_mm[0], r.spacing_mm[1], r.spacing_mm[2]})},
          {"network_shape_zyx", shape_json(s.network_shape)},
          {"stages_s",
           {{"read", t.read_s},
            {"preprocess", t.preprocess_s},
            {"network", t.network_s},
            {"export", t.export_s},
            {"write", t.write_s}}},
          {"total_s", r.total_s},
          {"windows", s.windows},
          {"forwards", s.forwards},
          {"s_per_forward", s.forwards ? Json(t.network_s / double(s.forwards)) : Json(nullptr)},
          {"device", device_json(s.device)},
          {"label_voxels", voxels},
          {"warnings", r.warnings}};
}

}  // namespace isoline
