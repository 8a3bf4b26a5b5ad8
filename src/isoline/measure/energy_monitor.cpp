#include "isoline/measure/energy_monitor.h"

#include <algorithm>
#include <deque>
#include <optional>
#include <utility>

#include "isoline/measure/nvml.h"
#include "isoline/measure/rapl.h"

namespace isoline::measure {
namespace {

constexpr double kMinuteS = 60, kStopCheckS = 0.1;
// A step of the counter above this multiple of the plausible is no energy but another counter.
constexpr double kSlack = 2;

// Joules between two counts; nothing if the counter started again meanwhile.
std::optional<double> energy_between(uint64_t before, uint64_t now, const CounterProperties& p,
                                     double seconds) {
  uint64_t counts = now - before;
  if (now < before) {
    if (!p.range_counts || before > p.range_counts) return std::nullopt;
    counts = p.range_counts - before + now + 1;
  }
  const double joules = double(counts) * p.joules_per_count;
  if (joules > kSlack * p.max_plausible_w * (seconds + 1)) return std::nullopt;
  return joules;
}

}  // namespace

struct EnergyMonitor::Track {
  struct Look {
    double t_s, energy_j;
    uint64_t done;
  };
  std::unique_ptr<EnergySource> source;
  std::optional<uint64_t> count;  // at the last look that had one
  double count_t_s = 0, energy_j = 0, working_energy_j = 0;
  std::deque<Look> minute;  // looks of the last minute, and one before it

  void restart() {
    energy_j = working_energy_j = 0;
    minute.clear();
  }
  void read(DeviceUse& use, double t_s, uint64_t done, bool worked);

 private:
  void read_energy(DeviceUse& use, double t_s, uint64_t done, bool worked);
  Reading per_work() const;
};

void EnergyMonitor::Track::read_energy(DeviceUse& use, double t_s, uint64_t done, bool worked) {
  const CounterReading now = source->read_counter();
  if (!now.count) {  // the counter bridges what is missed, if it comes back
    use.energy_j = use.working_energy_j = use.energy_per_work_j = Reading::unavailable(now.reason);
    return;
  }
  use.power_w = Reading::unavailable("first look");
  if (count) {
    const double seconds = t_s - count_t_s;
    const auto joules = energy_between(*count, *now.count, source->counter_properties(), seconds);
    if (joules) {
      energy_j += *joules;
      if (worked) working_energy_j += *joules;
      if (seconds > 0) use.power_w = Reading::of(*joules / seconds);
    } else {
      restart();
    }
  }
  count = now.count;
  count_t_s = t_s;
  minute.push_back({t_s, energy_j, done});
  while (minute.size() > 2 && minute[1].t_s <= t_s - kMinuteS) minute.pop_front();
  use.energy_j = Reading::of(energy_j);
  use.working_energy_j = Reading::of(working_energy_j);
  use.energy_per_work_j = per_work();
}

Reading EnergyMonitor::Track::per_work() const {
  const uint64_t done = minute.back().done - minute.front().done;
  if (!done) return Reading::unavailable("no work was done in the last minute");
  return Reading::of((minute.back().energy_j - minute.front().energy_j) / double(done));
}

void EnergyMonitor::Track::read(DeviceUse& use, double t_s, uint64_t done, bool worked) {
  const SourceInfo& info = source->info();
  use.id = info.id;
  use.name = info.name;
  use.kind = info.kind;
  read_energy(use, t_s, done, worked);
  if (info.has_power) use.power_w = source->read_power_w();
  use.power_limit_w =
      info.power_limit_w > 0 ? Reading::of(info.power_limit_w) : Reading::unavailable("no limit is known");
  use.utilization = source->read_utilization();
  const MemoryUse memory = source->read_memory(0);
  use.memory_used_bytes = memory.device_bytes;
  use.memory_total_bytes = memory.device_total_bytes;
}

EnergyMonitor::EnergyMonitor(std::vector<std::unique_ptr<EnergySource>> sources, Clock& clock,
                             EnergyMonitorOptions options, std::vector<SourceInfo> unavailable)
    : clock_(clock), options_(std::move(options)), unavailable_(std::move(unavailable)) {
  for (auto& source : sources) {
    tracks_.push_back(std::make_unique<Track>());
    tracks_.back()->source = std::move(source);
  }
  if (tracks_.empty()) return;
  look();
  clock_.attach();  // for the thread
  thread_ = std::thread([this] { watch(); });
}

EnergyMonitor::~EnergyMonitor() {
  stopping_ = true;
  if (!thread_.joinable()) return;
  clock_.detach();  // this thread waits for the other, not for the clock
  thread_.join();
  clock_.attach();
}

void EnergyMonitor::watch() {
  for (int64_t next = clock_.now_ns();;) {
    next += ns_from_s(options_.period_s);
    while (!stopping_ && clock_.now_ns() < next)
      clock_.sleep_until(std::min(next, clock_.now_ns() + ns_from_s(kStopCheckS)));
    if (stopping_) break;
    look();
    next = std::max(next, clock_.now_ns() - ns_from_s(options_.period_s));  // a stall is not caught up
  }
  clock_.detach();
}

void EnergyMonitor::look() {
  const WorkDone work = options_.work ? options_.work() : WorkDone{};
  const bool worked = was_running_ || work.running || work.done > done_before_;
  was_running_ = work.running;
  done_before_ = work.done;
  std::vector<DeviceUse> uses(tracks_.size());
  for (size_t i = 0; i < tracks_.size(); ++i)
    tracks_[i]->read(uses[i], s_from_ns(clock_.now_ns()), work.done, worked);
  std::lock_guard lock(mutex_);
  uses_ = std::move(uses);
}

std::vector<DeviceUse> EnergyMonitor::devices() const {
  std::lock_guard lock(mutex_);
  return uses_;
}

std::unique_ptr<EnergyMonitor> open_energy_monitor(const std::string& nvml_library,
                                                   const std::string& rapl_root,
                                                   EnergyMonitorOptions options) {
  NvmlSources nvml = open_nvml(nvml_library);
  RaplSources rapl = open_rapl(rapl_root);
  for (auto& s : rapl.sources) nvml.sources.push_back(std::move(s));
  nvml.unavailable.insert(nvml.unavailable.end(), rapl.unavailable.begin(), rapl.unavailable.end());
  return std::make_unique<EnergyMonitor>(std::move(nvml.sources), real_clock(), std::move(options),
                                         std::move(nvml.unavailable));
}

}  // namespace isoline::measure
