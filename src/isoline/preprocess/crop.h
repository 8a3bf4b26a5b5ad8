// The nonzero crop and mask of nnunetv2 preprocessing/cropping/cropping.py.
#pragma once

#include "isoline/base/parallel.h"
#include "isoline/volume/volume.h"

namespace isoline {

// Smallest box holding every voxel that is nonzero in any channel; the full extent if there is none.
// Filling holes (which the reference does first) cannot change the box.
Box3 nonzero_box(const Image& image, ThreadPool& pool);

// 1 where any channel is nonzero or the voxel lies in a hole (scipy binary_fill_holes, 6-connected
// background; the background outside the image counts, so 2-D data given as one slice has no holes). [z, y,
// x] of the box.
Buffer<uint8_t> filled_nonzero_mask(const Image& image, const Box3& box);

}  // namespace isoline
