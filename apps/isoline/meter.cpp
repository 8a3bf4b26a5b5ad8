// isoline meter: what the meters of this machine are and say, and what any command costs.
#include <poll.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstring>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <sstream>
#include <thread>

#include "cli.h"
#include "isoline/base/file.h"
#include "isoline/base/progress.h"
#include "isoline/measure/meter.h"
#include "isoline/measure/process.h"

extern char** environ;

namespace isoline::cli {
namespace {

using namespace isoline::measure;

struct Options {
  Output output;
  MeterOptions meter;
  bool no_gpu = false, no_cpu = false;
  std::string phase = "any", trace_file, report_file;
  double seconds = 0, idle_seconds = 0;
  std::vector<std::string> command;
};

// A measured number as it stands in every JSON output: {"value": x} or {"value": null, "reason": "..."}.
Json to_json(const Reading& r) {
  if (r.ok() && std::isfinite(*r)) return {{"value", *r}};
  return {{"value", nullptr}, {"reason", r.ok() ? "not a finite number" : r.reason}};
}

Json to_json(const SourceInfo& s) {
  Json j = {{"id", s.id}, {"name", s.name}, {"kind", s.kind}, {"available", s.available}};
  if (!s.available) {
    j["reason"] = s.reason;
    if (!s.remedy.empty()) j["remedy"] = s.remedy;
    return j;
  }
  j["counter"] = s.counter;
  j["power"] = s.power;
  j["facts"] = s.facts;
  return j;
}

Json sources_json(const Meter& meter) {
  Json list = Json::array();
  for (const SourceInfo& s : meter.sources()) list.push_back(to_json(s));
  return list;
}

Json to_json(const DeviceWindow& d) {
  return {{"id", d.id},
          {"name", d.name},
          {"kind", d.kind},
          {"energy_gross_j", to_json(d.energy_gross_j)},
          {"energy_uncertainty_j", to_json(d.energy_uncertainty_j)},
          {"energy_integrated_j", to_json(d.energy_integrated_j)},
          {"energy_disagreement", to_json(d.energy_disagreement)},
          {"average_power_w", to_json(d.average_power_w)},
          {"peak_power_w", to_json(d.peak_power_w)},
          {"peak_vram_bytes", to_json(d.peak_vram_bytes)},
          {"peak_process_vram_bytes", to_json(d.peak_process_vram_bytes)},
          {"temperature_max_c", to_json(d.temperature_max_c)},
          {"sm_clock_mean_mhz", to_json(d.sm_clock_mean_mhz)},
          {"sm_clock_min_mhz", to_json(d.sm_clock_min_mhz)},
          {"throttle_reasons", d.throttle_reasons},
          {"throttled", d.throttled},
          {"power_capped", d.power_capped},
          {"counter_ticks", d.counter_ticks},
          {"power_samples", d.power_samples},
          {"missed_samples", d.missed_samples},
          {"largest_gap_s", d.largest_gap_s}};
}

Json to_json(const WindowReport& w) {
  Json devices = Json::array();
  for (const DeviceWindow& d : w.devices) devices.push_back(to_json(d));
  return {{"wall_s", w.wall_s},
          {"begin_ns", w.begin_ns},
          {"end_ns", w.end_ns},
          {"meter_cpu_s", to_json(w.meter_cpu_s)},
          {"devices", devices}};
}

Json to_json(const IdleReport& r) {
  Json devices = Json::array();
  for (const IdleDevice& d : r.devices)
    devices.push_back({{"id", d.id},
                       {"name", d.name},
                       {"kind", d.kind},
                       {"state", d.state},
                       {"power_w", to_json(d.power_w)},
                       {"power_uncertainty_w", to_json(d.power_uncertainty_w)},
                       {"power_integrated_w", to_json(d.power_integrated_w)},
                       {"contexts", to_json(d.contexts)},
                       {"temperature_max_c", to_json(d.temperature_max_c)},
                       {"sm_clock_mean_mhz", to_json(d.sm_clock_mean_mhz)}});
  return {{"seconds", r.seconds}, {"devices", devices}};
}

Json to_json(const Quantiles& q) {
  if (q.n == 0) return {{"n", 0}};
  return {{"n", q.n}, {"median", q.median}, {"p99", q.p99}, {"min", q.min}, {"max", q.max}};
}

Json to_json(const CalibrationReport& r) {
  Json list = Json::array();
  for (const SourceCalibration& c : r.sources)
    list.push_back({{"id", c.id},
                    {"name", c.name},
                    {"tick_period_s", to_json(c.tick_period_s)},
                    {"tick_step_j", to_json(c.tick_step_j)},
                    {"power_refresh_s", to_json(c.power_refresh_s)},
                    {"counter_call_us", to_json(c.counter_call_us)},
                    {"power_call_us", to_json(c.power_call_us)},
                    {"health_call_us", to_json(c.health_call_us)},
                    {"memory_call_us", to_json(c.memory_call_us)},
                    {"poll_s", c.poll_s},
                    {"notes", c.notes}});
  return {{"seconds", r.seconds}, {"meter_cpu_fraction", r.meter_cpu_fraction}, {"sources", list}};
}

std::string shown(const Reading& r, const char* unit, int digits = 2) {
  if (!r.ok()) return "unavailable (" + r.reason + ")";
  std::ostringstream s;
  s << std::fixed << std::setprecision(digits) << *r << " " << unit;
  return s.str();
}

std::string shown(const Quantiles& q, double scale, const char* unit) {
  if (q.n == 0) return "not measured";
  std::ostringstream s;
  s << std::setprecision(4) << q.median * scale << " " << unit << " (p99 " << q.p99 * scale << ", n " << q.n
    << ")";
  return s.str();
}

Reading mebibytes(const Reading& r) {
  return r.ok() ? Reading::of(*r / (1 << 20)) : r;
}
Reading percent(const Reading& r) {
  return r.ok() ? Reading::of(*r * 100) : r;
}

void show_unavailable(const Meter& meter, std::ostream& out) {
  for (const SourceInfo& s : meter.sources())
    if (!s.available) {
      out << s.id << ": unavailable: " << s.reason << "\n";
      if (!s.remedy.empty()) out << "  " << s.remedy << "\n";
    }
}

void show(const WindowReport& w, std::ostream& out) {
  for (const DeviceWindow& d : w.devices) {
    out << d.id << " (" << d.name << ")\n";
    out << "  energy, counter     " << shown(d.energy_gross_j, "J") << "\n";
    out << "  its uncertainty     " << shown(d.energy_uncertainty_j, "J") << "\n";
    out << "  energy, integrated  " << shown(d.energy_integrated_j, "J") << "\n";
    out << "  disagreement        " << shown(percent(d.energy_disagreement), "%") << "\n";
    out << "  average power       " << shown(d.average_power_w, "W") << "\n";
    if (d.kind != kKindGpu) continue;
    out << "  peak power          " << shown(d.peak_power_w, "W") << "\n";
    out << "  peak VRAM, device   " << shown(mebibytes(d.peak_vram_bytes), "MiB", 0) << "\n";
    out << "  peak VRAM, process  " << shown(mebibytes(d.peak_process_vram_bytes), "MiB", 0) << "\n";
    out << "  SM clock            " << shown(d.sm_clock_mean_mhz, "MHz", 0) << ", lowest "
        << shown(d.sm_clock_min_mhz, "MHz", 0) << "\n";
    out << "  temperature         " << shown(d.temperature_max_c, "C", 0) << "\n";
    std::string reasons;
    for (const std::string& r : d.throttle_reasons) reasons += (reasons.empty() ? "" : ", ") + r;
    out << "  clock events        " << (reasons.empty() ? "none" : reasons)
        << (d.throttled ? " (throttled)" : "") << "\n";
  }
}

// Writes trace rows as CSV; opened before the meter, closed after it.
class TraceFile {
 public:
  Status open(const std::string& path) {
    if (path.empty()) return {};
    out_.open(path);
    if (!out_)
      return Error{ErrorCode::kIo, std::string("cannot be written: ") + std::strerror(errno), path, ""};
    out_ << "t_s,source,what,value\n" << std::setprecision(12);
    return {};
  }
  std::function<void(const TraceRow&)> sink() {
    if (!out_.is_open()) return nullptr;
    return [this](const TraceRow& r) {
      out_ << double(r.t_ns) * 1e-9 << ',' << r.source << ',' << r.what << ',' << r.value << '\n';
    };
  }

 private:
  std::ofstream out_;
};

Result<Phase> parse_phase(const std::string& text) {
  if (text == "any") return Phase::kAny;
  if (text == "aligned") return Phase::kAligned;
  if (text == "random") return Phase::kRandom;
  return Error{ErrorCode::kInvalidArgument, "'" + text + "' is no phase", "--phase",
               "Use any, aligned or random."};
}

Result<std::unique_ptr<Meter>> open_meter(Options& o, TraceFile& trace) {
  ISOLINE_ASSIGN(o.meter.phase, parse_phase(o.phase));
  ISOLINE_RETURN_IF_ERROR(trace.open(o.trace_file));
  o.meter.gpus = !o.no_gpu;
  o.meter.cpu_packages = !o.no_cpu;
  o.meter.trace = trace.sink();
  return Meter::open(o.meter);
}

// Measures idle power with a bar, one second a step, as one window.
IdleReport idle(Meter& meter, double seconds, const Options& o) {
  std::atomic<bool> done{false};
  Progress progress("idle", int64_t(std::ceil(seconds * 10)), o.output.progress());
  std::thread bar([&] {
    while (!done) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      progress.advance();
    }
  });
  IdleReport r = meter.measure_idle(seconds);
  done = true;
  bar.join();
  progress.finish();
  return r;
}

void show(const IdleReport& r, std::ostream& out) {
  for (const IdleDevice& d : r.devices)
    out << d.id << " (" << d.name << "), " << d.state << ": " << shown(d.power_w, "W") << ", integrated "
        << shown(d.power_integrated_w, "W") << "\n";
}

Status run_list(Options& o) {
  TraceFile trace;
  ISOLINE_ASSIGN(const auto meter, open_meter(o, trace));
  const std::vector<Snapshot> now = meter->snapshot();
  Json list = sources_json(*meter);
  for (size_t i = 0; i < now.size(); ++i) {
    const Snapshot& s = now[i];
    list[i]["now"] = {{"power_w", to_json(s.power_w)},
                      {"average_power_w", to_json(s.average_power_w)},
                      {"temperature_c", to_json(s.health.temperature_c)},
                      {"sm_clock_mhz", to_json(s.health.sm_clock_mhz)},
                      {"memory_clock_mhz", to_json(s.health.memory_clock_mhz)},
                      {"memory_bytes", to_json(s.memory_bytes)},
                      {"contexts", to_json(s.contexts)}};
    if (s.health.throttle_bits) list[i]["now"]["clock_events"] = throttle_names(*s.health.throttle_bits);
  }
  if (o.output.json) {
    print({{"sources", list}});
    return {};
  }
  for (const SourceInfo& s : meter->sources()) {
    if (!s.available) continue;
    std::cout << s.id << " (" << s.name << ")\n  counter  " << s.counter << "\n  power    " << s.power
              << "\n";
    for (const auto& [key, value] : s.facts) std::cout << "  " << key << ": " << value << "\n";
  }
  for (const Snapshot& s : now)
    std::cout << s.id << " now: " << shown(s.power_w, "W") << ", " << shown(s.health.sm_clock_mhz, "MHz", 0)
              << ", " << shown(s.health.temperature_c, "C", 0) << ", contexts " << shown(s.contexts, "", 0)
              << "\n";
  show_unavailable(*meter, std::cout);
  return {};
}

Status run_calibrate(Options& o) {
  TraceFile trace;
  ISOLINE_ASSIGN(const auto meter, open_meter(o, trace));
  const CalibrationReport r = meter->calibrate(o.seconds);
  if (o.output.json) {
    Json j = to_json(r);
    j["devices"] = sources_json(*meter);
    print(j);
    return {};
  }
  for (const SourceCalibration& c : r.sources) {
    std::cout << c.id << " (" << c.name << ")\n";
    std::cout << "  counter tick     " << shown(c.tick_period_s, 1e3, "ms") << "\n";
    std::cout << "  counter step     " << shown(c.tick_step_j, 1, "J") << "\n";
    std::cout << "  power refresh    " << shown(c.power_refresh_s, 1e3, "ms") << "\n";
    std::cout << "  counter call     " << shown(c.counter_call_us, 1, "us") << "\n";
    std::cout << "  power call       " << shown(c.power_call_us, 1, "us") << "\n";
    std::cout << "  health call      " << shown(c.health_call_us, 1, "us") << "\n";
    std::cout << "  memory call      " << shown(c.memory_call_us, 1, "us") << "\n";
    for (const std::string& n : c.notes) std::cout << "  " << n << "\n";
  }
  std::cout << "the meter itself takes " << std::setprecision(3) << r.meter_cpu_fraction * 100
            << " % of a core\n";
  show_unavailable(*meter, std::cout);
  return {};
}

Status run_idle(Options& o) {
  TraceFile trace;
  ISOLINE_ASSIGN(const auto meter, open_meter(o, trace));
  const IdleReport r = idle(*meter, o.seconds, o);
  if (o.output.json) {
    Json j = to_json(r);
    j["protocol"] = kIdleProtocol;
    j["sources"] = sources_json(*meter);
    print(j);
    return {};
  }
  show(r, std::cout);
  show_unavailable(*meter, std::cout);
  if (!o.output.quiet) std::cout << kIdleProtocol << "\n";
  return {};
}

// Starts `command` with this process's streams; with `quiet_stdout` its standard output goes to standard
// error.
Result<pid_t> spawn(const std::vector<std::string>& command, bool quiet_stdout) {
  std::vector<char*> argv;
  for (const std::string& a : command) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  if (quiet_stdout) posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
  pid_t pid = -1;
  const int failed = ::posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failed)
    return Error{failed == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo,
                 std::string("the command cannot be started: ") + std::strerror(failed), command[0], ""};
  return pid;
}

struct Ended {
  int status = 0;
  rusage usage{};
};

// Waits for the child; passes an interrupt of this process on to it. A terminal's Ctrl-C reaches the child
// anyway.
Ended wait_for(pid_t pid) {
#ifdef SYS_pidfd_open
  const int fd = int(::syscall(SYS_pidfd_open, pid, 0));
#else
  const int fd = -1;
#endif
  bool told = false;
  Ended ended;
  for (;;) {
    pollfd p{fd, POLLIN, 0};
    ::poll(&p, fd >= 0 ? 1 : 0, fd >= 0 ? 100 : 1);
    const pid_t got = ::wait4(pid, &ended.status, WNOHANG, &ended.usage);
    if (got == pid || (got < 0 && errno != EINTR)) break;
    if (interrupted() && !told) {
      told = true;
      ::kill(pid, SIGTERM);
    }
  }
  if (fd >= 0) ::close(fd);
  return ended;
}

double seconds_of(const timeval& t) {
  return double(t.tv_sec) + double(t.tv_usec) * 1e-6;
}

Status run_command(Options& o) {
  if (o.command.empty())
    return Error{ErrorCode::kInvalidArgument, "no command is given", "meter run",
                 "Write: isoline meter run -- COMMAND"};
  int code = 0;
  {
    TraceFile trace;
    ISOLINE_ASSIGN(const auto meter, open_meter(o, trace));
    std::optional<IdleReport> before;
    if (o.idle_seconds > 0) before = idle(*meter, o.idle_seconds, o);
    const int64_t token = meter->begin();
    ISOLINE_ASSIGN(const pid_t pid, spawn(o.command, o.output.json && o.report_file.empty()));
    meter->set_process(pid);
    const Ended ended = wait_for(pid);
    ISOLINE_ASSIGN(const WindowReport w, meter->end(token));
    code = WIFEXITED(ended.status) ? WEXITSTATUS(ended.status) : 128 + WTERMSIG(ended.status);
    const double cpu_s = seconds_of(ended.usage.ru_utime) + seconds_of(ended.usage.ru_stime);
    const Reading peak_rss = Reading::of(double(ended.usage.ru_maxrss) * 1024);
    std::vector<Reading> net;
    for (size_t i = 0; i < w.devices.size(); ++i)
      net.push_back(before ? net_energy_j(w.devices[i].energy_gross_j, before->devices[i].power_w, w.wall_s)
                           : Reading::unavailable("idle power was not measured (--idle)"));
    if (o.output.json || !o.report_file.empty()) {
      Json j = {{"command", o.command},
                {"exit_code", code},
                {"cpu_s", cpu_s},
                {"peak_rss_bytes", to_json(peak_rss)}};
      j["phase"] = o.phase;
      j.update(to_json(w));
      for (size_t i = 0; i < net.size(); ++i) j["devices"][i]["energy_net_j"] = to_json(net[i]);
      j["idle"] = before ? to_json(*before) : Json(nullptr);
      j["idle_protocol"] = kIdleProtocol;
      j["sources"] = sources_json(*meter);
      const std::string text = j.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
      if (!o.report_file.empty())
        ISOLINE_RETURN_IF_ERROR(write_file_atomically(o.report_file, text));
      else
        std::cout << text << std::flush;
    }
    if (!o.output.json && !o.output.quiet) {
      std::ostream& out = std::cerr;
      out << "exit code " << code << ", " << std::fixed << std::setprecision(3) << w.wall_s << " s, CPU "
          << cpu_s << " s, peak RSS " << shown(mebibytes(peak_rss), "MiB", 0) << "\n";
      show(w, out);
      if (before) {
        show(*before, out);
        for (size_t i = 0; i < net.size(); ++i)
          out << w.devices[i].id << " net of that idle: " << shown(net[i], "J") << "\n";
      }
      show_unavailable(*meter, out);
    }
  }
  if (code != 0) {
    std::cerr << std::flush;
    std::exit(code);  // the command's own code, not one of ours
  }
  return {};
}

// Line by line: a program in any language brackets its own work with windows. Replies are one JSON object a
// line.
Status run_session(Options& o) {
  TraceFile trace;
  ISOLINE_ASSIGN(const auto meter, open_meter(o, trace));
  const auto reply = [](const Json& j) {
    std::cout << j.dump(-1, ' ', false, Json::error_handler_t::replace) << "\n" << std::flush;
  };
  const auto refuse = [&](const Error& e) { reply({{"error", cli::to_json(e)}}); };
  reply({{"sources", sources_json(*meter)}});
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string verb, argument, rest;
    words >> verb >> argument >> rest;
    double number = 0;
    {
      std::istringstream n(argument);
      if (!(n >> number) || !n.eof() || !std::isfinite(number)) number = -1;
    }
    const auto wrong = [&](const char* usage) {
      refuse({ErrorCode::kInvalidArgument, "'" + line + "' is not understood", "meter session", usage});
    };
    if (verb.empty()) continue;
    if (!rest.empty()) {
      wrong("One verb and at most one argument a line.");
    } else if (verb == "begin") {
      const Result<Phase> phase = argument.empty() ? Result<Phase>(o.meter.phase) : parse_phase(argument);
      if (!phase.ok()) {
        refuse(phase.error());
        continue;
      }
      reply({{"token", meter->begin(*phase)}});
    } else if (verb == "end" && number > 0) {
      const Result<WindowReport> w = meter->end(int64_t(number));
      w.ok() ? reply(to_json(*w)) : refuse(w.error());
    } else if (verb == "process" && number > 0) {
      meter->set_process(int64_t(number));
      reply({{"process", int64_t(number)}});
    } else if (verb == "idle" && number > 0 && number <= 3600) {
      reply(to_json(meter->measure_idle(number)));
    } else if (verb == "quit" && argument.empty()) {
      break;
    } else {
      wrong("Write: begin [any|aligned|random], end TOKEN, process PID, idle SECONDS or quit.");
    }
  }
  return {};
}

void add_meter_options(CLI::App& app, Options& o, bool windows) {
  add_output_options(app, o.output);
  app.add_option("--gpu", o.meter.gpu_ids, "UUID of a GPU to read (repeatable); without it all");
  app.add_flag("--no-gpu", o.no_gpu, "Do not look for GPUs");
  app.add_flag("--no-cpu", o.no_cpu, "Do not look for CPU energy counters");
  app.add_option("--nvml", o.meter.nvml_library, "NVML library to load")->capture_default_str();
  app.add_option("--rapl", o.meter.rapl_root, "Folder of the powercap tree")->capture_default_str();
  if (!windows) return;
  app.add_option("--phase", o.phase, "Where in a counter tick a window begins: any, aligned, random")
      ->capture_default_str();
  app.add_option("--seed", o.meter.seed, "Seed of random phases")->capture_default_str();
  app.add_option("--power-period", o.meter.power_period_s, "Seconds between power samples")
      ->capture_default_str();
  app.add_option("--trace", o.trace_file, "Write every reading to this CSV file (t_s on CLOCK_MONOTONIC)");
}

}  // namespace

Action add_meter(CLI::App& app) {
  app.require_subcommand(1);
  struct Verb {
    CLI::App* app;
    std::shared_ptr<Options> options;
    Status (*run)(Options&);
  };
  auto verbs = std::make_shared<std::vector<Verb>>();
  const auto add = [&](const char* name, const char* help, bool windows, Status (*run)(Options&)) {
    auto options = std::make_shared<Options>();
    CLI::App* sub = app.add_subcommand(name, help);
    add_meter_options(*sub, *options, windows);
    verbs->push_back({sub, options, run});
    return verbs->back();
  };
  add("list", "Every energy source, what it reads, and why some cannot be read", false, run_list);
  const Verb calibrate =
      add("calibrate", "Tick, step and refresh of the readings and what a call costs", false, run_calibrate);
  calibrate.options->seconds = 4;
  calibrate.app->add_option("--seconds", calibrate.options->seconds, "How long, all sources together")
      ->check(CLI::Range(1.0, 600.0))
      ->capture_default_str();
  const Verb idle = add("idle", "Idle power; see to it that nothing runs", true, run_idle);
  idle.options->seconds = 20;
  idle.app->add_option("--seconds", idle.options->seconds, "How long")
      ->check(CLI::Range(0.5, 3600.0))
      ->capture_default_str();
  const Verb run =
      add("run", "Run a command and say what it took; its exit code is passed on", true, run_command);
  run.app
      ->add_option("--idle", run.options->idle_seconds,
                   "Measure idle power for so many seconds first, for net energy")
      ->check(CLI::Range(0.0, 3600.0));
  run.app->add_option("-o,--output", run.options->report_file, "Write the JSON report to this file");
  run.app->add_option("command", run.options->command, "The command and its arguments, after --");
  add("session", "Windows on demand: reads begin, end, process, idle, quit line by line, replies in JSON",
      true, run_session);
  return [verbs]() -> Status {
    for (const Verb& v : *verbs)
      if (v.app->parsed()) return v.run(*v.options);
    return {};
  };
}

}  // namespace isoline::cli
