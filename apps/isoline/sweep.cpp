#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <memory>

#include "cli.h"
#include "isoline/base/progress.h"
#include "isoline/lab/recommend.h"
#include "isoline/lab/summarize.h"
#include "isoline/lab/sweep.h"
#include "isoline/lab/worker.h"
#include "isoline/measure/process.h"
#include "isoline_commit.h"
#include "lab_experiment.h"
#include "segment_cases.h"

namespace isoline::cli {
namespace {

struct Options {
  Output output;
  std::string experiment, run_folder;
  bool no_meter = false;
};

lab::SystemFactory worker_factory(const lab::Plan& plan, const std::string& run_folder) {
  std::error_code ec;
  const std::string self = std::filesystem::read_symlink("/proc/self/exe", ec).string();
  return [&plan, run_folder, self](const lab::Setting& setting) {
    lab::WorkerOptions w;
    w.command = {self, "lab-worker"};
    w.model = plan.experiment.model;
    w.checkpoint = plan.experiment.checkpoint;
    w.timeout_s = plan.experiment.timeout_s;
    w.log_file = (std::filesystem::path(run_folder) / "logs" / (setting.name + ".log")).string();
    return lab::start_worker(w, setting, &interrupted());
  };
}

Status sweep(const Options& o) {
  ThreadPool pool;
  ISOLINE_ASSIGN(const lab::Plan plan, plan_experiment(o.experiment, pool, o.output));
  std::unique_ptr<measure::Meter> meter;
  if (!o.no_meter) {
    ISOLINE_ASSIGN(meter, measure::Meter::open());
  }
  std::unique_ptr<Progress> bar;
  lab::SweepOptions options;
  options.run_folder = o.run_folder;
  options.isoline_version = ISOLINE_VERSION;
  options.commit = ISOLINE_COMMIT;
  options.open_system = worker_factory(plan, o.run_folder);
  options.meter = meter.get();
  options.cancel = &interrupted();
  int64_t before = 0;  // done by earlier sweeps: not part of this one's remaining time
  options.progress = [&](int64_t done, int64_t total, const std::string&) {
    if (!total) return;
    if (!bar) {
      before = done;
      bar = std::make_unique<Progress>("sweep " + plan.experiment.id, total - before, o.output.progress());
    }
    bar->set(done - before);
  };
  const Status swept = lab::run_sweep(plan, options, pool);
  bar.reset();
  if (!swept.ok()) return swept;
  ISOLINE_ASSIGN(const lab::RunSummary summary, lab::summarize_run(plan, o.run_folder, pool));
  if (o.output.json)
    print(Json::parse(lab::to_json_text(summary)));
  else if (!o.output.quiet)
    print_summary(summary);
  for (const lab::SettingSummary& s : summary.settings)
    if (!s.failures.empty())
      return Error{ErrorCode::kInternal,
                   "setting '" + s.name + "' has no result for " + std::to_string(s.failures.size()) +
                       " case(s): " + s.failures[0],
                   o.run_folder, "The rest is summarised. Run the same command to try again."};
  return {};
}

// The process that `sweep` starts for every setting.
Status lab_worker() {
  OpenedModel model;
  lab::WorkerHandler handler;
  handler.prepare = [&](const std::string& folder, const std::string& checkpoint,
                        const lab::Setting& setting) -> Status {
    RunSettings settings;
    settings.model_folder = folder;
    settings.checkpoint = checkpoint;
    settings.backend = setting.backend;
    settings.precision = setting.precision;
    settings.tta = setting.tta;
    settings.step = setting.step;
    settings.threads = setting.threads;
    settings.folds = setting.folds;
    ISOLINE_ASSIGN(model, open_model(settings, Output{}));
    return {};
  };
  handler.run = [&](const CaseFiles& files) -> Result<lab::SystemRun> {
    if (!model.segmenter) return Error{ErrorCode::kInvalidArgument, "no model was prepared", "", ""};
    const measure::ProcessWindow window;
    ISOLINE_ASSIGN(const CaseResult result, segment_case(*model.segmenter, files, {}, {}, &interrupted()));
    const Segmentation& s = result.segmentation;
    lab::SystemRun run;
    run.wall_s = result.total_s;
    run.stages_s = {{"read", s.times.read_s},
                    {"preprocess", s.times.preprocess_s},
                    {"network", s.times.network_s},
                    {"export", s.times.export_s},
                    {"write", s.times.write_s}};
    run.windows = s.windows;
    run.forwards = s.forwards;
    run.forward_ms.assign(s.forward_ms.begin(), s.forward_ms.end());
    run.device_kind = model.backend->device_kind();
    run.runtime = model.segmenter->session_description();
    run.cpu_s = window.cpu_s();
    run.peak_rss_bytes = window.peak_rss_bytes();
    run.warnings = result.warnings;
    return run;
  };
  return lab::serve_worker(handler);
}

}  // namespace

Action add_sweep(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("experiment", o->experiment, "EXPERIMENT.toml (see docs/guides/lab.md)")->required();
  app.add_option("-o,--output", o->run_folder, "Run folder; an unfinished run there is continued")
      ->required();
  app.add_flag("--no-meter", o->no_meter, "Do not look for energy meters");
  add_output_options(app, o->output);
  return [o]() -> Status { return sweep(*o); };
}

Action add_recommend(CLI::App& app) {
  struct RecommendOptions {
    Output output;
    std::string run, by = "time";
  };
  auto o = std::make_shared<RecommendOptions>();
  app.add_option("run", o->run, "Run folder of 'isoline sweep', or a summary file")->required();
  app.add_option("--by", o->by, "Cost to be smallest: time, energy, vram or rss");
  add_output_options(app, o->output);
  return [o]() -> Status {
    ISOLINE_ASSIGN(const lab::RunSummary summary, lab::read_summary(o->run));
    ISOLINE_ASSIGN(const lab::Recommendation r, lab::recommend(summary, o->by));
    if (o->output.json) {
      print({{"setting", r.setting},
             {"by", r.by},
             {"device", summary.device_name},
             {"why", r.why},
             {"passed_over", r.passed_over},
             {"caveats", r.caveats}});
    } else if (!o->output.quiet) {
      std::printf("%s  (by %s, on %s)\n%s\n", r.setting.c_str(), r.by.c_str(), summary.device_name.c_str(),
                  r.why.c_str());
      for (const std::string& p : r.passed_over) std::printf("  passed over: %s\n", p.c_str());
      for (const std::string& c : r.caveats) std::printf("! %s\n", c.c_str());
    }
    return {};
  };
}

Action add_lab_worker(CLI::App& app) {
  app.group("");  // not for people: hidden from --help
  return []() -> Status { return lab_worker(); };
}

}  // namespace isoline::cli
