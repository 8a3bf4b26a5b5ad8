// The CASE.pkl that nnU-Net writes beside CASE.npz and reads again when it ensembles.
#pragma once

#include <string>

#include "isoline/base/result.h"
#include "isoline/io/nifti.h"
#include "isoline/preprocess/preprocess.h"

namespace isoline {

// Writes the reference's properties dict (spacing, reader's geometry, shapes and crop box) as a pickle of
// protocol 2. Plain numbers, tuples, lists and dicts, but for nibabel's affine, which is built by
// numpy.array. Atomic.
Status write_properties(const std::string& path, const NiftiSource& source, const Vec3<double>& spacing_mm,
                        const CropRecord& crop);

}  // namespace isoline
