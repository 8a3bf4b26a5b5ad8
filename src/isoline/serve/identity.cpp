#include "isoline/serve/identity.h"

#include <chrono>
#include <cstdlib>
#include <thread>

namespace isoline::serve {
namespace {

class IdentitySession final : public TensorSession {
 public:
  explicit IdentitySession(std::chrono::duration<double, std::milli> delay) : delay_(delay) {}
  Status run(std::span<const InputTensor> inputs, std::vector<OwnedTensor>& outputs) override {
    if (delay_.count() > 0) std::this_thread::sleep_for(delay_);
    outputs.resize(inputs.size());
    for (size_t i = 0; i < inputs.size(); ++i) {
      outputs[i].shape = inputs[i].shape;
      outputs[i].data.assign(inputs[i].data.begin(), inputs[i].data.end());
    }
    return {};
  }

 private:
  std::chrono::duration<double, std::milli> delay_;
};

class IdentityModel final : public TensorModel {
 public:
  IdentityModel(TensorModelInfo info, double delay_ms) : info_(std::move(info)), delay_ms_(delay_ms) {}
  const TensorModelInfo& info() const override { return info_; }
  Result<std::unique_ptr<TensorSession>> create_session() const override {
    return std::unique_ptr<TensorSession>(
        std::make_unique<IdentitySession>(std::chrono::duration<double, std::milli>(delay_ms_)));
  }

 private:
  TensorModelInfo info_;
  double delay_ms_;
};

}  // namespace

Result<std::unique_ptr<TensorModel>> open_identity_model(const ModelConfig& config) {
  const auto invalid = [](const std::string& message) {
    return Error{ErrorCode::kInvalidArgument, message, kIdentityPlatform,
                 "Name inputs and as many outputs of the same types."};
  };
  if (config.input.empty() || config.input.size() != config.output.size())
    return invalid("needs as many outputs as inputs, at least one");
  for (size_t i = 0; i < config.input.size(); ++i)
    if (config.input[i].type != config.output[i].type || config.input[i].shape != config.output[i].shape)
      return invalid("output '" + config.output[i].name + "' is not like input '" + config.input[i].name +
                     "'");
  double delay_ms = 0;
  if (const auto it = config.parameters.find("execute_delay_ms"); it != config.parameters.end()) {
    char* end = nullptr;
    delay_ms = std::strtod(it->second.c_str(), &end);
    if (it->second.empty() || *end || !(delay_ms >= 0 && delay_ms <= 60000))
      return invalid("execute_delay_ms must be a number from 0 to 60000");
  }
  return std::unique_ptr<TensorModel>(std::make_unique<IdentityModel>(
      TensorModelInfo{kIdentityPlatform, config.max_batch_size, config.input, config.output, ""}, delay_ms));
}

}  // namespace isoline::serve
