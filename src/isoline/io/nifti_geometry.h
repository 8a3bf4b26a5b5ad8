// From a NIfTI header to a place in the world and back, by the rules of the two libraries nnU-Net reads with.
// Everything here works on file axes in the order x, y, z. Internal to io.
#pragma once

#include <array>

#include "isoline/base/shape.h"
#include "isoline/io/nifti_header.h"
#include "isoline/volume/volume.h"

namespace isoline {

using Matrix3 = std::array<std::array<double, 3>, 3>;
using Matrix4 = std::array<std::array<double, 4>, 4>;

// What itk::Image holds: world is LPS, spacing > 0, direction[r][c] = component r of axis c. 2-D images use
// the upper left 2x2 of direction and two entries of the rest; the others are 1, 0 and identity.
struct ItkGeometry {
  int dimensions = 3;  // 2 or 3 (a 4-D file: its three spatial axes)
  std::array<double, 3> spacing_mm{1, 1, 1};
  std::array<double, 3> origin_mm{0, 0, 0};
  Matrix3 direction{{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
};

// Which file axis an array axis runs along, and whether against it: out[i] = in[axis[i]], reversed where
// flip[i]. Axes in x, y, z order.
struct AxisMap {
  std::array<int, 3> axis{0, 1, 2};
  std::array<bool, 3> flip{false, false, false};
  bool is_identity() const;
  AxisMap inverse() const;
};

// ITK 5.4 (itkNiftiImageIO): qform or sform by its preference rules, spacing from pixdim times the unit, RAS
// to LPS, a negative pixdim turned into a flipped direction. kUnsupported for a direction that is not
// orthonormal, as ITK. Where both forms are set, sform_code is not 1 and they agree within 1e-4, the sform is
// taken; ITK decides that by comparing singular vectors, so in degenerate cases (equal spacings) it may take
// the qform, which then differs by less than 1e-4.
Result<ItkGeometry> itk_geometry(const NiftiHeader& h, int dimensions);
// SimpleITK.DICOMOrient(image, "RAS"): the map that turns file order into array order.
AxisMap itk_ras_map(const ItkGeometry& g);
// Geometry after applying `map` to an image of `shape_xyz`.
ItkGeometry apply(const AxisMap& map, const ItkGeometry& g, const std::array<int64_t, 3>& shape_xyz);
// The header SimpleITK writes for this geometry (nifti_type 1): sform and qform with code 1, mm and seconds.
std::array<std::byte, 352> itk_header_bytes(const ItkGeometry& g, const std::array<int64_t, 3>& shape_xyz,
                                            NiftiType type);

// nibabel: get_best_affine() (sform, else qform, else centred pixdim), RAS. kCorrupt where nibabel raises.
Result<Matrix4> nibabel_affine(const NiftiHeader& h);
// nibabel.orientations.io_orientation, as a map to RAS. kUnsupported for a singular affine.
Result<AxisMap> nibabel_ras_map(const Matrix4& affine);
// affine of the image after applying `map` (as_reoriented).
Matrix4 apply(const AxisMap& map, const Matrix4& affine, const std::array<int64_t, 3>& shape_xyz);
// Column lengths of the affine, in mm.
std::array<double, 3> voxel_sizes(const Matrix4& affine);
// The header nibabel.Nifti1Image(array, affine) is saved with: sform code 2, qform code 0 with values.
std::array<std::byte, 352> nibabel_header_bytes(const Matrix4& affine,
                                                const std::array<int64_t, 3>& shape_xyz, NiftiType type);
// World frame and axis convention changed to Geometry's; `spacing_xyz` as given.
Geometry geometry_from(const Matrix4& affine, const std::array<double, 3>& spacing_xyz);

}  // namespace isoline
