// A System in a process of its own: its memory peaks are its own, and its crash is one failed case.
//
// Parent and worker exchange one JSON object a line over two pipes. Requests: {"prepare": {...}} once, then
// {"run": {...}} per case; replies: {"ok": ...} or {"error": {code, message, context, remedy}}.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/lab/system.h"

namespace isoline::lab {

struct WorkerOptions {
  std::vector<std::string> command;  // program and arguments; it must call serve_worker()
  std::string model, checkpoint;
  std::string log_file;     // the worker's standard error is appended here
  double timeout_s = 3600;  // per request; then the worker is killed
};

// Starts the worker and has it load the model.
Result<std::unique_ptr<System>> start_worker(const WorkerOptions& options, const Setting& setting,
                                             const std::atomic<bool>* cancel);

// What a worker process offers.
struct WorkerHandler {
  std::function<Status(const std::string& model, const std::string& checkpoint, const Setting& setting)>
      prepare;
  std::function<Result<SystemRun>(const CaseFiles& files)> run;
};
// Serves requests from standard input until it closes. Anything else the process prints to standard output
// goes to standard error instead. The process ends when its parent does.
Status serve_worker(const WorkerHandler& handler);

}  // namespace isoline::lab
