// The scheduler over sessions that wait when told to: what runs together, in which order, and that every
// request ends exactly once.
#include "isoline/serve/scheduler.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <random>

namespace isoline::serve {
namespace {

using namespace std::chrono_literals;

// What the sessions of a test share.
struct Stage {
  std::mutex mutex;
  std::condition_variable changed;
  bool open = true;   // closed: runs wait inside the model
  size_t inside = 0;  // runs that have begun
  std::vector<int64_t> batches;
  std::function<Status(std::vector<OwnedTensor>&)> misbehave;

  void set_open(bool to) {
    std::lock_guard lock(mutex);
    open = to;
    changed.notify_all();
  }
  bool wait_inside(size_t n) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, 10s, [&] { return inside >= n; });
  }
};

// Its output is its input.
class StagedSession final : public TensorSession {
 public:
  explicit StagedSession(Stage& stage) : stage_(stage) {}
  Status run(std::span<const InputTensor> inputs, std::vector<OwnedTensor>& outputs) override {
    std::unique_lock lock(stage_.mutex);
    stage_.batches.push_back(inputs[0].shape[0]);
    ++stage_.inside;
    stage_.changed.notify_all();
    stage_.changed.wait(lock, [&] { return stage_.open; });
    const auto misbehave = stage_.misbehave;
    lock.unlock();
    outputs.resize(1);
    outputs[0].shape = inputs[0].shape;
    outputs[0].data.assign(inputs[0].data.begin(), inputs[0].data.end());
    return misbehave ? misbehave(outputs) : Status();
  }

 private:
  Stage& stage_;
};

// A request and what became of it.
struct Sent {
  std::shared_ptr<Job> job;
  std::atomic<int> dones{0};
  std::optional<Result<InferResponse>> result;  // once `dones` is 1
  uint32_t value = 0;
};

class SchedulerTest : public testing::Test {
 protected:
  void start(std::optional<DynamicBatching> batching, int64_t max_batch, size_t instances = 1,
             size_t max_queue = 4096, std::chrono::microseconds run_here_below = {}) {
    ModelConfig config;
    config.max_batch_size = max_batch;
    config.dynamic_batching = std::move(batching);
    config.instance_group.push_back({"g", "KIND_CPU", int(instances), {}});
    TensorModelInfo info{
        "test", max_batch, {{"I", ElementType::kUInt32, {1}}}, {{"O", ElementType::kUInt32, {1}}}, ""};
    std::vector<std::unique_ptr<TensorSession>> sessions;
    for (size_t i = 0; i < instances; ++i) sessions.push_back(std::make_unique<StagedSession>(stage));
    scheduler = std::make_unique<Scheduler>(config, info, std::move(sessions), statistics, "m/1", "1",
                                            SchedulerOptions{max_queue, run_here_below});
  }
  void TearDown() override {
    stage.set_open(true);
    scheduler.reset();
    for (const auto& s : sent) EXPECT_EQ(s->dones, 1) << "request " << s->value;
    const StatisticsSnapshot s = statistics.snapshot();
    // Whatever happened: the counts say the same from every side.
    EXPECT_EQ(s.success.count + s.fail.count, sent.size());
    uint64_t samples = 0, ok = 0, failures = 0, batch_samples = 0, executions = 0;
    for (const auto& r : sent)
      if (r->result && r->result->ok()) {
        ++ok;
        samples += uint64_t(r->job->samples);
      }
    for (uint64_t f : s.failures) failures += f;
    for (const auto& [size, b] : s.batches) {
      batch_samples += uint64_t(size) * b.compute_infer.count;
      executions += b.compute_infer.count;
    }
    EXPECT_EQ(s.success.count, ok);
    EXPECT_EQ(s.inference_count, samples);
    EXPECT_EQ(batch_samples, samples);
    EXPECT_EQ(executions, s.execution_count);
    EXPECT_EQ(failures, s.fail.count);
    for (const auto* d : {&s.queue, &s.compute_input, &s.compute_infer, &s.compute_output})
      EXPECT_EQ(d->count, ok);
    EXPECT_GE(s.success.ns, s.queue.ns);
    EXPECT_EQ(s.request_s.cumulative().back(), ok);
    EXPECT_EQ(s.batch_size.cumulative().back(), s.execution_count);
  }

  Sent& send(int64_t samples = 1, const std::function<void(Job&)>& change = {}) {
    const auto s = std::make_shared<Sent>();
    {
      std::lock_guard lock(sent_mutex);
      sent.push_back(s);
      s->value = uint32_t(sent.size());
    }
    s->job = std::make_shared<Job>();
    Job& job = *s->job;
    const auto data = std::make_shared<std::vector<uint32_t>>(size_t(samples), s->value);
    job.request.memory = data;
    job.samples = samples;
    job.inputs = {{{samples, 1}, std::as_bytes(std::span(*data))}};
    job.wanted = {0};
    job.done = [this, s = s.get()](Result<InferResponse> r) {  // which owns the job
      if (s->dones++) return;
      s->result = std::move(r);
      std::lock_guard lock(order_mutex);
      order.push_back(s->value);
    };
    if (change) change(job);
    scheduler->submit(s->job);
    return *s;
  }
  bool wait_done(const Sent& s) {
    const auto end = Clock::now() + 10s;
    while (!s.dones && Clock::now() < end) std::this_thread::sleep_for(1ms);
    return s.dones == 1;
  }
  // Fills the only instance, so that what is sent next waits.
  Sent& hold() {
    stage.set_open(false);
    Sent& s = send();
    EXPECT_TRUE(stage.wait_inside(1));
    return s;
  }
  void release_and_finish() {
    stage.set_open(true);
    scheduler->drain();
  }
  static bool own(const Sent& s) {
    if (!s.result || !s.result->ok()) return false;
    const auto& out = (**s.result).outputs.at(0);
    if (out.shape != std::vector<int64_t>{s.job->samples, 1} || out.data.size() != size_t(s.job->samples) * 4)
      return false;
    for (size_t i = 0; i < size_t(s.job->samples); ++i) {
      uint32_t v = 0;
      std::memcpy(&v, out.data.data() + 4 * i, sizeof v);
      if (v != s.value) return false;
    }
    return true;
  }
  static std::string error(const Sent& s) {
    return s.result && !s.result->ok() ? s.result->error().to_string() : "";
  }

  Stage stage;
  Statistics statistics;
  std::unique_ptr<Scheduler> scheduler;
  std::mutex sent_mutex, order_mutex;
  std::vector<std::shared_ptr<Sent>> sent;
  std::vector<uint32_t> order;  // in which requests ended
};

DynamicBatching delay(uint64_t us) {
  DynamicBatching d;
  d.max_queue_delay_us = us;
  return d;
}

TEST_F(SchedulerTest, WithoutBatchingOneByOneInOrder) {
  start(std::nullopt, 8);
  hold();
  for (int i = 0; i < 5; ++i) send(2);
  release_and_finish();
  EXPECT_EQ(order, (std::vector<uint32_t>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(stage.batches, (std::vector<int64_t>{1, 2, 2, 2, 2, 2}));
  for (const auto& s : sent) EXPECT_TRUE(own(*s));
}

TEST_F(SchedulerTest, WhatWaitsRunsTogetherAndEveryoneGetsTheirOwn) {
  start(delay(0), 8);
  hold();
  for (int64_t n : {1, 3, 4, 2, 7}) send(n);
  release_and_finish();
  // 1+3+4 fill a batch, 2 and 7 do not fit together.
  EXPECT_EQ(stage.batches, (std::vector<int64_t>{1, 8, 2, 7}));
  for (const auto& s : sent) EXPECT_TRUE(own(*s));
}

TEST_F(SchedulerTest, OtherShapesDoNotJoin) {
  start(delay(0), 8);
  hold();
  send();
  send(1, [](Job& j) { j.inputs[0].shape = {1, 1, 1}; });
  send();
  release_and_finish();
  EXPECT_EQ(stage.batches, (std::vector<int64_t>{1, 1, 1, 1}));
}

TEST_F(SchedulerTest, ALoneRequestWaitsForCompanyAFullBatchDoesNot) {
  start(delay(150'000), 2);
  const auto begin = Clock::now();
  EXPECT_TRUE(wait_done(send()));
  EXPECT_GE(Clock::now() - begin, 150ms);
  Sent& a = send();
  Sent& b = send();
  EXPECT_TRUE(wait_done(a) && wait_done(b));
  EXPECT_EQ(stage.batches, (std::vector<int64_t>{1, 2}));
  const StatisticsSnapshot s = statistics.snapshot();
  EXPECT_GE(s.queue.ns, 150'000'000u);
}

TEST_F(SchedulerTest, DrainingDoesNotWaitForCompany) {
  start(delay(50'000'000), 8);
  send();
  const auto begin = Clock::now();
  scheduler->drain();
  EXPECT_LT(Clock::now() - begin, 10s);
  EXPECT_TRUE(own(*sent[0]));
  EXPECT_NE(error(send()).find("unloaded"), std::string::npos);
}

TEST_F(SchedulerTest, PrioritiesAndTheirDefault) {
  DynamicBatching d;
  d.priority_levels = 3;
  d.default_priority_level = 2;
  start(d, 1);
  hold();
  for (uint64_t p : {3, 0, 2, 1, 99, 1}) send(1, [&](Job& j) { j.request.priority = p; });  // requests 2 to 7
  release_and_finish();
  EXPECT_EQ(order, (std::vector<uint32_t>{1, 5, 7, 3, 4, 6, 2}));
}

TEST_F(SchedulerTest, QueueLimits) {
  DynamicBatching d;
  d.priority_levels = 2;
  d.default_priority_level = 1;
  d.priority_queue_policy[2].max_queue_size = 1;
  start(d, 1, 1, 3);
  hold();
  const auto low = [](Job& j) { j.request.priority = 2; };
  send(1, low);
  EXPECT_NE(error(send(1, low)).find("maximum queue size"), std::string::npos);  // of its level
  send();
  send();
  const Sent& over = send();  // of the model
  EXPECT_EQ(over.dones, 1);
  ASSERT_FALSE(over.result->ok());
  EXPECT_EQ(over.result->error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(scheduler->waiting(), 3u);
  release_and_finish();
  EXPECT_EQ(statistics.snapshot().failures[size_t(FailureReason::kRejected)], 2u);
}

TEST_F(SchedulerTest, TimeoutsRejectOrDelay) {
  DynamicBatching d;
  d.priority_levels = 2;
  d.default_priority_level = 1;
  d.priority_queue_policy[1] = {false, 50'000, false, 0};
  d.priority_queue_policy[2] = {true, 20'000, false, 0};
  start(d, 1);
  hold();
  Sent& rejected = send();
  Sent& delayed = send(1, [](Job& j) { j.request.priority = 2; });
  EXPECT_TRUE(wait_done(rejected));
  EXPECT_NE(error(rejected).find("timeout"), std::string::npos);
  EXPECT_EQ(delayed.dones, 0);
  EXPECT_EQ(scheduler->waiting(), 1u);
  send(1, [](Job& j) { j.request.priority = 2; });  // in time: goes before the delayed one
  release_and_finish();
  EXPECT_EQ(order, (std::vector<uint32_t>{2, 1, 4, 3}));
}

TEST_F(SchedulerTest, ARequestsOwnTimeout) {
  DynamicBatching d;
  d.default_queue_policy = QueuePolicy{false, 10'000'000, false, 0};
  const auto brief = [](Job& j) { j.request.timeout_us = 1000; };
  start(d, 1);
  hold();
  send(1, brief);  // may not override
  std::this_thread::sleep_for(50ms);
  EXPECT_EQ(sent[1]->dones, 0);
  release_and_finish();
  EXPECT_TRUE(own(*sent[1]));
}

TEST_F(SchedulerTest, AnOverrideMayOnlyShorten) {
  DynamicBatching d;
  d.default_queue_policy = QueuePolicy{false, 40'000, true, 0};
  start(d, 1);
  hold();
  Sent& shorter = send(1, [](Job& j) { j.request.timeout_us = 1000; });
  Sent& longer = send(1, [](Job& j) { j.request.timeout_us = 60'000'000; });
  EXPECT_TRUE(wait_done(shorter));
  EXPECT_TRUE(wait_done(longer));
  EXPECT_EQ(order, (std::vector<uint32_t>{2, 3}));
  release_and_finish();
}

TEST_F(SchedulerTest, EachExpiresInItsTimeWhateverCameBefore) {
  start(std::nullopt, 1);
  hold();
  const auto in = [&](std::chrono::milliseconds t) -> Sent& {
    return send(1, [&](Job& j) { j.request.deadline = Clock::now() + t; });
  };
  Sent& late = in(60s);
  Sent& soon = in(100ms);  // sooner than what the clock was set for
  Sent& sooner = in(20ms);
  const auto begin = Clock::now();
  EXPECT_TRUE(wait_done(sooner) && wait_done(soon));
  EXPECT_GE(Clock::now() - begin, 90ms);
  EXPECT_EQ(late.dones, 0);
  EXPECT_EQ(order, (std::vector<uint32_t>{4, 3}));
  Sent& after = in(30ms);
  EXPECT_TRUE(wait_done(after));
  release_and_finish();
  EXPECT_TRUE(own(late));
}

TEST_F(SchedulerTest, CancelTakesOutOfTheQueueOnly) {
  start(std::nullopt, 1);
  Sent& running = hold();
  Sent& waits = send();
  Sent& other = send();
  scheduler->cancel(*waits.job);
  scheduler->cancel(*waits.job);
  scheduler->cancel(*running.job);
  EXPECT_EQ(waits.dones, 1);
  EXPECT_EQ(waits.result->error().code, ErrorCode::kCancelled);
  EXPECT_EQ(running.dones, 0);
  release_and_finish();
  EXPECT_TRUE(own(running));
  EXPECT_TRUE(own(other));
  EXPECT_EQ(stage.batches.size(), 2u);
  EXPECT_EQ(statistics.snapshot().failures[size_t(FailureReason::kCancelled)], 1u);
}

TEST_F(SchedulerTest, MistakesOfTheModelFailItsBatchAndNothingElse) {
  start(delay(0), 4);
  const std::function<Status(std::vector<OwnedTensor>&)> mistakes[] = {
      [](auto&) -> Status { throw std::runtime_error("it broke"); },
      [](auto&) -> Status { throw std::bad_alloc(); },
      [](auto&) -> Status {
        return Error{ErrorCode::kInternal, "no", "", ""};
      },
      [](auto& o) -> Status { return o.clear(), Status(); },
      [](auto& o) -> Status { return o[0].shape[0] += 1, Status(); },
      [](auto& o) -> Status { return o[0].data.pop_back(), Status(); },
  };
  for (const auto& mistake : mistakes) {
    stage.set_open(false);
    const size_t inside = stage.inside;
    Sent& first = send();
    ASSERT_TRUE(stage.wait_inside(inside + 1));
    Sent& a = send();
    Sent& b = send();
    {
      std::lock_guard lock(stage.mutex);
      // The first one alone is answered as it came; the two together meet the mistake.
      stage.misbehave = [mistake](std::vector<OwnedTensor>& o) -> Status {
        return o[0].shape[0] == 2 ? mistake(o) : Status();
      };
    }
    stage.set_open(true);
    ASSERT_TRUE(wait_done(first) && wait_done(a) && wait_done(b));
    EXPECT_TRUE(own(first));
    EXPECT_FALSE(a.result->ok());
    EXPECT_FALSE(b.result->ok());
    EXPECT_FALSE(error(a).empty());
  }
  EXPECT_TRUE(wait_done(send()));
  EXPECT_TRUE(own(*sent.back()));
}

TEST_F(SchedulerTest, ABatchThatNoMemoryHoldsIsRefused) {
  start(delay(0), 4);
  hold();
  for (int i = 0; i < 2; ++i)
    send(1, [](Job& j) {
      j.inputs[0].data = {j.inputs[0].data.data(), size_t{1} << 61};  // never touched: memory comes first
    });
  release_and_finish();
  for (size_t i : {1, 2}) {
    ASSERT_FALSE(sent[i]->result->ok());
    EXPECT_EQ(sent[i]->result->error().code, ErrorCode::kResourceExhausted);
  }
}

TEST_F(SchedulerTest, ShortRunsStayInTheThreadThatSubmits) {
  std::thread::id ran_in;
  stage.misbehave = [&](auto&) {
    ran_in = std::this_thread::get_id();
    return Status();
  };
  start({}, 1, 1, 4096, 10s);
  ASSERT_TRUE(wait_done(send()));  // nothing is known of the model yet
  EXPECT_NE(ran_in, std::this_thread::get_id());
  const auto end = Clock::now() + 10s;
  while (ran_in != std::this_thread::get_id() && Clock::now() < end) EXPECT_TRUE(wait_done(send()));
  EXPECT_EQ(ran_in, std::this_thread::get_id());
  EXPECT_TRUE(own(*sent.back()));

  // Large inputs do not, nor what comes while the session is lent.
  send(20000);
  EXPECT_TRUE(wait_done(*sent.back()));
  EXPECT_NE(ran_in, std::this_thread::get_id());
  while (ran_in != std::this_thread::get_id() && Clock::now() < end) EXPECT_TRUE(wait_done(send()));
  stage.set_open(false);
  const size_t begun = stage.inside;
  std::thread lender([&] { send(); });
  ASSERT_TRUE(stage.wait_inside(begun + 1));
  Sent& waits = send();  // returns, though the session is taken
  EXPECT_EQ(scheduler->waiting(), 1u);
  EXPECT_EQ(scheduler->running(), 1u);
  stage.set_open(true);
  lender.join();
  EXPECT_TRUE(wait_done(waits));
}

TEST_F(SchedulerTest, LongRunsAreHandedOver) {
  std::thread::id ran_in;
  stage.misbehave = [&](auto&) {
    ran_in = std::this_thread::get_id();
    std::this_thread::sleep_for(2ms);
    return Status();
  };
  start({}, 1, 2, 4096, 1ms);
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(wait_done(send()));
    EXPECT_NE(ran_in, std::this_thread::get_id());
  }
}

// Everything at once, from several threads: each request ends exactly once, with its own answer or a reason.
class SchedulerStress : public SchedulerTest, public testing::WithParamInterface<int> {};

TEST_P(SchedulerStress, EveryRequestEndsOnce) {
  const int kind = GetParam();
  DynamicBatching d = delay(kind % 2 ? 200 : 0);
  if (kind / 2 % 2) {
    d.priority_levels = 3;
    d.default_priority_level = 2;
    d.default_queue_policy = QueuePolicy{true, 300, true, 40};
  }
  if (kind < 12)
    start(d, 8, size_t(1 + kind / 4 % 3), 100);
  else  // no batches: short runs in the threads that submit, or not
    start({}, 8, size_t(1 + kind % 3), 100, kind % 2 ? 10s : 5us);
  constexpr int kThreads = 4, kEach = 1500;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([this, t] {
      std::mt19937 random{unsigned(t)};
      for (int i = 0; i < kEach; ++i) {
        Sent& s = send(1 + random() % 8, [&](Job& j) {
          j.request.priority = random() % 5;
          if (random() % 4 == 0) j.request.timeout_us = random() % 500;
          if (random() % 4 == 0)
            j.request.deadline = Clock::now() + std::chrono::microseconds(random() % 500);
        });
        if (random() % 3 == 0) scheduler->cancel(*s.job);
        if (random() % 16 == 0) std::this_thread::sleep_for(50us);
      }
    });
  if (kind % 3 == 0) {
    std::this_thread::sleep_for(10ms);
    scheduler->drain();  // in the middle of it
  }
  for (auto& t : threads) t.join();
  scheduler->drain();
  EXPECT_EQ(scheduler->waiting(), 0u);
  EXPECT_EQ(scheduler->running(), 0u);
  size_t answered = 0;
  for (const auto& s : sent) {
    ASSERT_EQ(s->dones, 1);
    if (s->result->ok()) {
      ++answered;
      EXPECT_TRUE(own(*s));
    }
  }
  EXPECT_GT(answered, 0u);
}
INSTANTIATE_TEST_SUITE_P(Kinds, SchedulerStress, testing::Range(0, 18));

}  // namespace
}  // namespace isoline::serve
