// Choosing kernels by measurement, when a session is made: each distinct convolution's candidates are timed
// on the session's own buffers, filled with numbers, and the fastest is kept in a file for the next time.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <mutex>

#include "isoline/backends/cuda/session.h"
#include "isoline/backends/cuda/tuning.h"
#include "isoline/backends/cuda/tuning_kernels.h"

namespace isoline::cuda {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kMostSeconds = 2;      // of a session; what is left then runs by rule until the next time
constexpr int kRounds = 5;              // of all candidates in turn; their medians count
constexpr float kLeastMs = 0.2f;        // of a measurement
constexpr int kMostRepeats = 16;        // of a launch in a measurement
constexpr float kWorthLeaving = 0.98f;  // of the time of the rule's choice
// Of the kernels: one more makes kept choices void.
constexpr int kRevision = 4;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// The driver's own version where the system says it; else only the CUDA version that it runs.
std::string driver_version(const DeviceInfo& device) {
  char version[64] = "";
  if (std::FILE* f = std::fopen("/sys/module/nvidia/version", "r")) {
    if (std::fscanf(f, "%63s", version) != 1) version[0] = 0;
    std::fclose(f);
  }
  return "CUDA " + device.driver + (version[0] ? ", " + std::string(version) : "");
}

TuningKey tuning_key(const DeviceInfo& device) {
  return {device.name + ", sm_" + std::to_string(device.major) + std::to_string(device.minor) + ", " +
              std::to_string(device.processors) + " SMs",
          driver_version(device),
          "isoline " ISOLINE_VERSION ", CUDA " + std::to_string(CUDART_VERSION) + ", kernels " +
              std::to_string(kRevision)};
}

// One in the process for each folder and device, so that a folder that cannot be written to costs one
// measurement, not one a session.
TuningCache& cache_of(const std::string& folder, const TuningKey& key) {
  static std::map<std::string, TuningCache> caches;
  const std::string name = folder + "\n" + key.device + "\n" + key.driver;
  const auto at = caches.find(name);
  return at != caches.end() ? at->second : caches.emplace(name, TuningCache(folder, key)).first->second;
}

std::string text(const Tensor& t) {
  return std::to_string(t.z) + "x" + std::to_string(t.y) + "x" + std::to_string(t.x) + "x" +
         std::to_string(t.c) + "/" + std::to_string(t.pitch);
}
std::string text(const int (&v)[3]) {
  return std::to_string(v[0]) + std::to_string(v[1]) + std::to_string(v[2]);
}

size_t bytes_of(DataType type) {
  return type == DataType::kFloat32 || type == DataType::kTensorFloat32 ? 4 : 2;
}

// At least what any layout of the weights takes.
size_t most_weight_bytes(const Tensor& in, const Tensor& out, const ConvShape& shape) {
  const auto up = [](int v, int step) { return size_t((v + step - 1) / step * step); };
  return up(in.c, 16) * up(out.c, 64) * size_t(shape.kernel[0] * shape.kernel[1] * shape.kernel[2]) *
             bytes_of(in.type) +
         4096;
}

bool off(const SessionOptions& options) {
  const char* const asked = std::getenv("ISOLINE_AUTOTUNE");
  return options.autotune == Autotune::kOff ||
         (asked && (std::string(asked) == "0" || std::string(asked) == "off")) ||
         options.precision == Precision::kFloat32;  // one kernel
}

}  // namespace

// One convolution and those who would run it.
struct CudaSession::Contest {
  size_t step = 0;
  std::string layer;
  std::vector<ConvChoice> candidates;
  ConvChoice winner;
};

std::string tuning_words(const SessionOptions& options) {
  if (off(options)) return "";
  return options.autotune == Autotune::kAll ? ", tuned over all kernels" : ", tuned";
}

std::string TuningReport::text() const {
  if (!layers_timed && !layers_kept) return note;
  char line[200];
  std::snprintf(line, sizeof line, "%d distinct convolutions timed in %.2f s, %d known; %d not as by rule",
                layers_timed, duration_s, layers_kept, layers_changed);
  return line +
         (candidates_refused ? "; " + std::to_string(candidates_refused) + " candidates gave other bits"
                             : "") +
         (note.empty() ? "" : "; " + note);
}

std::vector<ConvChoice> CudaSession::choose_kernels(const NetworkGraph& graph, const CudaTuning& tuning,
                                                    size_t first) {
  std::vector<ConvChoice> choices(plan_.steps.size());
  if (off(options_) || tuning.naive_convolutions) return choices;
  static std::mutex one_at_a_time;  // the file, and times that others would disturb
  const std::lock_guard lock(one_at_a_time);
  const Clock::time_point start = Clock::now();
  const std::string folder =
      tuning.tuning_folder.empty() ? TuningCache::default_folder() : tuning.tuning_folder;
  TuningCache& cache = cache_of(folder, tuning_key(device_));
  const bool same_bits = options_.autotune != Autotune::kAll;
  std::map<std::string, ConvChoice> decided;
  std::vector<Contest> contests;
  std::vector<std::string> layers(plan_.steps.size());
  for (size_t i = 0; i < plan_.steps.size(); ++i) {
    const Step& s = plan_.steps[i];
    if (s.kind != StepKind::kConv) continue;
    const auto& op = std::get<ConvOp>(graph.ops[size_t(s.op)]);
    const ConvShape shape = conv_shape(op.kernel, op.stride);
    const Tensor in = tensor(s.in.slice), out = tensor(s.out);
    ConvNeeds needs;
    if (i == first && conv_planar_needs({nullptr, in_channels_}, out, shape, &needs) == cudaSuccess) continue;
    const std::vector<ConvChoice> candidates = conv_candidates(in, out, shape, same_bits);
    cudaGetLastError();  // of those that cannot be
    if (candidates.size() < 2) continue;
    const std::string layer = std::string(to_string(options_.autotune)) + " " +
                              to_string(options_.precision) + " n" + std::to_string(in.n) + " " + text(in) +
                              " -> " + text(out) + " k" + text(shape.kernel) + " s" + text(shape.stride) +
                              (s.in.norm >= 0 ? " load" : "") + (s.statistics ? " statistics" : "");
    layers[i] = layer;
    if (decided.contains(layer)) continue;
    const ConvChoice* const kept = cache.find(layer);
    if (kept && std::find(candidates.begin(), candidates.end(), *kept) != candidates.end()) {
      decided[layer] = *kept;
      ++tuning_.layers_kept;
      tuning_.layers_changed += *kept != candidates[0];
    } else {
      if (kept) tuning_.note = "a kept choice was none of this device's";
      decided[layer] = {};
      contests.push_back({i, layer, candidates, {}});
    }
  }
  for (Contest& c : contests) {
    if (seconds_since(start) > kMostSeconds) {
      tuning_.note = "stopped after " + std::to_string(int(kMostSeconds)) + " s; the rest next time";
      break;
    }
    if (const Status s = time_candidates(c, graph); !s.ok()) {  // never a reason not to run
      cudaGetLastError();
      tuning_.note = "not tuned: " + s.error().message;
      break;
    }
    ++tuning_.layers_timed;
    tuning_.layers_changed += c.winner != c.candidates[0];
    decided[c.layer] = c.winner;
    cache.put(c.layer, c.winner);
  }
  cache.save();
  if (tuning_.note.empty()) tuning_.note = cache.note();
  for (size_t i = 0; i < choices.size(); ++i)
    if (!layers[i].empty()) choices[i] = decided[layers[i]];
  tuning_.duration_s = seconds_since(start);
  return choices;
}

Status CudaSession::time_candidates(Contest& contest, const NetworkGraph& graph) {
  const std::string what = "timing '" + plan_.steps[contest.step].name + "'";
  const Step& s = plan_.steps[contest.step];
  const auto& op = std::get<ConvOp>(graph.ops[size_t(s.op)]);
  const Tensor in = tensor(s.in.slice), out = tensor(s.out);
  cudaStream_t stream = stream_.get();
  ConvShape shape = conv_shape(op.kernel, op.stride);
  const size_t weight_bytes = most_weight_bytes(in, out, shape),
               affine_floats = size_t(in.n) * size_t(in.c) * 2;
  std::vector<ConvNeeds> needs(contest.candidates.size());
  size_t workspace_bytes = 0, partial_floats = 0;
  for (size_t k = 0; k < needs.size(); ++k) {
    shape.choice = contest.candidates[k];
    ISOLINE_CUDA(conv_needs(in, out, shape, &needs[k]), what);
    workspace_bytes = std::max(workspace_bytes, needs[k].workspace_bytes);
    partial_floats = std::max(partial_floats, size_t(out.n) * size_t(needs[k].blocks) * size_t(out.c) * 2);
  }
  ISOLINE_ASSIGN(const DeviceMemory weights, DeviceMemory::allocate(weight_bytes, what));
  ISOLINE_ASSIGN(const DeviceMemory affine, DeviceMemory::allocate(affine_floats * 4, what));
  ISOLINE_ASSIGN(const DeviceMemory workspace, DeviceMemory::allocate(workspace_bytes, what));
  ISOLINE_ASSIGN(const DeviceMemory partial, DeviceMemory::allocate(partial_floats * 4, what));
  ISOLINE_ASSIGN(const DeviceMemory sum, DeviceMemory::allocate(8, what));
  Event begin, end;
  ISOLINE_CUDA(cudaEventCreate(begin.out()), what);
  ISOLINE_CUDA(cudaEventCreate(end.out()), what);
  ISOLINE_CUDA(fill_values(arena_.at(), in.type, int64_t(arena_.bytes() / bytes_of(in.type)), stream), what);
  ISOLINE_CUDA(fill_values(weights.at(), in.type, int64_t(weight_bytes / bytes_of(in.type)), stream), what);
  ISOLINE_CUDA(fill_values(affine.at(), DataType::kFloat32, int64_t(affine_floats), stream), what);
  const LoadTransform load =
      s.in.norm < 0 ? LoadTransform{} : LoadTransform{affine.at<const float>(), s.in.slope, s.in.first};
  const auto launch = [&](size_t k) {
    shape.choice = contest.candidates[k];
    return conv(in, load, out, shape, {weights.at(), nullptr},
                {s.statistics ? partial.at<float>() : nullptr, needs[k].blocks}, workspace.at(), stream);
  };
  const auto measure = [&](size_t k, int repeats) -> Result<float> {
    ISOLINE_CUDA(cudaEventRecord(begin.get(), stream), what);
    for (int r = 0; r < repeats; ++r) ISOLINE_CUDA(launch(k), what);
    ISOLINE_CUDA(cudaEventRecord(end.get(), stream), what);
    ISOLINE_CUDA(cudaEventSynchronize(end.get()), what);
    float ms = 0;
    ISOLINE_CUDA(cudaEventElapsedTime(&ms, begin.get(), end.get()), what);
    return ms / float(repeats);
  };
  // Of output and statistics after one run.
  const auto checksum = [&](size_t k) -> Result<unsigned long long> {
    const int64_t words = int64_t(bytes_of(out.type)) / 2;  // of two channels
    unsigned long long value = 0;
    ISOLINE_CUDA(cudaMemsetAsync(sum.at(), 0, 8, stream), what);
    ISOLINE_CUDA(launch(k), what);
    ISOLINE_CUDA(add_checksum(out.data, out.n * out.voxels(), int(out.c / 2 * words), out.pitch / 2 * words,
                              sum.at<unsigned long long>(), stream),
                 what);
    if (s.statistics)
      ISOLINE_CUDA(add_checksum(partial.at(), int64_t(out.n) * needs[k].blocks, out.c * 2, out.c * 2,
                                sum.at<unsigned long long>(), stream),
                   what);
    ISOLINE_CUDA(cudaMemcpyAsync(&value, sum.at(), 8, cudaMemcpyDeviceToHost, stream), what);
    ISOLINE_CUDA(cudaStreamSynchronize(stream), what);
    return value;
  };
  std::vector<size_t> running;
  unsigned long long want = 0;
  for (size_t k = 0; k < contest.candidates.size(); ++k) {
    ISOLINE_ASSIGN(const unsigned long long got, checksum(k));  // the warm-up, too
    if (!k) want = got;
    if (got == want || options_.autotune == Autotune::kAll)
      running.push_back(k);
    else
      ++tuning_.candidates_refused;
  }
  ISOLINE_ASSIGN(const float once, measure(0, 1));
  const int repeats = std::clamp(int(kLeastMs / std::max(once, 1e-3f)), 1, kMostRepeats);
  std::vector<std::vector<float>> ms(contest.candidates.size());
  for (int round = 0; round < kRounds; ++round)
    for (const size_t k : running) {
      ISOLINE_ASSIGN(const float t, measure(k, repeats));
      ms[k].push_back(t);
    }
  const auto median = [](std::vector<float>& v) {
    std::nth_element(v.begin(), v.begin() + kRounds / 2, v.end());
    return v[kRounds / 2];
  };
  const float rule_ms = median(ms[0]);
  float best_ms = rule_ms * kWorthLeaving;
  contest.winner = contest.candidates[0];
  for (const size_t k : running)
    if (const float t = k ? median(ms[k]) : rule_ms; t < best_ms)
      best_ms = t, contest.winner = contest.candidates[k];
  return {};
}

}  // namespace isoline::cuda
