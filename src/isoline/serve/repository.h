// Repository: the models in one folder, which of their versions are ready, loaded and unloaded while others
// serve.
//
//   ROOT/<model>/config.pbtxt      optional where the model says it all itself
//   ROOT/<model>/<version>/...     versions 1, 2, ...; without any such folder the model's own is version 1
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <vector>

#include "isoline/serve/served_model.h"

namespace isoline::serve {

// Where a version of a model lies.
struct ModelSource {
  std::string name;
  int64_t version = 1;
  std::string folder;          // of the model
  std::string version_folder;  // of the version; the same where there are no versions
  bool configured = false;     // a configuration was written, in a file or in the request
};
// Turns files into a model, to be served as `config` says; what that leaves open may be filled in. An error
// names what is missing. The platform "isoline_identity" needs no factory.
using ModelFactory =
    std::function<Result<std::unique_ptr<TensorModel>>(const ModelSource&, ModelConfig& config)>;

struct ModelState {
  std::string name, version, state, reason;  // READY, UNAVAILABLE, LOADING, UNLOADING; version may be empty
};

struct RepositoryOptions {
  std::string root;
  ModelFactory open_model;
  SchedulerOptions scheduler;
  // Models of the folder that take no tensors: listed as they say, never opened here. Whoever asks for an
  // inference is told `elsewhere_remedy`.
  std::vector<ModelState> elsewhere;
  std::string elsewhere_remedy;
};

// Threads: all calls from any; one load or unload at a time.
class Repository {
 public:
  explicit Repository(RepositoryOptions options);
  ~Repository();  // drain()

  // Every model of the folder; the ones that fail stay UNAVAILABLE with the reason. Their errors are
  // returned.
  std::vector<Error> load_all();
  // (Re)loads a model: versions are made and warmed up first, then take over from those that served. A failed
  // reload leaves the old ones serving. `config` replaces config.pbtxt.
  Status load(const std::string& name, const std::optional<std::string>& config = std::nullopt);
  // Waits until what was accepted is answered, then frees the model.
  Status unload(const std::string& name);
  // An empty version means the highest. kNotFound, or kResourceExhausted while not ready; kInvalidArgument
  // for models that are served elsewhere.
  Result<std::shared_ptr<ServedModel>> find(const std::string& name, const std::string& version) const;
  bool ready(const std::string& name, const std::string& version) const;
  // All that the folder holds or held; `only_ready` leaves out the rest.
  std::vector<ModelState> index(bool only_ready) const;
  std::vector<std::shared_ptr<ServedModel>> served() const;
  // Nothing more is taken by any model; returns when all is answered.
  void drain();

 private:
  using Versions = std::map<int64_t, std::shared_ptr<ServedModel>>;
  struct Entry {
    Versions versions;
    std::string state, reason;
  };
  Result<Versions> open(const std::string& name, const std::optional<std::string>& config) const;
  const ModelState* find_elsewhere(std::string_view name) const;
  Status refuse_elsewhere(const std::string& name) const;

  const RepositoryOptions options_;
  mutable std::shared_mutex mutex_;
  std::map<std::string, Entry, std::less<>> entries_;
  std::mutex changing_;  // held while a model is loaded or unloaded
  bool drained_ = false;
};

// Letters, digits and _ . - only, not starting with a dot, at most 128: no name leaves the repository's
// folder.
Status check_model_name(const std::string& name);

}  // namespace isoline::serve
