#include "isoline/serve/statistics.h"

#include <algorithm>
#include <chrono>

namespace isoline::serve {
namespace {

constexpr double kSeconds[] = {.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05,
                               .1,    .25,    .5,    1,    2.5,   5,    10,  30,   60};
constexpr double kSamples[] = {1, 2, 4, 8, 16, 32, 64, 128, 256};

}  // namespace

Histogram::Histogram(std::span<const double> upper_bounds)
    : bounds_(upper_bounds), counts_(upper_bounds.size() + 1) {}

void Histogram::add(double value) {
  ++counts_[size_t(std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin())];
  sum_ += value;
}

std::vector<uint64_t> Histogram::cumulative() const {
  std::vector<uint64_t> out(counts_);
  for (size_t i = 1; i < out.size(); ++i) out[i] += out[i - 1];
  return out;
}

StatisticsSnapshot::StatisticsSnapshot()
    : request_s(kSeconds), queue_s(kSeconds), compute_s(kSeconds), batch_size(kSamples) {}

void Statistics::record_execution(int64_t batch, uint64_t input_ns, uint64_t infer_ns, uint64_t output_ns,
                                  std::span<const Answered> requests) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  std::lock_guard lock(mutex_);
  data_.last_inference_ms = uint64_t(std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
  ++data_.execution_count;
  BatchStatistics& b = data_.batches[batch];
  b.compute_input.add(input_ns);
  b.compute_infer.add(infer_ns);
  b.compute_output.add(output_ns);
  data_.batch_size.add(double(batch));
  for (const Answered& r : requests) {
    data_.inference_count += uint64_t(r.samples);
    data_.success.add(r.times.total_ns);
    data_.queue.add(r.times.queue_ns);
    data_.compute_input.add(r.times.compute_input_ns);
    data_.compute_infer.add(r.times.compute_infer_ns);
    data_.compute_output.add(r.times.compute_output_ns);
    data_.request_s.add(double(r.times.total_ns) * 1e-9);
    data_.queue_s.add(double(r.times.queue_ns) * 1e-9);
    data_.compute_s.add(double(r.times.compute_infer_ns) * 1e-9);
  }
}

void Statistics::record_failure(FailureReason reason, uint64_t total_ns) {
  std::lock_guard lock(mutex_);
  data_.fail.add(total_ns);
  ++data_.failures[size_t(reason)];
}

StatisticsSnapshot Statistics::snapshot() const {
  std::lock_guard lock(mutex_);
  return data_;
}

}  // namespace isoline::serve
