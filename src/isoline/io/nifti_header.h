// The NIfTI-1 and NIfTI-2 header, parsed and checked, and written (NIfTI-1 only).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "isoline/base/result.h"

namespace isoline {

// Codes of nifti1.h; other codes exist and are refused by name.
enum class NiftiType : int {
  kUint8 = 2,
  kInt16 = 4,
  kInt32 = 8,
  kFloat32 = 16,
  kFloat64 = 64,
  kInt8 = 256,
  kUint16 = 512,
  kUint32 = 768,
  kInt64 = 1024,
  kUint64 = 1280,
};
size_t nifti_type_bytes(NiftiType type);
const char* nifti_type_name(NiftiType type);

// Fields this program uses, in host byte order. NIfTI-1's floats are widened exactly.
struct NiftiHeader {
  int version = 1;          // 1 or 2
  bool swap_bytes = false;  // the file's byte order is not this machine's (voxels too)
  NiftiType type = NiftiType::kUint8;
  std::array<int64_t, 8> dim{};  // [0] = number of axes 1..7; [1..] = x y z t u v w; 1 beyond [0]
  std::array<double, 8> pixdim{};
  int64_t vox_offset = 0;  // as written, not yet corrected to a reader's rules
  double slope = 0, inter = 0;
  int intent_code = 0;
  int space_units = 0;  // xyzt_units & 7: 1 m, 2 mm, 3 um
  int qform_code = 0, sform_code = 0;
  std::array<double, 3> quatern{};  // b c d
  std::array<double, 3> qoffset{};
  std::array<std::array<double, 4>, 3> srow{};

  size_t header_bytes() const { return version == 1 ? 348 : 540; }
};

// Bytes parse_nifti_header() wants to see (fewer only if the file has fewer).
inline constexpr size_t kNiftiHeaderMaxBytes = 540;

// kCorrupt for anything that is no NIfTI header or contradicts itself (dims of zero, negative or overflowing,
// zero or non-finite spacing, offset before the end of the header); kUnsupported, by name, for what is
// understood but not read (header/image pairs, complex and colour voxels).
Result<NiftiHeader> parse_nifti_header(std::span<const std::byte> bytes);

// A NIfTI-1 single-file header with the extender: 352 bytes, little-endian, vox_offset 352. Takes dim,
// pixdim, type, slope, inter, units (`xyzt_units` whole), codes, quaternion, offsets and srow; the rest is
// zero except `regular`.
std::array<std::byte, 352> nifti1_header_bytes(const NiftiHeader& h, int xyzt_units, char regular);

}  // namespace isoline
