// Which kernel a convolution runs on, when that is chosen by measurement: the choices, their text, and the
// file that keeps them. Host code without CUDA.
//
// The file is a cache and never trusted: a choice from it counts only if it is among the candidates of its
// layer on this device.
#pragma once

#include <map>
#include <string>

#include "isoline/backends/cuda/conv_choice.h"
#include "isoline/base/result.h"

namespace isoline::cuda {

// "channels", "wgmma p2", "mma 2x2 s2 k1".
std::string to_string(const ConvChoice& choice);
Result<ConvChoice> parse_choice(const std::string& text);

// What times depend on, beside the layer.
struct TuningKey {
  std::string device, driver,
      build;  // build: of this program: version, CUDA runtime, revision of the kernels
  bool operator==(const TuningKey&) const = default;
};

// Layer keys to choices. Not thread-safe.
class TuningCache {
 public:
  // Of this user: $XDG_CACHE_HOME/isoline or ~/.cache/isoline; empty: there is neither.
  static std::string default_folder();
  // Opens the file of `key` in `folder`, which need not exist yet. A file that is damaged or of another key
  // is as good as none and is noted. folder empty: nothing is kept.
  TuningCache(std::string folder, TuningKey key);
  const ConvChoice* find(const std::string& layer) const;
  void put(const std::string& layer, const ConvChoice& choice) { choices_[layer] = choice; }
  // Writes the file anew if it changed, whole or not at all; a failure is noted and no error.
  void save();
  const std::string& note() const { return note_; }
  const std::string& path() const { return path_; }

 private:
  std::string folder_, path_, note_;
  TuningKey key_;
  std::map<std::string, ConvChoice> choices_, saved_;
};

}  // namespace isoline::cuda
