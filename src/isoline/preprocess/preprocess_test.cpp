#include "isoline/preprocess/preprocess.h"

#include <gtest/gtest.h>

#include <cmath>

#include "isoline/preprocess/crop.h"

namespace isoline {
namespace {

Image make_image(Shape3 s, int64_t channels = 1) {
  Image im;
  im.channels = channels;
  im.shape = s;
  im.data = zeroed<float>(size_t(channels * voxels(s)));
  return im;
}
float& at(Image& im, int64_t z, int64_t y, int64_t x) {
  return std::get<Buffer<float>>(im.data)[size_t((z * im.shape[1] + y) * im.shape[2] + x)];
}
ModelSpec spec_with(Normalization n) {
  ModelSpec s;
  s.spacing_mm = {1, 1, 1};
  s.patch_size = {8, 8, 8};
  s.channels = {ChannelSpec{"CT", n, false, 10, 2, 0, 100}};
  return s;
}

TEST(Crop, BoxCoversEveryNonzeroVoxel) {
  ThreadPool pool(3);
  Image im = make_image({6, 7, 9});
  EXPECT_EQ(nonzero_box(im, pool), (Box3{{0, 0, 0}, {6, 7, 9}}));  // all zero: the full extent
  at(im, 2, 5, 3) = 1;
  at(im, 4, 1, 7) = -1;
  EXPECT_EQ(nonzero_box(im, pool), (Box3{{2, 1, 3}, {5, 6, 8}}));
}

TEST(Crop, HolesAreFilledButNotOpenBays) {
  Image im = make_image({5, 5, 5});
  for (int64_t z = 1; z < 4; ++z)
    for (int64_t y = 1; y < 4; ++y)
      for (int64_t x = 1; x < 4; ++x) at(im, z, y, x) = 1;
  at(im, 2, 2, 2) = 0;
  const Buffer<uint8_t> closed = filled_nonzero_mask(im, {{0, 0, 0}, {5, 5, 5}});
  EXPECT_EQ(closed[2 * 25 + 2 * 5 + 2], 1);
  EXPECT_EQ(closed[0], 0);
  at(im, 2, 2, 3) = 0;
  EXPECT_EQ(filled_nonzero_mask(im, {{0, 0, 0}, {5, 5, 5}})[2 * 25 + 2 * 5 + 2], 0);
}

TEST(Preprocess, CtNormalisationClipsThenScales) {
  ThreadPool pool(1);
  Image im = make_image({2, 2, 2});
  at(im, 0, 0, 0) = 500;
  at(im, 1, 1, 1) = 20;
  const auto r = preprocess(im, nullptr, spec_with(Normalization::kCt), pool);
  ASSERT_TRUE(r.ok()) << r.error().to_string();
  EXPECT_FLOAT_EQ(r->data[0], 45);
  EXPECT_FLOAT_EQ(r->data[7], 5);
  EXPECT_FLOAT_EQ(r->data[1], -5);
}

TEST(Preprocess, TransposesCropsAndRecordsTheWayBack) {
  ThreadPool pool(2);
  Image im = make_image({3, 4, 5});
  im.geometry.spacing_mm = {1, 2, 3};
  at(im, 1, 2, 3) = 7;
  ModelSpec spec = spec_with(Normalization::kNone);
  spec.transpose_forward = {2, 0, 1};
  spec.spacing_mm = {3, 1, 2};
  const auto r = preprocess(im, nullptr, spec, pool);
  ASSERT_TRUE(r.ok());
  EXPECT_EQ(r->crop.shape_before, (Shape3{5, 3, 4}));
  EXPECT_EQ(r->crop.box, (Box3{{3, 1, 2}, {4, 2, 3}}));
  EXPECT_EQ(r->data[0], 7);
}

TEST(Preprocess, RefusesWhatDoesNotFitTheModel) {
  ThreadPool pool(1);
  const Image two = make_image({2, 2, 2}, 2);
  EXPECT_EQ(preprocess(two, nullptr, spec_with(Normalization::kCt), pool).error().code,
            ErrorCode::kInvalidArgument);
  ModelSpec quintic = spec_with(Normalization::kCt);
  quintic.resample_data.order = 5;
  EXPECT_EQ(preprocess(make_image({2, 2, 2}), nullptr, quintic, pool).error().code, ErrorCode::kUnsupported);
  Image dark = make_image({2, 2, 2});
  at(dark, 0, 0, 0) = -1;
  EXPECT_EQ(preprocess(dark, nullptr, spec_with(Normalization::kRgbTo01), pool).error().context, "channel 0");
}

}  // namespace
}  // namespace isoline
