// The steps a session is made of; see session.h. All are built by the compiler (compile.cpp).
#pragma once

#include "isoline/backends/native/session.h"

namespace isoline::native {

// What convolutions have in common after their sums.
struct ConvOutput {
  BufferId buffer = -1;  // blocked; or -1: the session's output, planar float32 (direct convolution only)
  Shape3 shape{0, 0, 0};
  int channels = 0;
  std::vector<float> bias;    // padded to 16, or empty
  std::vector<NormId> norms;  // InstanceNorms of this value: the step gathers their statistics
  int64_t blocks() const { return (channels + kLanes - 1) / kLanes; }
  const float* bias_of(int64_t block) const { return bias.empty() ? nullptr : bias.data() + block * kLanes; }
};

// Estimated cycles (sixteen-lane operations) of one algorithm for one convolution; kind < 0: direct.
double conv_cost(int kind, const ConvOp& op, const Shape3& out, int64_t in_blocks, int64_t out_blocks,
                 bool bf16);
// The best Winograd kind for the convolution, or -1.
int choose_algorithm(const ConvOp& op, const Shape3& out, int64_t in_blocks, int64_t out_blocks, bool bf16);

std::unique_ptr<Step> make_winograd(NativeSession& session, int kind, const ConvOp& op, const View& in,
                                    ConvOutput out);
// narrow_channels > 0: the input is float32 [z][y][x][narrow_channels] in in.blocks[0].
std::unique_ptr<Step> make_direct(NativeSession& session, const ConvOp& op, const View& in,
                                  int narrow_channels, ConvOutput out);
std::unique_ptr<Step> make_transpose(NativeSession& session, const ConvTransposeOp& op, const View& in,
                                     ConvOutput out);
// The session's planar input to float32 [z][y][x][channels] (narrow) or to blocks.
std::unique_ptr<Step> make_pack_input(NativeSession& session, const View& out, int channels, bool narrow);
std::unique_ptr<Step> make_unpack_output(const View& in);
// Statistics of raw blocks for an InstanceNorm.
std::unique_ptr<Step> make_statistics(const View& in, NormId norm);
// out = sum of the inputs (one or two, of any block structure), then max/min-free LeakyReLU of any slope.
std::unique_ptr<Step> make_elementwise(std::vector<View> in, const View& out, float slope);
std::unique_ptr<Step> make_pool(const View& in, const View& out, Vec3<int> stride);

}  // namespace isoline::native
