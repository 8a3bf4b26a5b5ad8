#include "isoline/backends/native/session.h"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace isoline::native {

Status NativeSession::run(const float* in, float* out) {
  using Clock = std::chrono::steady_clock;
  for (auto& step : steps_) step->duration_ms = 0;
  for (int n = 0; n < options_.batch; ++n) {
    input_ = reinterpret_cast<const std::byte*>(in + n * in_size_);
    output_ = out + n * out_size_;
    for (auto& step : steps_) {
      const Clock::time_point begin = Clock::now();
      step->run(*this);
      step->duration_ms += std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
    }
  }
  return {};
}

std::string NativeSession::description() const {
  return std::string("native CPU, ") + kernels_.name + ", " + to_string(options_.precision) + ", " +
         std::to_string(pool_.threads()) + (pool_.threads() == 1 ? " thread" : " threads");
}

std::vector<NativeStepTime> NativeSession::step_times() const {
  std::vector<NativeStepTime> times;
  for (const auto& step : steps_) times.push_back({step->name, step->duration_ms, step->macs});
  return times;
}

Result<std::vector<LayerTime>> NativeSession::layer_times(int runs) {
  Buffer<float> in(size_t(options_.batch * in_size_)), out(size_t(options_.batch * out_size_));
  for (size_t i = 0; i < in.size(); ++i) in[i] = float(i * 7 % 13) - 6.0f;  // neither 0 nor denormal
  std::vector<std::vector<double>> ms(steps_.size());
  for (int r = 0; r <= runs; ++r) {
    ISOLINE_RETURN_IF_ERROR(run(in.data(), out.data()));
    for (size_t i = 0; i < steps_.size() && r > 0; ++i) ms[i].push_back(steps_[i]->duration_ms);
  }
  std::vector<LayerTime> times;
  for (size_t i = 0; i < steps_.size(); ++i) {
    const auto middle = ms[i].begin() + int64_t(ms[i].size() / 2);
    std::nth_element(ms[i].begin(), middle, ms[i].end());
    times.push_back({steps_[i]->name, *middle, uint64_t(options_.batch * steps_[i]->macs),
                     uint64_t(options_.batch * steps_[i]->bytes)});
  }
  return times;
}

NativeMemory NativeSession::memory() const {
  NativeMemory m;
  m.activation_bytes = arena_.byte_size();
  m.scratch_bytes = task_scratch_.byte_size() + shared_scratch_.byte_size() + partial_sums_.byte_size();
  for (const auto& step : steps_) m.weight_bytes += uint64_t(step->weight_bytes);
  return m;
}

Source NativeSession::source(const Block& block, const Shape3& shape) {
  Source s;
  s.data = data(block.buffer) + block.index * voxels(shape) * kLanes * kernels_.element_bytes;
  if (block.norm >= 0) {
    s.scale = norms_[size_t(block.norm)].scale.data() + block.norm_offset;
    s.shift = norms_[size_t(block.norm)].shift.data() + block.norm_offset;
  }
  s.slope = block.slope;
  return s;
}

void NativeSession::parallel(int64_t tasks, const std::function<void(int64_t, std::byte*)>& body) {
  pool_.for_each(tasks, 1, [&](int64_t begin, int64_t end) {
    int slot = 0;
    while (scratch_taken_[size_t(slot)].exchange(true, std::memory_order_acquire))
      slot = slot + 1 == pool_.threads() ? 0 : slot + 1;
    for (int64_t t = begin; t < end; ++t) body(t, task_scratch_.data() + slot * task_scratch_bytes_);
    scratch_taken_[size_t(slot)].store(false, std::memory_order_release);
  });
}

void NativeSession::finish_norm(NormId id, const double* partial, int64_t parts, int64_t blocks,
                                int64_t count) {
  Norm& norm = norms_[size_t(id)];
  for (int c = 0; c < norm.channels; ++c) {
    const int64_t block = c / kLanes, lane = c % kLanes;
    double sum = 0, squares = 0;
    for (int64_t p = 0; p < parts; ++p) {
      const double* s = partial + (p * blocks + block) * 2 * kLanes + lane;
      sum += s[0];
      squares += s[kLanes];
    }
    const double mean = sum / double(count);
    const double variance = std::max(0.0, squares / double(count) - mean * mean);
    const double scale = double(norm.gamma[size_t(c)]) / std::sqrt(variance + double(norm.eps));
    norm.scale[size_t(c)] = float(scale);
    norm.shift[size_t(c)] = float(double(norm.beta[size_t(c)]) - mean * scale);
  }
}

}  // namespace isoline::native
