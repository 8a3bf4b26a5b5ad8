// NIfTI images in, label maps out, with the values, spacing and geometry of nnU-Net's readers and writers.
//
// Reading. .nii and .nii.gz (told apart by content), NIfTI-1 and -2, both byte orders, every real scalar
// type. The array is what the reference's reader returns as float32 [c, z, y, x]; it comes as int16 where
// that holds the very same numbers (integer files within range, intercept of whole numbers included), else as
// float32.
//   kSimpleItk          nnunetv2 SimpleITKIO over ITK 5.4: 2-D (z = 1, z spacing 999 times the largest), 3-D,
//   and 4-D
//                       as channels; world by ITK's qform/sform rules; sheared images refused, as ITK does.
//   kSimpleItkReorient  the same, turned to RAS (SimpleITK.DICOMOrient); 3-D only.
//   kNibabel            NibabelIO: get_fdata, zooms, best affine; 3-D only; shears pass.
//   kNibabelReorient    the same, turned to RAS (as_reoriented); spacing is then that of the turned affine.
// Beyond the reference: NIfTI-2 through the SimpleITK kinds (ITK refuses it). Stricter than the reference:
// NaN and infinite voxels, zero spacing and zero sizes are errors (ITK would read 0, 1 mm and 1), so is
// garbage behind gzip.
//
// Writing. A NIfTI-1 file whose header holds the same fields as the reference's write_seg gives.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "isoline/base/parallel.h"
#include "isoline/base/result.h"
#include "isoline/volume/reader_kind.h"
#include "isoline/volume/volume.h"

namespace isoline {

struct ReadLimits {
  // Most memory one call may hold at once: voxels, compressed bytes and scratch. Checked before allocating.
  uint64_t max_bytes = uint64_t{1} << 40;
  // Let NaN and infinite voxels through (to the SimpleITK kinds they are 0, as to ITK) instead of refusing
  // them.
  bool allow_nonfinite = false;
};

// What is needed to write labels back in the place of the image they belong to. Plain data; file axes are x,
// y, z.
struct NiftiSource {
  ReaderKind kind = ReaderKind::kSimpleItk;
  int dimensions = 3;           // 2 or 3 axes in the file that is written
  Shape3 array_shape{0, 0, 0};  // [z, y, x] as read_nifti() returned it
  Shape3 file_shape{0, 0, 0};   // [z, y, x] as in the file
  // Array axis i (0 = x) runs along file axis axis[i], against it where flip[i]. Identity unless reoriented.
  std::array<int, 3> axis{0, 1, 2};
  std::array<bool, 3> flip{false, false, false};
  // SimpleITK kinds: the geometry of the written file (LPS).
  std::array<double, 3> spacing_mm{1, 1, 1};
  std::array<double, 3> origin_mm{0, 0, 0};
  std::array<std::array<double, 3>, 3> direction{{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
  // nibabel kinds: the affine of the written file (RAS).
  std::array<std::array<double, 4>, 4> world_from_voxel{};
};

// An image together with the way back. `warnings`: what the reference only prints (one sentence each).
struct Scan {
  Image image;
  NiftiSource source;
  std::vector<std::string> warnings;
};

// One file. Errors: kNotFound, kIo; kInvalidArgument (not a regular file); kCorrupt (truncated, garbage, bad
// header, non-finite voxels); kUnsupported (by name); kResourceExhausted (limits).
Result<Scan> read_nifti(const std::string& path, ReaderKind kind, const ReadLimits& limits, ThreadPool& pool);
// The same from memory (.nii or .nii.gz bytes); `name` stands in errors.
Result<Scan> read_nifti_bytes(std::span<const std::byte> bytes, const std::string& name, ReaderKind kind,
                              const ReadLimits& limits, ThreadPool& pool);
// What a file's header says it holds.
struct NiftiSummary {
  int dimensions = 3;  // spatial, 2 or 3
  int64_t channels = 1;
  Shape3 file_shape{0, 0, 0};  // [z, y, x] as in the file
  uint64_t content_bytes = 0;  // header and voxels, uncompressed
};
// Whether read_nifti() could read the file, as far as can be seen without holding its voxels: its header, and
// that the voxels it promises are there. A gzip stream is inflated (and dropped) only where its length field
// leaves doubt, up to `max_content_bytes`; headers that promise more are refused (kResourceExhausted). Errors
// as read_nifti(); what only the voxels show (a wrong checksum, NaN) is found by reading them.
Result<NiftiSummary> check_nifti(const std::string& path, ReaderKind kind, uint64_t max_content_bytes);
// All channels of a case, in the order of `paths`; shapes and spacings must be equal (kInvalidArgument),
// different origins or directions are warnings, as in the reference. The first file's geometry counts.
Result<Scan> read_case(const std::vector<std::string>& paths, ReaderKind kind, const ReadLimits& limits,
                       ThreadPool& pool);
// A label map; kInvalidArgument if a voxel is no whole number in 0..65535 or the file has channels.
Result<LabelMap> read_labels(const std::string& path, ReaderKind kind, const ReadLimits& limits,
                             ThreadPool& pool);

// Writes labels (array order, shape source.array_shape) as the reference's write_seg: uint8 if the largest
// label is below 255, else uint16. (SimpleITKIOWithReorient always writes uint8, wrapping larger labels: here
// uint8 up to 255 and uint16 beyond.) The name must end in .nii or .nii.gz. Atomic: see AtomicFile.
// `label_voxels`, if given, becomes how many voxels each label has, by label up to the largest: it costs next
// to nothing here, where every voxel is looked at anyway.
Status write_labels(const std::string& path, const LabelMap& labels, const NiftiSource& source,
                    ThreadPool& pool, std::vector<int64_t>* label_voxels = nullptr);
// The bytes of that file, in order, to `sink`.
Status encode_labels(const LabelMap& labels, const NiftiSource& source, bool gzip, ThreadPool& pool,
                     const std::function<Status(std::span<const std::byte>)>& sink,
                     std::vector<int64_t>* label_voxels = nullptr);

// A source for arrays that never were a file; writing gives SimpleITK's header.
NiftiSource source_from(const Geometry& geometry, const Shape3& shape);
// Writes a single-channel image as int16 or float32, whichever it holds.
Status write_image(const std::string& path, const Image& image, const NiftiSource& source, ThreadPool& pool);

}  // namespace isoline
