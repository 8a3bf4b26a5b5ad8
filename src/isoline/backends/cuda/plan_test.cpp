// The planner needs no GPU: what it fuses, where values lie, and that no live buffer is overwritten.
#include "isoline/backends/cuda/plan.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "isoline/backends/cuda/test_graphs.h"

namespace isoline::cuda {
namespace {

std::vector<StepKind> kinds(const Plan& plan) {
  std::vector<StepKind> k;
  for (const Step& s : plan.steps) k.push_back(s.kind);
  return k;
}
int64_t count(const Plan& plan, StepKind kind) {
  const auto k = kinds(plan);
  return std::count(k.begin(), k.end(), kind);
}
Plan plan_of(const NetworkGraph& graph, Shape3 patch, bool fold = true) {
  EXPECT_TRUE(validate(graph).ok());
  PlanOptions o;
  o.patch = patch;
  o.fold_into_convolutions = fold;
  auto plan = make_plan(graph, o);
  EXPECT_TRUE(plan.ok());
  return std::move(plan).value();
}

// Every value that a step reads was the last one written to its bytes, channel by channel.
void check_memory(const Plan& plan) {
  for (size_t a = 0; a < plan.buffers.size(); ++a)
    for (size_t b = a + 1; b < plan.buffers.size(); ++b) {
      const PlanBuffer &p = plan.buffers[a], &q = plan.buffers[b];
      if (p.first_step < 0 || q.first_step < 0) continue;
      const bool together = p.first_step <= q.last_step && q.first_step <= p.last_step;
      const bool overlap = p.offset < q.offset + q.bytes && q.offset < p.offset + p.bytes;
      EXPECT_FALSE(together && overlap) << "buffers " << a << " and " << b;
    }
  for (const PlanBuffer& b : plan.buffers) {
    EXPECT_LE(b.offset + b.bytes, plan.arena_bytes);
    EXPECT_EQ(b.offset % 256, 0);
  }
  // Channels of a buffer that have been written before a step reads them.
  std::vector<std::vector<bool>> written(plan.buffers.size());
  for (size_t b = 0; b < written.size(); ++b) written[b].resize(size_t(plan.buffers[b].pitch), false);
  std::vector<bool> norm_ready(plan.norms.size(), false);
  for (size_t n = 0; n < plan.norms.size(); ++n) norm_ready[n] = plan.norms[n].op < 0;
  for (const Step& s : plan.steps) {
    for (const Source* in : {&s.in, &s.other}) {
      if (in->slice.buffer < 0) continue;
      for (int c = 0; c < in->slice.channels; ++c)
        EXPECT_TRUE(written[size_t(in->slice.buffer)][size_t(in->slice.channel + c)])
            << s.name << " channel " << c;
      if (in->norm >= 0) {
        EXPECT_TRUE(norm_ready[size_t(in->norm)]) << s.name;
      }
    }
    if (s.kind == StepKind::kFinish) norm_ready[size_t(s.norm)] = true;
    if (s.out.buffer >= 0)
      for (int c = 0; c < s.out.channels; ++c)
        written[size_t(s.out.buffer)][size_t(s.out.channel + c)] = true;
  }
}

TEST(CudaPlan, ABlockIsAConvolutionWithStatisticsThatTheNextOneApplies) {
  test::Graph g(3, 1);
  g.head(g.block(g.block(0, 16), 16), 3);
  const Plan plan = plan_of(g.graph, {8, 8, 8});
  EXPECT_EQ(kinds(plan), (std::vector{StepKind::kInput, StepKind::kConv, StepKind::kFinish, StepKind::kConv,
                                      StepKind::kFinish, StepKind::kHead}));
  EXPECT_TRUE(plan.steps[1].statistics);
  EXPECT_FALSE(plan.steps[1].bias) << "it cancels in the normalisation";
  EXPECT_EQ(plan.steps[3].in.norm, plan.steps[2].norm);
  EXPECT_EQ(plan.steps[3].in.slope, 0.01f);
  EXPECT_EQ(plan.steps[5].in.norm, plan.steps[4].norm);
  check_memory(plan);
}

TEST(CudaPlan, WithoutFoldingABlockIsNormalisedInPlace) {
  test::Graph g(3, 1);
  g.head(g.block(g.block(0, 16), 16), 3);
  const Plan plan = plan_of(g.graph, {8, 8, 8}, false);
  EXPECT_EQ(count(plan, StepKind::kCombine), 1) << "the head applies the second";
  EXPECT_TRUE(plan.steps[3].kind == StepKind::kCombine && plan.steps[3].in.slice == plan.steps[3].out);
  EXPECT_EQ(plan.steps[4].in.norm, -1);
  check_memory(plan);
}

TEST(CudaPlan, AConcatenationIsNeverCopied) {
  test::Graph g(3, 2);
  const Plan plan = plan_of(test::unet(g, {5, 13, 27}), {8, 8, 8});
  EXPECT_EQ(count(plan, StepKind::kTranspose), 2);
  EXPECT_EQ(count(plan, StepKind::kCombine), 0) << "skips are normalised by whoever reads them";
  int joint = 0;
  for (const Step& s : plan.steps) {
    if (s.in.slice.buffer < 0 || s.in.slice.channels != plan.buffers[size_t(s.in.slice.buffer)].pitch)
      continue;
    if (!s.in.first) continue;
    ++joint;
    EXPECT_EQ(s.kind, StepKind::kConv);
    EXPECT_EQ(2 * s.in.first, s.in.slice.channels) << "behind the transposed convolution's";
    ASSERT_GE(s.in.norm, 0);
    EXPECT_EQ(plan.norms[size_t(s.in.norm)].channels, s.in.first);
    EXPECT_EQ(s.in.slope, 0.01f);
  }
  EXPECT_EQ(joint, 2);
  // 13 + 13 channels lie at 0..12 and 16..28 of 32.
  for (const Step& s : plan.steps)
    if (s.kind == StepKind::kConv && s.in.slice.channels == 32 && s.in_positions.size() == 26) {
      EXPECT_EQ(s.in_positions[12], 12);
      EXPECT_EQ(s.in_positions[13], 16);
    }
  check_memory(plan);
}

TEST(CudaPlan, WithoutFoldingASkipIsNormalisedInItsSlice) {
  test::Graph g(3, 2);
  const Plan plan = plan_of(test::unet(g, {5, 13, 27}), {8, 8, 8}, false);
  int skips = 0;
  for (const Step& s : plan.steps) {
    EXPECT_EQ(s.in.first, 0);
    if (s.kind != StepKind::kCombine || plan.buffers[size_t(s.out.buffer)].pitch == s.out.channels) continue;
    ++skips;
    EXPECT_EQ(s.in.slice, s.out) << "in place";
    EXPECT_EQ(s.out.channel, s.out.channels) << "behind the transposed convolution's";
  }
  EXPECT_EQ(skips, 2);
  check_memory(plan);
}

// Only convolutions read a slice of which a part is not normalised yet.
TEST(CudaPlan, AConcatenationThatOthersReadIsNormalisedFirst) {
  for (const int reader : {0, 1, 2, 3}) {
    test::Graph g(3, 8);
    const ValueId a = g.conv(0, 8, {3, 3, 3}), b = g.block(0, 8), ab = g.concat(a, b);
    if (reader == 0) g.head(ab, 2);
    if (reader == 1) g.head(g.norm(ab), 2);
    if (reader == 2) g.head(g.block(g.concat(ab, ab), 8), 2);
    if (reader == 3)
      g.head(g.sum(g.conv(ab, 8, {3, 3, 3}), g.norm(b)), 2);  // it may wait, and b has a reader
    const Plan plan = plan_of(g.graph, {4, 4, 4});
    for (const Step& s : plan.steps) EXPECT_EQ(s.in.first > 0, reader == 3 && s.in.slice.channels == 16);
    int joint = -1;  // the buffer whose second half is not normalised in memory
    for (const Step& s : plan.steps) {
      if (s.in.first > 0) joint = s.in.slice.buffer;
    }
    EXPECT_EQ(joint >= 0, reader == 3);
    for (const Step& s : plan.steps) {
      if (s.kind == StepKind::kCombine) {
        EXPECT_NE(s.out.buffer, joint) << s.name;
      }
    }
    check_memory(plan);
  }
}

TEST(CudaPlan, AResidualSumAppliesBothSidesAndItsActivation) {
  test::Graph g(3, 1);
  const ValueId a = g.block(0, 8);
  const ValueId sum = g.sum(g.norm(g.conv(a, 8, {3, 3, 3})), a);
  g.head(g.relu(sum, 0.01f), 2);
  const Plan plan = plan_of(g.graph, {8, 8, 8});
  EXPECT_EQ(count(plan, StepKind::kCombine), 1);
  for (const Step& s : plan.steps)
    if (s.kind == StepKind::kCombine) {
      EXPECT_GE(s.in.norm, 0);
      EXPECT_EQ(s.in.slope, 1);
      EXPECT_GE(s.other.norm, 0);
      EXPECT_EQ(s.other.slope, 0.01f);
      EXPECT_EQ(s.slope, 0.01f);
    }
  check_memory(plan);
}

TEST(CudaPlan, OddGraphsStillReadWhatWasWritten) {
  for (const bool fold : {true, false}) {
    test::Graph nested(3, 8);  // joined twice, with itself, and nested; the parts are read elsewhere too
    const ValueId a = nested.block(0, 8), b = nested.relu(nested.conv(0, 8, {1, 1, 1}), 0.2f);
    const ValueId ab = nested.concat(a, b), aa = nested.concat(a, a);
    const ValueId all = nested.concat(nested.norm(ab), nested.concat(aa, ab));
    nested.head(nested.relu(nested.norm(nested.relu(all, -0.5f)), -0.1f), 2);
    check_memory(plan_of(nested.graph, {4, 4, 4}, fold));

    test::Graph out(2, 3);  // the output is no 1x1x1 convolution
    out.block(0, 5);
    const Plan plan = plan_of(out.finish(out.last()), {1, 8, 8}, fold);
    EXPECT_EQ(plan.steps.back().kind, StepKind::kOutput);
    check_memory(plan);
  }
}

TEST(CudaPlan, BuffersOfDeadValuesAreUsedAgain) {
  test::Graph g(3, 1);
  ValueId v = 0;
  for (int i = 0; i < 10; ++i) v = g.block(v, 32);
  g.head(v, 2);
  const Plan plan = plan_of(g.graph, {16, 16, 16});
  EXPECT_LE(plan.arena_bytes, 2 * 4096 * 32 * 2 + 4096 * 8 * 2);
  check_memory(plan);
}

TEST(CudaPlan, TheLeastThatStepsMustMove) {
  test::Graph g(3, 1);
  const ValueId main = g.block(g.up(g.block(0, 12, {2, 2, 2}), 8, {2, 2, 2}), 8);
  g.head(g.sum(main, g.conv(0, 8, {3, 3, 3})), 3);
  PlanOptions o;
  o.patch = {4, 8, 16};
  o.batch = 2;
  const auto plan = make_plan(g.graph, o);
  ASSERT_TRUE(plan.ok());
  const int64_t full = 512 * 2 * 2,
                half = 64 * 2 * 2;  // one channel's bytes: voxels, samples, 2 bytes a value
  std::vector<std::pair<StepKind, int64_t>> got;
  for (const Step& s : plan->steps) got.emplace_back(s.kind, least_bytes(s, g.graph, o, false));
  const std::vector<std::pair<StepKind, int64_t>> want = {
      {StepKind::kInput, 2 * full + 8 * full},  // float32 in, padded to 8 channels
      {StepKind::kConv, 8 * full + 16 * half + 12 * 27 * 2},
      {StepKind::kFinish, 2 * 12 * 16},
      {StepKind::kTranspose, 16 * half + 8 * full + 12 * 8 * 8 * 2},
      {StepKind::kConv, 8 * full + 8 * full + 8 * 8 * 27 * 2},
      {StepKind::kFinish, 2 * 8 * 16},
      {StepKind::kConv, 8 * full + 8 * full + 8 * 27 * 2},
      {StepKind::kCombine, 3 * 8 * full},
      {StepKind::kHead, 8 * full + 3 * 8 * 4 + 3 * 2 * full}};
  EXPECT_EQ(got, want);
  EXPECT_EQ(least_bytes(plan->steps[1], g.graph, o, true), 2 * full + 16 * half + 12 * 27 * 2);
}

TEST(CudaPlan, SumsOfDifferentlyJoinedChannelsAreRefused) {
  test::Graph g(3, 5);
  const ValueId a = g.concat(g.conv(0, 3, {1, 1, 1}), g.conv(0, 5, {1, 1, 1})), b = g.conv(0, 8, {1, 1, 1});
  g.head(g.sum(a, b), 2);
  PlanOptions o;
  o.patch = {4, 4, 4};
  const auto plan = make_plan(g.graph, o);
  ASSERT_FALSE(plan.ok());
  EXPECT_EQ(plan.error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace isoline::cuda
