#include "isoline/serve/scheduler.h"

#include <pthread.h>

#include <algorithm>

#include "isoline/serve/batching.h"

namespace isoline::serve {
namespace {

uint64_t ns_between(Clock::time_point from, Clock::time_point to) {
  return uint64_t(
      std::max<int64_t>(0, std::chrono::duration_cast<std::chrono::nanoseconds>(to - from).count()));
}

bool may_assemble(const ModelConfig& config, const TensorModelInfo& info) {
  return config.dynamic_batching && info.max_batch > 1 && !config.dynamic_batching->priority_levels &&
         !config.dynamic_batching->preserve_ordering;
}

// Larger inputs may take much longer than the usual run.
constexpr size_t kRunHereBytes = size_t{64} << 10;

std::optional<Clock::time_point> expiry(const Job& job) {
  if (job.timeout && job.request.deadline) return std::min(*job.timeout, *job.request.deadline);
  return job.timeout ? job.timeout : job.request.deadline;
}

}  // namespace

Scheduler::Scheduler(ModelConfig config, TensorModelInfo info,
                     std::vector<std::unique_ptr<TensorSession>> sessions, Statistics& statistics,
                     std::string label, std::string version, SchedulerOptions options)
    : config_(std::move(config)),
      info_(std::move(info)),
      statistics_(statistics),
      label_(std::move(label)),
      version_(std::move(version)),
      options_(options),
      sessions_(std::move(sessions)),
      assembles_(may_assemble(config_, info_)) {
  queues_.resize(2 + (config_.dynamic_batching ? config_.dynamic_batching->priority_levels : 0));
  if (assembles_) assembler_ = std::thread([this] { assemble(); });
  for (const auto& session : sessions_) workers_.emplace_back([this, s = session.get()] { work(*s); });
}

Scheduler::~Scheduler() {
  drain();
}

const QueuePolicy* Scheduler::policy(size_t level) const {
  if (!config_.dynamic_batching) return nullptr;
  const DynamicBatching& d = *config_.dynamic_batching;
  if (const auto it = d.priority_queue_policy.find(level); it != d.priority_queue_policy.end())
    return &it->second;
  return d.default_queue_policy ? &*d.default_queue_policy : nullptr;
}

void Scheduler::submit(std::shared_ptr<Job> job) {
  job->queued = Clock::now();
  if (config_.dynamic_batching && config_.dynamic_batching->priority_levels) {
    const DynamicBatching& d = *config_.dynamic_batching;
    const uint64_t wanted = job->request.priority;
    job->level = wanted >= 1 && wanted <= d.priority_levels ? wanted : d.default_priority_level;
  }
  const QueuePolicy* policy = this->policy(job->level);
  // Without a policy of the model's the request's own timeout counts.
  uint64_t timeout_us = job->request.timeout_us;
  if (policy) {
    job->delay_on_timeout = policy->delay_on_timeout;
    const uint64_t limit = policy->default_timeout_us;
    if (!policy->allow_timeout_override || !timeout_us || (limit && timeout_us > limit)) timeout_us = limit;
  }
  if (timeout_us)
    job->timeout = job->queued + std::chrono::microseconds(std::min<uint64_t>(timeout_us, uint64_t{1} << 50));

  std::unique_lock lock(mutex_);
  if (draining_) {
    lock.unlock();
    return fail(*job, FailureReason::kRejected,
                {ErrorCode::kResourceExhausted, "the model is being unloaded", label_, ""});
  }
  if (runs_here_locked(*job)) return run_here(lock, std::move(job));
  auto& queue = queues_[job->level];
  if (waiting_ + assembled_ >= options_.max_queue_size ||
      (policy && policy->max_queue_size && queue.size() + assembled_ >= policy->max_queue_size)) {
    lock.unlock();
    return fail(*job, FailureReason::kRejected,
                {ErrorCode::kResourceExhausted, "Exceeds maximum queue size", label_, "Try again later."});
  }
  bool sooner = false;
  if (const auto at = expiry(*job)) {
    if (!expirer_.joinable()) expirer_ = std::thread([this] { expire(); });
    sooner = !next_expiry_ || *at < *next_expiry_;
    if (sooner) next_expiry_ = at;
  }
  waiting_samples_ += job->samples;
  queue.push_back(std::move(job));
  ++waiting_;
  const bool wake = idle_ > 0, assemble = wants_assembly_locked();
  lock.unlock();
  if (wake) work_ready_.notify_one();
  if (assemble) full_batch_waits_.notify_one();
  if (sooner) expiry_changed_.notify_one();
}

bool Scheduler::runs_here_locked(const Job& job) const {
  if (config_.dynamic_batching || !first_idle_ || first_lent_ || waiting_) return false;
  if (usual_run_ns_ >= uint64_t(std::chrono::nanoseconds(options_.run_here_below).count())) return false;
  size_t bytes = 0;
  for (const auto& input : job.inputs) bytes += input.data.size();
  return bytes <= kRunHereBytes;
}

void Scheduler::run_here(std::unique_lock<std::mutex>& lock, std::shared_ptr<Job> job) {
  first_lent_ = true;
  ++running_;
  lock.unlock();
  Batch batch;
  batch.jobs.push_back(std::move(job));
  gather_inputs(batch);
  if (!batch.jobs.empty()) run(*sessions_.front(), batch);
  lock.lock();
  --running_;
  first_lent_ = false;
  const bool wake = waiting_ || draining_;
  lock.unlock();
  // All: whoever was woken meanwhile may have been the first, who had to sleep on.
  if (wake) work_ready_.notify_all();
}

bool Scheduler::joins(const Job& first, const Job& next) const {
  for (size_t i = 0; i < first.inputs.size(); ++i)
    if (!std::equal(first.inputs[i].shape.begin() + 1, first.inputs[i].shape.end(),
                    next.inputs[i].shape.begin() + 1, next.inputs[i].shape.end()))
      return false;
  return true;
}

Scheduler::Jobs Scheduler::front_locked(bool& blocked) const {
  Jobs jobs;
  blocked = false;
  int64_t samples = 0;
  for (const auto& queue : queues_)
    for (const auto& job : queue) {
      if (!jobs.empty() && (!config_.dynamic_batching || info_.max_batch < 1)) return jobs;
      if (!jobs.empty() && (samples + job->samples > info_.max_batch || !joins(*jobs.front(), *job))) {
        blocked = true;
        return jobs;
      }
      samples += job->samples;
      jobs.push_back(job);
    }
  return jobs;
}

void Scheduler::remove_locked(const Job& job) {
  for (auto* queue : {&queues_[job.level], &queues_.back()}) {
    const auto it =
        std::find_if(queue->begin(), queue->end(), [&](const auto& j) { return j.get() == &job; });
    if (it == queue->end()) continue;
    queue->erase(it);
    --waiting_;
    waiting_samples_ -= job.samples;
    return;
  }
}

void Scheduler::take_locked(Batch& batch, size_t count) {
  batch.jobs.resize(count);
  for (const auto& j : batch.jobs) remove_locked(*j);
}

bool Scheduler::wants_assembly_locked() const {
  return assembles_ && !ready_ && !assembling_ && running_ == sessions_.size() &&
         waiting_samples_ >= info_.max_batch;
}

void Scheduler::work(TensorSession& session) {
  ::pthread_setname_np(::pthread_self(), "infer");
  auto batch = std::make_unique<Batch>();
  std::unique_lock lock(mutex_);
  const bool first = &session == sessions_.front().get();
  while (next_batch_locked(lock, batch, first)) {
    ++running_;
    const bool wake_another = waiting_ && idle_, assemble = wants_assembly_locked();
    lock.unlock();
    if (wake_another) work_ready_.notify_one();
    if (assemble) full_batch_waits_.notify_one();
    if (batch->inputs.empty()) gather_inputs(*batch);
    if (!batch->jobs.empty()) run(session, *batch);
    batch->jobs.clear();  // requests' memory goes before this thread sleeps
    batch->inputs.clear();
    lock.lock();
    --running_;
  }
}

bool Scheduler::next_batch_locked(std::unique_lock<std::mutex>& lock, std::unique_ptr<Batch>& batch,
                                  bool first) {
  const auto wait = [&](const auto& sleep) {
    ++idle_;
    sleep();
    --idle_;
  };
  std::vector<int64_t> samples;
  for (;;) {
    if (ready_) {
      spare_ = std::exchange(batch, std::move(ready_));
      assembled_ = 0;
      return true;
    }
    if (assembling_) {  // ready soon, and first come
      wait([&] { work_ready_.wait(lock, [&] { return !assembling_; }); });
      continue;
    }
    bool blocked = false;
    batch->jobs = front_locked(blocked);
    if (batch->jobs.empty()) {
      if (draining_) return false;
      if (first) first_idle_ = true;
      wait([&] {
        work_ready_.wait(lock, [&] { return !(first && first_lent_) && (waiting_ || draining_ || ready_); });
      });
      if (first) first_idle_ = false;
      continue;
    }
    samples.clear();
    Clock::time_point oldest = batch->jobs.front()->queued;
    for (const auto& j : batch->jobs) {
      samples.push_back(j->samples);
      oldest = std::min(oldest, j->queued);
    }
    const uint64_t oldest_us = ns_between(oldest, Clock::now()) / 1000;
    // When draining, nobody else comes: no reason to wait for company.
    const BatchDecision decision =
        decide_batch(config_.dynamic_batching, info_.max_batch, {samples, blocked || draining_, oldest_us});
    if (decision.take) {
      take_locked(*batch, decision.take);
      return true;
    }
    batch->jobs.clear();
    wait([&] { work_ready_.wait_for(lock, std::chrono::microseconds(decision.wait_us)); });
  }
}

void Scheduler::assemble() {
  ::pthread_setname_np(::pthread_self(), "batch");
  std::unique_lock lock(mutex_);
  for (;;) {
    full_batch_waits_.wait(lock, [&] { return stopped_ || wants_assembly_locked(); });
    if (stopped_) return;
    auto batch = spare_ ? std::move(spare_) : std::make_unique<Batch>();
    bool blocked = false;
    batch->jobs = front_locked(blocked);
    take_locked(*batch, batch->jobs.size());
    assembling_ = true;
    assembled_ = batch->jobs.size();
    lock.unlock();
    gather_inputs(*batch);
    lock.lock();
    assembling_ = false;
    assembled_ = batch->jobs.size();
    (batch->jobs.empty() ? spare_ : ready_) = std::move(batch);  // empty: all had expired
    if (idle_) work_ready_.notify_all();
  }
}

// Drops what has expired and lays the rest's inputs one behind the other.
void Scheduler::gather_inputs(Batch& batch) {
  batch.taken = Clock::now();
  std::erase_if(batch.jobs, [&](const std::shared_ptr<Job>& j) {
    const auto at = j->request.deadline;
    if (!at || *at > batch.taken) return false;
    fail(*j, FailureReason::kRejected,
         {ErrorCode::kResourceExhausted, "Request timeout expired", label_, ""});
    return true;
  });
  if (batch.jobs.size() == 1) {
    batch.inputs = batch.jobs.front()->inputs;
  } else if (!batch.jobs.empty()) {
    std::vector<std::vector<InputTensor>> all;
    for (const auto& j : batch.jobs) all.push_back(j->inputs);
    try {
      batch.inputs = gather(all, batch.memory);
    } catch (const std::bad_alloc&) {
      for (const auto& j : batch.jobs)
        fail(*j, FailureReason::kRejected,
             {ErrorCode::kResourceExhausted, "memory ran out", label_, "Try again later."});
      batch.jobs.clear();
    }
  }
  batch.gathered = Clock::now();
}

void Scheduler::run(TensorSession& session, Batch& ready) {
  Jobs& jobs = ready.jobs;
  std::vector<int64_t> samples;
  int64_t batch = 0;
  for (const auto& j : jobs) batch += samples.emplace_back(j->samples);
  const auto start = Clock::now();
  auto outputs = std::make_shared<std::vector<OwnedTensor>>();
  Status status;
  try {
    status = session.run(ready.inputs, *outputs);
    if (status.ok() && outputs->size() != info_.outputs.size())
      status = Error{ErrorCode::kInternal, "the model returned another number of outputs than it declares",
                     label_, ""};
  } catch (const std::bad_alloc&) {
    status = Error{ErrorCode::kResourceExhausted, "memory ran out", label_, ""};
  } catch (const std::exception& e) {
    status = Error{ErrorCode::kInternal, e.what(), label_, ""};
  }
  const auto ran = Clock::now();

  std::vector<std::vector<InputTensor>> parts(info_.outputs.size());
  for (size_t o = 0; status.ok() && o < parts.size(); ++o) {
    const OwnedTensor& tensor = (*outputs)[o];
    if (jobs.size() == 1) {
      parts[o] = {InputTensor{tensor.shape, tensor.data}};
      continue;
    }
    auto cut = split(tensor, info_.outputs[o].type, samples);
    if (cut.ok())
      parts[o] = std::move(*cut);
    else
      status = cut.error().in(label_ + ": " + info_.outputs[o].name);
  }
  if (!status.ok()) {
    for (const auto& j : jobs) fail(*j, FailureReason::kBackend, status.error());
    return;
  }
  std::vector<InferResponse> responses(jobs.size());
  for (size_t r = 0; r < jobs.size(); ++r) {
    InferResponse& response = responses[r];
    response.model = jobs[r]->request.model;
    response.version = version_;
    response.id = std::move(jobs[r]->request.id);
    response.memory = outputs;
    for (size_t o : jobs[r]->wanted)
      response.outputs.push_back(
          {info_.outputs[o].name, info_.outputs[o].type, std::move(parts[o][r].shape), parts[o][r].data});
  }
  const auto end = Clock::now();
  const uint64_t input_ns = ns_between(ready.taken, ready.gathered), infer_ns = ns_between(start, ran),
                 output_ns = ns_between(ran, end);
  std::vector<Statistics::Answered> answered;
  for (const auto& j : jobs)
    answered.push_back({{ns_between(j->request.received, end), ns_between(j->queued, start) - input_ns,
                         input_ns + j->request.decode_ns, infer_ns, output_ns},
                        j->samples});
  const uint64_t usual = usual_run_ns_;
  usual_run_ns_ = usual == UINT64_MAX ? infer_ns : usual - usual / 8 + infer_ns / 8;
  statistics_.record_execution(batch, input_ns, infer_ns, output_ns, answered);
  for (size_t r = 0; r < jobs.size(); ++r) jobs[r]->done(std::move(responses[r]));
}

void Scheduler::fail(Job& job, FailureReason reason, Error error) {
  statistics_.record_failure(reason, ns_between(job.request.received, Clock::now()));
  job.done(std::move(error));
}

void Scheduler::cancel(const Job& job) {
  std::shared_ptr<Job> found;
  {
    std::lock_guard lock(mutex_);
    for (const auto* queue : {&queues_[job.level], &queues_.back()})
      for (const auto& j : *queue)
        if (j.get() == &job) found = j;
    if (found) remove_locked(job);
  }
  if (found)
    fail(*found, FailureReason::kCancelled, {ErrorCode::kCancelled, "the request was cancelled", label_, ""});
}

void Scheduler::expire() {
  std::unique_lock lock(mutex_);
  while (!stopped_) {
    const auto now = Clock::now();
    std::optional<Clock::time_point> next;
    Jobs expired;
    for (size_t q = 0; q < queues_.size(); ++q)
      for (auto it = queues_[q].begin(); it != queues_[q].end();) {
        Job& job = **it;
        const auto at = expiry(job);
        if (!at || *at > now) {
          if (at) next = next ? std::min(*next, *at) : *at;
          ++it;
          continue;
        }
        const bool dead = job.request.deadline && *job.request.deadline <= now;
        if (job.delay_on_timeout && !dead) {
          job.timeout.reset();  // now it waits behind everything else
          if (job.request.deadline)
            next = next ? std::min(*next, *job.request.deadline) : *job.request.deadline;
          queues_.back().push_back(*it);
        } else {
          expired.push_back(*it);
          --waiting_;
          waiting_samples_ -= job.samples;
        }
        it = queues_[q].erase(it);
      }
    if (!expired.empty()) {
      lock.unlock();
      for (const auto& j : expired)
        fail(*j, FailureReason::kRejected,
             {ErrorCode::kResourceExhausted, "Request timeout expired", label_, ""});
      expired.clear();
      lock.lock();
      continue;
    }
    next_expiry_ = next;
    const auto changed = [&] { return stopped_ || next_expiry_ != next; };
    if (next)
      expiry_changed_.wait_until(lock, *next, changed);
    else
      expiry_changed_.wait(lock, changed);
  }
}

void Scheduler::drain() {
  std::lock_guard once(drain_mutex_);
  {
    std::lock_guard lock(mutex_);
    draining_ = true;
  }
  work_ready_.notify_all();
  for (std::thread& t : workers_) t.join();
  workers_.clear();
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  expiry_changed_.notify_all();
  full_batch_waits_.notify_all();
  if (expirer_.joinable()) expirer_.join();
  if (assembler_.joinable()) assembler_.join();
  sessions_.clear();
}

size_t Scheduler::waiting() const {
  std::lock_guard lock(mutex_);
  return waiting_ + assembled_;
}

size_t Scheduler::running() const {
  std::lock_guard lock(mutex_);
  return running_;
}

}  // namespace isoline::serve
