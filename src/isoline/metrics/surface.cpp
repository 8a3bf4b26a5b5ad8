#include "isoline/metrics/surface.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>

#include "isoline/base/simd.h"
#include "isoline/metrics/corner_surface.h"
#include "isoline/metrics/label_scan.h"
#include "isoline/metrics/surface_distance.h"
#include "isoline/metrics/surfel_area.h"

namespace isoline {
namespace {

using metrics::all_are;
using metrics::CornerSurface;
using metrics::DistanceCount;
using metrics::DistanceCounts;
using metrics::RegionView;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int64_t kLongestAxis = 32766;  // steps between corners fit in 16 bits
constexpr int64_t kBlock = 16;           // voxels along x looked at together
constexpr size_t kRegionsAtOnce = 8;     // one bit each

Error invalid(const std::string& what) {
  return Error{ErrorCode::kInvalidArgument, what, "", ""};
}

Status check(const LabelMap& reference, const LabelMap& prediction, std::span<const SurfaceRegion> regions) {
  if (reference.shape != prediction.shape)
    return invalid("the reference has shape " + to_string(reference.shape) + ", the prediction " +
                   to_string(prediction.shape));
  for (size_t a = 0; a < 3; ++a) {
    if (reference.shape[a] > kLongestAxis)
      return Error{ErrorCode::kUnsupported,
                   "surface distances are limited to " + std::to_string(kLongestAxis) +
                       " voxels an axis; shape is " + to_string(reference.shape),
                   "", ""};
    if (!(reference.geometry.spacing_mm[a] > 0) || !std::isfinite(reference.geometry.spacing_mm[a]))
      return invalid("the reference's spacing is not positive");
  }
  for (const SurfaceRegion& r : regions) {
    ISOLINE_RETURN_IF_ERROR(check_region(r.region));
    for (double t : r.tolerances_mm)
      if (!(t >= 0) || !std::isfinite(t))
        return invalid("region \"" + r.region.name + "\": a tolerance must be 0 mm or more");
  }
  return {};
}

// True if all n voxels of both rows are 0: most rows of most scans.
ISOLINE_MULTIVERSION bool both_zero(const uint16_t* a, const uint16_t* b, int64_t n) {
  uint16_t seen = 0;
  for (int64_t i = 0; i < n; ++i) seen |= uint16_t(a[i] | b[i]);
  return seen == 0;
}

void grow(Box3& box, const Box3& other) {
  for (size_t a = 0; a < 3; ++a) {
    box.lo[a] = std::min(box.lo[a], other.lo[a]);
    box.hi[a] = std::max(box.hi[a], other.hi[a]);
  }
}

constexpr Box3 kNoBox{{std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::max(),
                       std::numeric_limits<int64_t>::max()},
                      {0, 0, 0}};

// For up to kRegionsAtOnce regions the box that holds both maps' voxels, rounded outwards to blocks along x;
// kNoBox where there are none. member[label]: one bit a region.
std::vector<Box3> region_boxes(const LabelMap& reference, const LabelMap& prediction,
                               const std::vector<uint8_t>& member, size_t regions, int ignored,
                               ThreadPool& pool) {
  const int64_t ny = reference.shape[1], nx = reference.shape[2];
  std::vector<Box3> boxes(regions, kNoBox);
  std::mutex mutex;
  pool.for_each(reference.shape[0], 1, [&](int64_t begin, int64_t end) {
    std::vector<Box3> mine(regions, kNoBox);
    for (int64_t z = begin; z < end; ++z)
      for (int64_t y = 0; y < ny; ++y) {
        const uint16_t *r = &reference.at(z, y, 0), *p = &prediction.at(z, y, 0);
        if (member[0] == 0 && both_zero(r, p, nx)) continue;
        for (int64_t x = 0; x < nx; x += kBlock) {
          const int64_t stop = std::min(nx, x + kBlock);
          if (member[0] == 0 && all_are(r + x, stop - x, 0) && all_are(p + x, stop - x, 0)) continue;
          uint8_t seen = 0;
          for (int64_t i = x; i < stop; ++i)
            seen |= uint8_t((member[r[i]] | member[p[i]]) & -int(r[i] != ignored));
          for (size_t k = 0; seen >> k; ++k)
            if (seen >> k & 1) grow(mine[k], {{z, y, x}, {z + 1, y + 1, stop}});
        }
      }
    const std::lock_guard lock(mutex);
    for (size_t k = 0; k < regions; ++k) grow(boxes[k], mine[k]);
  });
  return boxes;
}

// What one direction contributes.
struct Direction {
  double area = 0, mean = kNan, p95 = kNan;
  std::vector<double> within;
};

Direction summarise(const std::vector<DistanceCount>& counts, const std::array<double, 256>& areas,
                    const std::vector<double>& tolerances_mm) {
  Direction d;
  d.within.assign(tolerances_mm.size(), 0);
  std::vector<std::pair<double, double>> steps;  // distance, area at it
  for (const DistanceCount& c : counts) {
    const double distance = std::sqrt(c.squared_mm2), area = areas[c.code] * double(c.count);
    if (steps.empty() || steps.back().first != distance) steps.emplace_back(distance, 0);
    steps.back().second += area;
  }
  for (const auto& step : steps)
    d.area += step.second;  // as `within` is added up: all within gives exactly 1
  if (steps.empty()) return d;
  // Rounding of the sum must not move the percentile where the area reaches 95 % exactly.
  const double enough = 0.95 * d.area * (1 - 1e-12);
  double sum = 0, moment = 0;
  for (const auto& [distance, area] : steps) {
    if (sum < enough) d.p95 = distance;
    sum += area;
    moment += distance * area;
    for (size_t t = 0; t < tolerances_mm.size(); ++t)
      if (distance <= tolerances_mm[t]) d.within[t] += area;
  }
  d.mean = moment / d.area;
  return d;
}

Direction measure(const CornerSurface& from, const CornerSurface& to, const Vec3<double>& spacing,
                  const std::array<double, 256>& areas, const std::vector<double>& tolerances_mm,
                  ThreadPool& pool) {
  if (!from.empty() && !to.empty())
    return summarise(surface_distances(from, to, spacing, pool).sorted(), areas, tolerances_mm);
  Direction d;
  d.within.assign(tolerances_mm.size(), 0);
  if (from.empty()) return d;
  // Against an empty surface every distance is infinite; against itself every one is 0, which gives the area.
  d.area = summarise(surface_distances(from, from, spacing, pool).sorted(), areas, {}).area;
  d.mean = d.p95 = kInfinity;
  return d;
}

SurfaceMetrics measure_region(const RegionView& reference, const RegionView& prediction, const Box3& box,
                              const std::vector<double>& tolerances_mm, ThreadPool& pool) {
  SurfaceMetrics m;
  m.planar = reference.map->shape[0] == 1;
  m.tolerances_mm = tolerances_mm;
  Vec3<double> spacing = reference.reference->geometry.spacing_mm;
  if (m.planar) spacing[0] = 1;  // areas per mm of z are lengths (surfel_area.h)
  Direction r, p;
  r.within = p.within = std::vector<double>(tolerances_mm.size(), 0);
  if (!(box == kNoBox)) {
    const CornerSurface a(reference, box, m.planar, pool), b(prediction, box, m.planar, pool);
    const std::array<double, 256> areas = surfel_areas_mm2(spacing);
    r = measure(a, b, spacing, areas, tolerances_mm, pool);
    p = measure(b, a, spacing, areas, tolerances_mm, pool);
  }
  m.reference_area_mm2 = r.area;
  m.predicted_area_mm2 = p.area;
  m.reference_within_mm2 = r.within;
  m.predicted_within_mm2 = p.within;
  m.reference_mean_mm = r.mean;
  m.predicted_mean_mm = p.mean;
  m.reference_p95_mm = r.p95;
  m.predicted_p95_mm = p.p95;
  return m;
}

}  // namespace

double SurfaceMetrics::surface_dice(size_t t, BothEmpty both_empty) const {
  const double area = reference_area_mm2 + predicted_area_mm2;
  if (area == 0) return both_empty == BothEmpty::kOne ? 1.0 : kNan;
  return (reference_within_mm2[t] + predicted_within_mm2[t]) / area;
}

double SurfaceMetrics::hd95_mm(BothEmpty both_empty) const {
  if (reference_empty() && predicted_empty()) return both_empty == BothEmpty::kOne ? 0.0 : kNan;
  if (reference_empty() || predicted_empty()) return kInfinity;
  return std::max(reference_p95_mm, predicted_p95_mm);
}

double SurfaceMetrics::average_distance_mm(BothEmpty both_empty) const {
  if (reference_empty() && predicted_empty()) return both_empty == BothEmpty::kOne ? 0.0 : kNan;
  if (reference_empty() || predicted_empty()) return kInfinity;
  return (reference_mean_mm + predicted_mean_mm) / 2;
}

Result<std::vector<SurfaceMetrics>> surface_metrics(const LabelMap& reference, const LabelMap& prediction,
                                                    std::span<const SurfaceRegion> regions,
                                                    std::optional<int> ignore_label, ThreadPool& pool) {
  ISOLINE_RETURN_IF_ERROR(check(reference, prediction, regions));
  const int ignored = ignore_label.value_or(-1);
  std::vector<SurfaceMetrics> out;
  for (size_t first = 0; first < regions.size(); first += kRegionsAtOnce) {
    const size_t count = std::min(kRegionsAtOnce, regions.size() - first);
    std::vector<uint8_t> member(65536, 0);
    for (size_t k = 0; k < count; ++k)
      for (int label : regions[first + k].region.labels) member[size_t(label)] |= uint8_t(1u << k);
    const std::vector<Box3> boxes = region_boxes(reference, prediction, member, count, ignored, pool);
    for (size_t k = 0; k < count; ++k) {
      std::vector<uint8_t> wanted(65536);
      for (size_t label = 0; label < wanted.size(); ++label) wanted[label] = member[label] >> k & 1;
      const RegionView r{&reference, &reference, wanted.data(), ignored};
      const RegionView p{&prediction, &reference, wanted.data(), ignored};
      out.push_back(measure_region(r, p, boxes[k], regions[first + k].tolerances_mm, pool));
    }
  }
  return out;
}

}  // namespace isoline
