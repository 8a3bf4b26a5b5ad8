#include "lab_experiment.h"

#include <cstdio>
#include <memory>

#include "isoline/base/progress.h"

namespace isoline::cli {
namespace {

std::string fixed(double v, int digits) {
  char text[48];
  std::snprintf(text, sizeof text, "%.*f", digits, v);
  return text;
}

std::string reading(const Reading& r, double scale, int digits) {
  return r.ok() ? fixed(*r * scale, digits) : "n/a";
}

}  // namespace

Result<lab::Plan> plan_experiment(const std::string& file, ThreadPool& pool, const Output& output) {
  ISOLINE_ASSIGN(lab::Experiment experiment, lab::read_experiment(file));
  std::unique_ptr<Progress> bar;
  return lab::make_plan(std::move(experiment), pool, [&](int64_t done, int64_t total) {
    if (!bar) bar = std::make_unique<Progress>("checking cases", total, output.progress());
    bar->set(done);
  });
}

void print_summary(const lab::RunSummary& summary) {
  std::printf("%s on %s, %zu cases, %s order; %s\n\n", summary.id.c_str(), summary.device_name.c_str(),
              summary.case_ids.size(), summary.order.c_str(), summary.boundary.c_str());
  std::printf("%-16s %9s %8s %9s %9s %9s", "setting", "s/case", "speed-up", "kJ gross", "RSS MB", "VRAM MB");
  if (!summary.settings.empty())
    for (const lab::RegionQuality& q : summary.settings[0].quality) std::printf(" %12.12s", q.region.c_str());
  std::printf("  %-13s %s\n", "verdict", "unlike baseline");
  for (const lab::SettingSummary& s : summary.settings) {
    if (!s.not_run.empty()) {
      std::printf("%-16.16s not run: %s\n", s.name.c_str(), s.not_run.c_str());
      continue;
    }
    std::printf("%-16.16s %9s %8s %9s %9s %9s", s.name.c_str(),
                s.s_per_case.n ? fixed(s.s_per_case.value, 3).c_str() : "n/a",
                s.speedup ? (fixed(s.speedup->value, 2) + "x").c_str() : "-",
                reading(s.energy_gross_j, 1e-3, 3).c_str(), reading(s.peak_rss_bytes, 1e-6, 0).c_str(),
                reading(s.peak_vram_bytes, 1e-6, 0).c_str());
    for (const lab::RegionQuality& q : s.quality)
      std::printf(" %12s", q.dice.n ? fixed(q.dice.value, 4).c_str() : "n/a");
    std::printf("  %-13s %s%s\n", s.verdict ? to_string(*s.verdict) : "(baseline)",
                s.disagreement_mean ? (fixed(100 * *s.disagreement_mean, 4) + " %").c_str() : "",
                s.pareto ? "  (Pareto)" : "");
    for (const std::string& f : s.failures) std::printf("%16s failed: %s\n", "", f.c_str());
  }
  std::printf("\n");
  for (const lab::SettingSummary& s : summary.settings)
    for (const lab::EndpointResult& e : s.endpoints)
      std::printf("%-16.16s %-12s %-12.12s %-13s %s\n", s.name.c_str(), e.metric.c_str(), e.region.c_str(),
                  to_string(e.verdict), e.why.c_str());
  for (const std::string& r : summary.remarks) std::printf("! %s\n", r.c_str());
  if (summary.registration.status == "registered")
    std::printf("Thresholds were registered at %s (%.12s), before the first measurement.\n",
                summary.registration.time.c_str(), summary.registration.sha256.c_str());
}

}  // namespace isoline::cli
