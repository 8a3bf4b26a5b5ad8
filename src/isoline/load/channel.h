// What the driver sees of a model: a Target that says what it is, and Channels that carry requests to it.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/engine/tensor_model.h"
#include "isoline/load/payload.h"

namespace isoline::load {

// Nanoseconds of CLOCK_MONOTONIC, the clock of every time in this room.
inline int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// What became of one request.
struct Completion {
  uint64_t tag = 0;
  int64_t sent_ns = 0, first_byte_ns = 0;  // request handed over whole; answer begins. 0: no such moment
  int64_t end_ns = 0;                      // answer complete
  std::string error;                       // its status, e.g. "HTTP 503", "gRPC 8"; empty: answered
  std::string message;                     // what the server said of an error
};

// Carries requests. One thread uses it.
class Channel {
 public:
  virtual ~Channel() = default;
  // Requests that can be under way at once.
  virtual size_t capacity() const = 0;
  // Fewer than capacity() are under way. `payload`: index into those the channel was opened with. Must not
  // block.
  virtual void send(uint64_t tag, size_t payload) = 0;
  // Waits until something completed or `until_ns`, whichever is first; appends what completed.
  virtual void wait(int64_t until_ns, std::vector<Completion>& done) = 0;
  // Not ok once nothing more can be sent.
  virtual Status health() const { return {}; }
};

struct TargetInfo {
  std::string server_name, server_version, protocol, boundary;
  bool tls = false;
  std::string model, version, platform;
  int64_t max_batch = 0;                    // 0: no batch axis
  std::vector<TensorSpec> inputs, outputs;  // shapes without the batch axis
};

// The server's own statistics of the model, as Triton keeps them.
struct ServerCounts {
  struct Duration {
    uint64_t count = 0, ns = 0;
  };
  uint64_t inferences = 0, executions = 0;
  Duration success, fail, queue, compute_input, compute_infer, compute_output;
};

class Target {
 public:
  virtual ~Target() = default;
  virtual const TargetInfo& info() const = 0;
  // From one thread at a time, also while channels are in use.
  virtual Result<ServerCounts> counts() = 0;
  // Median of `n` health requests, one after the other on one connection, in milliseconds.
  virtual Result<double> round_trip_ms(int n) = 0;
  // `lanes`: requests that may be under way at once, at least. The payloads are those of make_payloads().
  virtual Result<std::unique_ptr<Channel>> open(std::shared_ptr<const Payloads> payloads, size_t lanes) = 0;
};

}  // namespace isoline::load
