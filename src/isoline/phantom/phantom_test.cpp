#include "isoline/phantom/phantom.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <vector>

namespace isoline {
namespace {

constexpr PhantomSpec kSmall{7, {40, 90, 110}, {6, 3.6, 3.2}};

Phantom make(const PhantomSpec& spec, int threads = 2) {
  ThreadPool pool(threads);
  auto p = make_phantom(spec, pool);
  EXPECT_TRUE(p.ok());
  return std::move(p).value();
}

uint64_t fnv1a(const Phantom& p) {
  uint64_t h = 0xcbf29ce484222325ull;
  auto add = [&](uint16_t v) { h = (((h ^ (v & 0xff)) * 0x100000001b3ull) ^ (v >> 8)) * 0x100000001b3ull; };
  for (int16_t v : p.ct_hu.data) add(uint16_t(v));
  for (uint16_t v : p.labels.data) add(v);
  return h;
}

std::array<int64_t, 4> label_counts(const Phantom& p) {
  std::array<int64_t, 4> n{};
  for (uint16_t v : p.labels.data) ++n.at(v);
  return n;
}

// Any change of this hash changes every published figure measured on phantoms: retrain and remeasure then.
TEST(Phantom, HasTheSameBitsOnEveryMachine) {
  EXPECT_EQ(fnv1a(make(kSmall)), 6882526957258676897ull);
}

TEST(Phantom, DoesNotDependOnTheNumberOfThreads) {
  const uint64_t one = fnv1a(make(kSmall, 1));
  EXPECT_EQ(one, fnv1a(make(kSmall, 3)));
  EXPECT_EQ(one, fnv1a(make(kSmall, 8)));
}

TEST(Phantom, SeedsGiveDifferentPatients) {
  PhantomSpec other = kSmall;
  other.seed = 8;
  const Phantom a = make(kSmall), b = make(other);
  size_t differing = 0;
  for (size_t i = 0; i < a.labels.data.size(); ++i) differing += a.labels.data[i] != b.labels.data[i];
  EXPECT_GT(differing, 1000u);
}

TEST(Phantom, AnatomyIsTheSameAtAnotherSpacing) {
  PhantomSpec fine = kSmall;
  fine.shape = {80, 180, 220};
  for (double& s : fine.spacing_mm) s /= 2;
  const auto coarse_counts = label_counts(make(kSmall)), fine_counts = label_counts(make(fine));
  for (size_t label = 1; label < 4; ++label) {
    if (coarse_counts[label] < 200) continue;
    EXPECT_NEAR(double(fine_counts[label]) / 8, double(coarse_counts[label]),
                0.06 * double(coarse_counts[label]));
  }
}

TEST(Phantom, KidneysMassesAndIntensitiesArePlausible) {
  int with_tumour = 0, with_cyst = 0;
  for (uint64_t seed = 100; seed < 112; ++seed) {
    PhantomSpec spec = kSmall;
    spec.seed = seed;
    const Phantom p = make(spec);
    const double voxel_ml = 6 * 3.6 * 3.2 / 1000;
    const auto n = label_counts(p);
    EXPECT_GT(double(n[1]) * voxel_ml, 120) << seed;  // two kidneys, less what masses replace
    EXPECT_LT(double(n[1]) * voxel_ml, 450) << seed;
    with_tumour += n[2] > 0;
    with_cyst += n[3] > 0;
    double kidney_hu = 0, left = 0, right = 0;
    for (int64_t z = 0, i = 0; z < spec.shape[0]; ++z)
      for (int64_t y = 0; y < spec.shape[1]; ++y)
        for (int64_t x = 0; x < spec.shape[2]; ++x, ++i) {
          if (p.labels.data[size_t(i)] != kPhantomKidney) continue;
          kidney_hu += double(p.ct_hu.data[size_t(i)]);
          (x < spec.shape[2] / 2 ? right : left) += 1;
        }
    EXPECT_GT(kidney_hu / double(n[1]), 80) << seed;
    EXPECT_LT(kidney_hu / double(n[1]), 230) << seed;
    EXPECT_GT(std::min(left, right) / double(n[1]), 0.2) << seed;
    EXPECT_LT(p.ct_hu.at(20, 0, 0), -900) << seed;    // air beside the patient
    EXPECT_GT(p.ct_hu.at(20, 45, 55), -300) << seed;  // not air in the middle of the body
  }
  EXPECT_GE(with_tumour, 9);
  EXPECT_GE(with_cyst, 4);
}

TEST(Phantom, TinyAndCroppedVolumesWork) {
  EXPECT_EQ(make({3, {1, 1, 1}, {20, 20, 20}}).ct_hu.data.size(), 1u);
  EXPECT_EQ(make({3, {1, 7, 300}, {0.2, 0.2, 0.2}}).labels.data.size(), 2100u);
}

TEST(Phantom, GeometryPutsTheCentreAtTheOrigin) {
  const Phantom p = make(kSmall);
  const Geometry& g = p.ct_hu.geometry;
  EXPECT_EQ(g.spacing_mm, kSmall.spacing_mm);
  EXPECT_DOUBLE_EQ(g.origin_mm[0], -0.5 * 109 * 3.2);
  EXPECT_DOUBLE_EQ(g.origin_mm[2], -0.5 * 39 * 6);
  EXPECT_EQ(p.labels.geometry.origin_mm, g.origin_mm);
}

TEST(Phantom, RefusesImpossibleSpecs) {
  ThreadPool pool(1);
  auto code = [&](Shape3 shape, Vec3<double> spacing) {
    const auto p = make_phantom({1, shape, spacing}, pool);
    return p.ok() ? ErrorCode::kInternal : p.error().code;
  };
  EXPECT_EQ(code({0, 4, 4}, {1, 1, 1}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code({4, 4, 5000}, {1, 1, 0.2}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code({4, 4, 4}, {1, 0, 1}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code({4, 4, 4}, {1, std::numeric_limits<double>::quiet_NaN(), 1}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code({200, 4, 4}, {10, 1, 1}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code({4000, 4000, 4000}, {0.2, 0.2, 0.2}), ErrorCode::kResourceExhausted);
}

}  // namespace
}  // namespace isoline
