// Renderer: one phantom's anatomy as Hounsfield units and labels, a row of voxels at a time, before blur and
// scanner noise.
#pragma once

#include <cstdint>
#include <vector>

#include "isoline/phantom/anatomy.h"
#include "isoline/phantom/lattice_noise.h"

namespace isoline::phantom_detail {

// Immutable after construction: rows may be rendered by several threads, each with its own Scratch.
class Renderer {
 public:
  // The noise fields; small letters name the lattice distance in mm.
  enum Field { kBody80, kShape34, kShape20, kTexture16, kTexture9, kTexture5, kGrain3, kFieldCount };

  class Scratch {
   public:
    explicit Scratch(const Renderer& renderer);

   private:
    friend class Renderer;
    std::vector<float> field[kFieldCount];  // one row of each field
    std::vector<float> lattice;
    std::vector<float> cavity_depth, distance, cover, kidney;
    std::vector<uint8_t> hard;  // bone or body wall: nothing may grow into it
  };

  Renderer(const Anatomy& anatomy, uint64_t seed, const Grid& grid);

  // hu[x], label[x] for the whole row (z, y).
  void row(int64_t z, int64_t y, Scratch& scratch, float* hu, uint16_t* label) const;

 private:
  struct Row;
  void body_wall(Row& r) const;
  void bowel(Row& r) const;
  void soft_organs(Row& r) const;
  void spine_and_vessels(Row& r) const;
  void lungs(Row& r) const;
  void kidney(Row& r, const Kidney& k, bool right) const;
  void mass(Row& r, const Mass& m, uint16_t value) const;
  // distance[x] = |position - centre| in units of the (roughened) surface; returns the x range it can be <
  // limit.
  struct Range {
    int64_t begin, end;
  };
  Range blob_distance(Row& r, const Blob& b, float limit, Field coarse, Field fine) const;
  Range range_mm(float x_lo, float x_hi) const;

  Anatomy a_;
  Grid grid_;
  std::vector<LatticeNoise> noise_;
  std::vector<float> x_mm_;
};

}  // namespace isoline::phantom_detail
