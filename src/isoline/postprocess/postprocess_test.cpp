#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "isoline/postprocess/components.h"
#include "isoline/postprocess/label_exporter.h"

namespace isoline {
namespace {

// Rounds through all binary16 values: the definition, slowly.
float nearest_half(double v) {
  float best = 0;
  double distance = INFINITY;
  for (uint32_t h = 0; h < 65536; ++h) {
    const float f = half_to_float(half_t(h));
    if (!std::isfinite(f)) continue;
    const double d = std::abs(double(f) - v);
    if (d < distance || (d == distance && !(h & 1))) distance = d, best = f;
  }
  return best;
}

// The whole-volume twin: resample every head in double, round, then decide.
LabelMap naive_export(const ModelSpec& spec, const CropRecord& crop, const ResampleRecord& rr,
                      const std::vector<half_t>& logits) {
  const Shape3 in = rr.shape_after, out = rr.shape_before;
  Shape3 file{};
  for (size_t a = 0; a < 3; ++a) file[size_t(crop.transpose_forward[a])] = crop.shape_before[a];
  LabelMap map(file, {});
  std::fill(map.data.begin(), map.data.end(), uint16_t(0));
  LinearTaps t[3];
  for (size_t a = 0; a < 3; ++a) t[a] = make_linear_taps(in[a], out[a], 1, GridRule::kZoom);
  for (int64_t z = 0; z < out[0]; ++z)
    for (int64_t y = 0; y < out[1]; ++y)
      for (int64_t x = 0; x < out[2]; ++x) {
        std::vector<float> v;
        for (int64_t h = 0; h < spec.labels.heads; ++h) {
          double sum = 0;
          for (int k = 0; k < 8; ++k) {
            const int64_t iz = k & 4 ? t[0].hi[size_t(z)] : t[0].lo[size_t(z)];
            const int64_t iy = k & 2 ? t[1].hi[size_t(y)] : t[1].lo[size_t(y)];
            const int64_t ix = k & 1 ? t[2].hi[size_t(x)] : t[2].lo[size_t(x)];
            double c = double(half_to_float(logits[size_t(((h * in[0] + iz) * in[1] + iy) * in[2] + ix)]));
            c *= k & 4 ? t[0].w_hi[size_t(z)] : t[0].w_lo[size_t(z)];
            c *= k & 2 ? t[1].w_hi[size_t(y)] : t[1].w_lo[size_t(y)];
            c *= k & 1 ? t[2].w_hi[size_t(x)] : t[2].w_lo[size_t(x)];
            sum += c;
          }
          v.push_back(nearest_half(sum));
        }
        uint16_t label = 0;
        if (spec.labels.has_regions) {
          for (size_t h = 0; h < v.size(); ++h)
            if (1.0f / (1.0f + std::exp(-v[h])) > 0.5f) label = uint16_t(spec.labels.regions_class_order[h]);
        } else {
          for (size_t h = 1; h < v.size(); ++h)
            if (v[h] > v[label]) label = uint16_t(h);
        }
        const Index3 at{z + crop.box.lo[0], y + crop.box.lo[1], x + crop.box.lo[2]};
        Index3 f{};
        for (size_t a = 0; a < 3; ++a) f[size_t(crop.transpose_forward[a])] = at[a];
        map.at(f[0], f[1], f[2]) = label;
      }
  return map;
}

struct Case {
  Shape3 in, out;
  bool regions;
  double scale;  // small scales make ties and near-ties common
};

TEST(LabelExporter, EqualsResamplingEverything) {
  std::mt19937 rng(3);
  for (const Case& c : {Case{{5, 6, 7}, {9, 11, 5}, false, 4}, Case{{5, 6, 7}, {10, 12, 14}, false, 0.002},
                        Case{{4, 5, 6}, {7, 3, 11}, true, 1}, Case{{4, 5, 6}, {8, 10, 12}, true, 1e-6},
                        Case{{4, 5, 6}, {4, 5, 6}, false, 1e-3}}) {
    ModelSpec spec;
    spec.labels.heads = 3;
    spec.labels.has_regions = c.regions;
    spec.labels.regions_class_order = {1, 3, 2};
    spec.resample_probabilities.order = 1;
    CropRecord crop;
    crop.transpose_forward = {1, 2, 0};
    crop.shape_before = {c.out[0] + 3, c.out[1] + 1, c.out[2] + 2};
    crop.box = {{2, 1, 0}, {2 + c.out[0], 1 + c.out[1], c.out[2]}};
    const ResampleRecord rr{c.out, c.in, {1, 1, 1}, {1, 1, 1}};
    std::normal_distribution<float> d(0, float(c.scale));
    std::vector<half_t> logits(size_t(3 * voxels(c.in)));
    for (half_t& l : logits) l = float_to_half(d(rng));
    ThreadPool pool(2);
    auto exporter = LabelExporter::create(spec, crop, rr, pool);
    ASSERT_TRUE(exporter.ok());
    for (int64_t z = 0; z < c.in[0];) {  // in slabs of one, then two planes
      const int64_t e = std::min(c.in[0], z + 1 + z % 2);
      const LogitSlab slab{
          z, e, c.in, 3, logits.data() + z * c.in[1] * c.in[2], voxels(c.in), c.in[1] * c.in[2], c.in[2]};
      ASSERT_TRUE(exporter->add(slab).ok());
      z = e;
    }
    const LabelMap got = exporter->finish().labels, want = naive_export(spec, crop, rr, logits);
    ASSERT_EQ(got.shape, want.shape);
    for (size_t i = 0; i < want.data.size(); ++i) ASSERT_EQ(got.data[i], want.data[i]) << i;
  }
}

TEST(Components, KeepsTheLargestAndAllOfEqualSize) {
  LabelMap m({1, 3, 7}, {});
  std::fill(m.data.begin(), m.data.end(), uint16_t(0));
  for (int64_t x : {0, 1, 3, 4, 6}) m.at(0, 0, x) = 2;
  m.at(0, 2, 6) = 1;  // not in the set: untouched
  keep_largest_component(m, {2, 3}, 0);
  EXPECT_EQ(m.at(0, 0, 0), 2);
  EXPECT_EQ(m.at(0, 0, 4), 2);
  EXPECT_EQ(m.at(0, 0, 6), 0);
  EXPECT_EQ(m.at(0, 2, 6), 1);
  m.at(0, 1, 2) = 3;  // joins both diagonally
  keep_largest_component(m, {2, 3}, 0);
  EXPECT_EQ(m.at(0, 0, 0), 2);
  EXPECT_EQ(m.at(0, 1, 2), 3);
}

}  // namespace
}  // namespace isoline
