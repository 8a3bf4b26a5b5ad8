// Whole scans on a GPU against the CPU rooms around the same sessions. Skipped where there is no GPU.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>

#include "isoline/backends/registry/registry.h"
#include "isoline/phantom/phantom.h"
#include "isoline/pipeline/segmenter.h"

namespace isoline {
namespace {

class ScanDevice : public testing::Test {
 protected:
  void SetUp() override {
    const auto backend = registry_.find("cuda");
    if (!backend.ok()) GTEST_SKIP() << "this build has no backend cuda";
    if (!(*backend)->available()) GTEST_SKIP() << (*backend)->device_description();
    backend_ = *backend;
  }

  static Image scan(uint64_t seed, const Shape3& shape, const Vec3<double>& spacing_mm) {
    ThreadPool pool(0);
    Phantom p = std::move(make_phantom({seed, shape, spacing_mm}, pool)).value();
    Image image;
    image.channels = 1;
    image.shape = p.ct_hu.shape;
    image.geometry = p.ct_hu.geometry;
    image.data = std::move(p.ct_hu.data);
    return image;
  }

  Segmenter segmenter(const SegmenterOptions& options, int folds = 1) {
    const char* const elsewhere = std::getenv("ISOLINE_SOURCE_DIR");  // on a machine without the build's tree
    auto model =
        load_model(std::string(elsewhere ? elsewhere : ISOLINE_SOURCE_DIR) + "/models/kidney_phantom");
    EXPECT_TRUE(model.ok()) << model.error().to_string();
    while (int(model->folds.size()) < folds) model->folds.push_back(model->folds[0]);
    auto made = Segmenter::create(std::move(model).value(), *backend_, options);
    EXPECT_TRUE(made.ok()) << made.error().to_string();
    return std::move(made).value();
  }

  Segmentation labels(Segmenter& s, Image image) {
    auto r = s.segment(std::move(image));
    EXPECT_TRUE(r.ok()) << r.error().to_string();
    return r.ok() ? std::move(r).value() : Segmentation{};
  }

  static int64_t different(const LabelMap& a, const LabelMap& b) {
    EXPECT_EQ(a.shape, b.shape);
    int64_t n = 0;
    for (size_t i = 0; i < a.data.size() && i < b.data.size(); ++i) n += a.data[i] != b.data[i];
    return n;
  }
  static int64_t foreground(const LabelMap& a) {
    int64_t n = 0;
    for (uint16_t v : a.data) n += v != 0;
    return n;
  }

  BackendRegistry registry_ = builtin_backends();
  const Backend* backend_ = nullptr;
};

SegmenterOptions options(Precision precision, bool tta, bool on_device, int batch) {
  SegmenterOptions o;
  o.precision = precision;
  if (!tta) o.mirror_axes = std::vector<int>{};
  o.scan_on_device = on_device;
  o.batch = batch;
  return o;
}

const Shape3 kShape{61, 131, 127};
const Vec3<double> kSpacing_mm{3.1, 2.2, 2.4};

// The same prepared volume, windows one at a time: every bit of every logit.
TEST_F(ScanDevice, LogitsHaveTheBitsOfTheHostsRooms) {
  for (const int folds : {1, 2}) {
    Segmenter host = segmenter(options(Precision::kFloat32, true, false, 1), folds),
              device = segmenter(options(Precision::kFloat32, true, true, 1), folds);
    const Image image = scan(3, kShape, kSpacing_mm);
    auto prepared = host.preprocess(image, nullptr);
    ASSERT_TRUE(prepared.ok());
    const auto collect = [&](Segmenter& s) {
      std::vector<half_t> all(size_t(s.spec().labels.heads * voxels(prepared->shape)));
      const Status status = s.run_network(*prepared, [&](const LogitSlab& slab) -> Status {
        for (int64_t h = 0; h < slab.heads; ++h)
          for (int64_t z = slab.z_begin; z < slab.z_end; ++z)
            for (int64_t y = 0; y < slab.shape[1]; ++y)
              std::memcpy(all.data() + ((h * slab.shape[0] + z) * slab.shape[1] + y) * slab.shape[2],
                          slab.data + h * slab.head_stride + (z - slab.z_begin) * slab.plane_stride +
                              y * slab.row_stride,
                          size_t(slab.shape[2]) * sizeof(half_t));
        return {};
      });
      EXPECT_TRUE(status.ok()) << status.error().to_string();
      return all;
    };
    const std::vector<half_t> want = collect(host), got = collect(device);
    int64_t n = 0;
    for (size_t i = 0; i < want.size(); ++i) n += want[i] != got[i];
    EXPECT_EQ(n, 0) << folds << " folds, of " << want.size();
  }
}

TEST_F(ScanDevice, LabelsAgreeWithTheHostsRoomsInEveryPrecisionAndBatch) {
  for (const Precision precision :
       {Precision::kFloat32, Precision::kTensorFloat32, Precision::kFloat16, Precision::kBFloat16})
    for (const bool tta : {false, true}) {
      Segmenter host = segmenter(options(precision, tta, false, 1));
      const Segmentation want = labels(host, scan(4, kShape, kSpacing_mm));
      EXPECT_GT(foreground(want.labels), 1000);
      EXPECT_FALSE(want.device);
      for (const int batch : {1, 3, 8}) {
        Segmenter device = segmenter(options(precision, tta, true, batch));
        const Segmentation got = labels(device, scan(4, kShape, kSpacing_mm)),
                           again = labels(device, scan(4, kShape, kSpacing_mm));
        ASSERT_TRUE(got.device);
        EXPECT_TRUE(got.device->preprocessed_on_device);
        EXPECT_FALSE(got.device->streamed);
        EXPECT_EQ(got.forward_ms.size(), size_t(got.forwards));
        EXPECT_EQ(different(got.labels, again.labels), 0) << "two runs";
        // Resampling differs by rounding, other batches split sums elsewhere: only voxels near a tie may
        // change.
        const int64_t allowed =
            int64_t(double(want.labels.data.size()) * (precision == Precision::kFloat32    ? 1e-5
                                                       : precision == Precision::kBFloat16 ? 5e-4
                                                                                           : 1e-4));
        EXPECT_LE(different(got.labels, want.labels), allowed)
            << to_string(precision) << (tta ? ", TTA, batch " : ", batch ") << batch;
      }
    }
}

TEST_F(ScanDevice, ComesInSlabsWhereMemoryIsScarceAndRefusesWhatCannotFit) {
  const Shape3 shape{380, 220, 220};  // tall: in slabs it needs a fraction of what it needs whole
  const Vec3<double> spacing_mm{2.5, 1.6, 1.6};
  // Segmenters go at once: what they hold on the device would count.
  const auto run = [&](bool on_device) {
    Segmenter s = segmenter(options(Precision::kFloat16, false, on_device, 1));
    return labels(s, scan(5, shape, spacing_mm));
  };
  const Segmentation want = run(false), whole = run(true);
  ASSERT_TRUE(whole.device);
  bool streamed = false, refused = false;
  // From what was enough downwards.
  for (uint64_t limit = whole.device->peak_device_bytes; !refused && limit > 0; limit = limit * 97 / 100) {
    SegmenterOptions o = options(Precision::kFloat16, false, true, 1);
    o.max_device_bytes = limit;
    Segmenter s = segmenter(o);
    auto r = s.segment(scan(5, shape, spacing_mm));
    if (!r.ok()) {
      EXPECT_EQ(r.error().code, ErrorCode::kResourceExhausted) << r.error().to_string();
      refused = true;
    } else if (r->device->streamed) {
      streamed = true;
      EXPECT_EQ(different(r->labels, want.labels), 0);  // both preprocessed on the host
    }
  }
  EXPECT_TRUE(streamed);
  EXPECT_TRUE(refused);
}

TEST_F(ScanDevice, ReportsWhenItRanWhatAndTimesItsLayers) {
  for (const bool probabilities : {false, true}) {
    SegmenterOptions o = options(Precision::kFloat16, true, true, 3);
    o.with_probabilities = probabilities;
    Segmenter s = segmenter(o, 2);
    EXPECT_EQ(s.layer_times(1).error().code, ErrorCode::kInvalidArgument) << "before the first scan";
    const Segmentation r = labels(s, scan(4, kShape, kSpacing_mm));
    RunSpan network;
    for (const RunSpan& span : r.spans)
      if (span.kind == SpanKind::kNetwork) network = span;
    EXPECT_NEAR(network.end_ms - network.begin_ms, 1e3 * (r.times.network_s + r.times.export_s), 5);
    int64_t forwards = 0, exports = 0;
    double end_ms = network.begin_ms;
    for (const RunSpan& span : r.spans) {
      EXPECT_LE(span.begin_ms, span.end_ms);
      if (span.kind == SpanKind::kExport) ++exports;
      if (span.kind != SpanKind::kForward) continue;
      EXPECT_TRUE(span.on_device);
      EXPECT_GE(span.begin_ms, end_ms - 1e-2) << "one batch after the other";
      EXPECT_LE(span.end_ms, network.end_ms + 1);
      end_ms = span.end_ms;
      forwards += span.forwards;
    }
    EXPECT_EQ(forwards, r.forwards);
    EXPECT_GT(exports, 0);
    const auto layers = s.layer_times(2);
    ASSERT_TRUE(layers.ok()) << layers.error().to_string();
    EXPECT_GT(layers->size(), 5u);
    for (const LayerTime& l : *layers) EXPECT_GT(l.bytes, 0u) << l.name;
    // Timing the steps has left nothing behind.
    EXPECT_EQ(different(labels(s, scan(4, kShape, kSpacing_mm)).labels, r.labels), 0);
  }
}

TEST_F(ScanDevice, ASmallFirstScanDoesNotFixASmallBatch) {
  Segmenter s = segmenter(options(Precision::kFloat16, false, true, 0));
  const Vec3<double> spacing_mm{6, 4, 4};
  EXPECT_EQ(labels(s, scan(6, {16, 32, 32}, spacing_mm)).device->batch, 1) << "one window";
  Segmenter fresh = segmenter(options(Precision::kFloat16, false, true, 0));
  const Segmentation want = labels(fresh, scan(6, kShape, kSpacing_mm));
  ASSERT_EQ(want.device->batch, 4);
  int64_t forwards = 0;
  for (int i = 0; i < 64; ++i) {
    const Segmentation got = labels(s, scan(6, kShape, kSpacing_mm));
    forwards += got.forwards;
    if (got.device->batch == 1) continue;
    EXPECT_EQ(got.device->batch, 4);
    EXPECT_EQ(different(got.labels, want.labels), 0);
    EXPECT_GE(forwards, 64);
    return;
  }
  FAIL() << forwards << " forward passes, one at a time";
}

TEST_F(ScanDevice, StopsWhenAskedTo) {
  Segmenter s = segmenter(options(Precision::kFloat16, true, true, 1));
  std::atomic<bool> cancel{false};
  int calls = 0;
  const auto r = s.segment(
      scan(6, kShape, kSpacing_mm), nullptr, [&](int64_t, int64_t) { cancel = ++calls == 2; }, &cancel);
  ASSERT_FALSE(r.ok());
  EXPECT_EQ(r.error().code, ErrorCode::kCancelled);
  cancel = false;
  EXPECT_GT(foreground(labels(s, scan(6, kShape, kSpacing_mm)).labels), 1000);
}

}  // namespace
}  // namespace isoline
