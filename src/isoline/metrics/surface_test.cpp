#include "isoline/metrics/surface.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>
#include <random>

#include "isoline/metrics/evaluate_case.h"
#include "isoline/metrics/presets.h"
#include "isoline/metrics/surface_distance.h"
#include "isoline/metrics/surfel_area.h"

namespace isoline {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

ThreadPool& pool() {
  static ThreadPool p(3);
  return p;
}

LabelMap box_map(const Shape3& shape, const Box3& box, const Vec3<double>& spacing = {1, 1, 1}) {
  LabelMap m(shape, {});
  m.geometry.spacing_mm = spacing;
  for (int64_t z = 0; z < shape[0]; ++z)
    for (int64_t y = 0; y < shape[1]; ++y)
      for (int64_t x = 0; x < shape[2]; ++x) {
        const Index3 i{z, y, x};
        bool in = true;
        for (size_t a = 0; a < 3; ++a) in = in && box.lo[a] <= i[a] && i[a] < box.hi[a];
        m.at(z, y, x) = in;
      }
  return m;
}

SurfaceMetrics measure(const LabelMap& reference, const LabelMap& prediction,
                       std::vector<double> tolerances = {}) {
  const std::vector<SurfaceRegion> regions{{{"one", {1}}, std::move(tolerances)}};
  auto m = surface_metrics(reference, prediction, regions, std::nullopt, pool());
  EXPECT_TRUE(m.ok());
  return std::move(m).value()[0];
}

// The published goldens of design/measurement: a cube of 10, one voxel, the cube shifted by one.
TEST(Surface, PublishedFigures) {
  const LabelMap cube = box_map({20, 20, 20}, {{5, 5, 5}, {15, 15, 15}});
  const LabelMap shifted = box_map({20, 20, 20}, {{5, 5, 6}, {15, 15, 16}});
  EXPECT_NEAR(measure(cube, cube).reference_area_mm2, 564.0996, 5e-5);
  const LabelMap voxel = box_map({3, 3, 3}, {{1, 1, 1}, {2, 2, 2}});
  EXPECT_NEAR(measure(voxel, voxel).reference_area_mm2, 1.7320508, 5e-8);
  const SurfaceMetrics m = measure(cube, shifted, {0.5, std::nextafter(1.0, 0.0), 1.0});
  EXPECT_NEAR(m.surface_dice(0, BothEmpty::kNan), 0.66615, 5e-6);
  EXPECT_NEAR(m.surface_dice(1, BothEmpty::kNan), 0.66615, 5e-6);
  EXPECT_EQ(m.surface_dice(2, BothEmpty::kNan), 1.0);
  EXPECT_EQ(m.hd95_mm(BothEmpty::kNan), 1.0);
}

TEST(Surface, CountsTheElementsOfACube) {
  const LabelMap cube = box_map({20, 20, 20}, {{5, 5, 5}, {15, 15, 15}});
  std::vector<uint8_t> wanted(65536, 0);
  wanted[1] = 1;
  const metrics::CornerSurface surface({&cube, &cube, wanted.data(), -1}, {{5, 5, 5}, {15, 15, 15}}, false,
                                       pool());
  metrics::DistanceCounts counts = metrics::surface_distances(surface, surface, {1, 1, 1}, pool());
  uint64_t elements = 0;
  for (const auto& c : counts.sorted()) elements += c.count;
  EXPECT_EQ(elements, 602u);
}

TEST(Surface, EmptyByBothConventions) {
  const LabelMap none = box_map({4, 5, 6}, {}), some = box_map({4, 5, 6}, {{1, 1, 1}, {3, 3, 3}});
  const SurfaceMetrics both = measure(none, none, {1.0});
  EXPECT_TRUE(std::isnan(both.surface_dice(0, BothEmpty::kNan)));
  EXPECT_EQ(both.surface_dice(0, BothEmpty::kOne), 1.0);
  EXPECT_TRUE(std::isnan(both.hd95_mm(BothEmpty::kNan)));
  EXPECT_EQ(both.hd95_mm(BothEmpty::kOne), 0.0);
  EXPECT_TRUE(std::isnan(both.average_distance_mm(BothEmpty::kNan)));
  for (BothEmpty e : {BothEmpty::kNan, BothEmpty::kOne})
    for (const SurfaceMetrics& m : {measure(some, none, {1e300}), measure(none, some, {1e300})}) {
      EXPECT_EQ(m.surface_dice(0, e), 0.0);
      EXPECT_EQ(m.hd95_mm(e), kInfinity);
      EXPECT_EQ(m.average_distance_mm(e), kInfinity);
      EXPECT_GT(m.reference_area_mm2 + m.predicted_area_mm2, 0.0);
    }
}

// Distances that are exactly the tolerance count, on spacings that are no whole numbers too: the distance of
// two plates is a whole number of steps times the spacing, rounded once.
TEST(Surface, TiesAtTheTolerance) {
  for (const Vec3<double>& spacing : {Vec3<double>{1, 1, 1}, Vec3<double>{5, 0.78125, 0.78125},
                                      Vec3<double>{2.5, 0.6894531, 0.6894531}, Vec3<double>{0.7, 0.7, 0.7}})
    for (int64_t steps : {1, 2, 3, 7, 15})
      for (size_t axis = 0; axis < 3; ++axis) {
        Box3 a{{0, 0, 0}, {20, 20, 20}}, b = a;
        a.hi[axis] = 1;
        b.lo[axis] = steps, b.hi[axis] = steps + 1;
        const double d = std::sqrt((double(steps) * spacing[axis]) * (double(steps) * spacing[axis]));
        const SurfaceMetrics m = measure(box_map({20, 20, 20}, a, spacing), box_map({20, 20, 20}, b, spacing),
                                         {d, std::nextafter(d, 0.0)});
        EXPECT_EQ(m.surface_dice(0, BothEmpty::kNan), 1.0);
        EXPECT_LT(m.surface_dice(1, BothEmpty::kNan), 1.0);
        EXPECT_EQ(m.hd95_mm(BothEmpty::kNan), d);
      }
}

// All squared distances, bit for bit, against the nearest of all corners; sparse masks, so that the far
// search has work, and one slice.
TEST(Surface, DistancesMatchTheSlowSearch) {
  std::mt19937 random(11);
  std::vector<uint8_t> wanted(65536, 0);
  wanted[1] = 1;
  int far = 0;
  for (int trial = 0; trial < 60; ++trial) {
    const bool planar = trial % 4 == 0;
    const Shape3 s{planar ? 1 : 2 + int64_t(random() % 20), 2 + int64_t(random() % 40),
                   2 + int64_t(random() % 150)};
    const Vec3<double> spacing = trial % 3 ? Vec3<double>{1, 2, 1} : Vec3<double>{2.5, 0.6894531, 0.6894531};
    LabelMap maps[2]{LabelMap(s, {}), LabelMap(s, {})};
    for (LabelMap& m : maps) {
      std::fill(m.data.begin(), m.data.end(), uint16_t(0));
      for (int k = 0; k < 3; ++k) m.data[random() % m.data.size()] = 1;
    }
    using Surface = metrics::CornerSurface;
    const auto surface = [&](const LabelMap& m) {
      return Surface({&m, &m, wanted.data(), -1}, {{0, 0, 0}, s}, planar, pool());
    };
    const Surface from = surface(maps[0]), to = surface(maps[1]);
    const auto corners_of = [](const Surface& c) {
      std::vector<Index3> out;
      for (int64_t z = 0; z < c.corners()[0]; ++z)
        for (int64_t y = 0; y < c.corners()[1]; ++y)
          for (int64_t x = 0; x < c.corners()[2]; ++x)
            if (c.border(z, y)[x / 64] >> (x % 64) & 1) out.push_back({z, y, x});
      return out;
    };
    const std::vector<Index3> targets = corners_of(to);
    std::map<std::pair<double, uint32_t>, uint64_t> want, got;
    for (const Index3& a : corners_of(from)) {
      double least = kInfinity;
      for (const Index3& b : targets) {
        double square = 0;
        for (size_t i = 0; i < 3; ++i) {
          const double mm = double(a[i] - b[i]) * spacing[i];
          square += mm * mm;
        }
        least = std::min(least, square);
      }
      far += least > 100;
      ++want[{least, from.code(a[0], a[1], a[2])}];
    }
    metrics::DistanceCounts counts = metrics::surface_distances(from, to, spacing, pool());
    for (const auto& c : counts.sorted()) got[{c.squared_mm2, c.code}] += c.count;
    ASSERT_EQ(got, want) << "trial " << trial;
  }
  EXPECT_GT(far, 500);
}

TEST(Surface, ResultsDoNotDependOnThreads) {
  std::mt19937 random(2);
  LabelMap a({30, 40, 70}, {}), b({30, 40, 70}, {});
  for (LabelMap* m : {&a, &b})
    for (uint16_t& v : m->data) v = random() % 50 == 0;
  const std::vector<SurfaceRegion> regions{{{"one", {1}}, {1.0}}};
  ThreadPool one(1), many(4);
  const auto x = surface_metrics(a, b, regions, std::nullopt, one);
  const auto y = surface_metrics(a, b, regions, std::nullopt, many);
  EXPECT_EQ((*x)[0].surface_dice(0, BothEmpty::kNan), (*y)[0].surface_dice(0, BothEmpty::kNan));
  EXPECT_EQ((*x)[0].reference_mean_mm, (*y)[0].reference_mean_mm);
  EXPECT_EQ((*x)[0].predicted_area_mm2, (*y)[0].predicted_area_mm2);
}

// More regions than are looked at in one pass over the maps, each in its own place.
TEST(Surface, ManyRegions) {
  LabelMap m({4, 4, 120}, {});
  std::fill(m.data.begin(), m.data.end(), uint16_t(0));
  std::vector<SurfaceRegion> regions;
  for (int label = 1; label <= 20; ++label) {
    for (int64_t y = 1; y < 3; ++y) m.at(1, y, label * 5) = uint16_t(label);
    if (label % 2) m.at(2, 1, label * 5) = uint16_t(label);
    regions.push_back({{std::to_string(label), {label}}, {}});
  }
  const auto all = surface_metrics(m, m, regions, std::nullopt, pool());
  for (int label = 1; label <= 20; ++label) {
    const auto alone =
        surface_metrics(m, m, std::vector<SurfaceRegion>{regions[size_t(label - 1)]}, std::nullopt, pool());
    EXPECT_EQ((*all)[size_t(label - 1)].reference_area_mm2, (*alone)[0].reference_area_mm2);
    EXPECT_NE((*all)[size_t(label - 1)].reference_area_mm2, (*all)[size_t(label % 20)].reference_area_mm2);
  }
}

TEST(Surface, Refusals) {
  const LabelMap a = box_map({2, 3, 4}, {}), other = box_map({2, 4, 3}, {});
  const auto refused = [&](const LabelMap& p, SurfaceRegion region) {
    const std::vector<SurfaceRegion> regions{std::move(region)};
    return !surface_metrics(a, p, regions, std::nullopt, pool()).ok();
  };
  EXPECT_FALSE(refused(a, {{"one", {1}}, {0.0}}));
  EXPECT_TRUE(refused(other, {{"one", {1}}, {}}));
  EXPECT_TRUE(refused(a, {{"one", {}}, {}}));
  EXPECT_TRUE(refused(a, {{"one", {1}}, {-1.0}}));
  EXPECT_TRUE(refused(a, {{"one", {1}}, {NAN}}));
  const LabelMap flat = box_map({2, 3, 4}, {}, {0, 1, 1});
  EXPECT_FALSE(surface_metrics(flat, flat, {}, std::nullopt, pool()).ok());
}

TEST(EvaluateCase, PutsEverythingTogether) {
  const LabelMap r = box_map({6, 6, 6}, {{1, 1, 1}, {4, 4, 4}}, {2, 1, 1});
  const LabelMap p = box_map({6, 6, 6}, {{1, 1, 2}, {4, 4, 4}}, {2, 1, 1});
  EvaluationOptions o;
  o.regions = {{"one", {1}}, {"two", {2}}};
  o.surface = true;
  o.tolerances_mm = {0, 1};
  o.lesions = {{{"one", {1}}}};
  const auto m = evaluate_case(r, p, o, pool());
  ASSERT_TRUE(m.ok());
  EXPECT_DOUBLE_EQ(m->regions[0].reference_mm3, 54);
  EXPECT_DOUBLE_EQ(m->regions[0].volume_difference_mm3(), -18);
  EXPECT_DOUBLE_EQ(m->regions[0].relative_volume_difference(), 1.0 / 3);
  EXPECT_LT(*m->regions[0].surface_dice(BothEmpty::kNan), 1);
  EXPECT_EQ(*m->regions[1].surface_dice(BothEmpty::kOne), 1);
  EXPECT_TRUE(std::isnan(*m->regions[1].hd95_mm(BothEmpty::kNan)));
  EXPECT_TRUE(std::isnan(m->regions[1].relative_volume_difference()));
  EXPECT_EQ(m->lesions[0].found(), 1);
  o.tolerances_mm = {1};
  EXPECT_EQ(*evaluate_case(r, p, o, pool())->regions[0].surface_dice(BothEmpty::kNan), 1);
  o.tolerances_mm = {};
  EXPECT_FALSE(evaluate_case(r, p, o, pool())->regions[0].surface_dice(BothEmpty::kNan).has_value());
  o.surface = false;
  EXPECT_FALSE(evaluate_case(r, p, o, pool())->regions[0].hd95_mm(BothEmpty::kNan).has_value());
}

TEST(EvaluateCase, RefusesImpossibleOptions) {
  const auto refused = [](const std::function<void(EvaluationOptions&)>& change) {
    EvaluationOptions o;
    o.regions = {{"one", {1}}, {"two", {2}}};
    o.surface = true;
    change(o);
    return !o.validate().ok();
  };
  EXPECT_FALSE(refused([](EvaluationOptions&) {}));
  EXPECT_TRUE(refused([](EvaluationOptions& o) { o.regions = {}; }));
  EXPECT_TRUE(refused([](EvaluationOptions& o) { o.tolerances_mm = {1, 2, 3}; }));
  EXPECT_TRUE(refused([](EvaluationOptions& o) { o.tolerances_mm = {-1}; }));
  EXPECT_TRUE(refused([](EvaluationOptions& o) { o.tolerances_mm = {1}, o.surface = false; }));
  EXPECT_TRUE(refused([](EvaluationOptions& o) { o.lesions = {{{"one", {1}}, -1}}; }));
}

TEST(EvaluateCase, MeansKeepConventionsApart) {
  const LabelMap none = box_map({4, 4, 4}, {}), some = box_map({4, 4, 4}, {{1, 1, 1}, {3, 3, 3}});
  EvaluationOptions o;
  o.regions = {{"one", {1}}};
  o.surface = true;
  o.tolerances_mm = {0};
  std::vector<CaseMetrics> cases;
  for (const auto& [r, p] : {std::pair{&some, &some}, {&none, &none}, {&some, &none}, {&some, &some}})
    cases.push_back(*evaluate_case(*r, *p, o, pool()));
  const RegionMeans m = mean_over_cases(cases)[0];
  EXPECT_DOUBLE_EQ(m.dice_nan, 2.0 / 3);
  EXPECT_DOUBLE_EQ(m.dice_one, 3.0 / 4);
  EXPECT_DOUBLE_EQ(*m.surface_dice_nan, 2.0 / 3);
  EXPECT_DOUBLE_EQ(*m.surface_dice_one, 3.0 / 4);
  EXPECT_EQ(*m.hd95_median_mm, 0);
  EXPECT_EQ(m.hd95_infinite, 1);
  EXPECT_EQ(m.hd95_undefined, 1);
  EXPECT_DOUBLE_EQ(m.volume_difference_mm3, -2);
  EXPECT_TRUE(mean_over_cases({}).empty());
}

TEST(Presets, Kits23) {
  const auto kits = find_evaluation_preset("kits23");
  ASSERT_TRUE(kits.ok());
  EXPECT_EQ(kits->regions[1].labels, (std::vector<int>{2, 3}));
  EXPECT_EQ(kits->tolerances_mm,
            (std::vector<double>{1.0330772532390826, 1.1328796488598762, 1.1498198361434828}));
  EXPECT_EQ(find_evaluation_preset("kits").error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace isoline
