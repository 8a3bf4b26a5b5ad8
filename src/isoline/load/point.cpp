#include "isoline/load/point.h"

#include <algorithm>
#include <thread>

#include "isoline/load/observer.h"
#include "isoline/measure/process.h"
#include "isoline/stats/describe.h"

namespace isoline::load {
namespace {

constexpr double kPerThousand = 1000;

// One request that must succeed: what the server says against it is the error.
Status try_one(Channel& channel, double timeout_s) {
  channel.send(0, 0);
  std::vector<Completion> done;
  const int64_t until = now_ns() + int64_t(timeout_s * 1e9);
  while (done.empty() && now_ns() < until) channel.wait(until, done);
  if (done.empty())
    return Error{ErrorCode::kIo, "the first request was not answered in time", "", "Raise --timeout."};
  if (done.front().error.empty()) return {};
  return Error{ErrorCode::kInvalidArgument,
               "the first request failed: " + done.front().error + ": " + done.front().message, "", ""};
}

// The server's counts once they hold what was answered; servers may count after they answer.
Result<ServerCounts> settled_counts(Target& target, uint64_t want_success) {
  auto counts = target.counts();
  for (int i = 0; i < 50 && counts.ok() && counts->success.count < want_success; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    counts = target.counts();
  }
  return counts;
}

// The reported part of a record: its last three windows, or as many as there are.
struct Reported {
  size_t windows = 0;
  int64_t begin_ns = 0, end_ns = 0;
  std::vector<Sample> samples;
};
Reported reported(const LoadRecord& record) {
  Reported out;
  out.windows = std::min(record.boundaries_ns.size() - 1, bench::kStableWindows);
  out.end_ns = record.boundaries_ns.back();
  out.begin_ns = record.boundaries_ns[record.boundaries_ns.size() - 1 - out.windows];
  for (const Sample& s : record.samples)
    if (s.end_ns > out.begin_ns && s.end_ns <= out.end_ns) out.samples.push_back(s);
  return out;
}

double mean_ms(const std::vector<Sample>& samples, int64_t Sample::*from, int64_t Sample::*to) {
  double sum = 0;
  for (const Sample& s : samples) sum += double(s.*to - s.*from);
  return sum / double(samples.size()) * 1e-6;
}

// Where a request's time goes, on average.
void add_parts(bench::Point& point, const std::vector<Sample>& samples, const Result<ServerCounts>& server) {
  bench::Parts& parts = point.parts_ms;
  if (samples.empty()) return;
  double known = 0;
  const auto set = [&](Reading& part, double ms) {
    part = Reading::of(ms);
    known += ms;
  };
  if (point.mode == "open")
    set(parts.client_wait, mean_ms(samples, &Sample::start_ns, &Sample::begun_ns));
  else
    parts.client_wait = Reading::unavailable("a closed loop sends at once");
  const bool sockets = std::all_of(samples.begin(), samples.end(),
                                   [](const Sample& s) { return s.sent_ns && s.first_byte_ns; });
  if (sockets) {
    set(parts.client_send, mean_ms(samples, &Sample::begun_ns, &Sample::sent_ns));
    set(parts.client_receive, mean_ms(samples, &Sample::first_byte_ns, &Sample::end_ns));
  } else {
    parts.client_send = parts.client_receive = Reading::unavailable("no sockets");
  }
  const auto unknown = [&](const std::string& why) {
    parts.queue = parts.compute_input = parts.compute_infer = parts.compute_output = parts.network =
        Reading::unavailable(why);
  };
  if (!server.ok()) return unknown(server.error().message);
  if (!server->success.count) return unknown("the server counted no request in these windows");
  const auto each = [&](const ServerCounts::Duration& d) {
    return d.count ? double(d.ns) / double(d.count) * 1e-6 : 0;
  };
  set(parts.queue, each(server->queue));
  set(parts.compute_input, each(server->compute_input));
  set(parts.compute_infer, each(server->compute_infer));
  set(parts.compute_output, each(server->compute_output));
  // The two clocks cover windows that end microseconds apart; below zero it is nothing.
  parts.network = Reading::of(std::max(0.0, point.latency_ms.mean.value - known));
}

// Energy per second over inferences per second.
Reading per_thousand(const Reading& joules, double wall_s, double inferences_per_s) {
  if (!joules.ok()) return joules;
  if (!(inferences_per_s > 0) || !(wall_s > 0)) return Reading::unavailable("nothing was answered");
  return Reading::of(*joules / wall_s / inferences_per_s * kPerThousand);
}

void add_energy(bench::Point& point, const std::optional<measure::WindowReport>& report,
                const PointOptions& options) {
  const std::string& why = options.meter ? "the meter gave no window" : options.why_no_meter;
  point.gpu_power_w = point.j_per_1000 = point.cpu_j_per_1000 = point.peak_vram_bytes =
      Reading::unavailable(why);
  if (!report) return;
  const double rate = point.inferences_per_s.value;
  const Reading gpu = report->total_gross_j(measure::kKindGpu);
  point.gpu_power_w = gpu.ok() && report->wall_s > 0 ? Reading::of(*gpu / report->wall_s) : gpu;
  point.j_per_1000 = per_thousand(gpu, report->wall_s, rate);
  point.cpu_j_per_1000 = per_thousand(report->total_gross_j(measure::kKindCpuPackage), report->wall_s, rate);
  point.peak_vram_bytes = Reading::unavailable("no GPU");
  double vram = 0;
  for (const measure::DeviceWindow& d : report->devices) {
    if (d.kind != measure::kKindGpu) continue;
    point.peak_vram_bytes =
        d.peak_vram_bytes.ok() ? Reading::of(vram += *d.peak_vram_bytes) : d.peak_vram_bytes;
    if (!d.peak_vram_bytes.ok()) return;
  }
}

}  // namespace

Result<bench::Point> measure_point(Target& target, std::shared_ptr<const Payloads> payloads,
                                   const PointOptions& options) {
  ISOLINE_ASSIGN(const auto channel, target.open(payloads, options.lanes));
  ISOLINE_RETURN_IF_ERROR(try_one(*channel, options.plan.answer_timeout_s));
  LoadPlan plan = options.plan;
  plan.payloads = payloads->size();

  const auto before = settled_counts(target, 1);
  Observer observer(target, options.meter, bench::kStableWindows);
  const Reading cpu_before = measure::process_cpu_s();
  const int64_t began = now_ns();
  auto driven = drive(*channel, plan, [&] { observer.mark(); });
  const Reading cpu_after = measure::process_cpu_s();
  const double lasted_s = double(now_ns() - began) * 1e-9;
  observer.finish();
  if (!driven.ok()) return driven.error();
  const LoadRecord& record = *driven;
  const Reported part = reported(record);

  bench::Point point;
  point.mode = plan.open_loop ? "open" : "closed";
  point.batch = options.batch;
  point.concurrency = plan.open_loop ? 0 : int64_t(plan.concurrency);
  if (plan.open_loop) {
    point.rate = plan.rate;
    point.arrivals = plan.arrivals == Arrivals::kPoisson ? "poisson" : "constant";
  }
  point.why_unstable = record.why_unstable;
  point.stable = record.why_unstable.empty();
  point.seconds = double(part.end_ns - part.begin_ns) * 1e-9;
  point.windows = int(record.boundaries_ns.size() - 1);

  std::vector<double> ms, late_ms;
  std::vector<int64_t> ends;
  for (const Sample& s : part.samples) {
    ms.push_back(double(s.end_ns - s.start_ns) * 1e-6);
    late_ms.push_back(double(s.begun_ns - s.start_ns) * 1e-6);
    ends.push_back(s.end_ns);
  }
  point.latency_ms = bench::latency_figures(ms);
  point.requests_per_s = bench::rate_figure(ends, part.begin_ns, part.end_ns);
  point.inferences_per_s = point.requests_per_s;
  for (std::optional<double>* bound : {&point.inferences_per_s.low, &point.inferences_per_s.high})
    if (*bound) **bound *= double(options.batch);
  point.inferences_per_s.value *= double(options.batch);
  std::sort(late_ms.begin(), late_ms.end());
  point.late_ms_p99 = !plan.open_loop   ? Reading::unavailable("a closed loop has no intended starts")
                      : late_ms.empty() ? Reading::unavailable("nothing was answered")
                                        : Reading::of(quantile_sorted(late_ms, .99));
  add_parts(point, part.samples, observer.counts(part.windows));

  point.sent = record.sent;
  point.answered = record.samples.size();
  point.errors = record.errors;
  point.error_examples = record.error_examples;
  if (record.unanswered) point.errors["no answer in time"] += record.unanswered;
  for (int64_t t : record.error_ends_ns) point.errors_in_windows += t > part.begin_ns && t <= part.end_ns;
  const auto after = before.ok() ? settled_counts(target, before->success.count + point.answered) : before;
  if (before.ok() && after.ok()) {
    const ServerCounts d = difference(*after, *before);
    point.server_requests = Reading::of(double(d.success.count));
    point.server_inferences = Reading::of(double(d.inferences));
    point.server_executions = Reading::of(double(d.executions));
  } else {
    point.server_requests = point.server_inferences = point.server_executions =
        Reading::unavailable((before.ok() ? after : before).error().message);
  }
  add_energy(point, observer.metered(), options);
  point.client_cpu_s_per_s = cpu_before.ok() && cpu_after.ok()
                                 ? Reading::of((*cpu_after - *cpu_before) / lasted_s)
                                 : Reading::unavailable("not available");
  const double rate = point.inferences_per_s.value;
  point.price_per_1000 = !options.price_per_hour ? Reading::unavailable("no --price-per-hour was given")
                         : rate > 0 ? Reading::of(*options.price_per_hour / 3600 / rate * kPerThousand)
                                    : Reading::unavailable("nothing was answered");
  return point;
}

}  // namespace isoline::load
