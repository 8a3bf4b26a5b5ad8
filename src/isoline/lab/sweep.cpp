#include "isoline/lab/sweep.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <list>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "isoline/base/file.h"
#include "isoline/io/nifti.h"
#include "isoline/lab/fingerprint.h"
#include "isoline/lab/journal.h"
#include "isoline/lab/json_fields.h"
#include "isoline/lab/registration.h"
#include "isoline/volume/same_grid.h"

namespace isoline::lab {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr uint64_t kMaxRunFileBytes = 64 << 20;
constexpr int kThrottledRetries = 2;

std::string in_run(const std::string& folder, const char* name) {
  return (fs::path(folder) / name).string();
}

// What must not change between two sweeps into one folder. Endpoints may: that is said, not refused.
std::string identity(const Plan& plan) {
  const Experiment& e = plan.experiment;
  Json json;
  json["format"] = "isoline-run/1";
  json["experiment"] = e.id;
  json["model_sha256"] = plan.model_sha256;
  json["cases_sha256"] = plan.cases_sha256;
  for (const PlannedCase& c : plan.cases) json["cases"][c.files.id] = c.sha256;
  for (const Setting& s : e.settings) {
    json["settings"][s.name] = s.values();
    if (!s.not_run.empty()) json["settings"][s.name]["not_run"] = s.not_run;
  }
  json["protocol"] = {
      {"repetitions", e.repetitions}, {"warmup", e.warmup}, {"order", e.order}, {"seed", e.seed}};
  json["regions"] = parse_json_text<Json>(plan.registered).at("regions");  // labels and tolerances
  for (const LesionCriterion& l : plan.evaluation.lesions) json["lesions"].push_back(l.definition());
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

// Makes the folder this plan's, or checks that it is.
Status claim_folder(const Plan& plan, const std::string& folder) {
  std::error_code ec;
  fs::create_directories(folder, ec);
  if (ec) return Error{ErrorCode::kIo, "cannot make the run folder: " + ec.message(), folder, ""};
  const std::string file = in_run(folder, "run.json"), wanted = identity(plan);
  if (fs::exists(file, ec)) {
    ISOLINE_ASSIGN(const Buffer<std::byte> bytes, read_whole_file(file, kMaxRunFileBytes));
    const std::string found(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (!parse_json_text<Json>(found).is_object())
      return Error{ErrorCode::kCorrupt, "this is no JSON object", file,
                   "Restore it, or choose another folder."};
    const std::vector<std::string> changes = json_changes(found, wanted);
    if (changes.empty()) return {};
    return Error{ErrorCode::kInvalidArgument,
                 "this folder holds another run: " + changes[0] +
                     (changes.size() > 1 ? " (and " + std::to_string(changes.size() - 1) + " more)" : ""),
                 folder, "Choose another folder; the results there are untouched."};
  }
  for (fs::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec))
    return Error{ErrorCode::kInvalidArgument, "this folder holds something that is no run", folder,
                 "Choose an empty or a new folder."};
  ISOLINE_RETURN_IF_ERROR(write_file_atomically(in_run(folder, "experiment.toml"), plan.experiment.text));
  // Kept with the run: a registration made or altered later is not this run's.
  ISOLINE_ASSIGN(const auto registration, read_registration(registration_path(plan.experiment.file)));
  if (registration) {
    ISOLINE_ASSIGN(const Buffer<std::byte> bytes, read_whole_file(registration->file, kMaxRunFileBytes));
    ISOLINE_RETURN_IF_ERROR(write_file_atomically(in_run(folder, "registration.json"), bytes.span()));
  }
  return write_file_atomically(file, wanted);  // last: its presence says that the rest is there
}

// Why nothing of a kind can be read: as the meter found at its start.
Reading nothing_to_read(const std::vector<measure::SourceInfo>& sources, const std::string& kind) {
  for (const measure::SourceInfo& s : sources)
    if (!s.available && s.kind == kind) return Reading::unavailable(s.reason);
  return Reading::unavailable("no " + kind + " found");
}

// Sum over the devices of a kind; unavailable, with the first reason, if one of them is.
template <class Device>
Reading sum_of(const std::vector<Device>& devices, const std::string& kind, Reading Device::*field,
               const std::vector<measure::SourceInfo>& sources) {
  double sum = 0;
  bool any = false;
  for (const Device& d : devices) {
    if (d.kind != kind) continue;
    const Reading& r = d.*field;
    if (!r.ok()) return r;
    sum += *r;
    any = true;
  }
  return any ? Reading::of(sum) : nothing_to_read(sources, kind);
}

void add_gpu_window(const measure::WindowReport& window, const std::vector<measure::SourceInfo>& sources,
                    RunEntry& entry) {
  using measure::DeviceWindow;
  const auto sum = [&](Reading DeviceWindow::*field) {
    return sum_of(window.devices, measure::kKindGpu, field, sources);
  };
  entry.energy_gross_j = sum(&DeviceWindow::energy_gross_j);
  entry.energy_integrated_j = sum(&DeviceWindow::energy_integrated_j);
  entry.energy_uncertainty_j = sum(&DeviceWindow::energy_uncertainty_j);
  entry.average_power_w = sum(&DeviceWindow::average_power_w);
  entry.peak_power_w = sum(&DeviceWindow::peak_power_w);
  entry.peak_vram_bytes = sum(&DeviceWindow::peak_process_vram_bytes);
  std::set<std::string> reasons;
  for (const DeviceWindow& d : window.devices) {
    if (d.kind != measure::kKindGpu) continue;
    entry.throttled = entry.throttled || d.throttled;
    reasons.insert(d.throttle_reasons.begin(), d.throttle_reasons.end());
    if (d.temperature_max_c.ok() &&
        (!entry.temperature_max_c.ok() || *d.temperature_max_c > *entry.temperature_max_c))
      entry.temperature_max_c = d.temperature_max_c;
    if (d.sm_clock_mean_mhz.ok()) entry.sm_clock_mean_mhz = d.sm_clock_mean_mhz;
  }
  entry.throttle_reasons.assign(reasons.begin(), reasons.end());
}

// A run on the CPU is not charged for a GPU that stands beside it.
void add_window(const measure::WindowReport& window, const std::vector<measure::SourceInfo>& sources,
                RunEntry& entry) {
  entry.meter_wall_s = window.wall_s;
  entry.cpu_energy_j =
      sum_of(window.devices, measure::kKindCpuPackage, &measure::DeviceWindow::energy_gross_j, sources);
  if (entry.device_kind == "gpu") return add_gpu_window(window, sources, entry);
  for (Reading* r : {&entry.energy_gross_j, &entry.energy_integrated_j, &entry.energy_uncertainty_j,
                     &entry.average_power_w, &entry.peak_power_w, &entry.peak_vram_bytes})
    *r = Reading::unavailable("ran on the CPU");
}

Status evaluate(const Plan& plan, const PlannedCase& c, const std::string& labels_file, ThreadPool& pool,
                RunEntry& entry) {
  ISOLINE_ASSIGN(const LabelMap reference, read_labels(c.reference, plan.reader, {}, pool));
  ISOLINE_ASSIGN(const LabelMap labels, read_labels(labels_file, plan.reader, {}, pool));
  ISOLINE_RETURN_IF_ERROR(same_grid(reference, labels, c.reference, labels_file));
  ISOLINE_ASSIGN(const CaseMetrics metrics, evaluate_case(reference, labels, plan.evaluation, pool));
  entry.labels_sha256 = sha256_of_bytes(std::as_bytes(labels.data.span()));
  for (size_t r = 0; r < metrics.regions.size(); ++r) {
    const RegionMetrics& m = metrics.regions[r];
    RegionScores& s = entry.regions[plan.evaluation.regions[r].name];
    s.dice = m.overlap.dice(BothEmpty::kOne);
    if (const double d = m.overlap.dice(BothEmpty::kNan); !std::isnan(d)) s.dice_nnunet = d;
    s.surface_dice = m.surface_dice(BothEmpty::kOne);
    if (const auto h = m.hd95_mm(BothEmpty::kOne)) {
      s.hd95_infinite = std::isinf(*h);
      if (!s.hd95_infinite) s.hd95_mm = *h;
    }
    s.reference_mm3 = m.reference_mm3;
    s.predicted_mm3 = m.predicted_mm3;
  }
  for (size_t l = 0; l < metrics.lesions.size(); ++l) {
    const std::string& region = plan.evaluation.lesions[l].region.name;
    auto& found = entry.lesions_found[region];
    for (bool f : metrics.lesions[l].found_flags()) found.push_back(f);
    entry.lesions_false_positive[region] = int(metrics.lesions[l].false_positives.size());
  }
  return {};
}

// With less room than this a failed write is taken to mean a full disk, and every further case would fail
// too.
constexpr uint64_t kDiskFullBytes = 16 << 20;

bool disk_is_full(const Error& e, const std::string& folder) {
  if (e.code != ErrorCode::kResourceExhausted && e.code != ErrorCode::kIo) return false;
  std::error_code ec;
  const fs::space_info space = fs::space(folder, ec);
  return !ec && space.available < kDiskFullBytes;
}

class Sweep {
 public:
  Sweep(const Plan& plan, const SweepOptions& options, Journal& journal, ThreadPool& pool)
      : plan_(plan), options_(options), journal_(journal), pool_(pool) {}

  Status run() {
    std::vector<Job> jobs = order_jobs(plan_);
    std::set<std::tuple<std::string, std::string, int>> done;
    for (const RunEntry& r : journal_.content().runs)
      if (r.error.empty()) done.insert({r.setting, r.case_id, r.repetition});
    const int64_t total = int64_t(jobs.size());
    std::erase_if(jobs, [&](const Job& j) {
      return done.count({setting(j).name, plan_.cases[j.case_index].files.id, j.repetition}) > 0;
    });
    if (jobs.empty()) return {};
    ISOLINE_RETURN_IF_ERROR(begin_session());
    int64_t finished = total - int64_t(jobs.size());
    for (const Job& job : jobs) {
      const PlannedCase& c = plan_.cases[job.case_index];
      if (options_.progress) options_.progress(finished, total, setting(job).name + " " + c.files.id);
      ISOLINE_RETURN_IF_ERROR(run_job(job));
      ++finished;
    }
    if (options_.progress) options_.progress(finished, total, "");
    return {};
  }

 private:
  const Setting& setting(const Job& j) const { return plan_.experiment.settings[j.setting]; }
  bool cancelled() const { return options_.cancel && *options_.cancel; }

  Status begin_session() {
    SessionEntry s;
    s.started = utc_now();
    s.isoline_version = options_.isoline_version;
    s.commit = options_.commit;
    s.device = machine_facts();
    if (options_.meter) {
      for (const measure::SourceInfo& source : options_.meter->sources()) {
        s.energy_sources.push_back(source.available
                                       ? source.name + ": " + source.counter + "; " + source.power
                                       : source.name + ": not available: " + source.reason);
        if (source.available && source.kind == measure::kKindGpu) {
          s.device["gpu"] = source.name;
          s.device["gpu_uuid"] = source.id;
          for (const auto& [key, value] : source.facts) s.device["gpu_" + key] = value;
        }
      }
      if (readable_sources()) {
        for (const measure::SourceCalibration& c : options_.meter->calibrate(2).sources) {
          const auto text = [](double v, const char* unit) {
            char t[48];
            std::snprintf(t, sizeof t, "%.4g %s", v, unit);
            return std::string(t);
          };
          if (c.tick_period_s.n) s.meter[c.name + " tick period"] = text(c.tick_period_s.median * 1e3, "ms");
          if (c.tick_step_j.n) s.meter[c.name + " tick step"] = text(c.tick_step_j.median, "J");
          if (c.power_refresh_s.n)
            s.meter[c.name + " power refresh"] = text(c.power_refresh_s.median * 1e3, "ms");
          if (c.counter_call_us.n) s.meter[c.name + " counter call"] = text(c.counter_call_us.median, "us");
        }
      }
    }
    ISOLINE_RETURN_IF_ERROR(journal_.append(s));
    return measure_idle("cold");
  }

  bool readable_sources() const {
    if (!options_.meter) return false;
    const auto sources = options_.meter->sources();
    return std::any_of(sources.begin(), sources.end(), [](const auto& s) { return s.available; });
  }

  Status measure_idle(const std::string& state) {
    const double seconds = plan_.experiment.idle_s;
    if (!readable_sources() || seconds <= 0) return {};
    if (options_.progress) options_.progress(0, 0, "idle power, " + state);
    IdleEntry entry;
    entry.started = utc_now();
    entry.state = state;
    entry.seconds = seconds;
    const measure::IdleReport report = options_.meter->measure_idle(seconds);
    const auto sources = options_.meter->sources();
    entry.gpu_w = sum_of(report.devices, measure::kKindGpu, &measure::IdleDevice::power_w, sources);
    entry.cpu_w = sum_of(report.devices, measure::kKindCpuPackage, &measure::IdleDevice::power_w, sources);
    return journal_.append(entry);
  }

  // The loaded model of a setting; loads and warms it if it is not there. A setting that cannot start is not
  // tried again in this sweep.
  Result<System*> system(size_t index) {
    for (auto it = live_.begin(); it != live_.end(); ++it)
      if (it->first == index) {
        live_.splice(live_.begin(), live_, it);
        return live_.front().second.get();
      }
    if (const auto it = broken_.find(index); it != broken_.end()) return it->second;
    const size_t limit = size_t(plan_.experiment.max_workers);
    while (limit && live_.size() >= limit) live_.pop_back();
    auto opened = start_and_warm(index);
    if (!opened.ok()) {
      if (opened.error().code != ErrorCode::kCancelled) broken_.emplace(index, opened.error());
      return opened.error();
    }
    live_.emplace_front(index, std::move(opened).value());
    if (!idle_taken_) {
      idle_taken_ = true;
      ISOLINE_RETURN_IF_ERROR(measure_idle("context alive"));
    }
    return live_.front().second.get();
  }

  Result<std::unique_ptr<System>> start_and_warm(size_t index) {
    const Setting& s = plan_.experiment.settings[index];
    if (options_.progress) options_.progress(0, 0, "warming up " + s.name);
    ISOLINE_ASSIGN(std::unique_ptr<System> system, options_.open_system(s));
    CaseFiles files = plan_.cases[0].files;
    files.output = in_run(options_.run_folder, ("warmup" + plan_.file_ending).c_str());
    for (int i = 0; i < plan_.experiment.warmup; ++i) {
      auto warm = system->run(files, options_.cancel);
      std::error_code ec;
      fs::remove(files.output, ec);
      if (!warm.ok()) return warm.error().in("warm-up");
    }
    return system;
  }

  Status run_job(const Job& job) {
    const Setting& s = setting(job);
    const PlannedCase& c = plan_.cases[job.case_index];
    for (int attempt = 0;; ++attempt) {
      if (cancelled())
        return Error{ErrorCode::kCancelled, "interrupted; run the same command to go on", "", ""};
      RunEntry entry;
      entry.started = utc_now();
      entry.setting = s.name;
      entry.case_id = c.files.id;
      entry.repetition = job.repetition;
      const Status status = measure_case(job, c, entry);
      if (!status.ok()) {
        if (status.error().code == ErrorCode::kCancelled) return status;
        if (disk_is_full(status.error(), options_.run_folder)) {
          Error e = status.error();
          e.remedy = "All results so far are kept. Make room and run the same command again to go on.";
          return e;
        }
        entry.error = status.error().to_string();
      }
      ISOLINE_RETURN_IF_ERROR(journal_.append(entry));
      if (!entry.throttled || attempt == kThrottledRetries) return {};
    }
  }

  Status measure_case(const Job& job, const PlannedCase& c, RunEntry& entry) {
    ISOLINE_ASSIGN(System * system, this->system(job.setting));
    CaseFiles files = c.files;
    files.output = labels_path(options_.run_folder, plan_, entry.setting, files.id);
    std::error_code ec;
    fs::create_directories(fs::path(files.output).parent_path(), ec);
    if (ec)
      return Error{ErrorCode::kIo, "cannot make a folder for labels: " + ec.message(), files.output, ""};
    int64_t token = 0;
    if (options_.meter) {
      options_.meter->set_process(system->process_id());
      token = options_.meter->begin();
    }
    auto run = system->run(files, options_.cancel);
    if (options_.meter) {
      ISOLINE_ASSIGN(const measure::WindowReport window, options_.meter->end(token));
      if (run.ok()) {
        entry.device_kind = run->device_kind;
        add_window(window, options_.meter->sources(), entry);
      }
    }
    if (!run.ok()) {
      if (!system->alive()) live_.remove_if([&](const auto& entry) { return entry.first == job.setting; });
      return run.error();
    }
    entry.runtime = run->runtime;
    entry.wall_s = run->wall_s;
    entry.stages_s = run->stages_s;
    entry.windows = run->windows;
    entry.forwards = run->forwards;
    entry.forward_ms = run->forward_ms;
    entry.cpu_s = run->cpu_s;
    entry.peak_rss_bytes = run->peak_rss_bytes;
    entry.warnings = run->warnings;
    return evaluate(plan_, c, files.output, pool_, entry);
  }

  const Plan& plan_;
  const SweepOptions& options_;
  Journal& journal_;
  ThreadPool& pool_;
  std::list<std::pair<size_t, std::unique_ptr<System>>> live_;  // most recently used first
  std::map<size_t, Error> broken_;
  bool idle_taken_ = false;
};

}  // namespace

std::string labels_path(const std::string& run_folder, const Plan& plan, const std::string& setting,
                        const std::string& case_id) {
  return (fs::path(run_folder) / "labels" / setting / (case_id + plan.file_ending)).string();
}

std::vector<Job> order_jobs(const Plan& plan) {
  const Experiment& e = plan.experiment;
  std::vector<size_t> settings;
  for (size_t i = 0; i < e.settings.size(); ++i)
    if (e.settings[i].not_run.empty()) settings.push_back(i);
  std::vector<Job> jobs;
  const size_t cases = plan.cases.size();
  if (e.order == "blocked") {
    for (size_t s : settings)
      for (int r = 0; r < e.repetitions; ++r)
        for (size_t c = 0; c < cases; ++c) jobs.push_back({s, c, r});
    return jobs;
  }
  for (int r = 0; r < e.repetitions; ++r)
    for (size_t c = 0; c < cases; ++c)
      for (size_t k = 0; k < settings.size(); ++k)
        jobs.push_back({settings[(k + c + size_t(r)) % settings.size()], c, r});
  if (e.order == "random") {
    std::mt19937_64 random(e.seed);
    // Own shuffle: std::shuffle's result is not the same everywhere.
    for (size_t i = jobs.size(); i > 1; --i)
      std::swap(jobs[i - 1], jobs[size_t((static_cast<unsigned __int128>(random()) * i) >> 64)]);
  }
  return jobs;
}

std::map<std::string, std::string> machine_facts() {
  std::map<std::string, std::string> out;
  std::ifstream cpu("/proc/cpuinfo");
  for (std::string line; std::getline(cpu, line);)
    if (line.rfind("model name", 0) == 0 && line.find(": ") != std::string::npos) {
      out["cpu"] = line.substr(line.find(": ") + 2);
      break;
    }
  out["cores"] = std::to_string(available_cores());
  const long pages = ::sysconf(_SC_PHYS_PAGES), page = ::sysconf(_SC_PAGE_SIZE);
  if (pages > 0 && page > 0) out["ram_bytes"] = std::to_string(int64_t(pages) * page);
  utsname name{};
  if (::uname(&name) == 0) out["kernel"] = std::string(name.sysname) + " " + name.release;
  std::ifstream os("/etc/os-release");
  for (std::string line; std::getline(os, line);)
    if (line.rfind("PRETTY_NAME=", 0) == 0) {
      out["os"] = line.substr(12);
      std::erase(out["os"], '"');
    }
  return out;
}

Status run_sweep(const Plan& plan, const SweepOptions& options, ThreadPool& pool) {
  ISOLINE_RETURN_IF_ERROR(claim_folder(plan, options.run_folder));
  ISOLINE_ASSIGN(Journal journal, Journal::open(options.run_folder));
  std::error_code ec;
  fs::create_directories(in_run(options.run_folder, "logs"), ec);
  Sweep sweep(plan, options, journal, pool);
  return sweep.run();
}

}  // namespace isoline::lab
