// `segment --profile`: where the time went, by stage and by layer, as a table, as JSON and as a Chrome trace.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "segment_cases.h"

namespace isoline::cli {

// One step of the network beside what it would take at the device's ceilings.
struct LayerProfile {
  LayerTime time;
  // The larger of the times for its products and for its bytes; not set where there are no ceilings, and 0
  // for no step that does something.
  std::optional<double> floor_ms;
  bool loses_most = false;  // one of the three furthest above their floor (or longest, without one)
};

struct Profile {
  StageTimes stages;   // of all cases together
  double total_s = 0;  // likewise, read to written
  int batch = 1;       // of layers
  std::vector<LayerProfile> layers;
  std::string no_layers;  // why there are none
  std::optional<DeviceCeilings> ceilings;
  std::string no_ceilings;  // why there are none
  // Of one forward pass of `batch` in the scans, median, as it really ran; where it was timed.
  std::optional<double> batch_ms;
};

// A case and what became of it.
using DoneCase = std::pair<CaseFiles, CaseResult>;

// Times the layers and measures the ceilings, now; at least one case.
Profile measure_profile(OpenedModel& model, Precision precision, const std::vector<DoneCase>& cases);

void print_profile(const Profile& profile);
// For `--json`: everything that the table and the trace say.
Json profile_json(const Profile& profile, const std::vector<DoneCase>& cases);
// What Perfetto and chrome://tracing read; `start` is moment 0. Rows: the host's reading, segmenting and
// writing; the device; one forward pass, layer by layer, behind everything else.
Json chrome_trace(const Profile& profile, const std::vector<DoneCase>& cases, const std::string& ran_on,
                  std::chrono::steady_clock::time_point start);

}  // namespace isoline::cli
