// Image -> Prepared: transpose, crop, normalise and resample, as nnunetv2's DefaultPreprocessor.run_case_npy.
#pragma once

#include <optional>
#include <vector>

#include "isoline/base/parallel.h"
#include "isoline/base/result.h"
#include "isoline/model/model_spec.h"
#include "isoline/preprocess/normalize.h"
#include "isoline/resample/resample_volume.h"
#include "isoline/volume/volume.h"

namespace isoline {

// How to undo the transpose and the crop.
struct CropRecord {
  Vec3<int> transpose_forward{0, 1, 2};  // new axis a is file axis transpose_forward[a]
  Shape3 shape_before{0, 0, 0};          // transposed, before the crop
  Box3 box;                              // the crop, in transposed axes
};

// How to undo the resampling.
struct ResampleRecord {
  Shape3 shape_before{0, 0, 0};  // after the crop
  Shape3 shape_after{0, 0, 0};   // the network's grid
  Vec3<double> spacing_before_mm{1, 1, 1}, spacing_after_mm{1, 1, 1};
};

// What tiles are cut from: [c, z, y, x], float32, in transposed axes; then the one-hot channels of a cascade.
struct Prepared {
  int64_t channels = 0;
  Shape3 shape{0, 0, 0};
  Buffer<float> data;
  CropRecord crop;
  ResampleRecord resample;
};

// What preprocess() decides before it touches voxels. Enough to do the rest elsewhere (on a GPU) where
// `voxelwise`.
struct PreprocessPlan {
  int64_t channels = 0;  // of the result, one-hot channels included
  CropRecord crop;
  ResampleRecord resample;
  ResampleRequest request;    // shapes, order and rule; separate_z where `coarse` is set
  std::optional<int> coarse;  // the transposed axis resampled apart
  // Normalisation depends on a voxel's value alone and there are no labels of a previous stage: then
  // `normalizers` [image channels] is filled.
  bool voxelwise = false;
  std::vector<Normalizer> normalizers;
};
// previous_stage: only whether there is one. Errors: wrong channel count, unsupported spline order, values
// the normalisation refuses (RGBTo01 outside 0..255), a resampled shape with no voxels.
Result<PreprocessPlan> plan_preprocess(const Image& image, bool previous_stage, const ModelSpec& spec,
                                       ThreadPool& pool);

// Carries `plan` out. previous_stage: labels on the *original* grid in file order; required exactly when
// spec.previous_stage is set. `image` is not modified; it may be freed afterwards.
Result<Prepared> preprocess(const Image& image, const LabelMap* previous_stage, const ModelSpec& spec,
                            PreprocessPlan plan, ThreadPool& pool);
// Both in one.
Result<Prepared> preprocess(const Image& image, const LabelMap* previous_stage, const ModelSpec& spec,
                            ThreadPool& pool);

// The shape preprocess() would give, without doing it (for memory estimates). Needs only the crop's shape.
Shape3 resampled_shape(const Shape3& cropped, const Vec3<double>& spacing_mm, const ModelSpec& spec);

}  // namespace isoline
