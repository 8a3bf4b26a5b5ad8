#include "isoline/load/local_target.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

namespace isoline::load {
namespace {

// Completions on their way from other threads to the one that waits for them.
class Mailbox {
 public:
  void post(Completion completion) {
    {
      std::lock_guard lock(mutex_);
      arrived_.push_back(std::move(completion));
    }
    changed_.notify_one();
  }
  void take(int64_t until_ns, std::vector<Completion>& done) {
    const std::chrono::steady_clock::time_point until{std::chrono::nanoseconds(until_ns)};
    std::unique_lock lock(mutex_);
    changed_.wait_until(lock, until, [&] { return !arrived_.empty(); });
    done.insert(done.end(), std::make_move_iterator(arrived_.begin()),
                std::make_move_iterator(arrived_.end()));
    arrived_.clear();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Completion> arrived_;
};

// Statuses as the server's protocol would name them, without its numbers.
std::string status_name(const Error& error) {
  return error_code_name(error.code);
}

class CoreChannel final : public Channel {
 public:
  CoreChannel(std::shared_ptr<serve::ServedModel> model, std::shared_ptr<const Payloads> payloads,
              size_t lanes)
      : model_(std::move(model)), payloads_(std::move(payloads)), lanes_(lanes) {}

  size_t capacity() const override { return lanes_; }
  void wait(int64_t until_ns, std::vector<Completion>& done) override { mailbox_->take(until_ns, done); }

  void send(uint64_t tag, size_t payload) override {
    const Payload& p = (*payloads_)[payload];
    serve::InferRequest request;
    request.model = model_->name();
    if (p.picture.empty()) {
      for (size_t i = 0; i < p.inputs.size(); ++i)
        request.inputs.push_back({model_->info().inputs[i].name, model_->info().inputs[i].type,
                                  p.inputs[i].shape, p.inputs[i].data});
      request.memory = payloads_;
    } else if (Status s = decode(p, request); !s.ok()) {
      return mailbox_->post({tag, 0, 0, now_ns(), status_name(s.error()), s.error().to_string()});
    }
    // The mailbox outlives the channel if answers come late.
    model_->infer(std::move(request), [tag, mailbox = mailbox_](Result<serve::InferResponse> response) {
      Completion c{tag, 0, 0, now_ns(), "", ""};
      if (!response.ok()) {
        c.error = status_name(response.error());
        c.message = response.error().to_string();
      }
      mailbox->post(std::move(c));
    });
  }

 private:
  Status decode(const Payload& p, serve::InferRequest& request) const {
    const int64_t start = now_ns();
    const SampleDecoder& decoder = *model_->decoder();
    auto sample = std::make_shared<std::vector<std::byte>>(decoder.bytes_per_sample());
    ISOLINE_RETURN_IF_ERROR(decoder.decode(p.picture, *sample));
    const TensorSpec& spec = model_->info().inputs[0];
    std::vector<int64_t> shape = spec.shape;
    if (model_->info().max_batch > 0) shape.insert(shape.begin(), 1);
    request.inputs.push_back({spec.name, spec.type, std::move(shape), *sample});
    request.memory = std::move(sample);
    request.decode_ns = uint64_t(now_ns() - start);
    return {};
  }

  const std::shared_ptr<serve::ServedModel> model_;
  const std::shared_ptr<const Payloads> payloads_;
  const size_t lanes_;
  const std::shared_ptr<Mailbox> mailbox_ = std::make_shared<Mailbox>();
};

// One thread a session; requests wait in one list.
class SessionChannel final : public Channel {
 public:
  SessionChannel(std::vector<std::unique_ptr<TensorSession>> sessions,
                 std::shared_ptr<const Payloads> payloads)
      : payloads_(std::move(payloads)), sessions_(std::move(sessions)) {
    for (auto& session : sessions_) threads_.emplace_back([this, &session] { work(*session); });
  }
  ~SessionChannel() override {
    {
      std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    changed_.notify_all();
    for (auto& t : threads_) t.join();
  }

  size_t capacity() const override { return sessions_.size(); }
  void wait(int64_t until_ns, std::vector<Completion>& done) override { mailbox_.take(until_ns, done); }
  void send(uint64_t tag, size_t payload) override {
    {
      std::lock_guard lock(mutex_);
      waiting_.push_back({tag, payload});
    }
    changed_.notify_one();
  }

 private:
  struct Waiting {
    uint64_t tag;
    size_t payload;
  };

  void work(TensorSession& session) {
    std::vector<OwnedTensor> outputs;
    for (;;) {
      Waiting next{};
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return stopped_ || !waiting_.empty(); });
        if (stopped_) return;
        next = waiting_.front();
        waiting_.pop_front();
      }
      std::vector<InputTensor> inputs;
      for (const OwnedTensor& t : (*payloads_)[next.payload].inputs) inputs.push_back({t.shape, t.data});
      Status status;
      try {
        status = session.run(inputs, outputs);
      } catch (const std::exception& e) {
        status = Error{ErrorCode::kInternal, e.what(), "", ""};
      }
      Completion c{next.tag, 0, 0, now_ns(), "", ""};
      if (!status.ok()) {
        c.error = status_name(status.error());
        c.message = status.error().to_string();
      }
      mailbox_.post(std::move(c));
    }
  }

  const std::shared_ptr<const Payloads> payloads_;
  std::vector<std::unique_ptr<TensorSession>> sessions_;
  Mailbox mailbox_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Waiting> waiting_;
  bool stopped_ = false;
  std::vector<std::thread> threads_;
};

class LocalTarget final : public Target {
 public:
  LocalTarget(std::shared_ptr<serve::ServedModel> model, bool core) : model_(std::move(model)), core_(core) {
    const TensorModelInfo& m = model_->info();
    info_.server_name = "isoline";
    info_.protocol = core ? "in-process" : "session";
    info_.boundary = core ? "one request: from its hand-over to the serving core to its answer, no sockets"
                          : "one batch: a call of the model's session, no queue and no sockets";
    info_.model = model_->name();
    info_.version = model_->version();
    info_.platform = m.platform;
    info_.max_batch = m.max_batch;
    info_.inputs = m.inputs;
    info_.outputs = m.outputs;
  }

  const TargetInfo& info() const override { return info_; }

  Result<ServerCounts> counts() override {
    if (!core_) return Error{ErrorCode::kUnsupported, "sessions alone keep no statistics", "", ""};
    const serve::StatisticsSnapshot s = model_->statistics();
    const auto copy = [](const serve::CountedDuration& d) { return ServerCounts::Duration{d.count, d.ns}; };
    return ServerCounts{s.inference_count,     s.execution_count,     copy(s.success),
                        copy(s.fail),          copy(s.queue),         copy(s.compute_input),
                        copy(s.compute_infer), copy(s.compute_output)};
  }

  Result<double> round_trip_ms(int) override {
    return Error{ErrorCode::kUnsupported, "no network: the model runs in this process", "", ""};
  }

  Result<std::unique_ptr<Channel>> open(std::shared_ptr<const Payloads> payloads, size_t lanes) override {
    if (core_)
      return std::unique_ptr<Channel>(std::make_unique<CoreChannel>(model_, std::move(payloads), lanes));
    std::vector<std::unique_ptr<TensorSession>> sessions;
    for (size_t i = 0; i < lanes; ++i) {
      ISOLINE_ASSIGN(auto session, model_->model().create_session());
      sessions.push_back(std::move(session));
    }
    return std::unique_ptr<Channel>(
        std::make_unique<SessionChannel>(std::move(sessions), std::move(payloads)));
  }

 private:
  const std::shared_ptr<serve::ServedModel> model_;
  const bool core_;
  TargetInfo info_;
};

}  // namespace

Result<std::unique_ptr<Target>> open_core_target(std::shared_ptr<serve::ServedModel> model, bool pictures) {
  if (pictures && !model->decoder())
    return Error{ErrorCode::kInvalidArgument, "model '" + model->name() + "' takes no pictures", "--image",
                 ""};
  return std::unique_ptr<Target>(std::make_unique<LocalTarget>(std::move(model), true));
}

Result<std::unique_ptr<Target>> open_session_target(std::shared_ptr<serve::ServedModel> model) {
  return std::unique_ptr<Target>(std::make_unique<LocalTarget>(std::move(model), false));
}

}  // namespace isoline::load
