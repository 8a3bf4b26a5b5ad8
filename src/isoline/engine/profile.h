// Where the time of a run went: periods of a scan, steps of a network, and what a device could do at best.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace isoline {

// One step of a network, as a backend executes it, for one whole batch.
struct LayerTime {
  std::string name;
  double duration_ms = 0;  // median over the runs, each step timed by itself
  uint64_t macs = 0;       // multiply-accumulates of the operation as defined, whatever the algorithm did
  uint64_t bytes = 0;      // of inputs, outputs and weights, each once: no step can move less
};

// What a device reaches when it does nothing else, measured on it.
struct DeviceCeilings {
  double flops_per_s = 0;  // a multiplication and an addition are two
  double bytes_per_s = 0;  // of device memory, read and written
  std::string how;         // what was measured, e.g. "wgmma fp16 from registers and shared memory; ..."
};

enum class SpanKind {
  kPreprocess,  // a scan to the network's grid
  kNetwork,     // the whole stage; on a CPU, exports lie inside it
  kForward,     // forward passes
  kExport       // finished logits to labels
};
const char* to_string(SpanKind kind);

// A period of a scan, in milliseconds since the call that reports it began.
struct RunSpan {
  SpanKind kind = SpanKind::kNetwork;
  double begin_ms = 0, end_ms = 0;
  bool on_device = false;  // by the device's clock, else by the host's
  int forwards = 0;        // kForward: how many at a time
};

}  // namespace isoline
