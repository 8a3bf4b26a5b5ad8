// Reads what inference needs from a checkpoint written by nnU-Net (torch.save, zip format).
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/model/weights.h"

namespace isoline {

struct Checkpoint {
  std::string trainer_name;
  std::string configuration;                    // init_args['configuration']
  std::optional<std::vector<int>> mirror_axes;  // inference_allowed_mirroring_axes; unset: absent or None
  Weights weights;                              // network_weights, names without "module." and "_orig_mod."
  std::vector<std::string> warnings;
};

// Maps the file: float tensors that are contiguous and aligned in it are views into the mapping (kept alive
// by weights.storage), the others are copied. Checksums of the storages used are verified; optimiser states
// and logs are neither kept nor read. Errors name the file and, where there is one, the tensor or key.
//   kNotFound / kIo: no such file, unreadable; kCorrupt: damaged, or not an nnU-Net checkpoint;
//   kUnsupported: a class that is not allowed (named), legacy non-zip files, TorchScript, big-endian files,
//   integer weights. Source: nnUNetTrainer.save_checkpoint.
// The file must not be truncated by others while the weights are in use (see MappedFile).
Result<Checkpoint> read_checkpoint(const std::string& path);

// The same from bytes that `owner` keeps alive; `owner` may be empty if the bytes outlive the weights.
// `bytes` should be 64-byte aligned, else every tensor is copied.
Result<Checkpoint> read_checkpoint(std::span<const std::byte> bytes, std::shared_ptr<const void> owner);

}  // namespace isoline
