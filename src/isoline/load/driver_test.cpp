#include "isoline/load/driver.h"

#include <gtest/gtest.h>

#include <deque>
#include <set>
#include <thread>

namespace isoline::load {
namespace {

// One server that takes `service_ns` for each request, in order; every `fail_every`-th fails.
class Simulated final : public Channel {
 public:
  Simulated(size_t capacity, int64_t service_ns, uint64_t fail_every = 0)
      : capacity_(capacity), service_ns_(service_ns), fail_every_(fail_every) {}
  size_t capacity() const override { return capacity_; }
  void send(uint64_t tag, size_t payload) override {
    payloads.insert(payload);
    most_ = std::max(most_, queue_.size() + 1);
    free_at_ = std::max(free_at_, now_ns()) + service_ns_;
    queue_.push_back({tag, free_at_});
  }
  void wait(int64_t until_ns, std::vector<Completion>& done) override {
    const int64_t next = queue_.empty() ? until_ns : std::min(until_ns, queue_.front().second);
    if (next > now_ns()) std::this_thread::sleep_for(std::chrono::nanoseconds(next - now_ns()));
    while (!queue_.empty() && queue_.front().second <= now_ns()) {
      Completion c{queue_.front().first, 0, 0, now_ns(), "", ""};
      if (fail_every_ && ++count_ % fail_every_ == 0) c.error = "HTTP 503";
      done.push_back(c);
      queue_.pop_front();
    }
  }
  std::set<size_t> payloads;
  size_t most_ = 0;

 private:
  const size_t capacity_;
  const int64_t service_ns_;
  const uint64_t fail_every_;
  int64_t free_at_ = 0;
  uint64_t count_ = 0;
  std::deque<std::pair<uint64_t, int64_t>> queue_;
};

LoadPlan quick() {
  LoadPlan plan;
  plan.warmup_s = .05;
  plan.window_s = .1;
  plan.max_windows = 4;
  plan.stability = .5;
  return plan;
}

TEST(Driver, ClosedLoopKeepsItsConcurrencyAndCountsEverything) {
  Simulated channel(8, 1'000'000);
  LoadPlan plan = quick();
  plan.concurrency = 3;
  plan.payloads = 4;
  int boundaries = 0;
  const auto record = drive(channel, plan, [&] { ++boundaries; });
  ASSERT_TRUE(record.ok());
  EXPECT_EQ(channel.most_, 3u);
  EXPECT_EQ(channel.payloads.size(), 4u);
  EXPECT_EQ(record->sent, record->samples.size());
  EXPECT_EQ(record->unanswered, 0u);
  EXPECT_EQ(size_t(boundaries), record->boundaries_ns.size());
  EXPECT_GE(boundaries, 4);
  for (const Sample& s : record->samples) EXPECT_EQ(s.start_ns, s.begun_ns);
}

// A server at twice its capacity: requests wait where they are due, and that waiting is latency.
TEST(Driver, OpenLoopMeasuresFromTheIntendedStart) {
  Simulated channel(1, 10'000'000);  // 100 a second, one at a time
  LoadPlan plan = quick();
  plan.open_loop = true;
  plan.rate = 200;
  plan.stability = .1;
  plan.arrivals = Arrivals::kConstant;
  const auto record = drive(channel, plan, [] {});
  ASSERT_TRUE(record.ok());
  ASSERT_GT(record->samples.size(), 20u);
  const int64_t first = record->samples.front().start_ns;
  for (size_t i = 0; i < record->samples.size(); ++i) {
    const Sample& s = record->samples[i];
    EXPECT_EQ(s.start_ns - first, int64_t(double(i) / 200 * 1e9));  // whatever the server did meanwhile
    EXPECT_GE(s.begun_ns, s.start_ns);
  }
  const Sample& last = record->samples.back();
  // It was served after all before it, 10 ms each, and was due after 5 ms each.
  EXPECT_GE(last.end_ns - last.start_ns, int64_t(record->samples.size() - 1) * 5'000'000);
  EXPECT_NE(record->why_unstable, "");
}

TEST(Driver, ErrorsAreCountedAndNeverLatency) {
  Simulated channel(2, 500'000, 4);
  LoadPlan plan = quick();
  plan.concurrency = 2;
  const auto record = drive(channel, plan, [] {});
  ASSERT_TRUE(record.ok());
  EXPECT_EQ(record->samples.size() + record->errors.at("HTTP 503"), record->sent);
  EXPECT_EQ(record->errors.at("HTTP 503"), record->sent / 4);
  EXPECT_EQ(record->error_ends_ns.size(), record->errors.at("HTTP 503"));
}

TEST(Driver, Interrupted) {
  Simulated channel(1, 1'000'000);
  const std::atomic<bool> cancel{true};
  LoadPlan plan = quick();
  plan.cancel = &cancel;
  const auto record = drive(channel, plan, [] {});
  ASSERT_FALSE(record.ok());
  EXPECT_EQ(record.error().code, ErrorCode::kCancelled);
}

}  // namespace
}  // namespace isoline::load
