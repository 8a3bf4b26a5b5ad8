#include "isoline/measure/meter.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <list>
#include <mutex>
#include <optional>
#include <random>
#include <thread>
#include <utility>

#include "isoline/measure/nvml.h"
#include "isoline/measure/process.h"
#include "isoline/measure/rapl.h"
#include "isoline/measure/tick_model.h"

namespace isoline::measure {
namespace {

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kFinePoll = kMs / 2;          // around an expected tick
constexpr int64_t kLearnPoll = 2 * kMs;         // while the tick period is unknown
constexpr int64_t kCalmCheck = 1000 * kMs;      // between looks at an expensive counter that nobody asks for
constexpr int64_t kExpensiveCall = kMs / 2;     // calls beyond this are made only where they are needed
constexpr int64_t kFastTick = 8 * kMs;          // counters that tick faster are sampled, not watched
constexpr int64_t kFastPoll = 10 * kMs;         // between samples of such a counter
constexpr int64_t kLostPoll = 100 * kMs;        // between attempts to reach a vanished device
constexpr int64_t kLongestSleep = 50 * kMs;     // so that the destructor never waits long
constexpr int64_t kFirstTickWait = 1000 * kMs;  // begin() waits for a first tick, end() for a next one

// A change of the counter: it happened in [lo, hi], and `joules` are the energy since the track's start after
// it.
struct Edge {
  int64_t lo = 0, hi = 0;
  double joules = 0;
  int64_t mid() const { return lo + (hi - lo) / 2; }
};

struct Bounded {
  double value = 0, error = 0;
};

// Energy at time t inside the tick between edges a and b. Linear; the bound on its error takes any power
// between 0 and max_w inside the tick, and adds what the unknown moments of the edges are worth.
Bounded energy_at(const Edge& a, const Edge& b, int64_t t, double max_w) {
  const double span = s_from_ns(std::max<int64_t>(b.mid() - a.mid(), 1));
  const double since = s_from_ns(std::clamp<int64_t>(t - a.mid(), 0, b.mid() - a.mid()));
  const double rise = b.joules - a.joules;
  const double estimate = rise * since / span;
  const double highest = std::min(rise, max_w * since);
  const double lowest = std::max(0.0, rise - max_w * (span - since));
  const double edges = rise / span * std::max(s_from_ns(a.hi - a.lo), s_from_ns(b.hi - b.lo)) / 2;
  return {a.joules + estimate, std::max({highest - estimate, estimate - lowest, 0.0}) + edges};
}

// One source as the sampling thread sees it.
struct Track {
  explicit Track(std::unique_ptr<EnergySource> s)
      : source(std::move(s)), info(source->info()), properties(source->counter_properties()) {}
  std::unique_ptr<EnergySource> source;
  SourceInfo info;
  CounterProperties properties;

  // Counter.
  std::optional<uint64_t> count;  // last value read
  int64_t same_since = 0;         // begin of the last read that gave it
  int64_t first_read = 0;         // begin of the first read of this value
  double joules = 0;              // since the track began
  std::optional<Edge> edge;       // last one
  TickModel model;
  int64_t tick = 0;            // period; 0: unknown
  bool fast = false;           // ticks faster than it is polled
  int64_t verified = 0;        // when a change was last seen as it happened
  std::vector<int64_t> costs;  // of the last few reads, at most 9
  int64_t cost = 0;            // median of them
  int64_t next_counter = 0;
  std::string counter_failure;  // reason of the last read if it failed
  int64_t failing_since = 0;
  bool lost = false;  // failed for longer than max_gap_s

  // Power.
  std::optional<double> power_w;  // last good sample
  int64_t power_at = 0;
  std::string power_failure;
  int64_t next_power = 0, next_health = 0;

  void forget_edges() {
    edge.reset();
    model.reset();
    tick = 0;
    fast = false;
  }
  bool expensive() const { return cost > kExpensiveCall && !fast; }
  void add_cost(int64_t ns) {
    if (costs.size() == 9) costs.erase(costs.begin());
    costs.push_back(ns);
    std::vector<int64_t> sorted = costs;
    std::sort(sorted.begin(), sorted.end());
    cost = sorted[sorted.size() / 2];
  }
};

// One source in one window.
struct Part {
  std::optional<Edge> before;  // last edge before the window until `begin` is known, then last edge seen
  std::optional<Bounded> begin, end;  // energy at both ends
  std::string broken;                 // why there is no energy
  std::string no_integral;            // why there is no integrated energy
  double integral_j = 0;
  bool integral_done = false;
  std::optional<double> peak_power_w, peak_bytes, peak_process_bytes, temperature_c, clock_min;
  std::string power_reason, memory_reason, process_reason, temperature_reason, clock_reason;
  double clock_sum = 0;
  int64_t clock_n = 0;
  uint64_t throttle_bits = 0;
  int64_t ticks = 0, power_samples = 0, missed = 0;
  double largest_gap_s = 0;
};

struct Window {
  int64_t token = 0;
  int64_t begin_ns = 0;
  std::optional<int64_t> end_ns;
  Reading cpu_begin;
  std::vector<Part> parts;
};

std::string seconds_text(double s) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g s", s);
  return text;
}

void keep_max(std::optional<double>& to, double v) {
  if (!to || v > *to) to = v;
}

Reading reading_or(const std::optional<double>& value, const std::string& reason, const char* otherwise) {
  if (value) return Reading::of(*value);
  return Reading::unavailable(reason.empty() ? otherwise : reason);
}

Quantiles quantiles(std::vector<double> v) {
  Quantiles q;
  q.n = int64_t(v.size());
  if (v.empty()) return q;
  std::sort(v.begin(), v.end());
  const size_t n = v.size();
  q.min = v.front();
  q.max = v.back();
  q.median = n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
  q.p99 = v[std::min(n - 1, size_t(std::ceil(0.99 * double(n))) - 1)];
  return q;
}

}  // namespace

std::vector<std::string> throttle_names(uint64_t bits) {
  static constexpr const char* names[] = {
      "gpu_idle",      "applications_clocks", "sw_power_cap",        "hw_slowdown",
      "sync_boost",    "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake",
      "display_clocks"};
  std::vector<std::string> out;
  for (size_t i = 0; i < 64; ++i)
    if (bits >> i & 1) out.push_back(i < std::size(names) ? names[i] : "bit_" + std::to_string(i));
  return out;
}
bool is_throttled(uint64_t bits) {
  return (bits & (0x8u | 0x20u | 0x40u | 0x80u)) != 0;
}
bool is_power_capped(uint64_t bits) {
  return (bits & 0x4u) != 0;
}

Reading net_energy_j(const Reading& gross_j, const Reading& idle_w, double wall_s) {
  if (!gross_j.ok()) return gross_j;
  if (!idle_w.ok()) return Reading::unavailable("idle power: " + idle_w.reason);
  return Reading::of(*gross_j - *idle_w * wall_s);
}

namespace {
Reading total(const WindowReport& report, const std::string& kind, Reading DeviceWindow::*member) {
  double sum = 0;
  bool any = false;
  for (const DeviceWindow& d : report.devices) {
    if (d.kind != kind) continue;
    const Reading& r = d.*member;
    if (!r.ok()) return Reading::unavailable(d.id + ": " + r.reason);
    sum += *r;
    any = true;
  }
  return any ? Reading::of(sum) : Reading::unavailable("no readable energy source of kind " + kind);
}
}  // namespace

Reading WindowReport::total_gross_j(const std::string& kind) const {
  return total(*this, kind, &DeviceWindow::energy_gross_j);
}
Reading WindowReport::total_integrated_j(const std::string& kind) const {
  return total(*this, kind, &DeviceWindow::energy_integrated_j);
}

struct Meter::State {
  State(std::vector<std::unique_ptr<EnergySource>> sources, Clock& c, MeterOptions o,
        std::vector<SourceInfo> missing)
      : clock(c), options(std::move(o)), unavailable(std::move(missing)), random(options.seed) {
    for (auto& s : sources) tracks.emplace_back(std::move(s));
    process = options.process_id ? options.process_id : ::getpid();
    clock.attach();  // on behalf of the thread
    thread = std::thread([this] { run(); });
  }

  ~State() {
    stop = true;
    clock.detach();  // a simulated clock may now advance without this thread
    thread.join();
    clock.attach();
  }

  // ---- The sampling thread.
  // -------------------------------------------------------------------------------------

  void run() {
    while (!stop) {
      std::function<void()> job;
      {
        std::lock_guard lock(mutex);
        job = std::exchange(pending_job, nullptr);
      }
      if (job) {
        job();
        job_done = true;
      }
      int64_t next = clock.now_ns() + kLongestSleep;
      for (size_t i = 0; i < tracks.size(); ++i) {
        Track& t = tracks[i];
        if (clock.now_ns() >= counter_due(t)) poll_counter(i);
        if (t.info.has_power && clock.now_ns() >= due(t.next_power)) poll_power(i);
        if (clock.now_ns() >= due(t.next_health)) poll_health(i);
        next = std::min({next, counter_due(t), due(t.next_health)});
        if (t.info.has_power) next = std::min(next, due(t.next_power));
      }
      const Reading cpu = thread_cpu_s();
      if (cpu.ok()) cpu_s = *cpu;
      clock.sleep_until(std::max(next, clock.now_ns() + kMs / 10));
    }
    clock.detach();
  }

  int64_t due(int64_t& when) {
    std::lock_guard lock(mutex);
    return when;
  }
  int64_t counter_due(Track& t) { return due(t.next_counter); }

  void trace(int64_t t, size_t source, const char* what, double value) const {
    if (options.trace) options.trace({t, source, what, value});
  }

  template <class F>
  void each_window(F f) {  // lock held
    for (Window& w : windows) f(w);
  }

  void break_windows(size_t i, int64_t now, const std::string& what) {  // lock held
    each_window([&](Window& w) {
      Part& p = w.parts[i];
      if (p.end || !p.broken.empty()) return;
      p.broken =
          what + " " + seconds_text(s_from_ns(std::max<int64_t>(now - w.begin_ns, 0))) + " into the window";
    });
  }

  void poll_counter(size_t i) {
    Track& t = tracks[i];
    const int64_t a = clock.now_ns();
    const CounterReading r = t.source->read_counter();
    const int64_t b = clock.now_ns();
    std::lock_guard lock(mutex);
    if (!r.count) {
      counter_failed(i, a, b, r.reason);
      return;
    }
    t.add_cost(b - a);
    if (!t.counter_failure.empty()) {
      t.counter_failure.clear();
      if (t.lost) {  // came back: nothing is known about the time between
        t.lost = false;
        t.count.reset();
        t.forget_edges();
      }
    }
    if (!t.count) {
      t.count = r.count;
      t.same_since = t.first_read = a;
      t.next_counter = b + kLearnPoll;
      return;
    }
    if (*r.count == *t.count) {
      unchanged(i, a, b);
    } else {
      changed(i, a, b, *r.count);
    }
  }

  void counter_failed(size_t i, int64_t a, int64_t b, const std::string& reason) {
    Track& t = tracks[i];
    if (t.counter_failure.empty()) t.failing_since = a;
    t.counter_failure = reason;
    each_window([&](Window& w) {
      if (!w.end_ns) ++w.parts[i].missed;
    });
    if (!t.lost && (!t.count || b - t.failing_since > ns_from_s(options.max_gap_s))) {
      t.lost = true;
      break_windows(i, t.failing_since,
                    t.count ? "device lost (" + reason + ")" : "energy counter unreadable: " + reason + ",");
    }
    t.next_counter = b + (t.lost ? kLostPoll : 4 * kFinePoll);
  }

  void unchanged(size_t i, int64_t a, int64_t b) {
    Track& t = tracks[i];
    t.same_since = a;
    const int64_t last = t.edge ? t.edge->mid() : t.first_read;
    const int64_t limit = std::max<int64_t>(10 * t.tick, 2000 * kMs);
    const bool draws = !t.power_w || *t.power_w > 0;
    if (b - last > limit && draws)
      break_windows(i, last,
                    "energy counter stood still for over " + seconds_text(s_from_ns(limit)) +
                        (t.power_w ? " though the power reading is above 0, from" : ", from"));
    schedule(i, b);
  }

  // When to read the counter next, after a read that ended at `b`. Cheap counters are watched at every tick,
  // so that each change is seen as it happens; expensive ones (milliseconds of CPU a call on some drivers)
  // only where a window begins or ends, and once a second to keep the model of their ticks true.
  void schedule(size_t i, int64_t b) {
    Track& t = tracks[i];
    const int64_t last = t.edge ? t.edge->mid() : t.first_read;
    if (t.fast) {
      t.next_counter = b + kFastPoll;
      return;
    }
    if (!t.model.valid()) {
      t.next_counter = b + (b - last > 1000 * kMs ? 10 * kLearnPoll : kLearnPoll);
      return;
    }
    const int64_t current = last + t.tick / 2;
    const bool calm = t.expensive() && !demanded(i);
    const int64_t rest =
        std::min(t.verified + kCalmCheck, t.model.known_until(t.tick / 20).at_ns - t.tick / 2);
    const TickModel::Tick next = t.model.next_after(calm ? std::max(current, rest) : current);
    const int64_t guard = std::max<int64_t>(next.half_ns + t.cost + 2 * kFinePoll, 4 * kFinePoll);
    if (b < next.at_ns - guard)
      t.next_counter = next.at_ns - guard;
    else if (b < next.at_ns + guard + t.tick)
      t.next_counter = b + kFinePoll;
    else  // overdue
      t.next_counter = b + std::max({kFinePoll, t.tick / 20, 4 * t.cost});
  }

  // Whether a window waits for ticks of this source.
  bool demanded(size_t i) const {
    if (aligning > 0) return true;
    for (const Window& w : windows) {
      const Part& p = w.parts[i];
      if (p.broken.empty() && (!p.begin || (w.end_ns && !p.end))) return true;
    }
    return false;
  }

  void changed(size_t i, int64_t a, int64_t b, uint64_t now_count) {
    Track& t = tracks[i];
    const CounterProperties& c = t.properties;
    Edge e;
    e.lo = t.fast ? std::max(t.same_since, b - t.tick) : t.same_since;
    e.hi = b;
    const bool seen = b - t.same_since <= std::max<int64_t>(3 * kMs, 4 * t.cost);  // as it happened
    if (!t.fast && !seen && t.model.valid()) {
      // The change was not watched: the value is that of the tick before this read.
      const TickModel::Tick tick = t.model.last_before(a), next = t.model.next_after(a);
      const bool vague = tick.half_ns > t.tick / 8;
      if (!vague && (a - tick.at_ns < tick.half_ns || next.at_ns - b < next.half_ns)) {
        t.next_counter = b + std::max(kFinePoll, tick.half_ns);  // too near a tick to tell: read again
        return;
      }
      if (vague || (t.edge && tick.at_ns < t.edge->mid() + t.tick / 2)) {
        t.model.reset();  // or it changed where the model has no tick
        t.tick = 0;
      } else {
        e.lo = tick.at_ns - tick.half_ns;
        e.hi = tick.at_ns + tick.half_ns;
      }
    }
    // How much can have been added since the last edge (or first look), with room for late publication.
    const int64_t since = t.edge ? t.edge->lo : t.first_read;
    const double possible_j = c.max_plausible_w * (s_from_ns(b - since) + 2 * s_from_ns(t.tick) + 0.2);
    std::optional<double> rise;
    std::string why;
    if (now_count > *t.count) {
      rise = double(now_count - *t.count) * c.joules_per_count;
    } else if (c.range_counts == 0) {
      why = "energy counter went back (reset)";
    } else if (possible_j >= double(c.range_counts) * c.joules_per_count) {
      why = "energy counter may have wrapped more than once between two reads,";
    } else {
      rise = double(c.range_counts - *t.count + now_count + 1) * c.joules_per_count;
    }
    if (rise && *rise > possible_j) {
      rise.reset();
      why = "energy counter jumped by more than the device can draw (reset)";
    }
    if (!rise) {
      break_windows(i, b, why);
      t.count = now_count;
      t.same_since = t.first_read = a;
      t.forget_edges();
      t.next_counter = b + kLearnPoll;
      return;
    }
    t.joules += *rise;
    e.joules = t.joules;
    t.count = now_count;
    t.same_since = t.first_read = a;
    t.edge = e;
    if (!t.fast) learn(t, e, b, seen);
    trace(e.mid(), i, "counter_j", e.joules);
    each_window([&](Window& w) { add_edge(w, i, e); });
    schedule(i, b);
  }

  void learn(Track& t, const Edge& e, int64_t b, bool seen) {
    if (seen) {
      t.model.observe(e.lo, e.hi);
      t.verified = b;
    } else if (!t.model.valid()) {
      t.model.reset();
    }
    t.tick = t.model.period_ns();
    if (t.tick > 0 && t.tick < kFastTick) {
      t.fast = true;
      t.tick = spin_for_tick(t);
    }
  }

  // Mean period of a fast counter: the time over eight changes, read without a pause (at most 20 ms).
  int64_t spin_for_tick(Track& t) {
    const int64_t begin = clock.now_ns();
    std::optional<uint64_t> last;
    int64_t first_change = 0, changes = 0, now = begin;
    for (int reads = 0; reads < 20000 && now - begin < 20 * kMs; ++reads) {
      const CounterReading r = t.source->read_counter();
      now = clock.now_ns();
      if (!r.count) break;
      if (last && *r.count != *last) {
        if (changes == 0) first_change = now;
        if (++changes == 9) break;
      }
      last = r.count;
    }
    return changes > 1 ? std::max<int64_t>((now - first_change) / (changes - 1), 1) : t.tick;
  }

  void add_edge(Window& w, size_t i, const Edge& e) {
    Part& p = w.parts[i];
    if (p.end || !p.broken.empty()) return;
    const double max_w = tracks[i].properties.max_plausible_w;
    if (!p.begin) {
      if (e.mid() <= w.begin_ns) {
        p.before = e;
        return;
      }
      if (!p.before) {
        p.broken = "the energy counter had not ticked before the window began";
        return;
      }
      p.begin = energy_at(*p.before, e, w.begin_ns, max_w);
    }
    if (w.end_ns && e.mid() > *w.end_ns) {
      p.end = energy_at(*p.before, e, *w.end_ns, max_w);
      return;
    }
    p.before = e;
    ++p.ticks;
  }

  void poll_power(size_t i) {
    Track& t = tracks[i];
    const int64_t a = clock.now_ns();
    const Reading r = t.source->read_power_w();
    const int64_t b = clock.now_ns(), at = a + (b - a) / 2;
    std::lock_guard lock(mutex);
    const int64_t period = ns_from_s(options.power_period_s);
    t.next_power = std::max(t.next_power + period, b + period / 4);
    if (!r.ok()) {
      t.power_failure = r.reason;
      each_window([&](Window& w) {
        if (!w.end_ns) ++w.parts[i].missed;
        w.parts[i].power_reason = r.reason;
      });
      if (!t.power_w) t.next_power = b + kLostPoll;  // has never worked
      return;
    }
    t.power_failure.clear();
    trace(at, i, "power_w", *r);
    each_window([&](Window& w) { add_power(w, i, at, *r); });
    t.power_w = *r;
    t.power_at = at;
  }

  void add_power(Window& w, size_t i, int64_t at, double now_w) {
    const Track& t = tracks[i];
    Part& p = w.parts[i];
    if (p.integral_done) return;
    const int64_t stop_at = w.end_ns ? std::min(at, *w.end_ns) : at;
    if (t.power_w) {
      const int64_t begin = std::max(t.power_at, w.begin_ns);
      if (stop_at > begin && at > t.power_at) {
        const auto level = [&](int64_t x) {
          return *t.power_w + (now_w - *t.power_w) * double(x - t.power_at) / double(at - t.power_at);
        };
        p.integral_j += (level(begin) + level(stop_at)) / 2 * s_from_ns(stop_at - begin);
        const double gap = s_from_ns(at - t.power_at);
        p.largest_gap_s = std::max(p.largest_gap_s, gap);
        if (gap > 3 * options.power_period_s) p.missed += int64_t(gap / options.power_period_s) - 1;
        if (gap > options.max_gap_s && p.no_integral.empty())
          p.no_integral = "no power sample for " + seconds_text(gap);
      }
    } else if (p.no_integral.empty()) {
      p.no_integral = "no power sample before the window began";
    }
    if (at >= w.begin_ns && (!w.end_ns || at <= *w.end_ns)) {
      ++p.power_samples;
      keep_max(p.peak_power_w, now_w);
    }
    if (w.end_ns && at >= *w.end_ns) p.integral_done = true;
  }

  void poll_health(size_t i) {
    Track& t = tracks[i];
    int64_t pid;
    {
      std::lock_guard lock(mutex);
      pid = process;
    }
    const int64_t a = clock.now_ns();
    const Health h = t.source->read_health();
    const MemoryUse m = t.source->read_memory(pid);
    const int64_t b = clock.now_ns(), at = a + (b - a) / 2;
    std::lock_guard lock(mutex);
    t.next_health = b + ns_from_s(options.health_period_s);
    if (h.sm_clock_mhz.ok()) trace(at, i, "sm_clock_mhz", *h.sm_clock_mhz);
    if (h.temperature_c.ok()) trace(at, i, "temperature_c", *h.temperature_c);
    if (m.device_bytes.ok()) trace(at, i, "memory_bytes", *m.device_bytes);
    each_window([&](Window& w) {
      if (a < w.begin_ns || (w.end_ns && at > *w.end_ns)) return;
      Part& p = w.parts[i];
      const auto peak = [](std::optional<double>& to, std::string& reason, const Reading& r) {
        if (r.ok())
          keep_max(to, *r);
        else
          reason = r.reason;
      };
      peak(p.temperature_c, p.temperature_reason, h.temperature_c);
      peak(p.peak_bytes, p.memory_reason, m.device_bytes);
      if (pid == process) peak(p.peak_process_bytes, p.process_reason, m.process_bytes);
      if (h.sm_clock_mhz.ok()) {
        p.clock_sum += *h.sm_clock_mhz;
        ++p.clock_n;
        if (!p.clock_min || *h.sm_clock_mhz < *p.clock_min) p.clock_min = *h.sm_clock_mhz;
      } else {
        p.clock_reason = h.sm_clock_mhz.reason;
      }
      if (h.throttle_bits) p.throttle_bits |= *h.throttle_bits;
    });
  }

  // ---- Callers.
  // -------------------------------------------------------------------------------------------------

  // Sleeps in steps until `ready` (called with the lock held) or the deadline.
  template <class F>
  bool wait_until(int64_t deadline, F ready) {
    for (;;) {
      {
        std::lock_guard lock(mutex);
        if (ready()) return true;
      }
      const int64_t now = clock.now_ns();
      if (now >= deadline) return false;
      clock.sleep_until(std::min(deadline, now + kFinePoll));
    }
  }

  void run_job(std::function<void()> job) {
    std::lock_guard one(job_mutex);
    job_done = false;
    {
      std::lock_guard lock(mutex);
      pending_job = std::move(job);
    }
    while (!job_done) clock.sleep_until(clock.now_ns() + kMs);
  }

  bool counter_settled(const Track& t) const { return t.edge || t.lost || !t.counter_failure.empty(); }
  bool power_settled(const Track& t) const {
    return !t.info.has_power || t.power_w || !t.power_failure.empty();
  }

  int64_t begin(Phase phase) {
    wait_until(clock.now_ns() + kFirstTickWait, [&] {
      return std::all_of(tracks.begin(), tracks.end(),
                         [&](const Track& t) { return counter_settled(t) && power_settled(t); });
    });
    if (phase != Phase::kAny) align(phase);
    std::lock_guard lock(mutex);
    Window w;
    w.token = ++last_token;
    w.begin_ns = clock.now_ns();
    w.cpu_begin = Reading::of(cpu_s);
    w.parts.resize(tracks.size());
    for (size_t i = 0; i < tracks.size(); ++i) {
      Track& t = tracks[i];
      Part& p = w.parts[i];
      p.before = t.edge;
      if (t.lost)
        p.broken = (t.count ? "device lost before the window began: " : "energy counter unreadable: ") +
                   t.counter_failure;
      t.next_health = w.begin_ns;  // so that short windows have a sample
      t.next_counter = w.begin_ns;
    }
    windows.push_back(std::move(w));
    return last_token;
  }

  void align(Phase phase) {
    Track* slowest = nullptr;
    int64_t tick = 0;
    const int64_t asked = clock.now_ns();
    {
      std::lock_guard lock(mutex);
      for (Track& t : tracks)
        if (t.edge && !t.lost && (!slowest || t.tick > slowest->tick)) slowest = &t;
      if (!slowest) return;
      ++aligning;
      slowest->next_counter = asked;
    }
    wait_until(asked + kFirstTickWait, [&] {
      tick = slowest->tick;
      return slowest->edge && slowest->edge->mid() > asked;
    });
    {
      std::lock_guard lock(mutex);
      --aligning;
    }
    if (phase == Phase::kRandom && tick > 0) {
      int64_t delay;
      {
        std::lock_guard lock(mutex);
        delay = int64_t(std::uniform_real_distribution<double>(0, 1)(random) * double(tick));
      }
      clock.sleep_until(clock.now_ns() + delay);
    }
  }

  Result<WindowReport> end(int64_t token) {
    std::list<Window>::iterator w;
    int64_t deadline;
    {
      std::lock_guard lock(mutex);
      w = std::find_if(windows.begin(), windows.end(),
                       [&](const Window& x) { return x.token == token && !x.end_ns; });
      if (w == windows.end())
        return Error{ErrorCode::kInvalidArgument, "no open window has the token " + std::to_string(token),
                     "meter", ""};
      w->end_ns = clock.now_ns();
      int64_t longest = kFirstTickWait;
      for (Track& t : tracks) {
        longest = std::max(longest, 3 * t.tick);
        t.next_counter = *w->end_ns;
      }
      deadline = *w->end_ns + longest;
    }
    wait_until(deadline, [&] {
      for (size_t i = 0; i < tracks.size(); ++i) {
        const Track& t = tracks[i];
        const Part& p = w->parts[i];
        if (!p.end && p.broken.empty()) return false;
        if (!p.integral_done && t.info.has_power && t.power_failure.empty()) return false;
      }
      return true;
    });
    std::lock_guard lock(mutex);
    WindowReport report;
    report.begin_ns = w->begin_ns;
    report.end_ns = *w->end_ns;
    report.wall_s = s_from_ns(report.end_ns - report.begin_ns);
    report.meter_cpu_s = Reading::of(cpu_s - *w->cpu_begin);
    for (size_t i = 0; i < tracks.size(); ++i)
      report.devices.push_back(device_window(tracks[i], w->parts[i], report));
    windows.erase(w);
    return report;
  }

  DeviceWindow device_window(const Track& t, const Part& p, const WindowReport& report) const {
    DeviceWindow d;
    d.id = t.info.id;
    d.name = t.info.name;
    d.kind = t.info.kind;
    std::string why = p.broken;
    if (why.empty() && !p.end) {
      why = !t.counter_failure.empty()
                ? "device lost at the end of the window: " + t.counter_failure
                : "the energy counter did not tick within " +
                      seconds_text(s_from_ns(clock.now_ns() - report.end_ns)) + " after the window ended";
    }
    if (why.empty()) {
      d.energy_gross_j = Reading::of(p.end->value - p.begin->value);
      d.energy_uncertainty_j = Reading::of(p.begin->error + p.end->error);
      d.average_power_w = report.wall_s > 0 ? Reading::of(*d.energy_gross_j / report.wall_s)
                                            : Reading::unavailable("the window has no length");
    } else {
      d.energy_gross_j = d.energy_uncertainty_j = d.average_power_w = Reading::unavailable(why);
    }
    std::string no_integral = p.no_integral;
    if (!t.info.has_power)
      no_integral = t.info.power;
    else if (no_integral.empty() && !p.integral_done)
      no_integral = t.power_failure.empty() ? "no power sample after the window ended"
                                            : "power could not be read to the end: " + t.power_failure;
    d.energy_integrated_j =
        no_integral.empty() ? Reading::of(p.integral_j) : Reading::unavailable(no_integral);
    if (!d.energy_gross_j.ok())
      d.energy_disagreement = Reading::unavailable("no counter energy: " + why);
    else if (!d.energy_integrated_j.ok())
      d.energy_disagreement = Reading::unavailable("no integrated energy: " + no_integral);
    else if (*d.energy_gross_j <= 0)
      d.energy_disagreement = Reading::unavailable("the counter's energy is 0");
    else
      d.energy_disagreement = Reading::of((*d.energy_gross_j - *d.energy_integrated_j) / *d.energy_gross_j);
    const char* none = "no sample fell into the window; it is shorter than the sampling period";
    d.peak_power_w = t.info.has_power ? reading_or(p.peak_power_w, p.power_reason, none)
                                      : Reading::unavailable(t.info.power);
    d.peak_vram_bytes = reading_or(p.peak_bytes, p.memory_reason, none);
    d.peak_process_vram_bytes = reading_or(p.peak_process_bytes, p.process_reason, none);
    d.temperature_max_c = reading_or(p.temperature_c, p.temperature_reason, none);
    d.sm_clock_min_mhz = reading_or(p.clock_min, p.clock_reason, none);
    d.sm_clock_mean_mhz = p.clock_n ? Reading::of(p.clock_sum / double(p.clock_n))
                                    : Reading::unavailable(d.sm_clock_min_mhz.reason);
    d.throttle_reasons = throttle_names(p.throttle_bits);
    d.throttled = is_throttled(p.throttle_bits);
    d.power_capped = is_power_capped(p.throttle_bits);
    d.counter_ticks = p.ticks;
    d.power_samples = p.power_samples;
    d.missed_samples = p.missed;
    d.largest_gap_s = p.largest_gap_s;
    return d;
  }

  // Runs on the sampling thread.
  SourceCalibration calibrate_source(EnergySource& source, bool has_power, double seconds) {
    SourceCalibration c;
    c.id = source.info().id;
    c.name = source.info().name;
    std::vector<double> counter_us, power_us, health_us, memory_us, periods, steps, refreshes, polls;
    const auto timed = [&](std::vector<double>& to, auto call) {
      const int64_t a = clock.now_ns();
      auto r = call();
      to.push_back(double(clock.now_ns() - a) * 1e-3);
      return r;
    };
    std::string reason, power_reason;
    for (int i = 0; i < 20; ++i) {
      timed(health_us, [&] { return source.read_health(); });
      timed(memory_us, [&] { return source.read_memory(process); });
    }
    const CounterProperties properties = source.counter_properties();
    std::optional<uint64_t> count;
    std::optional<double> power;
    int64_t last_edge = 0, last_refresh = 0, last_read = 0;
    const int64_t stop_at = clock.now_ns() + ns_from_s(seconds);
    while (clock.now_ns() < stop_at && !stop) {
      const CounterReading r = timed(counter_us, [&] { return source.read_counter(); });
      const int64_t now = clock.now_ns();
      if (last_read) polls.push_back(s_from_ns(now - last_read));
      last_read = now;
      if (!r.count) {
        reason = r.reason;
      } else {
        if (count && *r.count != *count) {
          if (last_edge) {
            periods.push_back(s_from_ns(now - last_edge));
            if (*r.count > *count) steps.push_back(double(*r.count - *count) * properties.joules_per_count);
          }
          last_edge = now;
        }
        count = r.count;
      }
      if (has_power) {
        const Reading p = timed(power_us, [&] { return source.read_power_w(); });
        const int64_t at = clock.now_ns();
        if (!p.ok()) {
          power_reason = p.reason;
        } else {
          if (power && *p != *power) {
            if (last_refresh) refreshes.push_back(s_from_ns(at - last_refresh));
            last_refresh = at;
          }
          power = *p;
        }
      }
      clock.sleep_until(clock.now_ns() + kMs / 10);
    }
    c.tick_period_s = quantiles(periods);
    c.tick_step_j = quantiles(steps);
    c.power_refresh_s = quantiles(refreshes);
    c.counter_call_us = quantiles(counter_us);
    c.power_call_us = quantiles(power_us);
    c.health_call_us = quantiles(health_us);
    c.memory_call_us = quantiles(memory_us);
    c.poll_s = quantiles(polls).median;
    if (periods.empty())
      c.notes.push_back("the counter's tick could not be measured: " +
                        (reason.empty() ? "it changed less than twice" : reason));
    else if (c.tick_period_s.median < 3 * c.poll_s)
      c.notes.push_back("the counter ticks about as fast as it can be read: the period is an upper bound");
    if (!has_power)
      c.notes.push_back("no second reading: " + source.info().power);
    else if (refreshes.empty())
      c.notes.push_back("the refresh of the power reading could not be measured: " +
                        (power_reason.empty() ? "it changed less than twice" : power_reason));
    else
      c.notes.push_back("the refresh counts visible changes: refreshes that repeat a value are not seen");
    return c;
  }

  Clock& clock;
  const MeterOptions options;
  const std::vector<SourceInfo> unavailable;
  std::vector<Track> tracks;

  std::mutex mutex;  // windows, and what of the tracks callers read
  std::list<Window> windows;
  int64_t last_token = 0, process = 0;
  int aligning = 0;  // callers that wait for a tick
  std::mt19937_64 random;
  std::function<void()> pending_job;
  std::mutex job_mutex;
  std::atomic<bool> job_done{false}, stop{false};
  std::atomic<double> cpu_s{0};
  std::thread thread;
};

Result<std::unique_ptr<Meter>> Meter::open(const MeterOptions& options) {
  const auto bad = [](const char* field, double value) {
    return Error{ErrorCode::kInvalidArgument,
                 "must be between 0.001 and 60 seconds, not " + std::to_string(value),
                 std::string("meter option ") + field, ""};
  };
  const std::pair<const char*, double> periods[] = {{"power_period_s", options.power_period_s},
                                                    {"health_period_s", options.health_period_s},
                                                    {"max_gap_s", options.max_gap_s}};
  for (const auto& [field, value] : periods)
    if (!(value >= 0.001 && value <= 60)) return bad(field, value);
  std::vector<std::unique_ptr<EnergySource>> sources;
  std::vector<SourceInfo> unavailable;
  if (options.gpus) {
    NvmlSources nvml = open_nvml(options.nvml_library);
    for (const std::string& id : options.gpu_ids) {
      const bool known = std::any_of(nvml.sources.begin(), nvml.sources.end(),
                                     [&](const auto& s) { return s->info().id == id; });
      if (known) continue;
      std::string seen;
      for (const auto& s : nvml.sources) seen += (seen.empty() ? "" : ", ") + s->info().id;
      for (const auto& u : nvml.unavailable)
        seen += (seen.empty() ? "" : ", ") + u.id + " (" + u.reason + ")";
      return Error{ErrorCode::kNotFound, "no such GPU: " + id, "meter", "Known: " + seen};
    }
    for (auto& s : nvml.sources)
      if (options.gpu_ids.empty() ||
          std::find(options.gpu_ids.begin(), options.gpu_ids.end(), s->info().id) != options.gpu_ids.end())
        sources.push_back(std::move(s));
    unavailable.insert(unavailable.end(), nvml.unavailable.begin(), nvml.unavailable.end());
  }
  if (options.cpu_packages) {
    RaplSources rapl = open_rapl(options.rapl_root);
    for (auto& s : rapl.sources) sources.push_back(std::move(s));
    unavailable.insert(unavailable.end(), rapl.unavailable.begin(), rapl.unavailable.end());
  }
  return std::make_unique<Meter>(std::move(sources), real_clock(), options, std::move(unavailable));
}

Meter::Meter(std::vector<std::unique_ptr<EnergySource>> sources, Clock& clock, MeterOptions options,
             std::vector<SourceInfo> unavailable)
    : state_(std::make_unique<State>(std::move(sources), clock, std::move(options), std::move(unavailable))) {
}

Meter::~Meter() = default;

std::vector<SourceInfo> Meter::sources() const {
  std::vector<SourceInfo> out;
  for (const Track& t : state_->tracks) out.push_back(t.info);
  out.insert(out.end(), state_->unavailable.begin(), state_->unavailable.end());
  return out;
}

Clock& Meter::clock() const {
  return state_->clock;
}
int64_t Meter::begin() {
  return state_->begin(state_->options.phase);
}
int64_t Meter::begin(Phase phase) {
  return state_->begin(phase);
}
Result<WindowReport> Meter::end(int64_t token) {
  return state_->end(token);
}

void Meter::set_process(int64_t pid) {
  std::lock_guard lock(state_->mutex);
  if (state_->process == pid) return;
  state_->process = pid;
  // What open windows have seen so far was another process's memory.
  state_->each_window([](auto& window) {
    for (auto& part : window.parts) {
      part.peak_process_bytes.reset();
      part.process_reason.clear();
    }
  });
}

IdleReport Meter::measure_idle(double seconds) {
  const int64_t token = begin(Phase::kAligned);
  state_->clock.sleep_until(state_->clock.now_ns() + ns_from_s(seconds));
  state_->align(Phase::kAligned);  // nothing happens, so the window may as well end with a tick
  const WindowReport w = std::move(end(token)).value();
  std::vector<Reading> contexts(state_->tracks.size());
  state_->run_job([&] {
    for (size_t i = 0; i < contexts.size(); ++i) contexts[i] = state_->tracks[i].source->read_contexts();
  });
  IdleReport report;
  report.seconds = w.wall_s;
  for (size_t i = 0; i < w.devices.size(); ++i) {
    const DeviceWindow& d = w.devices[i];
    const auto per_second = [&](const Reading& r) { return r.ok() ? Reading::of(*r / w.wall_s) : r; };
    IdleDevice idle;
    idle.id = d.id;
    idle.name = d.name;
    idle.kind = d.kind;
    idle.power_w = d.average_power_w;
    idle.power_integrated_w = per_second(d.energy_integrated_j);
    idle.power_uncertainty_w = per_second(d.energy_uncertainty_j);
    idle.contexts = contexts[i];
    idle.state = d.kind == kKindCpuPackage ? "idle"
                 : !contexts[i].ok()       ? "unknown"
                 : *contexts[i] == 0       ? "cold"
                                           : "context alive";
    idle.temperature_max_c = d.temperature_max_c;
    idle.sm_clock_mean_mhz = d.sm_clock_mean_mhz;
    report.devices.push_back(std::move(idle));
  }
  return report;
}

std::vector<Snapshot> Meter::snapshot() {
  std::vector<Snapshot> out(state_->tracks.size());
  if (out.empty()) return out;
  state_->run_job([&] {
    for (size_t i = 0; i < out.size(); ++i) {
      EnergySource& source = *state_->tracks[i].source;
      const SourceInfo& info = source.info();
      out[i].id = info.id;
      out[i].power_w = info.has_power ? source.read_power_w() : Reading::unavailable(info.power);
      out[i].average_power_w = source.read_average_power_w();
      out[i].health = source.read_health();
      out[i].memory_bytes = source.read_memory(0).device_bytes;
      out[i].contexts = source.read_contexts();
    }
  });
  return out;
}

CalibrationReport Meter::calibrate(double seconds) {
  CalibrationReport report;
  Clock& clock = state_->clock;
  // Own cost while sampling normally, over two seconds: after the counters' ticks have been learnt.
  state_->wait_until(clock.now_ns() + 2 * kFirstTickWait, [&] {
    return std::all_of(state_->tracks.begin(), state_->tracks.end(),
                       [&](const Track& t) { return t.tick > 0 || t.lost; });
  });
  const int64_t t0 = clock.now_ns();
  const double cpu0 = state_->cpu_s;
  clock.sleep_until(t0 + 2000 * kMs);
  report.meter_cpu_fraction = (state_->cpu_s - cpu0) / s_from_ns(clock.now_ns() - t0);
  const int64_t begin = clock.now_ns();
  if (!state_->tracks.empty()) {
    const double each = std::max(1.0, seconds / double(state_->tracks.size()));
    state_->run_job([&] {
      for (Track& t : state_->tracks)
        report.sources.push_back(state_->calibrate_source(*t.source, t.info.has_power, each));
    });
  }
  report.seconds = s_from_ns(clock.now_ns() - begin);
  return report;
}

}  // namespace isoline::measure
