// Counts and durations of one model version, kept as Triton keeps them, and histograms that can be added up.
//
// inference_count counts samples, execution_count calls of the model; every duration is added once a request
// (a batch's compute time once for each of its requests), in batch_stats once an execution. A request's
// compute_input has the decoding of its picture in it, a batch's has not. Warm-up is never recorded.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <vector>

namespace isoline::serve {

struct CountedDuration {
  uint64_t count = 0, ns = 0;
  void add(uint64_t duration_ns) {
    ++count;
    ns += duration_ns;
  }
};

// Cumulative counts below fixed upper bounds, as Prometheus wants them.
class Histogram {
 public:
  explicit Histogram(std::span<const double> upper_bounds);
  void add(double value);
  std::span<const double> upper_bounds() const { return bounds_; }
  // Values at most upper_bounds()[i]; the last entry counts all.
  std::vector<uint64_t> cumulative() const;
  double sum() const { return sum_; }

 private:
  std::span<const double> bounds_;
  std::vector<uint64_t> counts_;
  double sum_ = 0;
};

enum class FailureReason { kRejected, kCancelled, kBackend, kOther };
inline constexpr std::array<const char*, 4> kFailureReasons = {"REJECTED", "CANCELED", "BACKEND", "OTHER"};

struct BatchStatistics {
  CountedDuration compute_input, compute_infer, compute_output;
};

struct StatisticsSnapshot {
  StatisticsSnapshot();
  uint64_t last_inference_ms = 0;  // since 1970
  uint64_t inference_count = 0, execution_count = 0;
  CountedDuration success, fail, queue, compute_input, compute_infer, compute_output;
  std::map<int64_t, BatchStatistics> batches;
  std::array<uint64_t, 4> failures{};  // by FailureReason
  Histogram request_s, queue_s, compute_s, batch_size;
};

// What one request spent where.
struct RequestTimes {
  uint64_t total_ns = 0, queue_ns = 0, compute_input_ns = 0, compute_infer_ns = 0, compute_output_ns = 0;
};

// Threads: all calls from any.
class Statistics {
 public:
  // One execution of the model over `batch` samples, and the requests it answered.
  struct Answered {
    RequestTimes times;
    int64_t samples = 1;
  };
  void record_execution(int64_t batch, uint64_t input_ns, uint64_t infer_ns, uint64_t output_ns,
                        std::span<const Answered> requests);
  void record_failure(FailureReason reason, uint64_t total_ns);
  StatisticsSnapshot snapshot() const;

 private:
  mutable std::mutex mutex_;
  StatisticsSnapshot data_;
};

}  // namespace isoline::serve
