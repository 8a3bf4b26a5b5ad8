// Times surface_metrics of two label files, from label maps in memory to figures.
// Usage: metrics_bench REFERENCE PREDICTION [runs] [threads]; KiTS23 regions and tolerances; one JSON object.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "isoline/io/nifti.h"
#include "isoline/metrics/presets.h"
#include "isoline/metrics/surface.h"

using namespace isoline;

namespace {

double seconds_of(const LabelMap& reference, const LabelMap& prediction,
                  const std::vector<SurfaceRegion>& regions, ThreadPool& pool,
                  std::vector<SurfaceMetrics>& out) {
  const auto start = std::chrono::steady_clock::now();
  auto result = surface_metrics(reference, prediction, regions, std::nullopt, pool);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  if (!result.ok()) {
    std::fprintf(stderr, "%s\n", result.error().to_string().c_str());
    std::exit(1);
  }
  out = std::move(result).value();
  return took.count();
}

void print_times(const char* name, std::vector<double> times) {
  std::printf("\"%s\": [", name);
  for (size_t i = 0; i < times.size(); ++i) std::printf("%s%.6f", i ? ", " : "", times[i]);
  std::printf("]");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: metrics_bench REFERENCE PREDICTION [runs] [threads]\n");
    return 2;
  }
  const int runs = argc > 3 ? std::atoi(argv[3]) : 10;
  ThreadPool pool(argc > 4 ? std::atoi(argv[4]) : 0);
  const auto reference = read_labels(argv[1], ReaderKind::kSimpleItk, {}, pool);
  const auto prediction = read_labels(argv[2], ReaderKind::kSimpleItk, {}, pool);
  if (!reference.ok() || !prediction.ok()) {
    std::fprintf(stderr, "cannot read the label files\n");
    return 1;
  }
  const EvaluationPreset& kits = evaluation_presets()[0];
  std::vector<SurfaceRegion> regions;
  for (size_t r = 0; r < kits.regions.size(); ++r)
    regions.push_back({kits.regions[r], {kits.tolerances_mm[r]}});
  std::vector<SurfaceMetrics> figures;
  std::vector<double> together;
  seconds_of(*reference, *prediction, regions, pool, figures);  // warm-up
  for (int i = 0; i < runs; ++i)
    together.push_back(seconds_of(*reference, *prediction, regions, pool, figures));
  std::printf("{\"threads\": %d, \"shape\": \"%s\", ", pool.threads(), to_string(reference->shape).c_str());
  print_times("all_regions_s", together);
  std::printf(", \"regions\": {");
  for (size_t r = 0; r < regions.size(); ++r) {
    std::vector<double> alone;
    std::vector<SurfaceMetrics> one;
    for (int i = 0; i < runs; ++i)
      alone.push_back(seconds_of(*reference, *prediction, {regions[r]}, pool, one));
    std::printf("%s\"%s\": {", r ? ", " : "", regions[r].region.name.c_str());
    print_times("alone_s", alone);
    std::printf(", \"surface_dice\": %.17g, \"hd95_mm\": %.17g, \"areas_mm2\": [%.17g, %.17g]}",
                figures[r].surface_dice(0, BothEmpty::kOne), figures[r].hd95_mm(BothEmpty::kOne),
                figures[r].reference_area_mm2, figures[r].predicted_area_mm2);
  }
  std::printf("}}\n");
  return 0;
}
