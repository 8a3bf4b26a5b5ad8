#include "isoline/resample/resample_volume.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "isoline/resample/anisotropy.h"

namespace isoline {
namespace {

// The obviously correct twin: the whole tensor-product operator in double, one axis at a time.
std::vector<double> naive_axis(const std::vector<double>& v, Shape3 s, int axis, int64_t n_out, int order) {
  const AxisOperator op = make_axis_operator(s[size_t(axis)], n_out, order, GridRule::kZoom);
  Shape3 t = s;
  t[size_t(axis)] = n_out;
  std::vector<double> out(size_t(voxels(t)));
  int64_t inner = 1, outer = 1;
  for (int a = axis + 1; a < 3; ++a) inner *= s[size_t(a)];
  for (int a = 0; a < axis; ++a) outer *= s[size_t(a)];
  const int64_t n = s[size_t(axis)], m = n + 2 * op.pad;
  for (int64_t o = 0; o < outer; ++o)
    for (int64_t i = 0; i < inner; ++i) {
      std::vector<double> c(size_t(m), 0);
      for (int64_t k = 0; k < m; ++k)
        c[size_t(k)] = v[size_t((o * n + std::clamp<int64_t>(k - op.pad, 0, n - 1)) * inner + i)];
      if (op.prefilter) {  // solve the symmetric tridiagonal (1/6, 4/6, 1/6) system with half-sample symmetry
        std::vector<double> diag(size_t(m), 4.0 / 6), up(size_t(m), 1.0 / 6);
        diag[0] += 1.0 / 6, diag[size_t(m - 1)] += 1.0 / 6;
        for (size_t k = 1; k < size_t(m); ++k) {
          const double f = (1.0 / 6) / diag[k - 1];
          diag[k] -= f * up[k - 1];
          c[k] -= f * c[k - 1];
        }
        c[size_t(m - 1)] /= diag[size_t(m - 1)];
        for (int64_t k = m - 2; k >= 0; --k)
          c[size_t(k)] = (c[size_t(k)] - c[size_t(k + 1)] / 6) / diag[size_t(k)];
      }
      for (int64_t k = 0; k < n_out; ++k) {
        double sum = 0;
        for (int t2 = 0; t2 < op.taps; ++t2)
          sum += op.weight[size_t(k * op.taps + t2)] * c[size_t(op.first[size_t(k)] + t2)];
        out[size_t((o * n_out + k) * inner + i)] = sum;
      }
    }
  return out;
}

std::vector<float> random_volume(Shape3 s, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> d(0, 2);
  std::vector<float> v(size_t(voxels(s)));
  for (float& x : v) x = d(rng);
  return v;
}

std::vector<float> run(const std::vector<float>& v, const ResampleRequest& rq, int threads) {
  ThreadPool pool(threads);
  std::vector<float> out(size_t(voxels(rq.out)), NAN);
  resample_rows([&](int64_t z, int64_t y,
                    float* row) { std::copy_n(v.data() + (z * rq.in[1] + y) * rq.in[2], rq.in[2], row); },
                rq, out.data(), pool);
  return out;
}

TEST(ResampleVolume, EqualsTensorProductInDoubleAtPrimeSizes) {
  const Shape3 in{7, 19, 23};
  const std::vector<float> v = random_volume(in, 1);
  const auto [lo, hi] = std::minmax_element(v.begin(), v.end());
  for (const Shape3 out :
       {Shape3{11, 31, 17}, Shape3{7, 31, 17}, Shape3{5, 19, 17}, Shape3{13, 5, 23}, Shape3{1, 1, 1}})
    for (int order : {0, 1, 3}) {
      std::vector<double> want(v.begin(), v.end());
      Shape3 s = in;
      for (int axis : {2, 1, 0}) {
        if (s[size_t(axis)] != out[size_t(axis)]) want = naive_axis(want, s, axis, out[size_t(axis)], order);
        s[size_t(axis)] = out[size_t(axis)];
      }
      const std::vector<float> got = run(v, {in, out, order, false, GridRule::kZoom}, 3);
      double worst = 0;
      for (size_t i = 0; i < got.size(); ++i)
        worst = std::max(worst, std::abs(double(got[i]) - std::clamp<double>(want[i], *lo, *hi)));
      EXPECT_LT(worst, 4e-6) << "order " << order << " to " << to_string(out);
    }
}

TEST(ResampleVolume, SeparateZClipsPerSliceAndCopiesNearestSlices) {
  const Shape3 in{3, 8, 9}, out{7, 15, 14};
  const std::vector<float> v = random_volume(in, 2);
  const std::vector<float> got = run(v, {in, out, 3, true, GridRule::kZoom}, 2);
  const AxisOperator z = make_axis_operator(3, 7, 0, GridRule::kZoom);
  for (int64_t k = 0; k < 7; ++k) {
    const float* slice = v.data() + z.first[size_t(k)] * 72;
    const auto [lo, hi] = std::minmax_element(slice, slice + 72);
    const auto [a, b] = std::minmax_element(got.data() + k * 210, got.data() + (k + 1) * 210);
    EXPECT_GE(*a, *lo);
    EXPECT_LE(*b, *hi);
  }
}

TEST(ResampleVolume, ThreadsDoNotChangeTheResult) {
  const Shape3 in{9, 33, 70}, out{14, 41, 99};
  const std::vector<float> v = random_volume(in, 3);
  EXPECT_EQ(run(v, {in, out, 3, false, GridRule::kZoom}, 1), run(v, {in, out, 3, false, GridRule::kZoom}, 4));
}

TEST(Anisotropy, FollowsDetermineDoSepZAndAxis) {
  EXPECT_EQ(separate_axis({}, {5, 1, 1}, {1, 1, 1}), 0);
  EXPECT_EQ(separate_axis({}, {1, 1, 1}, {1, 1, 5}), 2);
  EXPECT_EQ(separate_axis({}, {3, 1, 1}, {3, 1, 1}), std::nullopt);  // strictly greater than 3
  EXPECT_EQ(separate_axis({}, {0.24, 1.25, 1.25}, {1, 1, 1}), std::nullopt);
  EXPECT_EQ(separate_axis(true, {2, 1, 1}, {1, 1, 1}), 0);
  EXPECT_EQ(separate_axis(true, {1, 1, 1}, {1, 1, 1}), std::nullopt);
  EXPECT_EQ(separate_axis(false, {9, 1, 1}, {1, 1, 1}), std::nullopt);
}

TEST(Anisotropy, NewShapeRoundsHalfToEven) {
  EXPECT_EQ(compute_new_shape({5, 3, 10}, {1, 1, 1}, {2, 2, 3}), (Shape3{2, 2, 3}));
}

}  // namespace
}  // namespace isoline
