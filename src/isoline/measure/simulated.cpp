#include "isoline/measure/simulated.h"

#include <algorithm>
#include <cmath>

namespace isoline::measure {

int64_t SimulatedClock::now_ns() {
  std::lock_guard lock(mutex_);
  return now_;
}

void SimulatedClock::sleep_until(int64_t t_ns) {
  std::unique_lock lock(mutex_);
  if (t_ns <= now_) return;
  Sleeper self{t_ns};
  sleepers_.push_back(&self);
  advance_if_all_sleep();
  woken_.wait(lock, [&] { return self.awake; });
}

void SimulatedClock::attach() {
  std::lock_guard lock(mutex_);
  ++attached_;
}

void SimulatedClock::detach() {
  std::lock_guard lock(mutex_);
  --attached_;
  advance_if_all_sleep();
}

void SimulatedClock::advance_if_all_sleep() {
  if (sleepers_.empty() || int(sleepers_.size()) < attached_) return;
  const auto first =
      std::min_element(sleepers_.begin(), sleepers_.end(),
                       [](const Sleeper* a, const Sleeper* b) { return a->deadline < b->deadline; });
  now_ = std::max(now_, (*first)->deadline);
  (*first)->awake = true;
  sleepers_.erase(first);
  woken_.notify_all();
}

double SquareWave::power_w(double t_s) const {
  const double x = (t_s - phase_s) / period_s;
  return x - std::floor(x) < duty ? high_w : low_w;
}

double SquareWave::energy_j(double t0_s, double t1_s) const {
  const auto from_phase = [this](double t) {
    const double x = (t - phase_s) / period_s, whole = std::floor(x), part = x - whole;
    const double high_s = (whole * duty + std::min(part, duty)) * period_s;
    return low_w * (t - phase_s) + (high_w - low_w) * high_s;
  };
  return from_phase(t1_s) - from_phase(t0_s);
}

namespace {

// Uniform in [0, 1), the same for the same k.
double hashed(uint64_t seed, int64_t k) {
  std::mt19937_64 engine(seed * 0x9e3779b97f4a7c15ull + uint64_t(k));
  engine.discard(2);
  return double(engine() >> 11) * 0x1p-53;
}

}  // namespace

SimulatedSource::SimulatedSource(SimulatedConfig config, Clock& clock)
    : config_(std::move(config)), clock_(clock) {
  info_.id = config_.id;
  info_.name = config_.name;
  info_.kind = config_.kind;
  info_.available = true;
  info_.counter = "simulated counter";
  info_.has_power = config_.power_available;
  info_.power =
      config_.power_available ? "simulated instant power" : "none: the simulation has no power reading";
}

CounterProperties SimulatedSource::counter_properties() const {
  return {config_.joules_per_count, config_.range_counts, config_.max_plausible_w};
}

double SimulatedSource::pass_time(double more_s) {
  const int64_t begin = clock_.now_ns();
  int64_t cost = ns_from_s(config_.call_cost_s + more_s);
  if (!stalled_ && s_from_ns(begin) >= config_.read_stall_at_s) {
    stalled_ = true;
    cost += ns_from_s(config_.read_stall_s);
  }
  clock_.sleep_until(begin + cost / 2);
  const double middle = s_from_ns(clock_.now_ns());
  clock_.sleep_until(begin + cost);
  return middle;
}

CounterReading SimulatedSource::read_counter() {
  if (config_.counter_reads) ++*config_.counter_reads;
  const double now = pass_time(config_.counter_cost_s + (++reads_ % 13 == 0 ? config_.slow_call_s : 0));
  if (gone(now)) return {std::nullopt, "the device is lost (simulated)"};
  double t = now;
  if (t >= config_.stuck_at_s && t < config_.unstuck_at_s) t = config_.stuck_at_s;
  const auto tick_time = [this](int64_t k) {
    return config_.tick_phase_s + double(k) * config_.tick_period_s +
           config_.tick_jitter_s * hashed(config_.seed, k);
  };
  int64_t k = int64_t(std::floor((t - config_.tick_phase_s) / config_.tick_period_s));
  if (tick_time(k) > t) --k;
  const double published = tick_time(k);
  const bool after_reset = published >= config_.reset_at_s;
  const double energy = config_.power.energy_j(after_reset ? config_.reset_at_s : 0, published);
  const double counts = std::floor(energy / config_.joules_per_count);
  uint64_t count = (after_reset ? 0 : config_.initial_count) + uint64_t(int64_t(counts));
  if (config_.range_counts) count %= config_.range_counts + 1;
  return {count, ""};
}

Reading SimulatedSource::read_power_w() {
  if (!config_.power_available) return Reading::unavailable("the simulation has no power reading");
  const double now = pass_time();
  if (gone(now)) return Reading::unavailable("the device is lost (simulated)");
  double t = now;
  int64_t k = int64_t(std::floor(now * 1e6));
  if (config_.power_refresh_s > 0) {
    k = int64_t(std::floor(now / config_.power_refresh_s));
    t = double(k) * config_.power_refresh_s;
  }
  // Two uniforms make a normal deviate (Box-Muller).
  const double u = hashed(config_.seed + 1, k), v = hashed(config_.seed + 2, k);
  const double noise =
      config_.power_noise_w * std::sqrt(-2 * std::log(1 - u)) * std::cos(6.283185307179586 * v);
  return Reading::of(config_.power.power_w(t) * config_.power_gain + noise);
}

Health SimulatedSource::read_health() {
  const double now = pass_time();
  Health h;
  if (gone(now)) {
    const std::string why = "the device is lost (simulated)";
    h.temperature_c = h.sm_clock_mhz = h.memory_clock_mhz = Reading::unavailable(why);
    h.throttle_reason = why;
    return h;
  }
  const bool throttled = now >= config_.throttle_at_s;
  h.temperature_c = Reading::of(config_.temperature_c);
  h.sm_clock_mhz = Reading::of(throttled ? config_.sm_clock_mhz / 2 : config_.sm_clock_mhz);
  h.memory_clock_mhz = Reading::of(1000);
  h.throttle_bits = throttled ? 0x40u : 0u;
  return h;
}

MemoryUse SimulatedSource::read_memory(int64_t) {
  const double now = pass_time();
  if (gone(now))
    return {Reading::unavailable("the device is lost (simulated)"),
            Reading::unavailable("the device is lost (simulated)")};
  return {Reading::of(config_.memory_bytes), Reading::unavailable("the simulation has no processes")};
}

Reading SimulatedSource::read_contexts() {
  return Reading::of(0);
}

}  // namespace isoline::measure
