#include "isoline/phantom/renderer.h"

#include <algorithm>
#include <cmath>

#include "isoline/base/simd.h"
#include "isoline/phantom/counter_random.h"
#include "isoline/phantom/phantom.h"

namespace isoline::phantom_detail {
namespace {

constexpr float kFieldCell[Renderer::kFieldCount] = {80, 34, 20, 16, 9, 5, 3};

float clamp01(float v) {
  return v < 0 ? 0 : v > 1 ? 1 : v;
}

// v modulo `period`, in [0, period).
float wrap(float v, float period) {
  return v - period * std::floor(v / period);
}

// out[i] = sqrt of the squared ellipsoid coordinates of (x[i], y, z), whose three local coordinates are
// linear in x.
ISOLINE_MULTIVERSION
void ellipsoid_row(const float* x, int64_t n, const float* start, const float* step, float* out) {
  const float a0 = start[0], a1 = start[1], a2 = start[2], s0 = step[0], s1 = step[1], s2 = step[2];
  for (int64_t i = 0; i < n; ++i) {
    const float u = a0 + s0 * x[i], v = a1 + s1 * x[i], w = a2 + s2 * x[i];
    out[i] = std::sqrt(u * u + v * v + w * w);
  }
}

}  // namespace

struct Renderer::Row {
  int64_t z_index, y_index;
  float z, y;  // mm
  int64_t n;
  const float* x;  // mm
  Scratch& s;
  float* hu;
  uint16_t* label;
  const float* field(Field f) const { return s.field[f].data(); }
};

Renderer::Scratch::Scratch(const Renderer& r) {
  const size_t n = r.x_mm_.size();
  size_t lattice_size = 0;
  for (const LatticeNoise& noise : r.noise_) lattice_size = std::max(lattice_size, noise.scratch_size());
  lattice.resize(lattice_size);
  for (auto& f : field) f.resize(n);
  for (auto* v : {&cavity_depth, &distance, &cover, &kidney}) v->resize(n);
  hard.resize(n);
}

Renderer::Renderer(const Anatomy& anatomy, uint64_t seed, const Grid& grid) : a_(anatomy), grid_(grid) {
  for (int f = 0; f < kFieldCount; ++f)
    noise_.emplace_back(hash2(seed, 1000 + uint64_t(f)), double(kFieldCell[f]), grid);
  for (int64_t x = 0; x < grid.shape[2]; ++x) x_mm_.push_back(float(grid.position_mm(2, x)));
}

Renderer::Range Renderer::range_mm(float x_lo, float x_hi) const {
  const auto begin = std::lower_bound(x_mm_.begin(), x_mm_.end(), x_lo);
  const auto end = std::upper_bound(begin, x_mm_.end(), x_hi);
  return {begin - x_mm_.begin(), end - x_mm_.begin()};
}

Renderer::Range Renderer::blob_distance(Row& r, const Blob& b, float limit, Field coarse, Field fine) const {
  // Roughness times a field of at most ~3 pulls the surface outwards by at most this factor.
  const float reach = b.largest_radius() * (limit + 4 * b.roughness);
  const float dy = r.y - b.centre[1], dz = r.z - b.centre[2];
  if (std::abs(dy) > reach || std::abs(dz) > reach) return {0, 0};
  const Range range = range_mm(b.centre[0] - reach, b.centre[0] + reach);
  if (range.begin >= range.end) return range;
  float start[3], step[3];
  for (size_t i = 0; i < 3; ++i) {
    const Point& axis = b.axes[i];
    step[i] = axis[0] / b.radius[i];
    start[i] = (axis[1] * dy + axis[2] * dz - axis[0] * b.centre[0]) / b.radius[i];
  }
  float* out = r.s.distance.data();
  ellipsoid_row(r.x + range.begin, range.end - range.begin, start, step, out + range.begin);
  const float* c = r.field(coarse);
  const float* f = r.field(fine);
  for (int64_t x = range.begin; x < range.end; ++x) out[x] += b.roughness * (0.75f * c[x] + 0.5f * f[x]);
  return range;
}

// Air, table, skin, subcutaneous fat, muscle with ribs, and the fat that fills the cavity.
void Renderer::body_wall(Row& r) const {
  const float* body = r.field(kBody80);
  const float* shape = r.field(kShape34);
  const float* t16 = r.field(kTexture16);
  const float* t9 = r.field(kTexture9);
  const float* t5 = r.field(kTexture5);
  const float yy = (r.y / a_.body_y) * (r.y / a_.body_y);
  const bool table = r.y > a_.table_y && r.y < a_.table_y + 9;
  for (int64_t x = 0; x < r.n; ++x) {
    const float xx = (r.x[x] / a_.body_x) * (r.x[x] / a_.body_x);
    const float rim = std::sqrt(xx + yy) + 0.015f * body[x];
    const float depth = (1 - rim) * a_.body_y * 1.1f;
    const float fat = std::max(3.0f, a_.fat_mm * (1 + 0.15f * shape[x]));
    const float cavity = depth - fat - a_.wall_mm * (1 + 0.1f * shape[x]);
    r.s.cavity_depth[size_t(x)] = cavity;
    r.s.hard[size_t(x)] = cavity < 0;
    r.label[x] = kPhantomBackground;
    float hu;
    if (depth < 0) {
      hu = table && std::abs(r.x[x]) < 210 ? -650.0f : -1000.0f;
    } else if (depth < 2.2f) {
      hu = 15;
    } else if (depth < fat) {
      hu = a_.fat_hu + 6 * t9[x] + (t5[x] > 2.2f ? 60 : 0);
    } else if (cavity < 0) {
      hu = a_.muscle_hu + 7 * t5[x] + (t9[x] > 1.5f ? -70 : 0);
      const float into = depth - fat;
      if (r.z > a_.rib_from_z && into > 1.5f && into < a_.wall_mm - 1.5f) {
        const float phase = wrap(r.z + a_.rib_slope * (a_.body_y - r.y), a_.rib_pitch_mm);
        if (phase < 9) hu = phase < 2 || phase > 7 ? 420 : 190;
      }
    } else {
      hu = a_.fat_hu + 8 + 7 * t16[x] + 4 * t5[x] +
           (t5[x] > 2.0f ? 110 : 0);  // small vessels of the mesentery
    }
    r.hu[x] = hu;
  }
}

void Renderer::soft_organs(Row& r) const {
  const float* s20 = r.field(kShape20);
  const float* t16 = r.field(kTexture16);
  const float* t9 = r.field(kTexture9);
  const float* t5 = r.field(kTexture5);
  const float* cavity = r.s.cavity_depth.data();
  float* d = r.s.distance.data();
  auto paint = [&](const Blob& b, auto hu_at) {
    const Range range = blob_distance(r, b, 1, kShape34, kShape20);
    for (int64_t x = range.begin; x < range.end; ++x)
      if (d[x] < 1 && cavity[x] > 1.5f) r.hu[x] = hu_at(x);
  };
  paint(a_.stomach, [&](int64_t x) {
    if (d[x] > 0.88f) return a_.bowel_wall_hu + 5 * t5[x];
    if (r.y < a_.stomach.centre[1] - 6) return -950.0f;
    return a_.stomach_hu + 14 * t9[x] + (t5[x] > 1.6f ? -70.0f : 0.0f);
  });
  paint(a_.pancreas, [&](int64_t x) { return t5[x] > 1.3f ? -40.0f : a_.pancreas_hu + 9 * t5[x]; });
  paint(a_.spleen, [&](int64_t x) { return a_.spleen_hu + 4 * t9[x] + 3 * t5[x]; });
  paint(a_.liver, [&](int64_t x) {
    const float vessel = std::abs(s20[x] + 0.2f * t9[x]);
    return a_.liver_hu + 5 * t16[x] + 4 * t5[x] + (vessel < 0.09f && d[x] < 0.9f ? 32.0f : 0.0f);
  });
  for (const Mass& m : a_.liver_lesions) {
    const Blob& liver = a_.liver;
    const float reach = liver.largest_radius();
    if (std::abs(r.z - liver.centre[2]) > reach || std::abs(r.y - liver.centre[1]) > reach) break;
    const Range range = blob_distance(r, m.shape, 1, kTexture16, kTexture9);
    for (int64_t x = range.begin; x < range.end; ++x)
      if (d[x] < 1 && std::abs(r.hu[x] - a_.liver_hu) < 55)  // inside the liver as painted above
        r.hu[x] = m.hu + m.coarse_texture * t9[x] + m.fine_texture * t5[x];
  }
  paint(a_.gallbladder, [&](int64_t x) { return d[x] > 0.88f ? 60.0f : a_.gallbladder_hu + 2 * t5[x]; });
  if (a_.has_adrenal_mass)
    paint(a_.adrenal, [&](int64_t x) { return a_.adrenal_hu + 5 * t9[x] + 4 * t5[x]; });
}

// Small bowel as one connected noise region in front, and the two upright parts of the colon.
void Renderer::bowel(Row& r) const {
  const float* body = r.field(kBody80);
  const float* s34 = r.field(kShape34);
  const float* s20 = r.field(kShape20);
  const float* t9 = r.field(kTexture9);
  const float* t5 = r.field(kTexture5);
  const float* cavity = r.s.cavity_depth.data();
  if (r.y < a_.spine_y - 30 && r.z < 55) {
    const float amount = a_.bowel_amount - 0.5f;
    for (int64_t x = 0; x < r.n; ++x) {
      if (cavity[x] < 4) continue;
      const float inside = s20[x] + amount;
      if (inside < 0) continue;
      if (inside < 0.22f) {
        r.hu[x] = a_.bowel_wall_hu + 7 * t5[x];
      } else if (s34[x] > 0.9f && inside > 0.4f) {
        r.hu[x] = -900;
      } else {
        r.hu[x] = a_.bowel_hu + 12 * t9[x] + (body[x] > 0.8f ? 120.0f : 0.0f);  // oral contrast in some loops
      }
    }
  }
  for (const Tube* t : {&a_.colon_right, &a_.colon_left}) {
    if (r.z < t->z_low || r.z > t->z_high + t->radius) continue;
    // A fold every haustra_mm; the upper end is rounded.
    const float phase = wrap(r.z, t->haustra_mm) / t->haustra_mm - 0.5f;
    float radius = t->radius * (1.08f - 0.9f * (0.25f - phase * phase < 0.05f ? 0.2f : 0.0f));
    const float over = (r.z - t->z_high) / t->radius;
    if (over > 0) radius *= std::sqrt(std::max(0.0f, 1 - over * over));
    const float dy = r.y - t->y;
    if (std::abs(dy) > radius * 1.5f) continue;
    const Range range = range_mm(t->x - 1.5f * radius - 8, t->x + 1.5f * radius + 8);
    for (int64_t x = range.begin; x < range.end; ++x) {
      if (cavity[x] < 1.5f) continue;
      const float dx = r.x[x] - t->x - 5 * body[x];
      const float d = std::sqrt(dx * dx + dy * dy) + 1.6f * s20[x] * 2;
      if (d > radius) continue;
      if (d > radius - 3) {
        r.hu[x] = a_.bowel_wall_hu + 6 * t5[x];
      } else if (dy < -0.15f * radius + 6 * body[x]) {
        r.hu[x] = -930;
      } else {
        r.hu[x] = 25 + 28 * t5[x] + (t9[x] > 0.8f ? -160.0f : 0.0f);
      }
    }
  }
}

void Renderer::spine_and_vessels(Row& r) const {
  const float* s34 = r.field(kShape34);
  const float* t9 = r.field(kTexture9);
  const float* t5 = r.field(kTexture5);
  const float* grain = r.field(kGrain3);
  const float* cavity = r.s.cavity_depth.data();
  const float dy = r.y - a_.spine_y;
  const float level = wrap(r.z + a_.vertebra_phase_mm, a_.vertebra_pitch_mm);
  const bool disc = level<8, arch = level> 16 && level < 30;
  // Psoas and the long back muscles thicken downwards.
  const float psoas = a_.psoas_r * clamp01(0.75f - r.z * 0.006f);
  const float psoas_x = a_.vertebra_x + psoas * 0.8f;
  const Range range = range_mm(-80, 80);
  for (int64_t x = range.begin; x < range.end; ++x) {
    const float px = r.x[x], ax = std::abs(px);
    const float muscle_dx = ax - psoas_x, muscle_dy = dy - 3;
    const bool in_psoas =
        muscle_dx * muscle_dx + 0.7f * muscle_dy * muscle_dy < psoas * psoas * (1 + 0.15f * s34[x]) * 1.0f;
    const bool back = dy > 14 && cavity[x] > -a_.wall_mm && ax < 66 + 5 * s34[x];
    if (in_psoas || back) {
      r.hu[x] = a_.muscle_hu + 6 * t5[x] + (back && t9[x] > 1.3f ? -90.0f : 0.0f);
      if (back) r.s.hard[size_t(x)] = 1;
    }
    const float vx = px / a_.vertebra_x, vy = dy / a_.vertebra_y;
    const float vertebra = std::sqrt(vx * vx + vy * vy);
    const float canal_dx = px / 10, canal_dy = (dy - a_.vertebra_y - 9) / 8;
    const float canal = std::sqrt(canal_dx * canal_dx + canal_dy * canal_dy);
    bool bone = false;
    if (vertebra < 1) {
      bone = true;
      if (disc) {
        r.hu[x] = 85 + 8 * t5[x];
      } else {
        const bool shell = vertebra > 0.88f || level < 10 || level > a_.vertebra_pitch_mm - 2;
        r.hu[x] = shell ? 480 + 60 * t5[x] : a_.marrow_hu + 45 * grain[x] + 20 * t5[x];
      }
    } else if (canal < 1) {
      bone = true;
      r.hu[x] = canal < 0.7f ? 32.0f : 5.0f;
    } else if ((canal < 1.5f && arch) || (ax < 3.5f && dy > 30 && dy < 52 && arch) ||
               (std::abs(dy - a_.vertebra_y) < 4 && ax < 42 && level > 18 && level < 25)) {
      bone = true;
      r.hu[x] = 380 + 70 * t5[x];
    }
    if (bone) r.s.hard[size_t(x)] = 1;
  }
  const float sway = 3 * (wrap(r.z, 120) / 60 - 1);
  const float front = a_.spine_y - a_.vertebra_y;
  auto vessel = [&](float cx, float cy, float rx, float ry, float hu) {
    if (std::abs(r.y - cy) > ry) return;
    const Range in = range_mm(cx - rx, cx + rx);
    for (int64_t x = in.begin; x < in.end; ++x) {
      const float ex = (r.x[x] - cx) / rx, ey = (r.y - cy) / ry;
      const float e = ex * ex + ey * ey;
      if (e < 1)
        r.hu[x] = (e > 0.75f ? hu - 40 : hu) + 5 * t5[x] + (e > 0.7f && t9[x] > 1.7f ? 350.0f : 0.0f);
    }
  };
  vessel(a_.aorta_x + std::abs(sway), front - a_.aorta_r - 1, a_.aorta_r, a_.aorta_r, a_.aorta_hu);
  vessel(-20, front - 9, 12, 9, a_.cava_hu);
}

// Air in the recess between the wall and the organs, above the diaphragm.
void Renderer::lungs(Row& r) const {
  const float height = r.z - a_.lung_z;
  if (height < 0) return;
  const float* t9 = r.field(kTexture9);
  const float* t5 = r.field(kTexture5);
  const float* cavity = r.s.cavity_depth.data();
  for (int64_t x = 0; x < r.n; ++x) {
    const float depth = cavity[x] - 1.5f;
    if (depth < 0 || r.s.hard[size_t(x)]) continue;
    if (depth < 0.7f * height + (r.y > 0 ? 0.25f * r.y : 0.0f))
      r.hu[x] = -845 + 22 * t9[x] + (t5[x] > 2.1f ? 750.0f : 0.0f);
  }
}

void Renderer::mass(Row& r, const Mass& m, uint16_t value) const {
  const float* s20 = r.field(kShape20);
  const float* t16 = r.field(kTexture16);
  const float* t9 = r.field(kTexture9);
  const float* t5 = r.field(kTexture5);
  const float size = m.shape.largest_radius();
  const bool large = size > 20;
  const Range range =
      blob_distance(r, m.shape, 1, large ? kShape20 : kTexture16, large ? kTexture16 : kTexture9);
  const float* d = r.s.distance.data();
  for (int64_t x = range.begin; x < range.end; ++x) {
    if (d[x] >= 1 || r.s.hard[size_t(x)]) continue;
    float hu = m.hu + m.coarse_texture * (large ? s20[x] : t9[x]) + m.fine_texture * t5[x];
    if (m.kind == MassKind::kSolid) {
      const float core = (large ? t16[x] : t9[x]) + 0.8f * (1 - d[x]) - 0.4f;
      if (core > m.necrosis_above && d[x] < 0.9f) hu = m.necrosis_hu + 5 * t5[x];
      if (d[x] > 0.88f) hu += m.rim_hu;
    } else if (m.kind == MassKind::kCysticTumour) {
      const float septum = std::abs(t16[x] + 0.3f * t9[x]);
      if (d[x] < 0.8f && septum > 0.22f) hu = 14 + 3 * t5[x];
    }
    r.hu[x] = hu;
    r.label[x] = value;
  }
}

void Renderer::kidney(Row& r, const Kidney& k, bool right) const {
  const float* s34 = r.field(kShape34);
  const float* s20 = r.field(kShape20);
  const float* t16 = r.field(kTexture16);
  const float* t9 = r.field(kTexture9);
  const float* t5 = r.field(kTexture5);
  const float* cavity = r.s.cavity_depth.data();
  float* cover = r.s.cover.data();
  float* dist = r.s.kidney.data();
  const float dy = r.y - k.centre[1], dz = r.z - k.centre[2];
  const float longest = k.radius[0] * 1.35f + k.fat_mm + 8;
  float reach_lo = k.centre[0] - longest, reach_hi = k.centre[0] + longest;
  bool near = std::abs(dy) < longest && std::abs(dz) < longest;
  for (const auto* list : {&k.cysts, &k.tumours})
    for (const Mass& m : *list) {
      const float reach = m.shape.largest_radius() * 1.7f + k.fat_mm + 8;
      if (std::abs(r.y - m.shape.centre[1]) < reach && std::abs(r.z - m.shape.centre[2]) < reach) {
        near = true;
        reach_lo = std::min(reach_lo, m.shape.centre[0] - reach);
        reach_hi = std::max(reach_hi, m.shape.centre[0] + reach);
      }
    }
  if (!near) return;
  const Range range = range_mm(reach_lo, reach_hi);
  if (range.begin >= range.end) return;

  // 1. Distance to the kidney in units of its surface.
  float at[3], step[3];
  for (size_t i = 0; i < 3; ++i) {
    step[i] = k.axes[i][0];
    at[i] = k.axes[i][1] * dy + k.axes[i][2] * dz - k.axes[i][0] * k.centre[0];
  }
  const float inward = right ? 1.0f : -1.0f;
  const float smallest = k.radius[2];
  for (int64_t x = range.begin; x < range.end; ++x) {
    const float u = (at[0] + step[0] * r.x[x]) / k.radius[0];
    const float v = (at[1] + step[1] * r.x[x] - inward * k.bend_mm * u * u) / k.radius[1];
    const float w = (at[2] + step[2] * r.x[x]) / k.radius[2];
    dist[x] = std::sqrt(u * u + v * v + w * w) + k.roughness * s34[x] + k.lobulation * t16[x];
    cover[x] = (dist[x] - 1) * smallest;
  }

  // 2. Perirenal fat round the kidney and its masses; noise lets organs touch them here and there.
  for (const auto* list : {&k.cysts, &k.tumours})
    for (const Mass& m : *list) {
      const float size = m.shape.largest_radius();
      const Range near_mass = blob_distance(r, m.shape, 1 + (k.fat_mm + 8) / size, kTexture16, kTexture9);
      for (int64_t x = std::max(near_mass.begin, range.begin); x < std::min(near_mass.end, range.end); ++x)
        cover[x] = std::min(cover[x], (r.s.distance[size_t(x)] - 1) * size);
    }
  for (int64_t x = range.begin; x < range.end; ++x)
    if (cavity[x] > 0 && !r.s.hard[size_t(x)] && cover[x] < k.fat_mm * (0.6f - 0.7f * s20[x]))
      r.hu[x] = a_.fat_hu + 10 + 7 * t16[x] + 5 * t5[x] + (t9[x] > 2.0f ? 45.0f : 0.0f);

  // 3. Vessels from the hilum towards the middle.
  const float hilum = k.centre[0] + inward * k.radius[1] * 0.8f;
  for (int side = 0; side < 2; ++side) {
    const float ez = dz - (side ? 5.0f : -4.0f), radius = side ? 3.2f : 4.5f;
    const Range in = right ? range_mm(hilum - 14, -18) : range_mm(12, hilum + 14);
    for (int64_t x = in.begin; x < in.end; ++x) {
      const float path = 0.12f * (r.x[x] - hilum) * inward;  // rises forwards to the great vessels
      const float ey = dy + path + (side ? 0.0f : 5.0f) + 2 * s34[x];
      if (ez * ez + ey * ey < radius * radius && !r.s.hard[size_t(x)])
        r.hu[x] = (side ? a_.aorta_hu : a_.cava_hu) + 5 * t5[x];
    }
  }

  // 4. Parenchyma and sinus.
  for (int64_t x = range.begin; x < range.end; ++x) {
    if (dist[x] >= 1 || r.s.hard[size_t(x)]) continue;
    const float u = (at[0] + step[0] * r.x[x] - k.sinus_centre[0]) / k.sinus_radius[0];
    const float v = (at[1] + step[1] * r.x[x] - k.sinus_centre[1]) / k.sinus_radius[1];
    const float w = (at[2] + step[2] * r.x[x] - k.sinus_centre[2]) / k.sinus_radius[2];
    const float sinus = std::sqrt(u * u + v * v + w * w) + 0.14f * t16[x] + 0.06f * t9[x];
    if (sinus < 1) {
      float hu = a_.fat_hu + 22 + 8 * t5[x];
      if (t9[x] > 1.1f) hu = a_.cava_hu;
      if (sinus < 0.75f && t16[x] > 0.1f) hu = k.pelvis_hu + 3 * t5[x];
      r.hu[x] = hu;
      continue;
    }
    // Medulla: pyramids between columns of cortex.
    const float deep = clamp01(((1 - dist[x]) - k.cortex_depth * (1 + 0.2f * t16[x])) * 9);
    const float pyramid = deep * clamp01(0.9f + 1.2f * t9[x]);
    r.hu[x] = k.cortex_hu + (k.medulla_hu - k.cortex_hu) * pyramid + 5 * t16[x] + 4 * t5[x];
    r.label[x] = kPhantomKidney;
  }

  // 5. Masses; a tumour wins over a cyst.
  for (const Mass& m : k.cysts) mass(r, m, kPhantomCyst);
  for (const Mass& m : k.tumours) mass(r, m, kPhantomTumour);
}

void Renderer::row(int64_t z, int64_t y, Scratch& s, float* hu, uint16_t* label) const {
  Row r{z,
        y,
        float(grid_.position_mm(0, z)),
        float(grid_.position_mm(1, y)),
        grid_.shape[2],
        x_mm_.data(),
        s,
        hu,
        label};
  for (int f = 0; f < kFieldCount; ++f)
    noise_[size_t(f)].row(z, y, 0, r.n, s.lattice.data(), s.field[f].data());
  body_wall(r);
  bowel(r);
  soft_organs(r);
  spine_and_vessels(r);
  lungs(r);
  kidney(r, a_.kidneys[0], true);
  kidney(r, a_.kidneys[1], false);
}

}  // namespace isoline::phantom_detail
