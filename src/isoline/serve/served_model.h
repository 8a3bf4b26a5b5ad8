// ServedModel: one version of a model that is ready: checked requests in, answers out, its statistics.
#pragma once

#include <memory>
#include <string>

#include "isoline/serve/inference.h"
#include "isoline/serve/model_config.h"
#include "isoline/serve/scheduler.h"
#include "isoline/serve/statistics.h"

namespace isoline::serve {

// A handle with which a request's sender can give it up. Copyable; empty: nothing to cancel.
class InferTicket {
 public:
  InferTicket() = default;
  // Takes the request out of the queue if it still waits; its InferDone is called then.
  void cancel();

 private:
  friend class ServedModel;
  std::weak_ptr<class ServedModel> model_;
  std::weak_ptr<Job> job_;
};

class ServedModel : public std::enable_shared_from_this<ServedModel> {
 public:
  // Makes the instances and warms them up; only then does it return. `config` is completed from the model,
  // whose tensors must agree with what the configuration names.
  static Result<std::shared_ptr<ServedModel>> start(std::unique_ptr<TensorModel> model, ModelConfig config,
                                                    std::string name, int64_t version,
                                                    SchedulerOptions options);
  ~ServedModel();

  const std::string& name() const { return name_; }
  const std::string& version() const { return version_; }
  const ModelConfig& config() const { return config_; }
  const TensorModelInfo& info() const { return info_; }

  // What instances are made from; until drain().
  const TensorModel& model() const { return *model_; }
  // Null where the model takes tensors only.
  const std::shared_ptr<const SampleDecoder>& decoder() const { return decoder_; }

  // `done` is called exactly once, from this thread if the request does not fit the model.
  InferTicket infer(InferRequest request, InferDone done);

  StatisticsSnapshot statistics() const { return statistics_.snapshot(); }
  size_t waiting() const { return scheduler_ ? scheduler_->waiting() : 0; }
  size_t running() const { return scheduler_ ? scheduler_->running() : 0; }
  // Finishes what waits, then frees instances and weights. Blocks.
  void drain();

 private:
  friend class InferTicket;
  ServedModel() = default;
  Status check(const InferRequest& request, Job& job) const;

  std::string name_, version_;
  ModelConfig config_;
  TensorModelInfo info_;
  std::unique_ptr<TensorModel> model_;
  std::shared_ptr<const SampleDecoder> decoder_;
  Statistics statistics_;
  std::unique_ptr<Scheduler> scheduler_;
};

// Bytes of a tensor of this shape; an error where a dimension is negative or the product overflows. kBytes:
// elements.
Result<uint64_t> tensor_elements(const std::vector<int64_t>& shape);

}  // namespace isoline::serve
