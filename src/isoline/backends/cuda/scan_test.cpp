// The scan passes, run on the host, against the CPU rooms. What differs on a device is only who calls the
// functors; that is tested there (cuda_test.cpp, tests/scan_device_test).
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "isoline/backends/cuda/batch_chooser.h"
#include "isoline/backends/cuda/scan_passes.h"
#include "isoline/backends/cuda/scan_tables.h"
#include "isoline/postprocess/label_exporter.h"
#include "isoline/tile/accumulator.h"
#include "isoline/tile/gaussian.h"

namespace isoline::cuda {
namespace {

struct HostExecutor {
  template <class Functor>
  void each(const Functor& f, int64_t planes, int64_t rows, int64_t columns) {
    for (int p = 0; p < planes; ++p)
      for (int r = 0; r < rows; ++r)
        for (int c = 0; c < columns; ++c) f(p, r, c);
  }
  void copy(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height) {
    for (size_t r = 0; r < height; ++r)
      std::memcpy(static_cast<std::byte*>(to) + r * to_pitch,
                  static_cast<const std::byte*>(from) + r * from_pitch, width);
  }
  void zero(void* to, size_t pitch, size_t width, size_t height) {
    for (size_t r = 0; r < height; ++r) std::memset(static_cast<std::byte*>(to) + r * pitch, 0, width);
  }
};

// --- Resampling ---

struct ResampleCase {
  const char* name;
  Shape3 shape;
  Vec3<double> spacing_mm, target_mm;
  Vec3<int> transpose;
  ResampleFunction function;
  int order;
};

class ScanResample : public testing::TestWithParam<ResampleCase> {};

TEST_P(ScanResample, EqualsThePreprocessRoom) {
  const ResampleCase& c = GetParam();
  ModelSpec spec;
  spec.spacing_mm = {c.target_mm[0], c.target_mm[1], c.target_mm[2]};
  spec.patch_size = {8, 8, 8};
  spec.transpose_forward = {c.transpose[0], c.transpose[1], c.transpose[2]};
  spec.channels = {ChannelSpec{"CT", Normalization::kCt, false, 10, 200, -150, 400},
                   ChannelSpec{"MR", Normalization::kZScore, false, 0, 0, 0, 0}};
  spec.resample_data.function = c.function;
  spec.resample_data.order = c.order;
  Image image;
  image.channels = 2;
  image.shape = c.shape;
  image.geometry.spacing_mm = c.spacing_mm;
  Buffer<int16_t> voxel(size_t(2 * voxels(c.shape)));
  std::mt19937 rng(5);
  for (int16_t& v : voxel) v = int16_t(int(rng() % 1200) - 400);
  // An empty margin, so that there is a crop.
  const int64_t plane = c.shape[1] * c.shape[2];
  for (int channel = 0; channel < 2; ++channel)
    std::fill_n(voxel.data() + channel * voxels(c.shape), plane, int16_t(0));
  image.data = std::move(voxel);

  ThreadPool pool(2);
  const auto want = preprocess(image, nullptr, spec, pool);
  ASSERT_TRUE(want.ok()) << want.error().to_string();
  const auto plan = plan_preprocess(image, false, spec, pool);
  ASSERT_TRUE(plan.ok());
  ASSERT_TRUE(plan->voxelwise);
  EXPECT_EQ(plan->crop.box.shape(), plan->resample.shape_before);
  ASSERT_TRUE(can_resample(*plan));

  HostExecutor e;
  HostTables arrays;
  const ResamplePasses passes = resample_passes(plan->request, [&](const auto& v) { return arrays.keep(v); });
  const int64_t group = 3, n = voxels(want->shape);
  std::vector<float> x_lines(size_t(passes.x_floats(group))), y_lines(size_t(passes.y_floats(group))),
      between(size_t(passes.between_floats())), got(static_cast<size_t>(n));
  const SourceStrides strides = source_strides(*plan, image.shape);
  for (int channel = 0; channel < 2; ++channel) {
    std::vector<uint32_t> low(size_t(passes.in.z), ~0u), high(size_t(passes.in.z), 0);
    const ResampleScratch scratch{x_lines.data(), y_lines.data(), between.data(), low.data(), high.data()};
    const auto load = [&](int z0, int count, const Place& place, uint32_t* lo, uint32_t* hi) {
      NormalizeSlices<int16_t> f;
      f.raw = std::get<Buffer<int16_t>>(image.data).data() + channel * voxels(image.shape) + strides.offset +
              z0 * strides.z;
      f.z_step = strides.z, f.y_step = strides.y, f.x_step = strides.x;
      f.normalize = voxel_scale(plan->normalizers[size_t(channel)]);
      f.out = place;
      f.low = lo, f.high = hi;
      e.each(f, count, passes.in.y, passes.in.x);
    };
    for (int z0 = 0; z0 < passes.in.z; z0 += int(group))
      resample_slices(e, passes, scratch, load, z0, std::min(int(group), passes.in.z - z0), got.data());
    resample_along_z(e, passes, scratch, got.data());
    float range_low = INFINITY, range_high = -INFINITY, worst = 0;
    const float* const w = want->data.data() + channel * n;
    for (int64_t i = 0; i < n; ++i) {
      range_low = std::min(range_low, w[i]), range_high = std::max(range_high, w[i]);
      worst = std::max(worst, std::abs(w[i] - got[size_t(i)]));
    }
    EXPECT_LE(worst, 3e-6f * (range_high - range_low)) << c.name << " channel " << channel;
    EXPECT_GT(range_high, range_low);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, ScanResample,
    testing::Values(
        ResampleCase{"all axes",
                     {9, 20, 31},
                     {2, 1.5, 1.3},
                     {1.4, 1.1, 1.7},
                     {0, 1, 2},
                     ResampleFunction::kDefault,
                     3},
        ResampleCase{
            "x alone", {9, 20, 31}, {1, 1, 1.3}, {1, 1, 0.9}, {0, 1, 2}, ResampleFunction::kDefault, 3},
        ResampleCase{
            "y alone", {9, 20, 31}, {1, 1.4, 1}, {1, 1, 1}, {0, 1, 2}, ResampleFunction::kDefault, 3},
        ResampleCase{"z alone", {9, 20, 31}, {2, 1, 1}, {1, 1, 1}, {0, 1, 2}, ResampleFunction::kDefault, 3},
        ResampleCase{
            "not at all", {9, 20, 31}, {1, 1, 1}, {1, 1, 1}, {0, 1, 2}, ResampleFunction::kDefault, 3},
        ResampleCase{
            "coarse z", {9, 20, 31}, {5, 1, 1}, {2.5, 0.8, 0.9}, {0, 1, 2}, ResampleFunction::kDefault, 3},
        ResampleCase{"coarse z, x alone",
                     {9, 20, 31},
                     {5, 1, 1},
                     {5, 1, 0.8},
                     {0, 1, 2},
                     ResampleFunction::kDefault,
                     3},
        ResampleCase{
            "linear", {9, 20, 31}, {2, 1.5, 1.3}, {1.4, 1.1, 1.7}, {0, 1, 2}, ResampleFunction::kDefault, 1},
        ResampleCase{
            "nearest", {9, 20, 31}, {2, 1.5, 1.3}, {1.4, 1.1, 1.7}, {0, 1, 2}, ResampleFunction::kDefault, 0},
        ResampleCase{
            "torch", {9, 20, 31}, {2, 1.5, 1.3}, {1.4, 1.1, 1.7}, {0, 1, 2}, ResampleFunction::kTorch, 1},
        ResampleCase{
            "turned", {9, 20, 31}, {2, 1.5, 1.3}, {1.4, 1.1, 1.7}, {2, 0, 1}, ResampleFunction::kDefault, 3},
        ResampleCase{"long lines",
                     {40, 45, 90},
                     {1, 1, 1},
                     {1.2, 0.7, 1.3},
                     {1, 0, 2},
                     ResampleFunction::kDefault,
                     3}));

TEST(ScanResampleRefuses, ACoarseAxisThatIsNotTheFirst) {
  ModelSpec spec;
  spec.spacing_mm = {1, 1, 1};
  spec.patch_size = {8, 8, 8};
  spec.channels = {ChannelSpec{"CT", Normalization::kCt, false, 10, 200, -150, 400}};
  Image image;
  image.channels = 1;
  image.shape = {8, 8, 8};
  image.geometry.spacing_mm = {1, 5, 1};
  image.data = zeroed<int16_t>(512);
  ThreadPool pool(1);
  const auto plan = plan_preprocess(image, false, spec, pool);
  ASSERT_TRUE(plan.ok());
  EXPECT_FALSE(can_resample(*plan));
}

// --- Adding up, dividing, deciding ---

struct FlowCase {
  Shape3 scan, grid;       // cropped scan and network grid, transposed axes
  std::vector<int> patch;  // 2 or 3 entries
  std::vector<int> mirror_axes;
  int heads, batch;
  bool regions, torch;
  Vec3<int> transpose;
};

class ScanFlow : public testing::TestWithParam<FlowCase> {};

// Random outputs stand for the network's; the same go to the CPU rooms and to the passes.
TEST_P(ScanFlow, GivesTheLabelsOfTheCpuRooms) {
  const FlowCase& c = GetParam();
  ThreadPool pool(2);
  const auto plan = plan_tiles(c.grid, c.patch, 0.5);
  ASSERT_TRUE(plan.ok());
  ModelSpec spec;
  spec.patch_size = c.patch;
  spec.labels.heads = c.heads;
  spec.labels.has_regions = c.regions;
  for (int h = 0; h < c.heads; ++h) spec.labels.regions_class_order.push_back(c.heads - h);
  spec.resample_probabilities.function = c.torch ? ResampleFunction::kTorch : ResampleFunction::kDefault;
  spec.resample_probabilities.order = 1;
  CropRecord crop;
  crop.transpose_forward = c.transpose;
  for (size_t a = 0; a < 3; ++a) {
    crop.box.lo[a] = int64_t(a);
    crop.box.hi[a] = int64_t(a) + c.scan[a];
    crop.shape_before[a] = c.scan[a] + 3;
  }
  const ResampleRecord resample{c.scan, c.grid, {1, 1, 1}, {1, 1, 1}};
  auto exporter = LabelExporter::create(spec, crop, resample, pool);
  ASSERT_TRUE(exporter.ok()) << exporter.error().to_string();
  const auto rule = make_label_rule(spec, crop, resample);
  ASSERT_TRUE(rule.ok());

  const int64_t n = voxels(plan->patch), heads = c.heads;
  const std::vector<Vec3<bool>> mirrors = mirror_sets(c.mirror_axes, int(c.patch.size()));
  const int64_t units = plan->tiles() * int64_t(mirrors.size());
  std::vector<float> outputs(size_t(units * heads * n));
  std::mt19937 rng(11);
  std::normal_distribution<float> normal(0, 2);
  for (float& v : outputs) v = normal(rng) * 0.01f + std::sin(float(&v - outputs.data()) * 1e-3f);
  const auto unit = [&](int64_t u) { return outputs.data() + u * heads * n; };

  // The CPU rooms.
  Accumulator accumulator(*plan, heads, pool);
  std::vector<float> sum(size_t(heads * n));
  const auto at = [&](int64_t h, int64_t z, int64_t y, int64_t x) {
    return ((h * plan->patch[0] + z) * plan->patch[1] + y) * plan->patch[2] + x;
  };
  for (int64_t t = 0; t < plan->tiles(); ++t) {
    for (size_t k = 0; k < mirrors.size(); ++k)
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t z = 0; z < plan->patch[0]; ++z)
          for (int64_t y = 0; y < plan->patch[1]; ++y)
            for (int64_t x = 0; x < plan->patch[2]; ++x) {
              const Vec3<bool>& m = mirrors[k];
              const float v =
                  unit(t * int64_t(mirrors.size()) +
                       int64_t(k))[at(h, m[0] ? plan->patch[0] - 1 - z : z, m[1] ? plan->patch[1] - 1 - y : y,
                                      m[2] ? plan->patch[2] - 1 - x : x)];
              float& s = sum[size_t(at(h, z, y, x))];
              s = k == 0 ? v : s + v;
            }
    if (mirrors.size() > 1)
      for (float& s : sum) s /= float(mirrors.size());
    ASSERT_TRUE(accumulator.add(t, sum.data(), [&](const LogitSlab& s) { return exporter->add(s); }).ok());
  }
  const LabelMap want = exporter->finish().labels;

  // The passes.
  HostExecutor e;
  HostTables arrays;
  const Buffer<half_t> gaussian = gaussian_weights(plan->patch, plan->spatial_dims);
  std::vector<uint16_t> gaussian_copy(gaussian.begin(), gaussian.end());
  std::vector<uint16_t> sums(size_t(heads * plan->patch[0] * plan->padded[1] * plan->padded[2])),
      finished(size_t(heads * (kFinishedPlanes + 1) * c.grid[1] * c.grid[2]));
  std::vector<float> tile_sum(size_t(heads * n));
  int not_finite = 0;
  const auto steps = [&](size_t a) {
    return arrays.keep(std::vector<int>(plan->steps[a].begin(), plan->steps[a].end()));
  };
  VolumeSums volume(e, *plan, c.heads, int(mirrors.size()),
                    SumBuffers{gaussian_copy.data(), sums.data(), tile_sum.data(), finished.data(), steps(0),
                               steps(1), steps(2), &not_finite});
  LabelMap got(rule->file_shape, {});
  std::fill(got.data.begin(), got.data.end(), uint16_t(0));
  ExportLabels<uint16_t> decide =
      export_labels<uint16_t>(*rule, [&](const auto& v) { return arrays.keep(v); });
  decide.logits = finished.data();
  decide.planes = kFinishedPlanes + 1;
  int next = 0;
  const auto sink = [&](int z0, int z1, int slot) -> Status {
    const int end = decidable_until(rule->taps[0].hi, next, z1);
    decide.base = z0 - slot;
    decide.z0 = next;
    decide.labels = got.data.data() + (next + rule->box.lo[0]) * rule->file_stride[0] +
                    rule->box.lo[1] * rule->file_stride[1] + rule->box.lo[2] * rule->file_stride[2];
    e.each(decide, end - next, rule->crop_shape[1], rule->crop_shape[2]);
    next = end;
    return {};
  };
  for (const BatchPlan& batch : plan_batches(*plan, mirrors, c.batch, c.batch == 3)) {
    for (const BatchPart& part : batch.parts) {
      volume.add(unit(batch.first_unit + part.offset), part.windows, part.count, part.first, part.last);
      if (!part.last) continue;
      ASSERT_TRUE(volume.finish_after(part.tile, sink).ok());
    }
  }
  EXPECT_EQ(next, rule->crop_shape[0]);
  EXPECT_EQ(not_finite, 0);
  ASSERT_EQ(got.data.size(), want.data.size());
  int64_t different = 0, foreground = 0;
  for (size_t i = 0; i < got.data.size(); ++i)
    different += got.data[i] != want.data[i], foreground += want.data[i] > 0;
  EXPECT_EQ(different, 0);
  EXPECT_GT(foreground, 0);
}

INSTANTIATE_TEST_SUITE_P(
    Cases, ScanFlow,
    testing::Values(FlowCase{{23, 30, 17}, {41, 25, 20}, {8, 16, 8}, {}, 3, 1, false, false, {0, 1, 2}},
                    FlowCase{{23, 30, 17}, {41, 25, 20}, {8, 16, 8}, {}, 3, 4, false, false, {0, 1, 2}},
                    FlowCase{
                        {60, 20, 21}, {37, 25, 30}, {16, 16, 16}, {0, 1, 2}, 2, 4, true, false, {0, 1, 2}},
                    FlowCase{{19, 20, 21}, {25, 25, 30}, {16, 16, 16}, {0, 2}, 2, 3, true, false, {1, 2, 0}},
                    FlowCase{{19, 20, 21}, {12, 25, 30}, {16, 16, 16}, {1}, 4, 8, false, true, {2, 1, 0}},
                    FlowCase{{20, 40, 40}, {20, 50, 30}, {32, 16}, {0, 1}, 3, 3, false, false, {0, 1, 2}},
                    FlowCase{{25, 25, 30}, {25, 25, 30}, {16, 16, 16}, {2}, 3, 2, false, false, {0, 1, 2}}));

TEST(ScanBatch, IsChosenAgainWhereLaterScansWouldProfit) {
  BatchChooser c(0);
  EXPECT_TRUE(c.due(1));
  EXPECT_EQ(c.wanted(1), 1);
  c.chosen(1);
  EXPECT_FALSE(c.settled());
  EXPECT_FALSE(c.due(1));
  EXPECT_FALSE(c.due(40)) << "too few to pay for new sessions";
  EXPECT_FALSE(c.due(1)) << "it lacks nothing";
  EXPECT_TRUE(c.due(40)) << "together they do";
  EXPECT_EQ(c.wanted(40), 4);
  c.chosen(4);
  EXPECT_TRUE(c.settled());
  EXPECT_FALSE(c.due(100000));
  c.forget();  // making them failed
  EXPECT_TRUE(c.due(1));

  BatchChooser asked(100);
  EXPECT_EQ(asked.wanted(1000), kMaxBatch);
  EXPECT_EQ(asked.wanted(2), 2);
  EXPECT_EQ(asked.wanted(0), 1);
  asked.chosen(2);
  EXPECT_TRUE(asked.due(1000)) << "one scan may be worth it";
}

TEST(ScanElements, RoundToHalfOnce) {
  for (uint32_t h = 0; h < 0x7c00; ++h) {
    const float f = half_to_float(half_t(h)), g = half_to_float(half_t(h + 1));
    EXPECT_EQ(rounded_to_half(double(f)), f);
    if (std::isfinite(g)) {
      const double middle = (double(f) + double(g)) / 2;
      EXPECT_EQ(rounded_to_half(middle), h & 1 ? g : f);
      EXPECT_EQ(rounded_to_half(std::nextafter(middle, 0.0)), f);
      EXPECT_EQ(rounded_to_half(-std::nextafter(middle, 1e9)), -g);
    }
  }
  EXPECT_TRUE(std::isinf(rounded_to_half(65520.0)));
  EXPECT_TRUE(std::isnan(rounded_to_half(NAN)));
}

TEST(ScanElements, OrderedKeysKeepTheOrder) {
  const float values[] = {-INFINITY, -3.5f, -1e-30f, 0.0f, 1e-30f, 2.0f, INFINITY};
  for (size_t i = 0; i + 1 < std::size(values); ++i) {
    EXPECT_LT(ordered(values[i]), ordered(values[i + 1]));
    EXPECT_EQ(from_ordered(ordered(values[i])), values[i]);
  }
}

}  // namespace
}  // namespace isoline::cuda
