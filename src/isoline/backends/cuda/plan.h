// What a session does, decided before any device is touched: a NetworkGraph becomes a short list of fused
// steps over channel slices of a few buffers, and every buffer gets its place in one arena. Host code without
// CUDA.
//
// Normalisation and activation are not steps of their own where they can be applied while the next step reads
// (Source); values that are concatenated are written into their slice of the joint buffer by whoever makes
// them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/network/graph.h"

namespace isoline::cuda {

inline constexpr int kChannelStep = 8;  // channel counts and offsets in memory are multiples of this
constexpr int padded_channels(int c) {
  return (c + kChannelStep - 1) / kChannelStep * kChannelStep;
}

// `channels` (padded) from `channel` on of a buffer [n, z, y, x, pitch].
struct Slice {
  int buffer = -1;
  int channel = 0, channels = 0;
  Shape3 shape{0, 0, 0};
  bool operator==(const Slice&) const = default;
};

// A slice and what is still to be done to it when it is read: norm's scale and shift, then LeakyReLU.
struct Source {
  Slice slice;
  int norm = -1;  // index into Plan::norms; -1: as it is (and slope is 1)
  float slope = 1;
  // Channels of the slice below it are as they are to be read, norm and slope are for those from here on;
  // other than 0 only in what convolutions read.
  int first = 0;
};

// Scale and shift per channel: from statistics, or constant (1, 0) where only an activation is applied.
struct PlanNorm {
  int op = -1;  // the InstanceNormOp; -1: constant
  int channels = 0;
  std::vector<int> positions;  // of the op's channels among `channels`
};

enum class StepKind {
  kInput,       // planar float32 -> out
  kConv,        // in -> out, statistics if wanted
  kFinish,      // the last step's statistics -> norm
  kStatistics,  // of in, where no convolution gathers them
  kCombine,     // in (+ other), then LeakyReLU(slope) -> out; may be in place
  kTranspose,   // in -> out
  kPool,        // in -> out
  kHead,        // 1x1x1 convolution of in -> planar float32
  kOutput       // in -> planar float32
};

struct Step {
  StepKind kind = StepKind::kInput;
  int op = -1;  // index into NetworkGraph::ops of what it takes weights and sizes from
  Source in, other;
  Slice out;
  float slope = 1;
  bool statistics = false;
  bool bias = false;
  int norm = -1;                  // kFinish
  std::vector<int> in_positions;  // of the graph's channels in `in`
  std::string name;
};

struct PlanBuffer {
  int pitch = 0;
  Shape3 shape{0, 0, 0};
  int64_t bytes = 0, offset = 0;
  int first_step = -1, last_step = -1;
};

struct PlanOptions {
  Shape3 patch{0, 0, 0};
  int batch = 1;
  int element_bytes = 2;
  // Normalisation and activation wait for the convolution that reads them; otherwise they are a pass over
  // memory.
  bool fold_into_convolutions = true;
};

struct Plan {
  std::vector<Step> steps;
  std::vector<PlanBuffer> buffers;
  std::vector<PlanNorm> norms;
  int64_t arena_bytes = 0;
};

// What a step must read and write at least, over the whole batch: inputs, output and weights once, as they
// lie in memory. planar: it takes the network's input as it came, float32.
int64_t least_bytes(const Step& step, const NetworkGraph& graph, const PlanOptions& options, bool planar);

// An Error for the few graphs that have no plan: sums of values whose channels lie differently.
Result<Plan> make_plan(const NetworkGraph& graph, const PlanOptions& options);

}  // namespace isoline::cuda
