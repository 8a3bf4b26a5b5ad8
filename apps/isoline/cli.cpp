#include "cli.h"

#include <csignal>
#include <cstdio>
#include <iostream>

#include "isoline/base/file.h"

namespace isoline::cli {
namespace {

std::atomic<bool> g_interrupted{false};

// First signal: finish cleanly at the next window. Second: remove half-written files and go.
void on_signal(int signal) {
  if (!g_interrupted.exchange(true)) return;
  remove_pending_files();
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

template <class T>
Result<Vec3<T>> parse_three(const std::string& text, const std::string& option,
                            T (*convert)(const std::string&)) {
  const std::vector<std::string> parts = split_commas(text);
  Vec3<T> out{};
  bool ok = parts.size() == 3;
  for (size_t i = 0; ok && i < 3; ++i) {
    try {
      out[i] = convert(parts[i]);
    } catch (const std::exception&) {
      ok = false;
    }
    ok = ok && out[i] > 0;
  }
  if (!ok)
    return Error{ErrorCode::kInvalidArgument, "'" + text + "' is not three positive numbers", option,
                 "Write z,y,x, for example 96,256,256."};
  return out;
}

}  // namespace

void add_output_options(CLI::App& app, Output& output) {
  app.add_flag("--json", output.json, "Write one JSON object to standard output instead of text");
  app.add_flag("-q,--quiet", output.quiet, "No progress bar and no table");
}

std::vector<std::string> with_double_dashes(std::vector<std::string> arguments) {
  for (std::string& a : arguments)
    if (a.size() > 2 && a[0] == '-' && a[1] != '-' && std::isalpha(static_cast<unsigned char>(a[1])))
      a = "-" + a;
  return arguments;
}

std::vector<std::string> split_commas(const std::string& text) {
  std::vector<std::string> out;
  std::string part;
  for (char c : text + ",") {
    if (c != ',') {
      part += c;
      continue;
    }
    if (!part.empty()) out.push_back(part);
    part.clear();
  }
  return out;
}

Result<Shape3> parse_shape(const std::string& text, const std::string& option) {
  return parse_three<int64_t>(text, option, [](const std::string& s) -> int64_t { return std::stoll(s); });
}
Result<Vec3<double>> parse_spacing(const std::string& text, const std::string& option) {
  return parse_three<double>(text, option, [](const std::string& s) { return std::stod(s); });
}

void print(const Json& json) {
  std::cout << json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) << "\n"
            << std::flush;
}

Json to_json(const Error& error) {
  return {{"code", error_code_name(error.code)},
          {"message", error.message},
          {"context", error.context},
          {"remedy", error.remedy}};
}

const std::atomic<bool>& interrupted() {
  return g_interrupted;
}
void install_interrupt_handler() {
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
}

}  // namespace isoline::cli
