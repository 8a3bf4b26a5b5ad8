#include "isoline/frontend/host_watch.h"

#include <chrono>

#include "isoline/measure/process.h"

namespace isoline::frontend {
namespace {

double seconds_since_1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

measure::WorkDone InferenceTally::look() {
  measure::WorkDone work;
  const auto models = repository_.served();
  std::lock_guard lock(mutex_);
  std::erase_if(counted_, [](const auto& entry) { return entry.first.expired(); });
  for (const auto& model : models) {
    const uint64_t now = model->statistics().inference_count;
    uint64_t& before = counted_[model];
    total_ += now - before;
    before = now;
    work.running = work.running || model->running();
  }
  work.done = total_;
  return work;
}

HostWatch::HostWatch(const HostWatchOptions& options, const serve::Repository& repository)
    : tally_(repository),
      start_time_s_(seconds_since_1970()),
      monitor_(measure::open_energy_monitor(options.nvml_library, options.rapl_root,
                                            {1, [this] { return tally_.look(); }})) {}

oip::HostFigures HostWatch::figures() {
  return {monitor_->devices(),  monitor_->unavailable(),  tally_.look().done,
          measure::rss_bytes(), measure::process_cpu_s(), Reading::of(start_time_s_)};
}

}  // namespace isoline::frontend
