#include "isoline/serve/batching.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace isoline::serve {

BatchDecision decide_batch(const std::optional<DynamicBatching>& batching, int64_t max_batch,
                           const Waiting& waiting) {
  if (waiting.samples.empty()) return {};
  if (!batching || max_batch < 1) return {1, 0};
  const int64_t total = std::accumulate(waiting.samples.begin(), waiting.samples.end(), int64_t{0});
  if (total >= max_batch || waiting.blocked) return {waiting.samples.size(), 0};
  size_t preferred = 0;
  int64_t sum = 0;
  for (size_t i = 0; i < waiting.samples.size(); ++i) {
    sum += waiting.samples[i];
    const auto& sizes = batching->preferred_batch_size;
    if (std::find(sizes.begin(), sizes.end(), sum) != sizes.end()) preferred = i + 1;
  }
  if (preferred) return {preferred, 0};
  if (waiting.oldest_us >= batching->max_queue_delay_us) return {waiting.samples.size(), 0};
  return {0, batching->max_queue_delay_us - waiting.oldest_us};
}

std::vector<InputTensor> gather(std::span<const std::vector<InputTensor>> requests,
                                std::vector<Buffer<std::byte>>& memory) {
  const size_t inputs = requests.front().size();
  memory.resize(std::max(memory.size(), inputs));
  std::vector<InputTensor> out(inputs);
  for (size_t i = 0; i < inputs; ++i) {
    size_t bytes = 0;
    out[i].shape = requests.front()[i].shape;
    out[i].shape[0] = 0;
    for (const auto& r : requests) {
      bytes += r[i].data.size();
      out[i].shape[0] += r[i].shape[0];
    }
    if (memory[i].size() < bytes) memory[i] = Buffer<std::byte>(bytes);
    std::byte* to = memory[i].data();
    for (const auto& r : requests) {
      if (!r[i].data.empty()) std::memcpy(to, r[i].data.data(), r[i].data.size());
      to += r[i].data.size();
    }
    out[i].data = {memory[i].data(), bytes};
  }
  return out;
}

Result<std::vector<InputTensor>> split(const OwnedTensor& output, ElementType type,
                                       std::span<const int64_t> samples) {
  const Error bad{ErrorCode::kInternal, "the model returned an output that does not match its batch", "", ""};
  const int64_t total = std::accumulate(samples.begin(), samples.end(), int64_t{0});
  if (output.shape.empty() || output.shape[0] != total || total < 1) return bad;
  int64_t elements = 1;  // of one sample
  for (size_t i = 1; i < output.shape.size(); ++i) elements *= output.shape[i];
  std::vector<InputTensor> parts;
  const std::span<const std::byte> data = output.data;
  size_t at = 0;
  for (int64_t n : samples) {
    size_t bytes = 0;
    if (type == ElementType::kBytes) {
      for (int64_t e = 0; e < n * elements; ++e) {
        uint32_t length = 0;
        if (data.size() - at - bytes < sizeof length) return bad;
        std::memcpy(&length, data.data() + at + bytes, sizeof length);
        if (data.size() - at - bytes - sizeof length < length) return bad;
        bytes += sizeof length + length;
      }
    } else {
      bytes = size_t(n * elements) * element_size(type);
      if (data.size() - at < bytes) return bad;
    }
    InputTensor part{output.shape, data.subspan(at, bytes)};
    part.shape[0] = n;
    parts.push_back(std::move(part));
    at += bytes;
  }
  if (at != data.size()) return bad;
  return parts;
}

}  // namespace isoline::serve
