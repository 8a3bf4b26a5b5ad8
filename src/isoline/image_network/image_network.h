// ImageNetwork: encoded pictures become an image network's vectors.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/engine/backend.h"
#include "isoline/image/preprocessor.h"

namespace isoline {

// How the picture tensor and the vector lie in a network, once the specification has been found to fit it.
struct ImageNetworkPorts {
  size_t output = 0;       // index into TensorModelInfo::outputs
  int64_t dimensions = 0;  // values per picture
  bool batched = false;    // else the network takes one picture a run, with or without a leading axis of 1
  bool leading_one = false;
  std::vector<int64_t> output_shape;  // of one picture
};
// kUnsupported or kInvalidArgument, saying what the file has and what the specification wants: one input of
// the stated name, type and shape; an output of the stated name with float32 elements and a fixed shape.
Result<ImageNetworkPorts> match_ports(const ImageModelSpec& spec, const TensorModelInfo& info);

// What the specification asks to be done to vectors: [n, dimensions]. L2: divided by their length (a vector
// of zeros stays); softmax: over each vector. kCorrupt if a value is not finite.
Status finish_vectors(const ImageModelSpec& spec, int64_t dimensions, std::span<float> vectors);

// A network opened on a backend. Thread-safe; sessions are not.
class ImageNetwork {
 public:
  static Result<ImageNetwork> open(const ImageModelSpec& spec, const Backend& backend,
                                   const TensorModelOptions& options, const DecodeLimits& limits = {});

  const ImageModelSpec& spec() const { return spec_; }
  const ImagePreprocessor& preprocessor() const { return preprocessor_; }
  const TensorModel& model() const { return *model_; }
  int64_t dimensions() const { return ports_.dimensions; }
  // Most pictures a run takes, at least 1.
  int64_t max_batch() const { return ports_.batched ? model_->info().max_batch : 1; }

  // One run at a time.
  class Session {
   public:
    // input: `pictures` times preprocessor().bytes_per_image(); vectors: [pictures, dimensions], finished.
    Status run(std::span<const std::byte> input, int64_t pictures, std::span<float> vectors);

   private:
    friend class ImageNetwork;
    Session(const ImageNetwork& network, std::unique_ptr<TensorSession> session)
        : network_(&network), session_(std::move(session)) {}
    const ImageNetwork* network_;
    std::unique_ptr<TensorSession> session_;
    std::vector<OwnedTensor> outputs_;
  };
  // The network must stay where it is while sessions live.
  Result<Session> create_session() const;

 private:
  ImageNetwork(ImageModelSpec spec, const DecodeLimits& limits, std::unique_ptr<TensorModel> model,
               ImageNetworkPorts ports)
      : spec_(std::move(spec)),
        preprocessor_(spec_.preprocess, limits),
        model_(std::move(model)),
        ports_(std::move(ports)) {}
  ImageModelSpec spec_;
  ImagePreprocessor preprocessor_;
  std::unique_ptr<TensorModel> model_;
  ImageNetworkPorts ports_;
};

}  // namespace isoline
