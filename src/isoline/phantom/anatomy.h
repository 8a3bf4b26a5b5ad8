// Anatomy: everything that is random about one phantom's patient except textures, in millimetres and
// Hounsfield units. World axes: x to the patient's left, y backwards, z upwards, 0 in the volume's centre.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "isoline/base/shape.h"

namespace isoline::phantom_detail {

using Point = std::array<float, 3>;  // [x, y, z] in mm

// Rotation matrix; rows are the local axes in world coordinates.
using Rotation = std::array<Point, 3>;

// A rotated ellipsoid; its surface is deformed by noise of relative amplitude `roughness`.
struct Blob {
  Point centre{};
  Point radius{1, 1, 1};  // along the local axes
  Rotation axes{{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
  float roughness = 0;
  float largest_radius() const {
    const float a = radius[0] > radius[1] ? radius[0] : radius[1];
    return a > radius[2] ? a : radius[2];
  }
};

enum class MassKind { kSolid, kCysticTumour, kCyst };

// A tumour or cyst on a kidney, or a lesion in the liver.
struct Mass {
  Blob shape;
  MassKind kind = MassKind::kSolid;
  float hu = 0;              // mean
  float coarse_texture = 0;  // HU per unit of the coarse noise
  float fine_texture = 0;    // HU per unit of the fine noise
  float necrosis_above = 9;  // necrotic where the noise exceeds this
  float necrosis_hu = 25;
  float rim_hu = 0;  // added in the outermost tenth
};

struct Kidney {
  Point centre{};
  Point radius{1, 1, 1};  // local [u along the organ, v to the side, w forwards]
  Rotation axes{};
  float bend_mm = 0;  // how far the poles lie nearer to the spine than the middle
  float roughness = 0, lobulation = 0;
  float cortex_hu = 180, medulla_hu = 140, cortex_depth = 0.3f;
  Point sinus_centre{}, sinus_radius{1, 1, 1};  // local
  float pelvis_hu = 10;
  float fat_mm = 10;  // thickness of the perirenal fat
  std::vector<Mass> cysts, tumours;
};

struct Tube {  // vertical bowel
  float x = 0, y = 0, radius = 20, z_low = -200, z_high = 60, haustra_mm = 30;
};

struct Anatomy {
  // Body wall
  float body_x = 145, body_y = 105, fat_mm = 18, wall_mm = 12, fat_hu = -105, muscle_hu = 58;
  float rib_from_z = 30, rib_pitch_mm = 28, rib_slope = 0.5f, table_y = 125, lung_z = 90;
  // Spine and vessels
  float spine_y = 48, vertebra_x = 22, vertebra_y = 17, vertebra_pitch_mm = 36, vertebra_phase_mm = 0;
  float marrow_hu = 200, aorta_x = 8, aorta_r = 10, aorta_hu = 200, cava_hu = 140, psoas_r = 17;
  // Organs
  Blob liver, spleen, stomach, gallbladder, pancreas, adrenal;
  float liver_hu = 105, spleen_hu = 115, pancreas_hu = 95, gallbladder_hu = 10, stomach_hu = 30,
        adrenal_hu = 60;
  bool has_adrenal_mass = false;
  std::vector<Mass> liver_lesions;
  Tube colon_right, colon_left;
  float bowel_hu = 40, bowel_wall_hu = 85, bowel_amount = 0.3f;
  std::array<Kidney, 2> kidneys;  // right (x < 0), left
  // Scanner
  float psf_mm = 0.8f, noise_hu = 15, noise_grain_mm = 0.8f;
};

Anatomy draw_anatomy(uint64_t seed);

}  // namespace isoline::phantom_detail
