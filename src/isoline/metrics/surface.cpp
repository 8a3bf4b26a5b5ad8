#include "isoline/metrics/surface.h"

namespace isoline {

Result<std::vector<SurfaceMetrics>> surface_metrics(const LabelMap&, const LabelMap&,
                                                    std::span<const SurfaceRegion>, std::optional<int>,
                                                    ThreadPool&) {
  return Error{ErrorCode::kUnsupported, "surface distances are not built yet", "", ""};
}

}  // namespace isoline
