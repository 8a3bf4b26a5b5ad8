#include "isoline/phantom/phantom.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "isoline/base/simd.h"
#include "isoline/phantom/anatomy.h"
#include "isoline/phantom/counter_random.h"
#include "isoline/phantom/renderer.h"

namespace isoline {
namespace {

using namespace phantom_detail;

// exp(-t), t >= 0, as (1 - t/1024)^1024: within 1e-3, and the same on every machine, which libm is not.
double exp_negative(double t) {
  double v = std::max(0.0, 1 - t / 1024);
  for (int i = 0; i < 10; ++i) v *= v;
  return v;
}

// A Gaussian of `sigma` voxels cut at 3 sigma: weights[k] for offsets -radius..radius, summing to 1.
struct Kernel {
  explicit Kernel(double sigma) {
    radius = int64_t(std::ceil(3 * std::max(sigma, 0.01)));
    double sum = 0, squares = 0;
    for (int64_t k = -radius; k <= radius; ++k) {
      const double t = double(k) / std::max(sigma, 0.01);
      weights.push_back(float(exp_negative(std::min(0.5 * t * t, 1000.0))));
      sum += double(weights.back());
    }
    for (float& w : weights) {
      w = float(double(w) / sum);
      squares += double(w) * double(w);
    }
    gain = std::sqrt(squares);
  }
  int64_t radius = 0;
  std::vector<float> weights;
  double gain = 1;  // standard deviation of filtered white noise of unit variance
};

ISOLINE_MULTIVERSION
void add_scaled(const float* in, float w, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] += w * in[i];
}

ISOLINE_MULTIVERSION
void white_row(uint64_t key, uint64_t first, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i)
    out[i] = normal_from(mix64(key ^ ((first + uint64_t(i)) * 0xd1342543de82ef95ull)));
}

// Blurs one slice [ny, nx] in place along y, then x; edges are repeated.
void blur_slice(const Kernel& ky, const Kernel& kx, int64_t ny, int64_t nx, float* slice,
                std::vector<float>& scratch) {
  const int64_t padded = nx + 2 * kx.radius;
  scratch.resize(size_t(ny * nx + padded));
  float* tmp = scratch.data();
  float* line = tmp + ny * nx;
  std::fill(tmp, tmp + ny * nx, 0.0f);
  for (int64_t y = 0; y < ny; ++y)
    for (int64_t k = -ky.radius; k <= ky.radius; ++k)
      add_scaled(slice + std::clamp<int64_t>(y + k, 0, ny - 1) * nx, ky.weights[size_t(k + ky.radius)], nx,
                 tmp + y * nx);
  for (int64_t y = 0; y < ny; ++y) {
    const float* from = tmp + y * nx;
    std::fill(line, line + kx.radius, from[0]);
    std::copy(from, from + nx, line + kx.radius);
    std::fill(line + kx.radius + nx, line + padded, from[nx - 1]);
    float* to = slice + y * nx;
    std::fill(to, to + nx, 0.0f);
    for (size_t k = 0; k < kx.weights.size(); ++k) add_scaled(line + k, kx.weights[k], nx, to);
  }
}

}  // namespace

Status validate(const PhantomSpec& spec) {
  double count = 1;
  for (size_t axis = 0; axis < 3; ++axis) {
    const int64_t n = spec.shape[axis];
    const double s = spec.spacing_mm[axis];
    const std::string name = std::string("axis ") + "zyx"[axis];
    if (n < 1 || n > 4096)
      return Error{ErrorCode::kInvalidArgument, "the phantom's size is " + std::to_string(n), name,
                   "give 1 to 4096 voxels"};
    if (!(s >= 0.2 && s <= 20))
      return Error{ErrorCode::kInvalidArgument, "the phantom's spacing is " + std::to_string(s) + " mm", name,
                   "give 0.2 to 20 mm"};
    if (double(n) * s > 1000)
      return Error{ErrorCode::kInvalidArgument,
                   "the phantom is " + std::to_string(int64_t(double(n) * s)) + " mm long", name,
                   "stay within 1000 mm: fewer voxels or a smaller spacing"};
    count *= double(n);
  }
  if (count > double(1 << 30))
    return Error{ErrorCode::kResourceExhausted, "the phantom has more than 2^30 voxels",
                 to_string(spec.shape), "give a smaller size"};
  return {};
}

Result<Phantom> make_phantom(const PhantomSpec& spec, ThreadPool& pool) {
  ISOLINE_RETURN_IF_ERROR(validate(spec));
  const Grid grid{spec.shape, spec.spacing_mm};
  const Anatomy anatomy = draw_anatomy(spec.seed);
  const Renderer renderer(anatomy, spec.seed, grid);
  const int64_t nz = spec.shape[0], ny = spec.shape[1], nx = spec.shape[2], slice = ny * nx;

  Geometry geometry;
  geometry.spacing_mm = spec.spacing_mm;
  geometry.origin_mm = {grid.position_mm(2, 0), grid.position_mm(1, 0), grid.position_mm(0, 0)};
  Phantom out{Volume<int16_t>(spec.shape, geometry), LabelMap(spec.shape, geometry)};

  // Tissue, blurred in plane.
  const double psf = double(anatomy.psf_mm);
  const Kernel psf_y(psf / spec.spacing_mm[1]), psf_x(psf / spec.spacing_mm[2]);
  Buffer<float> tissue(size_t(voxels(spec.shape)));
  pool.for_each(nz, 1, [&](int64_t begin, int64_t end) {
    Renderer::Scratch scratch(renderer);
    std::vector<float> blur;
    for (int64_t z = begin; z < end; ++z) {
      for (int64_t y = 0; y < ny; ++y)
        renderer.row(z, y, scratch, tissue.data() + z * slice + y * nx,
                     out.labels.data.data() + z * slice + y * nx);
      blur_slice(psf_y, psf_x, ny, nx, tissue.data() + z * slice, blur);
    }
  });

  // Slice profile across z, then noise, stronger in thin slices and correlated in plane.
  const Kernel psf_z(0.4 * std::max(1.0, 1.5 / spec.spacing_mm[0]));
  const double grain = double(anatomy.noise_grain_mm);
  const Kernel grain_y(grain / spec.spacing_mm[1]), grain_x(grain / spec.spacing_mm[2]);
  const double thin = std::clamp(std::sqrt(2.5 / spec.spacing_mm[0]), 0.8, 1.6);
  const float noise_scale = float(double(anatomy.noise_hu) * thin / (grain_y.gain * grain_x.gain));
  const uint64_t noise_key = hash2(spec.seed, 2000);
  pool.for_each(nz, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> sum(static_cast<size_t>(nx)), noise(static_cast<size_t>(slice)), blur;
    for (int64_t z = begin; z < end; ++z) {
      white_row(noise_key, uint64_t(z) * uint64_t(slice), slice, noise.data());
      blur_slice(grain_y, grain_x, ny, nx, noise.data(), blur);
      for (int64_t y = 0; y < ny; ++y) {
        std::fill(sum.begin(), sum.end(), 0.0f);
        for (int64_t k = -psf_z.radius; k <= psf_z.radius; ++k)
          add_scaled(tissue.data() + std::clamp<int64_t>(z + k, 0, nz - 1) * slice + y * nx,
                     psf_z.weights[size_t(k + psf_z.radius)], nx, sum.data());
        int16_t* to = out.ct_hu.data.data() + z * slice + y * nx;
        for (int64_t x = 0; x < nx; ++x) {
          const float v = sum[size_t(x)] + noise_scale * noise[size_t(y * nx + x)];
          to[x] = int16_t(std::floor(std::clamp(v, -1024.0f, 3071.0f) + 0.5f));
        }
      }
    }
  });
  return out;
}

}  // namespace isoline
