#include <cstdio>

#include "cli.h"
#include "isoline/lab/registration.h"
#include "lab_experiment.h"

namespace isoline::cli {

Action add_register(CLI::App& app) {
  struct Options {
    Output output;
    std::string experiment;
  };
  auto o = std::make_shared<Options>();
  app.add_option("experiment", o->experiment, "EXPERIMENT.toml")->required();
  add_output_options(app, o->output);
  return [o]() -> Status {
    ThreadPool pool;
    ISOLINE_ASSIGN(const lab::Plan plan, plan_experiment(o->experiment, pool, o->output));
    ISOLINE_ASSIGN(const lab::RegistrationRecord record, lab::register_plan(plan));
    if (o->output.json) {
      print({{"file", record.file},
             {"time", record.time},
             {"sha256", record.sha256},
             {"registered", Json::parse(record.registered)}});
    } else if (!o->output.quiet) {
      std::printf("registered at %s: %s (sha256 %.16s...)\n", record.time.c_str(), record.file.c_str(),
                  record.sha256.c_str());
      for (const lab::Endpoint& e : plan.experiment.endpoints)
        std::printf("  %s of %s may lose at most %g\n", e.metric.c_str(), e.region.c_str(), e.delta);
    }
    return {};
  };
}

}  // namespace isoline::cli
