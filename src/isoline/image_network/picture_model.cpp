#include "isoline/image_network/picture_model.h"

#include "isoline/image_network/image_network.h"

namespace isoline {
namespace {

class PictureDecoder final : public SampleDecoder {
 public:
  PictureDecoder(const PreprocessSpec& spec, const DecodeLimits& limits) : preprocessor_(spec, limits) {}
  size_t bytes_per_sample() const override { return preprocessor_.bytes_per_image(); }
  Status decode(std::span<const std::byte> file, std::span<std::byte> out) const override {
    return preprocessor_.run(file, out);
  }

 private:
  ImagePreprocessor preprocessor_;
};

class PictureSession final : public TensorSession {
 public:
  PictureSession(std::shared_ptr<const ImageModelSpec> spec, const ImageNetworkPorts& ports,
                 std::unique_ptr<TensorSession> network)
      : spec_(std::move(spec)),
        output_(ports.output),
        dimensions_(ports.dimensions),
        network_(std::move(network)) {}

  Status run(std::span<const InputTensor> inputs, std::vector<OwnedTensor>& outputs) override {
    ISOLINE_RETURN_IF_ERROR(network_->run(inputs, answers_));
    outputs.resize(1);
    OwnedTensor& out = outputs.front();
    out = std::move(answers_[output_]);
    const size_t bytes = size_t(dimensions_) * sizeof(float);
    if (out.data.size() % bytes)
      return Error{ErrorCode::kInternal, "the network gave no whole number of vectors", spec_->onnx_file, ""};
    for (size_t at = 0; at < out.data.size(); at += bytes)
      (void)finish_vectors(*spec_, dimensions_,
                           {reinterpret_cast<float*>(out.data.data() + at), size_t(dimensions_)});
    return {};
  }

 private:
  const std::shared_ptr<const ImageModelSpec> spec_;
  const size_t output_;
  const int64_t dimensions_;
  std::unique_ptr<TensorSession> network_;
  std::vector<OwnedTensor> answers_;
};

class PictureModel final : public TensorModel {
 public:
  PictureModel(ImageModelSpec spec, ImageNetworkPorts ports, std::unique_ptr<TensorModel> network,
               const DecodeLimits& limits)
      : spec_(std::make_shared<const ImageModelSpec>(std::move(spec))),
        ports_(std::move(ports)),
        network_(std::move(network)),
        decoder_(std::make_shared<const PictureDecoder>(spec_->preprocess, limits)),
        info_(network_->info()) {
    info_.platform = kImagePlatform;
    std::vector<int64_t>& shape = info_.inputs.front().shape;
    shape = spec_->preprocess.shape();
    if (ports_.leading_one) shape.insert(shape.begin(), 1);
    info_.outputs = {network_->info().outputs[ports_.output]};
  }

  const TensorModelInfo& info() const override { return info_; }
  std::shared_ptr<const SampleDecoder> decoder() const override { return decoder_; }
  Result<std::unique_ptr<TensorSession>> create_session() const override {
    ISOLINE_ASSIGN(auto session, network_->create_session());
    return std::unique_ptr<TensorSession>(
        std::make_unique<PictureSession>(spec_, ports_, std::move(session)));
  }

 private:
  const std::shared_ptr<const ImageModelSpec> spec_;
  const ImageNetworkPorts ports_;
  const std::unique_ptr<TensorModel> network_;
  const std::shared_ptr<const SampleDecoder> decoder_;
  TensorModelInfo info_;
};

}  // namespace

Result<std::unique_ptr<TensorModel>> make_picture_model(ImageModelSpec spec,
                                                        std::unique_ptr<TensorModel> network,
                                                        const DecodeLimits& limits) {
  ISOLINE_ASSIGN(ImageNetworkPorts ports, match_ports(spec, network->info()));
  return std::unique_ptr<TensorModel>(
      std::make_unique<PictureModel>(std::move(spec), std::move(ports), std::move(network), limits));
}

}  // namespace isoline
