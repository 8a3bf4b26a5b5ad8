// Which kernel, in which tiling, a convolution runs on.
#pragma once

namespace isoline::cuda {

enum class ConvKernelKind { kRule, kFp32, kMma, kWgmma, kChannels, kMarch };

// kRule: what the fixed rule says. Numbers that do not count for a kind are 0.
struct ConvChoice {
  ConvKernelKind kind = ConvKernelKind::kRule;
  int m_warps = 0, n_warps = 0;  // kMma: of a block: over space, over output channels
  int stages = 0;                // kMma: of shared memory: 2 copies while it multiplies
  int splits = 0;                // kMma: parts that the input channels go to different blocks in
  int producers = 0;             // kWgmma: warpgroups that fetch inputs, 1 or 2; 0: as the rule says
  bool operator==(const ConvChoice&) const = default;
};

}  // namespace isoline::cuda
