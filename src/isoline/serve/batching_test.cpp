#include "isoline/serve/batching.h"

#include <gtest/gtest.h>

#include <string>

namespace isoline::serve {
namespace {

struct Case {
  std::vector<int64_t> samples;
  bool blocked;
  uint64_t oldest_us;
  size_t take;
  uint64_t wait_us;
};
void check(const std::optional<DynamicBatching>& batching, int64_t max_batch,
           const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    const BatchDecision d = decide_batch(batching, max_batch, {c.samples, c.blocked, c.oldest_us});
    EXPECT_EQ(d.take, c.take) << testing::PrintToString(c.samples) << " after " << c.oldest_us;
    EXPECT_EQ(d.take ? 0 : d.wait_us, c.wait_us) << testing::PrintToString(c.samples);
  }
}

TEST(DecideBatch, WithoutBatchingOneByOne) {
  check(std::nullopt, 8, {{{}, false, 0, 0, 0}, {{3}, false, 0, 1, 0}, {{1, 1, 1}, false, 0, 1, 0}});
  check(DynamicBatching{}, 0, {{{1, 1}, false, 0, 1, 0}});  // tensors without a batch axis
}

TEST(DecideBatch, DelayAndFullBatches) {
  DynamicBatching d;
  check(d, 4, {{{1, 1}, false, 0, 2, 0}});  // no delay: whatever is there
  d.max_queue_delay_us = 100;
  check(d, 4,
        {{{1, 1}, false, 0, 0, 100},
         {{1, 1}, false, 99, 0, 1},
         {{1, 1}, false, 100, 2, 0},
         {{1, 1}, false, 1000, 2, 0},
         {{1, 1, 1, 1}, false, 0, 4, 0},
         {{3, 1}, false, 0, 2, 0},
         {{3}, true, 0, 1, 0}});  // the next does not fit: no reason to wait
}

TEST(DecideBatch, PreferredSizes) {
  DynamicBatching d;
  d.max_queue_delay_us = 100;
  d.preferred_batch_size = {2, 4};
  check(d, 8,
        {{{1}, false, 0, 0, 100},
         {{1, 1}, false, 0, 2, 0},
         {{1, 1, 1}, false, 0, 2, 0},
         {{1, 1, 1, 1, 1}, false, 0, 4, 0},
         {{3}, false, 0, 0, 100},
         {{3, 1}, false, 0, 2, 0},
         {{3, 3}, false, 0, 0, 100},
         {{3, 3}, false, 100, 2, 0},
         {{5, 3}, false, 0, 2, 0}});  // full
}

std::vector<std::byte> bytes_of(const std::string& text) {
  const auto b = std::as_bytes(std::span(text));
  return {b.begin(), b.end()};
}
std::string element(const std::string& text) {
  const uint32_t n = uint32_t(text.size());
  return std::string(reinterpret_cast<const char*>(&n), sizeof n) + text;
}
std::string text_of(std::span<const std::byte> b) {
  return {reinterpret_cast<const char*>(b.data()), b.size()};
}

TEST(Batches, GatheredAndSplitAgain) {
  const std::vector<std::byte> a = bytes_of("aabb"), b = bytes_of("ccddee"), x = bytes_of("xy"),
                               y = bytes_of("zzz");
  const std::vector<std::vector<InputTensor>> requests = {{{{2, 2}, a}, {{2, 1}, x}},
                                                          {{{3, 2}, b}, {{3, 1}, y}}};
  std::vector<Buffer<std::byte>> memory;
  const auto joined = gather(requests, memory);
  ASSERT_EQ(joined.size(), 2u);
  EXPECT_EQ(joined[0].shape, (std::vector<int64_t>{5, 2}));
  EXPECT_EQ(text_of(joined[0].data), "aabbccddee");
  EXPECT_EQ(text_of(joined[1].data), "xyzzz");
  const int64_t samples[] = {2, 3};
  const OwnedTensor kept{joined[0].shape, {joined[0].data.begin(), joined[0].data.end()}};
  EXPECT_EQ((*split(kept, ElementType::kUInt8, samples))[1].shape, (std::vector<int64_t>{3, 2}));
  EXPECT_EQ(text_of((*split(kept, ElementType::kUInt8, samples))[0].data), "aabb");
  EXPECT_EQ(text_of((*split(kept, ElementType::kUInt8, samples))[1].data), "ccddee");
  // Less than before: the memory stays.
  const auto* at = memory[0].data();
  const std::vector<std::vector<InputTensor>> fewer = {
      {{{1, 2}, std::span(a).first(2)}, {{1, 1}, std::span(x).first(1)}}};
  EXPECT_EQ(text_of(gather(fewer, memory)[0].data), "aa");
  EXPECT_EQ(memory[0].data(), at);
}

TEST(Batches, SplitOfStringsAndOfWrongOutputs) {
  const int64_t samples[] = {1, 2};
  const OwnedTensor words{
      {3, 2},
      bytes_of(element("a") + element("") + element("bcd") + element("e") + element("") + element("f"))};
  const auto parts = split(words, ElementType::kBytes, samples);
  ASSERT_TRUE(parts.ok());
  EXPECT_EQ(text_of((*parts)[0].data), element("a") + element(""));
  const OwnedTensor wrong[] = {
      {{3, 2},
       bytes_of(element("a") + element("") + element("bcd") + element("e") + element(""))},  // one too few
      {{3, 2}, bytes_of(text_of(words.data) + element("g"))},                                // one too many
      {{3, 2}, bytes_of(text_of(words.data).substr(0, words.data.size() - 1))},
      {{3, 2}, bytes_of("\xff\xff\xff\xff")},
      {{2, 2}, words.data},
      {{}, words.data},
  };
  for (const OwnedTensor& w : wrong) EXPECT_FALSE(split(w, ElementType::kBytes, samples).ok());
  const int64_t one[] = {1};
  EXPECT_FALSE(split({{1, 2}, bytes_of("abc")}, ElementType::kUInt8, one).ok());
  EXPECT_FALSE(split({{1, 2}, bytes_of("a")}, ElementType::kUInt8, one).ok());
}

}  // namespace
}  // namespace isoline::serve
