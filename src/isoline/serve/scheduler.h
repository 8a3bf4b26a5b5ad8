// Scheduler: requests of one model version wait here, are batched and run on its instances, one thread each.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "isoline/base/buffer.h"
#include "isoline/serve/inference.h"
#include "isoline/serve/model_config.h"
#include "isoline/serve/statistics.h"

namespace isoline::serve {

// A checked request on its way through the queue.
struct Job {
  InferRequest request;
  std::vector<InputTensor> inputs;  // in the model's order
  std::vector<size_t> wanted;       // outputs, as indices into the model's
  int64_t samples = 1;
  InferDone done;

  // Set by the scheduler.
  size_t level = 0;
  Clock::time_point queued;
  std::optional<Clock::time_point> timeout;  // of the queue policy; request.deadline counts besides
  bool delay_on_timeout = false;
};

struct SchedulerOptions {
  size_t max_queue_size = 4096;  // requests of this model version, whatever its configuration says
  // Runs that usually take less than this are done by the thread that submits, if the first instance is idle,
  // nothing waits and there is no dynamic batching: handing them over would cost more. 0: never.
  std::chrono::microseconds run_here_below{0};
};

class Scheduler {
 public:
  // One thread for each session. `config` is complete and valid; `label` ("model/1") names errors.
  Scheduler(ModelConfig config, TensorModelInfo info, std::vector<std::unique_ptr<TensorSession>> sessions,
            Statistics& statistics, std::string label, std::string version, SchedulerOptions options);
  ~Scheduler();  // drain()
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Calls job->done in any case, at once when the queue is full (kResourceExhausted) or drained.
  void submit(std::shared_ptr<Job> job);
  // A job still in the queue leaves it and ends with kCancelled; one that runs is not disturbed.
  void cancel(const Job& job);
  // Takes nothing more, finishes what waits and gives the sessions back. Blocks; idempotent.
  void drain();

  size_t waiting() const;
  // Instances that run the model now.
  size_t running() const;

 private:
  using Jobs = std::vector<std::shared_ptr<Job>>;
  // Requests on their way through a session together. Memory is kept from batch to batch.
  struct Batch {
    Jobs jobs;
    std::vector<InputTensor> inputs;
    std::vector<Buffer<std::byte>> memory;
    Clock::time_point taken, gathered;
  };
  void work(TensorSession& session);
  // Waits for the next batch of a session; false: drained. A ready one is exchanged for `batch`, else its
  // jobs are filled in.
  bool next_batch_locked(std::unique_lock<std::mutex>& lock, std::unique_ptr<Batch>& batch, bool first);
  void assemble();
  void gather_inputs(Batch& batch);
  void run(TensorSession& session, Batch& ready);
  bool runs_here_locked(const Job& job) const;
  void run_here(std::unique_lock<std::mutex>& lock, std::shared_ptr<Job> job);
  void take_locked(Batch& batch, size_t count);
  // Whether a full batch waits that no session will come for soon. Locked.
  bool wants_assembly_locked() const;
  void expire();
  // The requests at the front that may run together. Locked.
  Jobs front_locked(bool& blocked) const;
  bool joins(const Job& first, const Job& next) const;
  void remove_locked(const Job& job);
  void fail(Job& job, FailureReason reason, Error error);
  const QueuePolicy* policy(size_t level) const;

  const ModelConfig config_;
  const TensorModelInfo info_;
  Statistics& statistics_;
  const std::string label_, version_;
  const SchedulerOptions options_;

  mutable std::mutex mutex_;
  std::condition_variable work_ready_, expiry_changed_, full_batch_waits_;
  // queues_[0]: no priorities; [1], [2], ...: by level. The last: timed out with action DELAY.
  std::vector<std::deque<std::shared_ptr<Job>>> queues_;
  size_t waiting_ = 0, idle_ = 0, running_ = 0;
  int64_t waiting_samples_ = 0;
  bool draining_ = false, stopped_ = false;
  // The first session's thread sleeps; its session is used by a thread that submits.
  bool first_idle_ = false, first_lent_ = false;
  std::atomic<uint64_t> usual_run_ns_{UINT64_MAX};  // moving mean; the highest: none yet
  std::vector<std::unique_ptr<TensorSession>> sessions_;
  std::vector<std::thread> workers_;
  // While all sessions run and a full batch waits, this thread makes it ready, so that the next session need
  // not copy inputs. Only full batches, and none where the order could matter: nothing is lost by taking them
  // early.
  const bool assembles_;
  std::unique_ptr<Batch> ready_, spare_;
  bool assembling_ = false;
  size_t assembled_ = 0;  // requests in it, which wait as those of the queues do
  std::thread assembler_;
  std::thread expirer_;                           // started with the first job that can expire
  std::optional<Clock::time_point> next_expiry_;  // when it looks again
  std::mutex drain_mutex_;
};

}  // namespace isoline::serve
