#include <gtest/gtest.h>

#include <random>

#include "isoline/tile/accumulator.h"
#include "isoline/tile/gaussian.h"
#include "isoline/tile/tile_plan.h"

namespace isoline {
namespace {

TEST(TilePlan, FollowsComputeStepsForSlidingWindow) {
  const auto p = plan_tiles({110, 64, 20}, {64, 64, 32}, 0.5);
  ASSERT_TRUE(p.ok());
  EXPECT_EQ(p->steps[0], (std::vector<int64_t>{0, 23, 46}));  // the reference's own example
  EXPECT_EQ(p->steps[1], (std::vector<int64_t>{0}));
  EXPECT_EQ(p->padded[2], 32);
  EXPECT_EQ(p->pad_below[2], 6);
  EXPECT_EQ(p->tiles(), 3);
  EXPECT_FALSE(plan_tiles({1, 1, 1}, {1, 1, 1}, 0).ok());
  EXPECT_FALSE(plan_tiles({1, 1, 1}, {1, 1, 1}, NAN).ok());
}

TEST(TilePlan, TwoDimensionalPatchesVisitEverySlice) {
  const auto p = plan_tiles({5, 40, 40}, {32, 32}, 1.0);
  ASSERT_TRUE(p.ok());
  EXPECT_EQ(p->tiles(), 5 * 2 * 2);
  EXPECT_EQ(p->origin(5), (Index3{1, 0, 8}));
}

TEST(MirrorSets, AreInCombinationsOrder) {
  const auto s = mirror_sets({0, 1, 2}, 3);
  ASSERT_EQ(s.size(), 8u);
  EXPECT_EQ(s[3], (Vec3<bool>{false, false, true}));
  EXPECT_EQ(s[5], (Vec3<bool>{true, false, true}));
  EXPECT_EQ(mirror_sets({0, 1}, 2)[1], (Vec3<bool>{false, true, false}));
}

TEST(Gaussian, PeaksAtTenAndHasNoZeros) {
  const Buffer<half_t> g = gaussian_weights({16, 16, 16}, 3);
  EXPECT_EQ(half_to_float(g[8 * 256 + 8 * 16 + 8]), 10.0f);
  for (half_t h : g) EXPECT_GT(half_to_float(h), 0.0f);
}

TEST(ExtractTile, MirroringIsAnInvolutionAndPadsWithZeros) {
  const auto p = plan_tiles({3, 4, 5}, {4, 4, 8}, 0.5);
  std::vector<float> data(60);
  for (size_t i = 0; i < data.size(); ++i) data[i] = float(i + 1);
  std::vector<float> a(128), b(128);
  extract_tile(*p, data.data(), 1, {0, 0, 0}, {false, false, false}, a.data());
  extract_tile(*p, data.data(), 1, {0, 0, 0}, {true, true, true}, b.data());
  for (size_t i = 0; i < 128; ++i) EXPECT_EQ(a[i], b[127 - i]);
  EXPECT_EQ(a[0], 0.0f);  // pad_below x = 1
  EXPECT_EQ(a[1], 1.0f);
}

// The whole-volume twin: two full binary16 volumes, as the reference keeps them.
TEST(Accumulator, EqualsWholeVolumeTwinAtPrimeSizes) {
  std::mt19937 rng(7);
  std::normal_distribution<float> d(0, 5);
  for (const auto& [shape, patch] : std::vector<std::pair<Shape3, std::vector<int>>>{
           {{37, 29, 23}, {16, 16, 8}}, {{7, 41, 5}, {16, 16, 16}}, {{5, 31, 37}, {16, 24}}}) {
    const auto plan = plan_tiles(shape, patch, 0.5);
    ASSERT_TRUE(plan.ok());
    const int64_t heads = 3;
    const Shape3 p = plan->patch, full = plan->padded;
    const Buffer<half_t> g = gaussian_weights(p, plan->spatial_dims);
    std::vector<half_t> sum(size_t(heads * voxels(full)), 0), n(size_t(voxels(full)), 0);
    ThreadPool pool(3);
    Accumulator acc(*plan, heads, pool);
    std::vector<half_t> got(size_t(heads * voxels(shape)), 0x7e00);
    int64_t expected_z = 0;
    const LogitSink sink = [&](const LogitSlab& s) -> Status {
      EXPECT_EQ(s.z_begin, expected_z);
      expected_z = s.z_end;
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t z = s.z_begin; z < s.z_end; ++z)
          for (int64_t y = 0; y < shape[1]; ++y)
            for (int64_t x = 0; x < shape[2]; ++x)
              got[size_t(((h * shape[0] + z) * shape[1] + y) * shape[2] + x)] =
                  s.data[h * s.head_stride + (z - s.z_begin) * s.plane_stride + y * s.row_stride + x];
      return {};
    };
    std::vector<float> pred(size_t(heads * voxels(p)));
    for (int64_t t = 0; t < plan->tiles(); ++t) {
      for (float& v : pred) v = d(rng);
      const Index3 o = plan->origin(t);
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t z = 0; z < p[0]; ++z)
          for (int64_t y = 0; y < p[1]; ++y)
            for (int64_t x = 0; x < p[2]; ++x) {
              const auto v = size_t(((z + o[0]) * full[1] + y + o[1]) * full[2] + x + o[2]);
              const auto i = size_t((z * p[1] + y) * p[2] + x);
              half_t& s = sum[size_t(h * voxels(full)) + v];
              s = float_to_half(half_to_float(s) + pred[size_t(h * voxels(p)) + i] * half_to_float(g[i]));
              if (h == 0) n[v] = float_to_half(half_to_float(n[v]) + half_to_float(g[i]));
            }
      ASSERT_TRUE(acc.add(t, pred.data(), sink).ok());
    }
    EXPECT_EQ(expected_z, shape[0]);
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t z = 0; z < shape[0]; ++z)
        for (int64_t y = 0; y < shape[1]; ++y)
          for (int64_t x = 0; x < shape[2]; ++x) {
            const auto v = size_t(((z + plan->pad_below[0]) * full[1] + y + plan->pad_below[1]) * full[2] +
                                  x + plan->pad_below[2]);
            const half_t want =
                float_to_half(half_to_float(sum[size_t(h * voxels(full)) + v]) / half_to_float(n[v]));
            ASSERT_EQ(got[size_t(((h * shape[0] + z) * shape[1] + y) * shape[2] + x)], want);
          }
  }
}

TEST(Accumulator, InfinityIsAnError) {
  const auto plan = plan_tiles({4, 4, 4}, {4, 4, 4}, 0.5);
  ThreadPool pool(1);
  Accumulator acc(*plan, 1, pool);
  std::vector<float> pred(64, 1e9f);
  const Status s = acc.add(0, pred.data(), [](const LogitSlab&) -> Status { return {}; });
  ASSERT_FALSE(s.ok());
  EXPECT_EQ(s.error().context, "logits");
}

}  // namespace
}  // namespace isoline
