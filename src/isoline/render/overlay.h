// Three orthogonal planes of a CT with the outlines of its labels.
#pragma once

#include <cstdint>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/volume/volume.h"

namespace isoline {

// 8-bit RGB, row by row from the top, 3 bytes a pixel.
struct RgbImage {
  int width = 0, height = 0;
  std::vector<uint8_t> pixels;
};

struct OverlayOptions {
  double window_low = -160, window_high = 240;  // intensities shown as black and white (abdominal CT, in HU)
  int panel_pixels = 360;  // height of each panel; voxels are scaled to equal millimetres
};

// Axial, coronal and sagittal planes side by side through the slices that show most of the rarest foreground
// label (of the volume's middle if there is none). Outlines of `labels` are solid, those of `reference`, if
// given, are dotted and lighter. The image must have one channel and the labels its shape.
Result<RgbImage> render_overlay(const Image& image, const LabelMap& labels, const LabelMap* reference,
                                const OverlayOptions& options = {});

}  // namespace isoline
