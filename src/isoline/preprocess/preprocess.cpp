#include "isoline/preprocess/preprocess.h"

#include <algorithm>
#include <cstring>

#include "isoline/preprocess/crop.h"
#include "isoline/preprocess/normalize.h"
#include "isoline/resample/anisotropy.h"
#include "isoline/resample/resample_labels.h"
#include "isoline/resample/resample_volume.h"

namespace isoline {
namespace {

// channels x [z, y, x] -> the same with axes permuted: new axis a is old axis p[a].
template <class T>
Buffer<T> transposed(const T* src, int64_t channels, const Shape3& s, const Vec3<int>& p, ThreadPool& pool) {
  const Shape3 stride{s[1] * s[2], s[2], 1};
  const Shape3 t{s[size_t(p[0])], s[size_t(p[1])], s[size_t(p[2])]};
  const Shape3 step{stride[size_t(p[0])], stride[size_t(p[1])], stride[size_t(p[2])]};
  Buffer<T> out(size_t(channels * voxels(s)));
  pool.for_each(channels * t[0], 1, [&](int64_t begin, int64_t end) {
    for (int64_t cz = begin; cz < end; ++cz) {
      const T* plane = src + cz / t[0] * voxels(s) + cz % t[0] * step[0];
      T* to = out.data() + cz * t[1] * t[2];
      for (int64_t y = 0; y < t[1]; ++y)
        for (int64_t x = 0; x < t[2]; ++x) to[y * t[2] + x] = plane[y * step[1] + x * step[2]];
    }
  });
  return out;
}

// The target spacing in three entries: 2-D configurations keep the spacing between slices.
Vec3<double> target_spacing(const ModelSpec& spec, const Vec3<double>& spacing_mm) {
  if (spec.spacing_mm.size() == 2) return {spacing_mm[0], spec.spacing_mm[0], spec.spacing_mm[1]};
  return {spec.spacing_mm[0], spec.spacing_mm[1], spec.spacing_mm[2]};
}

Status check_order(const ResampleSpec& r, const char* field) {
  for (int order : {r.order, r.order_z})
    if (r.function == ResampleFunction::kDefault && order != 0 && order != 1 && order != 3)
      return Error{ErrorCode::kUnsupported, "spline order " + std::to_string(order) + " is not supported",
                   field, "Orders 0, 1 and 3 are."};
  if (r.order_z != 0 && r.function == ResampleFunction::kDefault)
    return Error{ErrorCode::kUnsupported, "order_z " + std::to_string(r.order_z) + " is not supported", field,
                 "Only order_z 0 (nnU-Net's own value) is."};
  if (r.function == ResampleFunction::kTorch && r.torch_mode != "linear")
    return Error{ErrorCode::kUnsupported,
                 "resample_torch_fornnunet mode '" + r.torch_mode + "' is not supported", field,
                 "Only 'linear' is."};
  return {};
}

ResampleRequest resample_request(const Shape3& in, const Shape3& out, const ResampleSpec& r,
                                 const std::optional<int>& coarse) {
  ResampleRequest rq{in, out, r.order, coarse.has_value(), GridRule::kZoom};
  if (r.function == ResampleFunction::kTorch) {
    rq.rule = GridRule::kTorch;
    rq.order = 1;
  }
  return rq;
}

// Runs resample_rows with the coarse axis moved to the front, as it requires.
void resample_channel(const RowLoader& load, ResampleRequest rq, std::optional<int> coarse, float* dst,
                      ThreadPool& pool) {
  const Shape3 in = rq.in, out = rq.out;
  if (!coarse || *coarse == 0 || in == out) return resample_rows(load, rq, dst, pool);
  Buffer<float> source(size_t(voxels(in)));
  pool.for_each(in[0] * in[1], 64, [&](int64_t b, int64_t e) {
    for (int64_t row = b; row < e; ++row) load(row / in[1], row % in[1], source.data() + row * in[2]);
  });
  const Vec3<int> to = *coarse == 1 ? Vec3<int>{1, 0, 2} : Vec3<int>{2, 0, 1};
  const Vec3<int> back = *coarse == 1 ? Vec3<int>{1, 0, 2} : Vec3<int>{1, 2, 0};
  const Buffer<float> front = transposed(source.data(), 1, in, to, pool);
  for (size_t a = 0; a < 3; ++a) rq.in[a] = in[size_t(to[a])], rq.out[a] = out[size_t(to[a])];
  Buffer<float> result(size_t(voxels(out)));
  resample_rows([&](int64_t z, int64_t y,
                    float* row) { std::copy_n(front.data() + (z * rq.in[1] + y) * rq.in[2], rq.in[2], row); },
                rq, result.data(), pool);
  const Buffer<float> ordered = transposed(result.data(), 1, rq.out, back, pool);
  std::memcpy(dst, ordered.data(), ordered.byte_size());
}

// Labels of the previous stage in transposed axes, cropped, [z, y, x].
Result<Buffer<int16_t>> crop_previous_stage(const LabelMap& labels, const CropRecord& crop,
                                            ThreadPool& pool) {
  const Vec3<int> p = crop.transpose_forward;
  for (size_t a = 0; a < 3; ++a)
    if (labels.shape[size_t(p[a])] != crop.shape_before[a])
      return Error{ErrorCode::kInvalidArgument,
                   "the previous stage's labels have shape " + to_string(labels.shape) + ", not the image's",
                   "previous stage", "Give the segmentation of the same scan."};
  const Shape3 m = crop.box.shape();
  const Buffer<uint16_t> turned = transposed(labels.data.data(), 1, labels.shape, p, pool);
  Buffer<int16_t> cropped(size_t(voxels(m)));
  for (int64_t z = 0; z < m[0]; ++z)
    for (int64_t y = 0; y < m[1]; ++y)
      for (int64_t x = 0; x < m[2]; ++x) {
        const int64_t from =
            ((z + crop.box.lo[0]) * crop.shape_before[1] + y + crop.box.lo[1]) * crop.shape_before[2] + x +
            crop.box.lo[2];
        const uint16_t v = turned[size_t(from)];
        if (v > 32767)
          return Error{ErrorCode::kUnsupported, "label " + std::to_string(v) + " is above 32767",
                       "previous stage", ""};
        cropped[size_t((z * m[1] + y) * m[2] + x)] = int16_t(v);
      }
  return cropped;
}

// Resampled labels appended as one 0/1 channel per foreground label (run_case + convert_labelmap_to_one_hot).
// `labels` carry -1 for background outside the nonzero mask, as in the reference: it is a label of its own.
Status append_previous_stage(const Buffer<int16_t>& labels, const ModelSpec& spec, Prepared& prepared,
                             ThreadPool& pool) {
  const ResampleSpec& r = spec.resample_segmentation;
  if (r.function == ResampleFunction::kTorch)
    return Error{ErrorCode::kUnsupported,
                 "resample_torch_fornnunet is not supported for the previous stage's labels",
                 "resampling_fn_seg", "Use a model whose plans name resample_data_or_seg_to_shape."};
  if (r.function == ResampleFunction::kDefault && r.order != 1)
    return Error{ErrorCode::kUnsupported,
                 "order " + std::to_string(r.order) + " is not supported for label maps",
                 "resampling_fn_seg_kwargs.order", "Only order 1 (nnU-Net's own value) is."};
  const ResampleRecord& rr = prepared.resample;
  const int64_t n = voxels(prepared.shape);
  Buffer<int16_t> resampled(static_cast<size_t>(n));
  resample_labels(labels.data(), rr.shape_before, prepared.shape,
                  separate_axis(r.force_separate_z, rr.spacing_before_mm, rr.spacing_after_mm),
                  resampled.data(), pool);
  float* channel = prepared.data.data() + int64_t(spec.channels.size()) * n;
  for (int label : spec.labels.all_labels) {
    if (label == 0) continue;
    for (int64_t i = 0; i < n; ++i) channel[i] = resampled[size_t(i)] == label ? 1.0f : 0.0f;
    channel += n;
  }
  return {};
}

}  // namespace

Shape3 resampled_shape(const Shape3& cropped, const Vec3<double>& spacing_mm, const ModelSpec& spec) {
  if (spec.resample_data.function == ResampleFunction::kNone) return cropped;
  return compute_new_shape(cropped, spacing_mm, target_spacing(spec, spacing_mm));
}

Result<PreprocessPlan> plan_preprocess(const Image& image, bool previous_stage, const ModelSpec& spec,
                                       ThreadPool& pool) {
  if (image.channels != int64_t(spec.channels.size()))
    return Error{ErrorCode::kInvalidArgument,
                 "the scan has " + std::to_string(image.channels) + " channel(s), the model needs " +
                     std::to_string(spec.channels.size()),
                 "channels", "Give one file per channel, in the order of the model's channel_names."};
  if (previous_stage != spec.previous_stage.has_value())
    return Error{ErrorCode::kInvalidArgument,
                 previous_stage
                     ? "this model takes no labels of a previous stage"
                     : "this is a cascade: it needs the labels of stage '" + *spec.previous_stage + "'",
                 "previous stage", previous_stage ? "Leave them out." : "Give them with --prev-stage."};
  ISOLINE_RETURN_IF_ERROR(check_order(spec.resample_data, "resampling_fn_data_kwargs"));

  PreprocessPlan plan;
  const Vec3<int> p{spec.transpose_forward[0], spec.transpose_forward[1], spec.transpose_forward[2]};
  const Box3 file_box = nonzero_box(image, pool);
  plan.crop.transpose_forward = p;
  ResampleRecord& rr = plan.resample;
  for (size_t a = 0; a < 3; ++a) {
    const auto from = size_t(p[a]);
    plan.crop.shape_before[a] = image.shape[from];
    plan.crop.box.lo[a] = file_box.lo[from];
    plan.crop.box.hi[a] = file_box.hi[from];
    rr.spacing_before_mm[a] = image.geometry.spacing_mm[from];
  }
  rr.shape_before = plan.crop.box.shape();
  rr.spacing_after_mm = target_spacing(spec, rr.spacing_before_mm);
  rr.shape_after = resampled_shape(rr.shape_before, rr.spacing_before_mm, spec);
  for (size_t a = 0; a < 3; ++a)
    if (rr.shape_after[a] < 1 || rr.shape_after[a] > (int64_t{1} << 30))
      return Error{ErrorCode::kInvalidArgument,
                   "resampling " + to_string(rr.shape_before) + " voxels to the model's spacing gives " +
                       to_string(rr.shape_after),
                   "spacing", "Check the file's spacing."};
  plan.channels = spec.input_channels();
  plan.coarse = separate_axis(spec.resample_data.force_separate_z, rr.spacing_before_mm, rr.spacing_after_mm);
  plan.request = resample_request(rr.shape_before, rr.shape_after, spec.resample_data, plan.coarse);
  plan.voxelwise = !previous_stage;
  for (const ChannelSpec& c : spec.channels)
    plan.voxelwise &= !(c.use_mask && c.normalization == Normalization::kZScore);
  for (int64_t c = 0; plan.voxelwise && c < image.channels; ++c) {
    ISOLINE_ASSIGN(const Normalizer norm,
                   make_normalizer(spec.channels[size_t(c)], image, c, file_box, nullptr, pool));
    plan.normalizers.push_back(norm);
  }
  return plan;
}

Result<Prepared> preprocess(const Image& image, const LabelMap* previous_stage, const ModelSpec& spec,
                            ThreadPool& pool) {
  ISOLINE_ASSIGN(PreprocessPlan plan, plan_preprocess(image, previous_stage != nullptr, spec, pool));
  return preprocess(image, previous_stage, spec, std::move(plan), pool);
}

Result<Prepared> preprocess(const Image& original, const LabelMap* previous_stage, const ModelSpec& spec,
                            PreprocessPlan plan, ThreadPool& pool) {
  Prepared out;
  out.crop = plan.crop;
  out.resample = plan.resample;
  const Vec3<int> p = out.crop.transpose_forward;
  Image turned;
  const Image* image = &original;
  if (p != Vec3<int>{0, 1, 2}) {
    turned.channels = original.channels;
    turned.shape = out.crop.shape_before;
    std::visit(
        [&](const auto& b) {
          turned.data = transposed(b.data(), original.channels, original.shape, p, pool);
        },
        original.data);
    image = &turned;
  }
  const Box3 box = out.crop.box;
  const Shape3 m = box.shape();
  out.channels = plan.channels;
  out.shape = out.resample.shape_after;
  out.data = Buffer<float>(size_t(out.channels * voxels(out.shape)));
  const bool needs_mask = !plan.voxelwise;
  Buffer<uint8_t> mask;
  if (needs_mask) mask = filled_nonzero_mask(*image, box);
  Buffer<int16_t> previous;
  if (previous_stage) {
    ISOLINE_ASSIGN(previous, crop_previous_stage(*previous_stage, out.crop, pool));
    for (size_t i = 0; i < previous.size(); ++i) {  // crop_to_nonzero: seg >= 0 is the mask from here on
      if (previous[i] == 0 && !mask[i]) previous[i] = -1;
      mask[i] = previous[i] >= 0;
    }
  }
  for (int64_t c = 0; c < original.channels; ++c) {
    if (needs_mask) {
      ISOLINE_ASSIGN(const Normalizer masked,
                     make_normalizer(spec.channels[size_t(c)], *image, c, box, mask.data(), pool));
      plan.normalizers.push_back(masked);
    }
    const Normalizer& norm = plan.normalizers[size_t(c)];
    const RowLoader load = [&](int64_t z, int64_t y, float* row) {
      const int64_t at =
          ((c * image->shape[0] + z + box.lo[0]) * image->shape[1] + y + box.lo[1]) * image->shape[2] +
          box.lo[2];
      const uint8_t* inside = norm.mask ? norm.mask + (z * m[1] + y) * m[2] : nullptr;
      std::visit([&](const auto& b) { norm.apply(b.data() + at, inside, m[2], row); }, image->data);
    };
    resample_channel(load, plan.request, plan.coarse, out.data.data() + c * voxels(out.shape), pool);
  }
  if (previous_stage) ISOLINE_RETURN_IF_ERROR(append_previous_stage(previous, spec, out, pool));
  return out;
}

}  // namespace isoline
