#include <cstdio>
#include <iostream>
#include <new>

#include "cli.h"

int main(int argc, char** argv) {
  using namespace isoline;
  using namespace isoline::cli;
  CLI::App app{"Isoline runs, serves and measures frozen imaging networks.", "isoline"};
  app.set_version_flag("--version", ISOLINE_VERSION);
  app.require_subcommand(1);
  struct Command {
    const char* name;
    const char* help;
    Action (*add)(CLI::App&);
  };
  constexpr Command commands[] = {
      {"segment", "Segment a scan or a folder of scans", add_segment},
      {"predict", "The same with the options of nnUNetv2_predict_from_modelfolder", add_predict},
      {"embed", "Turn pictures into the vectors of an image network", add_embed},
      {"evaluate", "Dice, surfaces, volumes and lesions of labels against reference labels", add_evaluate},
      {"phantom", "Make a synthetic abdominal CT with labels", add_phantom},
      {"overlay", "Draw three planes of a scan with the outlines of its labels", add_overlay},
      {"models", "Look into a model", add_models},
      {"devices", "List backends and what they run on here", add_devices},
      {"register", "Fix an experiment's endpoints and thresholds before measuring", add_register},
      {"sweep", "Run every case under every setting of an experiment, and judge", add_sweep},
      {"recommend", "The cheapest setting of a run that preserves the answer", add_recommend},
      {"lab-worker", "One setting of a sweep, in a process of its own", add_lab_worker},
      {"meter", "Read the energy meters of this machine, or measure a command", add_meter},
      {"compare", "Runs of one experiment side by side, beside published tables", add_compare},
      {"report", "Write one HTML page and its Markdown twin about one or more runs", add_report},
      {"serve", "Serve models over the Open Inference Protocol (REST and gRPC)", add_serve},
      {"bench", "Put a served model or a model of this process under load, and measure", add_bench},
      {"debug", "Single stages, for parity tests and measurements", add_debug},
  };
  std::vector<std::pair<CLI::App*, Action>> actions;
  for (const Command& c : commands) {
    CLI::App* sub = app.add_subcommand(c.name, c.help);
    actions.emplace_back(sub, c.add(*sub));
  }
  std::vector<std::string> arguments(argv + 1, argv + argc);
  if (!arguments.empty() && arguments[0] == "predict") arguments = with_double_dashes(arguments);
  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them from the back
  try {
    app.parse(arguments);
  } catch (const CLI::ParseError& e) {
    const int code = app.exit(e);
    return code == 0 ? 0 : exit_code(ErrorCode::kInvalidArgument);
  }
  install_interrupt_handler();
  try {
    for (const auto& [sub, action] : actions)
      if (sub->parsed()) {
        const Status status = action();
        if (status.ok()) return 0;
        std::cerr << "isoline: " << status.error().to_string() << "\n";
        return exit_code(status.error().code);
      }
  } catch (const std::bad_alloc&) {
    std::cerr << "isoline: memory ran out. Free memory or limit the run with --max-ram.\n";
    return exit_code(ErrorCode::kResourceExhausted);
  } catch (const std::exception& e) {
    std::cerr << "isoline: internal error: " << e.what() << ". Please report this.\n";
    return exit_code(ErrorCode::kInternal);
  }
  return 0;
}
