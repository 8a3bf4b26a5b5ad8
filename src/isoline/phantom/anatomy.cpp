#include "isoline/phantom/anatomy.h"

#include <algorithm>
#include <cmath>

#include "isoline/phantom/counter_random.h"

namespace isoline::phantom_detail {
namespace {

enum Tag : uint64_t { kBody = 1, kSpine, kOrgans, kLesions, kBowel, kKidneys, kMasses, kScanner };

float draw(Draws& d, double lo, double hi) {
  return float(d.uniform(lo, hi));
}

// Cayley's map: the rotation about `v` by 2 atan(|v|), from arithmetic alone.
Rotation rotation_about(double x, double y, double z) {
  const double n = x * x + y * y + z * z, s = 1 / (1 + n);
  auto f = [](double v) { return float(v); };
  return {{{f((1 - n + 2 * x * x) * s), f(2 * (x * y - z) * s), f(2 * (x * z + y) * s)},
           {f(2 * (x * y + z) * s), f((1 - n + 2 * y * y) * s), f(2 * (y * z - x) * s)},
           {f(2 * (x * z - y) * s), f(2 * (y * z + x) * s), f((1 - n + 2 * z * z) * s)}}};
}

Rotation small_rotation(Draws& d, double sd) {
  const double x = sd * d.normal(), y = sd * d.normal(), z = sd * d.normal();
  return rotation_about(x, y, z);
}

Blob blob(Draws& d, Point centre, Point radius, double centre_sd_mm, double radius_sd, double roughness) {
  Blob b;
  for (size_t i = 0; i < 3; ++i) {
    b.centre[i] = centre[i] + float(centre_sd_mm * d.normal());
    b.radius[i] = radius[i] * float(1 + radius_sd * d.normal());
  }
  b.axes = small_rotation(d, 0.12);
  b.roughness = float(roughness);
  return b;
}

Point unit_vector(Draws& d) {
  double v[3], n = 0;
  for (double& c : v) {
    c = d.normal();
    n += c * c;
  }
  n = n > 1e-6 ? 1 / std::sqrt(n) : 0;
  return {float(v[0] * n), float(v[1] * n), float(v[2] * n)};
}

// Log-uniform would need exp; the square of a uniform has the same lean towards small values.
float draw_leaning_small(Draws& d, double lo, double hi) {
  const double u = d.uniform(0, 1);
  return float(lo + (hi - lo) * u * u);
}

// A place on the kidney's surface (away from the hilum), moved out or in by `reach` x the radius.
Point place_on_kidney(Draws& d, const Kidney& k, bool right, float radius, double reach_lo, double reach_hi) {
  Point n = unit_vector(d);
  const float medial = right ? 1.0f : -1.0f;  // local v is world x up to a small rotation
  if (n[1] * medial > 0.35f) n[1] = -n[1];
  if (n[2] > 0.4f) n[2] = -n[2];  // the back wall would cut it off
  const float reach = draw(d, reach_lo, reach_hi);
  const float to_surface = 1 / std::sqrt((n[0] / k.radius[0]) * (n[0] / k.radius[0]) +
                                         (n[1] / k.radius[1]) * (n[1] / k.radius[1]) +
                                         (n[2] / k.radius[2]) * (n[2] / k.radius[2]));
  const float along = std::max(0.3f * to_surface, to_surface + reach * radius);
  Point p = k.centre;
  for (size_t i = 0; i < 3; ++i)
    for (size_t a = 0; a < 3; ++a) p[i] += k.axes[a][i] * n[a] * along;
  return p;
}

// Millimetres by which a mass clears what would cut it to a sliver: the body wall and, for a cyst, a tumour
// that wins over it. Negative: it is cut.
float clearance_mm(const Anatomy& a, const Kidney& k, const Mass& m) {
  const float r = m.shape.largest_radius(), bx = m.shape.centre[0] / a.body_x,
              by = m.shape.centre[1] / a.body_y;
  const float depth = (1 - std::sqrt(bx * bx + by * by)) * a.body_y * 1.1f;
  float clearance = depth - (a.fat_mm + a.wall_mm + 0.5f * r + 6);
  if (m.kind != MassKind::kCyst) return clearance;
  for (const Mass& other : k.tumours) {
    float square = 0;
    for (size_t i = 0; i < 3; ++i) {
      const float step = other.shape.centre[i] - m.shape.centre[i];
      square += step * step;
    }
    clearance = std::min(clearance, std::sqrt(square) - 0.9f * (r + other.shape.largest_radius()));
  }
  return clearance;
}

// The first of sixteen places that is clear, or else the clearest.
void place(Draws& d, const Anatomy& a, const Kidney& k, bool right, float r, double reach_lo, double reach_hi,
           Mass& m) {
  Point best{};
  float best_clearance = 0;
  for (int attempt = 0; attempt < 16; ++attempt) {
    m.shape.centre = place_on_kidney(d, k, right, r, reach_lo, reach_hi);
    const float clearance = clearance_mm(a, k, m);
    if (clearance >= 0) return;
    if (attempt == 0 || clearance > best_clearance) {
      best_clearance = clearance;
      best = m.shape.centre;
    }
  }
  m.shape.centre = best;
}

void draw_masses(Anatomy& a, uint64_t seed) {
  Draws d(seed, kMasses);
  const double t = d.uniform(0, 1), c = d.uniform(0, 1);
  const int tumours = t < 0.05 ? 0 : t < 0.68 ? 1 : t < 0.92 ? 2 : 3;
  const int cysts = c < 0.40 ? 0 : c < 0.75 ? 1 : 2;
  for (int i = 0; i < tumours; ++i) {
    const bool right = d.chance(0.5);
    Kidney& k = a.kidneys[right ? 0 : 1];
    Mass m;
    const float r = i == 0 ? draw_leaning_small(d, 12, 40) : draw_leaning_small(d, 8.5, 24);
    for (float& v : m.shape.radius) v = r * draw(d, 0.82, 1.2);
    place(d, a, k, right, r, -0.7, 0.45, m);
    m.shape.axes = small_rotation(d, 0.5);
    m.shape.roughness = draw(d, 0.06, 0.16);
    const double type = d.uniform(0, 1);
    if (type < 0.50) {  // bright and mixed, often as bright as the kidney
      m.hu = draw(d, 95, 165);
      m.coarse_texture = draw(d, 10, 26);
      m.fine_texture = draw(d, 5, 14);
      m.necrosis_above = draw(d, 0.5, 1.8);
    } else if (type < 0.82) {  // darker and even
      m.hu = draw(d, 45, 95);
      m.coarse_texture = draw(d, 3, 12);
      m.fine_texture = draw(d, 3, 8);
      m.necrosis_above = draw(d, 1.3, 3.0);
    } else if (type < 0.93) {  // between, with a scar
      m.hu = draw(d, 85, 130);
      m.coarse_texture = draw(d, 4, 14);
      m.fine_texture = draw(d, 3, 8);
      m.rim_hu = draw(d, -30, 20);
      m.necrosis_above = draw(d, 1.0, 2.0);
    } else {  // mostly fluid with a wall and septa: not a cyst, but nearly
      m.kind = MassKind::kCysticTumour;
      m.hu = draw(d, 60, 120);
      m.coarse_texture = draw(d, 5, 12);
      m.fine_texture = draw(d, 4, 9);
    }
    m.necrosis_hu = draw(d, 12, 42);
    k.tumours.push_back(m);
  }
  for (int i = 0; i < cysts; ++i) {
    const bool right = d.chance(0.5);
    Kidney& k = a.kidneys[right ? 0 : 1];
    Mass m;
    m.kind = MassKind::kCyst;
    const float r = draw_leaning_small(d, 5.5, 26);
    for (float& v : m.shape.radius) v = r * draw(d, 0.92, 1.09);
    place(d, a, k, right, r, -0.8, 0.5, m);
    m.shape.axes = small_rotation(d, 0.3);
    m.shape.roughness = draw(d, 0.0, 0.05);
    m.hu = d.chance(0.12) ? draw(d, 30, 70) : draw(d, -3, 22);  // some hold protein or blood
    m.coarse_texture = draw(d, 0, 3);
    m.fine_texture = draw(d, 0, 3);
    k.cysts.push_back(m);
  }
}

void draw_kidneys(Anatomy& a, uint64_t seed) {
  Draws d(seed, kKidneys);
  const float cortex = draw(d, 135, 215);
  const float contrast = draw(d, 0, 65);
  const float pelvis =
      d.chance(0.15) ? draw(d, 250, 700) : draw(d, 2, 22);  // late phase: contrast in the pelvis
  const double z_both = 14 * d.normal();
  for (int side = 0; side < 2; ++side) {
    Kidney& k = a.kidneys[size_t(side)];
    const float out = side == 0 ? -1.0f : 1.0f;
    k.centre = {out * draw(d, 60, 76), a.spine_y - draw(d, 10, 26),
                float(z_both + 9 * d.normal() + side * 8)};
    k.radius = {draw(d, 47, 61), draw(d, 25, 32), draw(d, 20, 27)};
    // Local u: upwards, its top leaning to the spine and backwards; v: along x; w: along y.
    const Point tilt{draw(d, -0.16, 0.02), -out * draw(d, -0.02, 0.14), draw(d, -0.2, 0.2)};
    const Rotation r = rotation_about(tilt[0], tilt[1], tilt[2]);
    k.axes = {Point{r[0][2], r[1][2], r[2][2]}, Point{r[0][0], r[1][0], r[2][0]},
              Point{r[0][1], r[1][1], r[2][1]}};
    k.bend_mm = draw(d, 2, 12);
    k.roughness = draw(d, 0.03, 0.08);
    k.lobulation = draw(d, 0.0, 0.04);
    k.cortex_hu = cortex + draw(d, -6, 6);
    k.medulla_hu = k.cortex_hu - contrast;
    k.cortex_depth = draw(d, 0.2, 0.36);
    k.sinus_centre = {draw(d, -5, 5), -out * k.radius[1] * draw(d, 0.75, 1.05), draw(d, -4, 4)};
    k.sinus_radius = {k.radius[0] * draw(d, 0.34, 0.5), k.radius[1] * draw(d, 0.6, 0.85),
                      k.radius[2] * draw(d, 0.35, 0.55)};
    k.pelvis_hu = pelvis;
    k.fat_mm = draw(d, 1, 14);
  }
}

void draw_organs(Anatomy& a, uint64_t seed) {
  Draws d(seed, kOrgans);
  a.liver = blob(d, {-62, -18, 78}, {82, 74, 74}, 7, 0.07, 0.09);
  a.spleen = blob(d, {92, 28, 82}, {30, 40, 50}, 7, 0.12, 0.08);
  a.stomach = blob(d, {48, -42, 84}, {46, 34, 48}, 8, 0.12, 0.10);
  a.gallbladder = blob(d, {-48, -34, 12}, {13, 18, 26}, 8, 0.12, 0.04);
  a.pancreas = blob(d, {8, -6, 34}, {58, 13, 17}, 6, 0.12, 0.25);
  a.liver_hu = draw(d, 80, 130);
  a.spleen_hu = draw(d, 90, 145);
  a.pancreas_hu = draw(d, 75, 120);
  a.gallbladder_hu = draw(d, 0, 20);
  a.stomach_hu = draw(d, 5, 60);
  a.has_adrenal_mass = d.chance(0.2);
  const float out = d.chance(0.5) ? 1.0f : -1.0f;
  const float r = draw(d, 8, 20);
  a.adrenal = blob(d, {out * 40, a.spine_y - 16, 66}, {r, r, r}, 4, 0.08, 0.06);
  a.adrenal_hu = draw(d, 10, 110);

  Draws l(seed, kLesions);
  const int lesions = int(l.uniform(0, 5));
  for (int i = 0; i < lesions; ++i) {
    Mass m;
    const float size = draw_leaning_small(l, 4, 24);
    m.shape.radius = {size * draw(l, 0.85, 1.15), size, size * draw(l, 0.85, 1.15)};
    const Point n = unit_vector(l);
    const float reach = draw(l, 0.2, 0.9);
    for (size_t c = 0; c < 3; ++c) m.shape.centre[c] = a.liver.centre[c] + n[c] * reach * a.liver.radius[c];
    m.shape.roughness = draw(l, 0.02, 0.15);
    m.kind = l.chance(0.5) ? MassKind::kCyst : MassKind::kSolid;
    m.hu = m.kind == MassKind::kCyst ? draw(l, 0, 22) : draw(l, 45, 170);
    m.fine_texture = draw(l, 1, 9);
    m.coarse_texture = draw(l, 1, 9);
    a.liver_lesions.push_back(m);
  }
}

}  // namespace

Anatomy draw_anatomy(uint64_t seed) {
  Anatomy a;
  Draws b(seed, kBody);
  a.body_x = draw(b, 132, 158);
  a.body_y = a.body_x * draw(b, 0.66, 0.76);
  a.fat_mm = draw_leaning_small(b, 7, 26);
  a.wall_mm = draw(b, 9, 14);
  a.fat_hu = draw(b, -114, -94);
  a.muscle_hu = draw(b, 48, 68);
  a.rib_from_z = draw(b, 0, 60);
  a.rib_pitch_mm = draw(b, 24, 34);
  a.rib_slope = draw(b, 0.3, 0.8);
  a.table_y = a.body_y + draw(b, 6, 12);
  a.lung_z = draw(b, 70, 130);

  Draws s(seed, kSpine);
  a.spine_y = a.body_y - a.fat_mm - a.wall_mm - draw(s, 24, 34);
  a.vertebra_x = draw(s, 20, 25);
  a.vertebra_y = draw(s, 15, 19);
  a.vertebra_pitch_mm = draw(s, 32, 40);
  a.vertebra_phase_mm = draw(s, 0, 40);
  a.marrow_hu = draw(s, 140, 270);
  a.aorta_x = draw(s, 2, 14);
  a.aorta_r = draw(s, 8, 13);
  a.aorta_hu = draw(s, 130, 300);
  a.cava_hu = draw(s, 90, 180);
  a.psoas_r = draw(s, 13, 20);

  Draws w(seed, kBowel);
  for (Tube* t : {&a.colon_right, &a.colon_left}) {
    const float out = t == &a.colon_right ? -1.0f : 1.0f;
    t->x = out * (a.body_x - a.fat_mm - a.wall_mm - draw(w, 24, 42));
    t->y = draw(w, -30, 18);
    t->radius = draw(w, 15, 25);
    t->z_high = draw(w, -10, 60);
    t->haustra_mm = draw(w, 22, 38);
  }
  a.bowel_hu = draw(w, 10, 55);
  a.bowel_wall_hu = draw(w, 65, 110);
  a.bowel_amount = draw(w, -0.1, 0.6);

  draw_organs(a, seed);
  draw_kidneys(a, seed);
  draw_masses(a, seed);

  Draws c(seed, kScanner);
  a.psf_mm = draw(c, 0.65, 1.0);
  a.noise_hu = draw(c, 11, 24);
  a.noise_grain_mm = draw(c, 0.6, 1.0);
  return a;
}

}  // namespace isoline::phantom_detail
