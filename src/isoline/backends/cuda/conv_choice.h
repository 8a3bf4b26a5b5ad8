// Which kernel, in which tiling, a convolution runs on.
#pragma once

namespace isoline::cuda {

enum class ConvKernelKind { kRule, kFp32, kMma, kWgmma };

// kRule: what the fixed rule says. The numbers count for kMma only.
struct ConvChoice {
  ConvKernelKind kind = ConvKernelKind::kRule;
  int m_warps = 0, n_warps = 0;  // of a block: over space, over output channels
  int stages = 0;                // of shared memory: 2 copies while it multiplies
  int splits = 0;                // parts that the input channels go to different blocks in
  bool operator==(const ConvChoice&) const = default;
};

}  // namespace isoline::cuda
