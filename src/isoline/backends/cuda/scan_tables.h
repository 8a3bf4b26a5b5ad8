// From the CPU rooms' descriptions of a scan to what the scan passes take. Host code; arrays go through
// `keep`, which copies a vector to where the executor sees it and returns its address there.
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <vector>

#include "isoline/backends/cuda/scan_passes.h"
#include "isoline/postprocess/label_rule.h"
#include "isoline/preprocess/preprocess.h"

namespace isoline::cuda {

// `keep` for host memory.
class HostTables {
 public:
  template <class T>
  const T* keep(const std::vector<T>& v) {
    auto copy = std::make_shared<std::vector<T>>(v);
    kept_.push_back(copy);
    return copy->data();
  }

 private:
  std::vector<std::shared_ptr<void>> kept_;
};

// Whether resample_slices() and resample_along_z() do what `plan` says.
inline bool can_resample(const PreprocessPlan& plan) {
  return plan.voxelwise &&
         (!plan.coarse || *plan.coarse == 0 || plan.resample.shape_before == plan.resample.shape_after);
}

template <class Keep>
AxisTable axis_table(int64_t n_in, int64_t n_out, int order, GridRule rule, const Keep& keep) {
  AxisTable t;
  t.n_in = int(n_in), t.n_out = int(n_out);
  if (!t.changes()) return t;
  const AxisOperator op = make_axis_operator(n_in, n_out, order, rule);
  t.taps = op.taps, t.pad = int(op.pad), t.prefilter = op.prefilter;
  t.first = keep(op.first);
  t.weight = keep(std::vector<float>(op.weight.begin(), op.weight.end()));
  return t;
}

template <class Keep>
ResamplePasses resample_passes(const ResampleRequest& rq, const Keep& keep) {
  ResamplePasses p;
  p.in = size3(rq.in), p.out = size3(rq.out);
  p.z = axis_table(rq.in[0], rq.out[0], rq.separate_z ? 0 : rq.order, rq.rule, keep);
  p.y = axis_table(rq.in[1], rq.out[1], rq.order, rq.rule, keep);
  p.x = axis_table(rq.in[2], rq.out[2], rq.order, rq.rule, keep);
  p.separate_z = rq.separate_z;
  p.clip = rq.order > 1;
  return p;
}

inline VoxelScale voxel_scale(const Normalizer& n) {
  return {n.identity, n.clip, n.low, n.high, n.subtract, n.divide};
}

// Steps of the transposed axes through one channel of the image, in voxels, and its first voxel inside the
// crop.
struct SourceStrides {
  int64_t offset = 0, z = 0, y = 0, x = 0;
};
inline SourceStrides source_strides(const PreprocessPlan& plan, const Shape3& file_shape) {
  const Shape3 file{file_shape[1] * file_shape[2], file_shape[2], 1};
  const Vec3<int>& p = plan.crop.transpose_forward;
  SourceStrides s;
  s.z = file[size_t(p[0])], s.y = file[size_t(p[1])], s.x = file[size_t(p[2])];
  const Index3& lo = plan.crop.box.lo;
  s.offset = lo[0] * s.z + lo[1] * s.y + lo[2] * s.x;
  return s;
}

// Everything but logits, base, planes, z0 and labels.
template <class Label, class Keep>
ExportLabels<Label> export_labels(const LabelRule& rule, const Keep& keep) {
  ExportLabels<Label> e;
  e.heads = int(rule.heads);
  e.network_y = int(rule.network_shape[1]), e.network_x = int(rule.network_shape[2]);
  DeviceTaps* const taps[3] = {&e.taps_z, &e.taps_y, &e.taps_x};
  for (size_t a = 0; a < 3; ++a)
    *taps[a] = {keep(rule.taps[a].lo), keep(rule.taps[a].hi), keep(rule.taps[a].w_lo),
                keep(rule.taps[a].w_hi)};
  e.regions = rule.regions, e.torch = rule.torch;
  e.threshold = rule.region_threshold;
  if (rule.regions) e.region_labels = keep(rule.region_labels);
  e.z_step = rule.file_stride[0], e.y_step = rule.file_stride[1], e.x_step = rule.file_stride[2];
  return e;
}

// Forward passes in order are units: mirror k of tile t is unit t * mirrors + k. A batch is up to `size` of
// them; its parts are the runs that belong to one tile.
struct BatchPart {
  int64_t tile = 0;
  int offset = 0, count = 0;  // among the batch's windows
  bool first = false, last = false;
  Windows windows;
};
struct BatchPlan {
  int64_t first_unit = 0;
  int count = 0;
  Windows windows;
  std::vector<BatchPart> parts;
};
std::vector<BatchPlan> plan_batches(const TilePlan& plan, std::span<const Vec3<bool>> mirrors, int size,
                                    bool break_rows);

}  // namespace isoline::cuda
