#include "isoline/io/nifti_header.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace isoline {
namespace {

static_assert(std::endian::native == std::endian::little,
              "NIfTI headers are written from memory as they are");

// Field offsets of nifti1.h and nifti2.h.
struct Layout {
  size_t dim, dim_bytes, datatype, bitpix, pixdim, real_bytes, vox_offset, slope, inter, intent_code,
      xyzt_units, qform_code, sform_code, quatern, qoffset, srow, magic, code_bytes;
};
constexpr Layout kLayout1{40, 2, 70, 72, 76, 4, 108, 112, 116, 68, 123, 252, 254, 256, 268, 280, 344, 2};
constexpr Layout kLayout2{16, 8, 12, 14, 104, 8, 168, 176, 184, 504, 500, 344, 348, 352, 376, 400, 4, 4};

class Fields {
 public:
  Fields(std::span<const std::byte> bytes, bool swap) : bytes_(bytes), swap_(swap) {}
  template <class T>
  T get(size_t offset) const {
    std::array<std::byte, sizeof(T)> raw;
    for (size_t i = 0; i < sizeof(T); ++i) raw[i] = bytes_[offset + (swap_ ? sizeof(T) - 1 - i : i)];
    return std::bit_cast<T>(raw);
  }
  int64_t integer(size_t offset, size_t bytes) const {
    return bytes == 2 ? get<int16_t>(offset) : bytes == 4 ? get<int32_t>(offset) : get<int64_t>(offset);
  }
  double real(size_t offset, size_t bytes) const {
    return bytes == 4 ? double(get<float>(offset)) : get<double>(offset);
  }

 private:
  std::span<const std::byte> bytes_;
  bool swap_;
};

Error corrupt(const std::string& field, const std::string& what) {
  return Error{ErrorCode::kCorrupt, what, "NIfTI header, " + field, "The file is damaged or not NIfTI"};
}

// nullptr: a code no version of the standard defines.
const char* unsupported_type_name(int code) {
  switch (code) {
    case 1:
      return "binary";
    case 32:
      return "complex64";
    case 128:
      return "RGB24";
    case 1536:
      return "float128";
    case 1792:
      return "complex128";
    case 2048:
      return "complex256";
    case 2304:
      return "RGBA32";
  }
  return nullptr;
}

bool known_type(int code) {
  switch (code) {
    case 2:
    case 4:
    case 8:
    case 16:
    case 64:
    case 256:
    case 512:
    case 768:
    case 1024:
    case 1280:
      return true;
  }
  return false;
}

}  // namespace

size_t nifti_type_bytes(NiftiType type) {
  switch (type) {
    case NiftiType::kUint8:
    case NiftiType::kInt8:
      return 1;
    case NiftiType::kInt16:
    case NiftiType::kUint16:
      return 2;
    case NiftiType::kInt32:
    case NiftiType::kUint32:
    case NiftiType::kFloat32:
      return 4;
    case NiftiType::kFloat64:
    case NiftiType::kInt64:
    case NiftiType::kUint64:
      return 8;
  }
  return 0;
}

const char* nifti_type_name(NiftiType type) {
  switch (type) {
    case NiftiType::kUint8:
      return "uint8";
    case NiftiType::kInt8:
      return "int8";
    case NiftiType::kInt16:
      return "int16";
    case NiftiType::kUint16:
      return "uint16";
    case NiftiType::kInt32:
      return "int32";
    case NiftiType::kUint32:
      return "uint32";
    case NiftiType::kFloat32:
      return "float32";
    case NiftiType::kFloat64:
      return "float64";
    case NiftiType::kInt64:
      return "int64";
    case NiftiType::kUint64:
      return "uint64";
  }
  return "?";
}

Result<NiftiHeader> parse_nifti_header(std::span<const std::byte> bytes) {
  if (bytes.size() < 348)
    return corrupt("size",
                   "the file has only " + std::to_string(bytes.size()) + " bytes, a header needs 348");
  NiftiHeader h;
  // sizeof_hdr tells version and byte order at once.
  const int32_t size = Fields(bytes, false).get<int32_t>(0), swapped = Fields(bytes, true).get<int32_t>(0);
  if (size == 348 || size == 540) {
    h.swap_bytes = false;
    h.version = size == 348 ? 1 : 2;
  } else if (swapped == 348 || swapped == 540) {
    h.swap_bytes = true;
    h.version = swapped == 348 ? 1 : 2;
  } else {
    return corrupt("sizeof_hdr", "is " + std::to_string(size) + ", neither 348 nor 540 in either byte order");
  }
  if (bytes.size() < h.header_bytes())
    return corrupt(
        "size", "the file has only " + std::to_string(bytes.size()) + " bytes, a NIfTI-2 header needs 540");
  const Fields f(bytes, h.swap_bytes);
  const Layout& at = h.version == 1 ? kLayout1 : kLayout2;

  const char* magic = reinterpret_cast<const char*>(bytes.data()) + at.magic;
  const char* single = h.version == 1 ? "n+1" : "n+2";
  const char* pair = h.version == 1 ? "ni1" : "ni2";
  if (std::memcmp(magic, pair, 4) == 0)
    return Error{ErrorCode::kUnsupported, "this is the header of a two-file image (.hdr/.img)",
                 "NIfTI header, magic", "Convert it to a single .nii.gz file"};
  if (std::memcmp(magic, single, 4) != 0) return corrupt("magic", std::string("is not \"") + single + "\"");
  if (h.version == 2 && std::memcmp(magic + 4, "\r\n\032\n", 4) != 0)
    return corrupt("magic", "its line-end bytes were changed, as by a text-mode transfer");

  const int code = f.get<int16_t>(at.datatype);
  if (!known_type(code)) {
    if (const char* name = unsupported_type_name(code))
      return Error{ErrorCode::kUnsupported, std::string("voxels of type ") + name + " are not read",
                   "NIfTI header, datatype", "Convert the image to a scalar type"};
    return corrupt("datatype", "code " + std::to_string(code) + " is not defined");
  }
  h.type = NiftiType(code);

  h.dim[0] = f.integer(at.dim, at.dim_bytes);
  if (h.dim[0] < 1 || h.dim[0] > 7)
    return corrupt("dim[0]", "is " + std::to_string(h.dim[0]) + ", not 1 to 7");
  int64_t total = int64_t(nifti_type_bytes(h.type));
  for (size_t i = 1; i < 8; ++i) {
    const std::string field = "dim[" + std::to_string(i) + "]";
    h.dim[i] = int64_t(i) <= h.dim[0] ? f.integer(at.dim + i * at.dim_bytes, at.dim_bytes) : 1;
    if (h.dim[i] < 1) return corrupt(field, "is " + std::to_string(h.dim[i]) + ", not a positive size");
    if (__builtin_mul_overflow(total, h.dim[i], &total) || total > (int64_t{1} << 48))
      return corrupt(field, "makes the image larger than any computer's memory");
  }
  for (size_t i = 0; i < 8; ++i) {
    h.pixdim[i] = f.real(at.pixdim + i * at.real_bytes, at.real_bytes);
    if (i == 0 || int64_t(i) > h.dim[0] || i > 3) continue;
    // The reference silently takes 1 mm instead. A wrong size changes every label, so it is the user's to
    // decide.
    if (h.pixdim[i] == 0 || !std::isfinite(h.pixdim[i]))
      return Error{
          ErrorCode::kCorrupt, h.pixdim[i] == 0 ? "voxel spacing is zero" : "voxel spacing is not finite",
          "NIfTI header, pixdim[" + std::to_string(i) + "]", "Write the true spacing into the header"};
  }

  const double offset =
      h.version == 1 ? double(f.get<float>(at.vox_offset)) : double(f.get<int64_t>(at.vox_offset));
  if (!std::isfinite(offset) || offset < 0 || offset > double(int64_t{1} << 40) ||
      offset != std::floor(offset))
    return corrupt("vox_offset", "is not a whole number of bytes within reach");
  h.vox_offset = int64_t(offset);

  h.slope = f.real(at.slope, at.real_bytes);
  h.inter = f.real(at.inter, at.real_bytes);
  h.intent_code = int(f.integer(at.intent_code, at.code_bytes));
  const int64_t units = h.version == 1 ? int64_t(f.get<uint8_t>(at.xyzt_units)) : f.integer(at.xyzt_units, 4);
  h.space_units = int(units & 7);
  h.qform_code = int(f.integer(at.qform_code, at.code_bytes));
  h.sform_code = int(f.integer(at.sform_code, at.code_bytes));
  for (size_t i = 0; i < 3; ++i) {
    h.quatern[i] = f.real(at.quatern + i * at.real_bytes, at.real_bytes);
    h.qoffset[i] = f.real(at.qoffset + i * at.real_bytes, at.real_bytes);
    for (size_t j = 0; j < 4; ++j)
      h.srow[i][j] = f.real(at.srow + (i * 4 + j) * at.real_bytes, at.real_bytes);
  }
  return h;
}

std::array<std::byte, 352> nifti1_header_bytes(const NiftiHeader& h, int xyzt_units, char regular) {
  std::array<std::byte, 352> out{};
  const auto put = [&out](size_t offset, auto value) {
    std::memcpy(out.data() + offset, &value, sizeof value);
  };
  put(0, int32_t{348});
  put(38, regular);
  for (size_t i = 0; i < 8; ++i) put(40 + 2 * i, int16_t(h.dim[i]));
  put(70, int16_t(h.type));
  put(72, int16_t(8 * nifti_type_bytes(h.type)));
  for (size_t i = 0; i < 8; ++i) put(76 + 4 * i, float(h.pixdim[i]));
  put(108, 352.0f);
  put(112, float(h.slope));
  put(116, float(h.inter));
  put(123, uint8_t(xyzt_units));
  put(252, int16_t(h.qform_code));
  put(254, int16_t(h.sform_code));
  for (size_t i = 0; i < 3; ++i) {
    put(256 + 4 * i, float(h.quatern[i]));
    put(268 + 4 * i, float(h.qoffset[i]));
    for (size_t j = 0; j < 4; ++j) put(280 + 16 * i + 4 * j, float(h.srow[i][j]));
  }
  std::memcpy(out.data() + 344, "n+1", 4);
  return out;
}

}  // namespace isoline
