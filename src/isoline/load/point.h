// One load from its plan to its figures: driven, observed, counted.
#pragma once

#include <memory>
#include <optional>

#include "isoline/bench/result.h"
#include "isoline/load/channel.h"
#include "isoline/load/driver.h"
#include "isoline/measure/meter.h"

namespace isoline::load {

struct PointOptions {
  LoadPlan plan;
  int64_t batch = 1;
  size_t lanes = 1;                 // requests that may be under way at once
  measure::Meter* meter = nullptr;  // null: no energy, for the reason below
  std::string why_no_meter = "not measured";
  std::optional<double> price_per_hour;
};

// One request first, outside everything, whose failure is the answer; then the load.
Result<bench::Point> measure_point(Target& target, std::shared_ptr<const Payloads> payloads,
                                   const PointOptions& options);

}  // namespace isoline::load
