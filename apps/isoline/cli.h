// What all subcommands share: options, output, errors and exit codes.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "isoline/base/result.h"
#include "isoline/base/shape.h"

namespace isoline::cli {

using Json = nlohmann::ordered_json;

struct Output {
  bool json = false;   // one JSON object on standard output, nothing else there
  bool quiet = false;  // no table, no progress
  bool progress() const { return !quiet; }
};

// Adds --json and --quiet.
void add_output_options(CLI::App& app, Output& output);

// A subcommand registers its options on `app` and returns what to run; the returned Status decides the exit
// code.
using Action = std::function<Status()>;
Action add_segment(CLI::App& app);
Action add_predict(CLI::App& app);
Action add_embed(CLI::App& app);
Action add_evaluate(CLI::App& app);
Action add_phantom(CLI::App& app);
Action add_overlay(CLI::App& app);
Action add_models(CLI::App& app);
Action add_devices(CLI::App& app);
Action add_register(CLI::App& app);
Action add_sweep(CLI::App& app);
Action add_recommend(CLI::App& app);
Action add_lab_worker(CLI::App& app);
Action add_meter(CLI::App& app);
Action add_compare(CLI::App& app);
Action add_report(CLI::App& app);
Action add_serve(CLI::App& app);
Action add_bench(CLI::App& app);
Action add_debug(CLI::App& app);

// nnU-Net's options start with one dash and a word (-step_size); CLI11 wants two. Only `predict` uses this.
std::vector<std::string> with_double_dashes(std::vector<std::string> arguments);

// "z,y,x" -> three numbers, each > 0.
Result<Shape3> parse_shape(const std::string& text, const std::string& option);
Result<Vec3<double>> parse_spacing(const std::string& text, const std::string& option);
// "0,1,2" -> entries; empty text gives none.
std::vector<std::string> split_commas(const std::string& text);

// Prints JSON with a trailing newline.
void print(const Json& json);
Json to_json(const Error& error);

// True once SIGINT or SIGTERM arrived; a second one ends the process at once.
const std::atomic<bool>& interrupted();
void install_interrupt_handler();

}  // namespace isoline::cli
