// BenchResult: everything one `isoline bench` says, as plain data. compare and the page read nothing else.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/measure/reading.h"

namespace isoline::bench {

inline constexpr const char* kBenchFormat = "isoline-bench/1";

// A figure with a two-sided 95 % interval; unset where there are too few values for one.
struct Interval {
  double value = 0;
  std::optional<double> low, high;
};

struct Quantile {
  double q = 0;  // 0.5, 0.9, 0.95, 0.99, 0.999
  Interval ms;
};

// Latency of answered requests, milliseconds. Mean: interval over 20 consecutive blocks; quantiles: order
// statistics. `n` requests; quantiles that so few do not carry are left out.
struct Latency {
  int64_t n = 0;
  Interval mean;
  double min = 0, max = 0;
  std::vector<Quantile> quantiles;

  const Interval* quantile(double q) const;
};

// Means per request, milliseconds. The client's clock: sending (first to last byte handed to the system),
// receiving (first to last byte of the answer), waiting for a free connection. The server's statistics: queue
// and compute. Network: what is left, the server's own handling of bytes included.
struct Parts {
  Reading client_wait, client_send, client_receive, network;
  Reading queue, compute_input, compute_infer, compute_output;
};

// One load: a batch size, and so many requests at once or so many a second.
struct Point {
  std::string mode = "closed";         // or "open"
  int64_t batch = 1, concurrency = 0;  // closed: requests always under way
  double rate = 0;                     // open: requests a second that were meant to be sent
  std::string arrivals;                // open: "poisson" | "constant"

  bool stable = false;
  std::string why_unstable;                   // one sentence; empty if stable
  double seconds = 0;                         // of the windows reported
  int windows = 0;                            // measured; the last three (or fewer) are reported
  Interval requests_per_s, inferences_per_s;  // answered
  Latency latency_ms;                         // open loop: from the intended start
  Parts parts_ms;

  // Over the whole point, warm-up and the last answers included.
  uint64_t sent = 0, answered = 0;
  std::map<std::string, uint64_t>
      errors;  // by status: "HTTP 503", "gRPC 8", "no connection"; never in latency
  std::map<std::string, std::string> error_examples;  // what was said
  uint64_t errors_in_windows = 0;
  Reading server_requests, server_inferences, server_executions;  // the server's counts over the same time
  Reading late_ms_p99;  // open loop: how much later than intended the 99th percentile was sent

  Reading gpu_power_w, j_per_1000,
      cpu_j_per_1000;  // of this machine's GPUs / CPU packages, per 1000 inferences
  Reading peak_vram_bytes, client_cpu_s_per_s;
  Reading price_per_1000;
};

struct Tensor {
  std::string name, datatype;
  std::vector<int64_t> shape;  // without the batch axis
};

struct BenchResult {
  std::string created, isoline_version, commit;
  std::string url;       // or the model's folder
  std::string protocol;  // "HTTP/1.1" | "gRPC" | "in-process" | "session"
  bool tls = false;
  std::string boundary;  // what the clock includes
  std::string server_name, server_version;
  std::string model, model_version, platform;
  int64_t max_batch = 0;
  std::vector<Tensor> inputs, outputs;
  std::string payload;                         // "random, seed 1" | "zeros" | a file
  int64_t request_bytes = 0;                   // of one sample's payload
  std::map<std::string, std::string> machine;  // where this ran
  std::string device;                          // short, for table heads
  std::string energy_source;                   // what was read, or why nothing
  Reading round_trip_ms;                       // health request on one connection: median; before any load
  std::optional<double> price_per_hour;
  std::string currency = "USD";
  double warmup_s = 0, window_s = 0, stability = 0;
  uint64_t seed = 1;
  std::vector<Point> points;
  std::vector<std::string> remarks;
};

std::string to_json_text(const BenchResult& result);
// kCorrupt naming the field. Unknown fields are ignored.
Result<BenchResult> parse_bench(const std::string& json_text, const std::string& file);
Result<BenchResult> read_bench(const std::string& file);
// True if the file says it is a bench result (whatever else may be wrong with it).
bool is_bench_file(const std::string& file);

// "batch 8, 4 at once", "batch 1, 200/s poisson".
std::string load_name(const Point& point);

}  // namespace isoline::bench
