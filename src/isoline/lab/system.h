// System: the thing that is measured, as the sweep sees it.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/lab/experiment.h"
#include "isoline/measure/reading.h"
#include "isoline/pipeline/cases.h"

namespace isoline::lab {

// What one case cost, told by the system itself.
struct SystemRun {
  double wall_s = 0;  // first byte of the scan read to labels on disk (fsync and rename included)
  std::map<std::string, double> stages_s;
  int64_t windows = 0, forwards = 0;
  std::vector<double> forward_ms;   // one per forward pass, in order
  std::string device_kind = "cpu";  // "cpu" | "gpu": whose energy this run is charged
  std::string runtime;              // what executed, as the session describes itself
  Reading cpu_s, peak_rss_bytes;    // of the system's process, over this case
  std::vector<std::string> warnings;
};

class System {
 public:
  virtual ~System() = default;
  // From files to a label map at case.output. Blocks; gives up with kCancelled once `cancel` is true.
  virtual Result<SystemRun> run(const CaseFiles& files, const std::atomic<bool>* cancel) = 0;
  // Whose memory a meter should look at.
  virtual int64_t process_id() const = 0;
  // False once it can answer no more (crashed, killed): then it must be opened anew.
  virtual bool alive() const = 0;
};

// Loads the model under one setting. An error says why this setting cannot run here.
using SystemFactory = std::function<Result<std::unique_ptr<System>>(const Setting& setting)>;

}  // namespace isoline::lab
