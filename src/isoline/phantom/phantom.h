// make_phantom: an invented abdominal CT with two kidneys, tumours and cysts, and the labels that belong to
// it. For demonstrations, tests, benchmarks and for training the bundled model; no patient's data is in it.
#pragma once

#include <cstdint>

#include "isoline/base/parallel.h"
#include "isoline/base/result.h"
#include "isoline/base/shape.h"
#include "isoline/volume/volume.h"

namespace isoline {

// Label values, as in KiTS.
inline constexpr uint16_t kPhantomBackground = 0;
inline constexpr uint16_t kPhantomKidney = 1;  // parenchyma; the renal sinus is background
inline constexpr uint16_t kPhantomTumour = 2;
inline constexpr uint16_t kPhantomCyst = 3;

// One phantom. The anatomy is laid out in millimetres around the volume's centre and depends on `seed` alone:
// another shape or spacing samples the same patient. A volume smaller than the body crops it.
struct PhantomSpec {
  uint64_t seed = 1;
  Shape3 shape{96, 256, 256};              // [z, y, x], each 1..4096
  Vec3<double> spacing_mm{2.5, 1.3, 1.3};  // [z, y, x], each 0.2..20
};

struct Phantom {
  Volume<int16_t> ct_hu;  // [z, y, x], Hounsfield units, -1024..3071
  LabelMap labels;        // same shape and geometry; kPhantom* values
};

// kInvalidArgument: a shape or spacing out of range, or an extent above 1000 mm on an axis;
// kResourceExhausted: more than 2^30 voxels. Takes 10 bytes a voxel while it runs and 4 afterwards.
Status validate(const PhantomSpec& spec);

// Array axes are LPS with an identity direction: x grows to the patient's left, y backwards, z upwards; the
// origin puts world (0, 0, 0) into the volume's centre.
// Bit-identical for the same spec on every machine and with any number of threads: random numbers are hashes
// of counters, and arithmetic is limited to what IEEE 754 rounds exactly (+ - * / sqrt, no libm, no
// contraction).
Result<Phantom> make_phantom(const PhantomSpec& spec, ThreadPool& pool);

}  // namespace isoline
