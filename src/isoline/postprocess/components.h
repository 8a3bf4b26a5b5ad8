// Connected components on label maps.
#pragma once

#include <vector>

#include "isoline/volume/volume.h"

namespace isoline {

// Among voxels whose label is in `labels`, keeps the largest connected component (full connectivity: 26
// neighbours in 3-D, 8 within a single slice; equally large ones are all kept) and writes `background` to the
// others. Source: nnunetv2 postprocessing/remove_connected_components.py, acvl_utils morphology_helper.
void keep_largest_component(LabelMap& map, const std::vector<int>& labels, uint16_t background);

}  // namespace isoline
