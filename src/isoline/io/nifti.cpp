#include "isoline/io/nifti.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <new>

#include "isoline/base/file.h"
#include "isoline/io/gzip.h"
#include "isoline/io/label_deflate.h"
#include "isoline/io/nifti_geometry.h"
#include "isoline/io/nifti_header.h"
#include "isoline/io/voxels.h"

namespace isoline {
namespace {

bool is_itk(ReaderKind kind) {
  return kind == ReaderKind::kSimpleItk || kind == ReaderKind::kSimpleItkReorient;
}
bool is_reorienting(ReaderKind kind) {
  return kind == ReaderKind::kSimpleItkReorient || kind == ReaderKind::kNibabelReorient;
}
bool ends_with(const std::string& s, const char* tail) {
  const size_t n = std::strlen(tail);
  return s.size() >= n && s.compare(s.size() - n, n, tail) == 0;
}
std::string bytes_text(uint64_t n) {
  return std::to_string(n) + " bytes";
}

// --- Where bytes come from
// ---------------------------------------------------------------------------------------

// Uncompressed content, either in memory or in an open file.
class Content {
 public:
  explicit Content(std::span<const std::byte> bytes) : bytes_(bytes), size_(bytes.size()) {}
  explicit Content(const InputFile* file) : file_(file), size_(file->byte_size()) {}
  uint64_t byte_size() const { return size_; }
  Status read_at(uint64_t offset, std::span<std::byte> to) const {
    if (file_) return file_->read_at(offset, to);
    if (!to.empty()) std::memcpy(to.data(), bytes_.data() + offset, to.size());
    return {};
  }

 private:
  std::span<const std::byte> bytes_;
  const InputFile* file_ = nullptr;
  uint64_t size_ = 0;
};

// Mapped pages directly before a page-aligned buffer, so that a stream whose first bytes are a header can be
// inflated in one go with its voxels landing at the buffer's start. Empty if the system has no such pages to
// give.
class HeadRoom {
 public:
  HeadRoom(std::byte* before, size_t bytes) {
    const size_t page = size_t(::sysconf(_SC_PAGESIZE));
    if (reinterpret_cast<uintptr_t>(before) % page != 0 || bytes > (size_t{16} << 20)) return;
    const size_t length = (bytes + page - 1) / page * page;
#ifdef MAP_FIXED_NOREPLACE
    void* wanted = before - length;
    void* p = ::mmap(wanted, length, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (p == MAP_FAILED) return;
    if (p != wanted) {  // a kernel that does not know the flag
      ::munmap(p, length);
      return;
    }
    start_ = p;
    length_ = length;
#endif
  }
  ~HeadRoom() {
    if (start_) ::munmap(start_, length_);
  }
  HeadRoom(const HeadRoom&) = delete;
  HeadRoom& operator=(const HeadRoom&) = delete;
  bool ok() const {
    return start_ != nullptr;
  }

 private:
  void* start_ = nullptr;
  size_t length_ = 0;
};

// Voxel bytes of a gzip stream: everything before `offset` is dropped.
Status inflate_voxels(std::span<const std::byte> gz, uint64_t offset, std::span<std::byte> to,
                      uint64_t max_scratch_bytes, ThreadPool& pool) {
  {
    const HeadRoom head(to.data(), size_t(offset));
    if (head.ok())
      return gunzip_exact(gz, {to.data() - offset, size_t(offset) + to.size()}, max_scratch_bytes, pool);
  }
  Buffer<std::byte> whole(size_t(offset) + to.size());
  ISOLINE_RETURN_IF_ERROR(gunzip_exact(gz, whole.span()));
  std::memcpy(to.data(), whole.data() + offset, to.size());
  return {};
}

// The bytes from `offset` on, by all threads.
Status read_bytes(const Content& content, uint64_t offset, std::span<std::byte> to, ThreadPool& pool) {
  constexpr int64_t kGrain = int64_t{4} << 20;
  std::atomic<bool> failed{false};
  std::vector<Status> errors(size_t((int64_t(to.size()) + kGrain - 1) / kGrain));
  pool.for_each(int64_t(to.size()), kGrain, [&](int64_t begin, int64_t end) {
    if (failed) return;
    Status s = content.read_at(offset + uint64_t(begin), to.subspan(size_t(begin), size_t(end - begin)));
    if (s.ok()) return;
    failed = true;
    errors[size_t(begin / kGrain)] = std::move(s);
  });
  for (Status& s : errors)
    if (!s.ok()) return s;
  return {};
}

// --- What the header means to each reader
// ------------------------------------------------------------------------

struct Reading {
  int dimensions = 3;  // spatial
  int64_t channels = 1;
  std::array<int64_t, 3> shape_xyz{1, 1, 1};
  uint64_t offset = 0;
  VoxelScaling scaling;
  int64_t voxel_count() const { return channels * shape_xyz[0] * shape_xyz[1] * shape_xyz[2]; }
};

Result<Reading> interpret(const NiftiHeader& h, ReaderKind kind) {
  Reading r;
  const auto unsupported = [](const std::string& field, const std::string& what) {
    return Error{ErrorCode::kUnsupported, what, "NIfTI header, " + field, ""};
  };
  if (is_itk(kind)) {
    int64_t axes = h.dim[0];
    if (h.intent_code == 1004) return unsupported("intent_code", "voxels that are matrices are not read");
    if (h.intent_code >= 1005 && h.intent_code <= 1007) {
      // Vectors lie along dim[5], and ITK looks for the last axis longer than 1 before that. One component is
      // a scalar; more would come out of the reference as channels in the wrong place.
      if (h.dim[5] != 1) return unsupported("intent_code", "voxels that are vectors are not read");
      axes = h.dim[4] > 1 ? 4 : h.dim[3] > 1 ? 3 : h.dim[2] > 1 ? 2 : 1;
    }
    while (axes > 3 && h.dim[size_t(axes)] == 1) --axes;
    if (axes < 2 || axes > 4) return unsupported("dim[0]", std::to_string(axes) + "-D images are not read");
    if (kind == ReaderKind::kSimpleItkReorient && axes != 3)
      return unsupported("dim[0]", "SimpleITKIOWithReorient takes 3-D images only, this one is " +
                                       std::to_string(axes) + "-D");
    r.dimensions = int(std::min<int64_t>(axes, 3));
    r.channels = axes == 4 ? h.dim[4] : 1;
    for (size_t i = 0; i < size_t(r.dimensions); ++i) r.shape_xyz[i] = h.dim[i + 1];
    r.offset = std::max<uint64_t>(uint64_t(h.vox_offset), h.header_bytes());
    // Non-finite fields count as 0, and a slope of 0 as 1, but its intercept stays.
    double slope = std::isfinite(h.slope) ? double(float(h.slope)) : 0;
    const double inter = std::isfinite(h.inter) ? double(float(h.inter)) : 0;
    constexpr double kTiny = std::numeric_limits<double>::epsilon();
    if (std::abs(slope) < kTiny) slope = 1;
    r.scaling = {std::abs(slope - 1.0) > kTiny || std::abs(inter) > kTiny, slope, inter, true, true};
  } else {
    if (h.dim[0] != 3)
      return unsupported("dim[0]", "the nibabel readers take 3-D images only, this one is " +
                                       std::to_string(h.dim[0]) + "-D");
    for (size_t i = 0; i < 3; ++i) r.shape_xyz[i] = h.dim[i + 1];
    const uint64_t least = h.header_bytes() + 4;
    r.offset = uint64_t(h.vox_offset);
    if (r.offset < least)  // nibabel refuses, except 0: then it takes the header itself for voxels
      return Error{ErrorCode::kCorrupt, "voxels would begin inside the header", "NIfTI header, vox_offset",
                   ""};
    if (h.slope != 0 && std::isfinite(h.slope)) {
      if (!std::isfinite(h.inter))
        return Error{ErrorCode::kCorrupt, "the intercept is not finite", "NIfTI header, scl_inter", ""};
      r.scaling = {h.slope != 1 || h.inter != 0, h.slope, h.inter, false, false};
    }
  }
  return r;
}

// The intercept if the file's numbers are integers plus a whole number: candidates for int16.
bool is_integral(const NiftiHeader& h, const VoxelScaling& s, int64_t* inter) {
  *inter = 0;
  if (h.type == NiftiType::kFloat32 || h.type == NiftiType::kFloat64) return false;
  if (!s.active) return true;
  if (s.slope != 1 || s.inter != std::floor(s.inter) || std::abs(s.inter) > 65536) return false;
  *inter = int64_t(s.inter);
  return true;
}

Error nonfinite_error(int64_t index, const Reading& r) {
  const int64_t x = index % r.shape_xyz[0], y = index / r.shape_xyz[0] % r.shape_xyz[1],
                z = index / (r.shape_xyz[0] * r.shape_xyz[1]) % r.shape_xyz[2],
                c = index / (r.shape_xyz[0] * r.shape_xyz[1] * r.shape_xyz[2]);
  std::string where = "voxel x=" + std::to_string(x) + " y=" + std::to_string(y) + " z=" + std::to_string(z);
  if (r.channels > 1) where += " channel " + std::to_string(c);
  return Error{ErrorCode::kCorrupt, where + " is NaN or infinite", "voxels",
               "Replace such voxels by a value that means something"};
}

// Turns file order into array order.
Intensities reoriented(Intensities data, const AxisMap& map, const Reading& r, ThreadPool& pool) {
  if (map.is_identity()) return data;
  const int64_t volume = r.voxel_count() / r.channels;
  return std::visit(
      [&](auto& from) -> Intensities {
        using T = std::remove_cvref_t<decltype(from[0])>;
        Buffer<T> to(from.size());
        for (int64_t c = 0; c < r.channels; ++c)
          remap<T>(map, from.data() + c * volume, r.shape_xyz, to.data() + c * volume, pool);
        return to;
      },
      data);
}

std::array<int64_t, 3> mapped_shape(const AxisMap& map, const std::array<int64_t, 3>& shape) {
  return {shape[size_t(map.axis[0])], shape[size_t(map.axis[1])], shape[size_t(map.axis[2])]};
}
Shape3 to_zyx(const std::array<int64_t, 3>& s) {
  return {s[2], s[1], s[0]};
}
std::array<int64_t, 3> to_xyz(const Shape3& s) {
  return {s[2], s[1], s[0]};
}

// Geometry, axis map and way back; fills everything of `scan` but the voxels.
Result<AxisMap> place(const NiftiHeader& h, const Reading& r, ReaderKind kind, Scan& scan) {
  AxisMap map;
  NiftiSource& source = scan.source;
  Geometry& geometry = scan.image.geometry;
  if (is_itk(kind)) {
    ISOLINE_ASSIGN(ItkGeometry g, itk_geometry(h, r.dimensions));
    if (kind == ReaderKind::kSimpleItkReorient) {
      map = itk_ras_map(g);
      const ItkGeometry turned = apply(map, g, r.shape_xyz);
      // The reference writes what turning there and back leaves of the geometry.
      const ItkGeometry back = apply(map.inverse(), turned, mapped_shape(map, r.shape_xyz));
      source.spacing_mm = back.spacing_mm;
      source.origin_mm = back.origin_mm;
      source.direction = back.direction;
      g = turned;
    } else {
      source.spacing_mm = g.spacing_mm;
      source.origin_mm = g.origin_mm;
      source.direction = g.direction;
    }
    geometry.spacing_mm = {g.spacing_mm[2], g.spacing_mm[1], g.spacing_mm[0]};
    geometry.origin_mm = g.origin_mm;
    geometry.direction = g.direction;
    if (r.dimensions == 2) geometry.spacing_mm[0] = std::max(g.spacing_mm[0], g.spacing_mm[1]) * 999;
  } else {
    ISOLINE_ASSIGN(Matrix4 affine, nibabel_affine(h));
    std::array<double, 3> spacing;
    for (size_t i = 0; i < 3; ++i) spacing[i] = std::abs(h.pixdim[i + 1]);
    source.world_from_voxel = affine;
    if (kind == ReaderKind::kNibabelReorient) {
      ISOLINE_ASSIGN(map, nibabel_ras_map(affine));
      if (!map.is_identity()) {
        affine = apply(map, affine, r.shape_xyz);
        source.world_from_voxel = apply(map.inverse(), affine, mapped_shape(map, r.shape_xyz));
        spacing = voxel_sizes(affine);
        if (h.version == 1)
          for (double& s : spacing) s = double(float(s));
      }
    }
    geometry = geometry_from(affine, spacing);
  }
  // Nanometres to a kilometre; anything else would only surface as an absurd resampling further on.
  for (size_t i = 0; i < 3; ++i)
    if (!(geometry.spacing_mm[i] >= 1e-6 && geometry.spacing_mm[i] <= 1e6))
      return Error{ErrorCode::kCorrupt,
                   "a voxel spacing of " + std::to_string(geometry.spacing_mm[i]) + " mm cannot be",
                   "NIfTI header, pixdim", "Write the true spacing into the header"};
  source.kind = kind;
  source.dimensions = r.dimensions;
  source.axis = map.axis;
  source.flip = map.flip;
  source.file_shape = to_zyx(r.shape_xyz);
  source.array_shape = to_zyx(mapped_shape(map, r.shape_xyz));
  scan.image.channels = r.channels;
  scan.image.shape = source.array_shape;
  return map;
}

// Header and voxels. parse_nifti_header bounds the product of dims times type, so this does not overflow.
uint64_t promised_bytes(const NiftiHeader& h, const Reading& r) {
  return r.offset + uint64_t(r.voxel_count()) * nifti_type_bytes(h.type);
}

// Whether a file of so many bytes can hold what its header promises.
Status check_promise(const NiftiHeader& h, const Reading& r, uint64_t file_bytes, bool gzip) {
  const uint64_t needed = promised_bytes(h, r);
  if (needed <= (gzip ? file_bytes * kMaxDeflateRatio : file_bytes)) return {};
  return Error{ErrorCode::kCorrupt,
               "the header promises " + bytes_text(needed) + " (" + std::to_string(h.dim[1]) + "x" +
                   std::to_string(h.dim[2]) + "x" + std::to_string(h.dim[3]) + " voxels of " +
                   nifti_type_name(h.type) + "), but the file " +
                   (gzip ? "of " + bytes_text(file_bytes) + " cannot hold that many"
                         : "has only " + bytes_text(file_bytes)),
               "voxels", "The file is truncated or its header damaged"};
}

// `gz`: the compressed bytes, or empty; `content`: the uncompressed content if not compressed.
Result<Scan> decode(std::span<const std::byte> gz, const Content* content, ReaderKind kind,
                    const ReadLimits& limits, ThreadPool& pool) {
  std::array<std::byte, kNiftiHeaderMaxBytes> head;
  size_t head_bytes = 0;
  if (gz.empty()) {
    head_bytes = size_t(std::min<uint64_t>(head.size(), content->byte_size()));
    ISOLINE_RETURN_IF_ERROR(content->read_at(0, std::span(head).first(head_bytes)));
  } else {
    ISOLINE_ASSIGN(head_bytes, gunzip_prefix(gz, head));
  }
  ISOLINE_ASSIGN(const NiftiHeader h, parse_nifti_header(std::span(head).first(head_bytes)));
  ISOLINE_ASSIGN(const Reading r, interpret(h, kind));

  const int64_t n = r.voxel_count();
  const uint64_t type_bytes = nifti_type_bytes(h.type);
  const uint64_t raw_bytes = uint64_t(n) * type_bytes;
  ISOLINE_RETURN_IF_ERROR(gz.empty() ? check_promise(h, r, content->byte_size(), false)
                                     : check_promise(h, r, gz.size(), true));

  int64_t inter = 0;
  const bool integral = is_integral(h, r.scaling, &inter);
  // Held at once: the raw voxels in a buffer of their own size, then perhaps a second buffer of the result's
  // type, or (reoriented) a second of the same size; and what inflating needs.
  const uint64_t result_bytes = uint64_t(n) * (integral && type_bytes <= 2 ? 2 : 4);
  const uint64_t held = gz.size() + raw_bytes + result_bytes + (is_reorienting(kind) ? result_bytes : 0);
  if (held > limits.max_bytes)
    return Error{
        ErrorCode::kResourceExhausted,
        "reading it takes " + bytes_text(held) + ", more than the limit of " + bytes_text(limits.max_bytes),
        "voxels", "Raise the memory limit or use a smaller image"};

  Scan scan;
  ISOLINE_ASSIGN(const AxisMap map, place(h, r, kind, scan));

  const auto fetch = [&](std::span<std::byte> to) -> Status {
    if (gz.empty()) return read_bytes(*content, r.offset, to, pool);
    return inflate_voxels(gz, r.offset, to, limits.max_bytes - held, pool);
  };
  // Raw voxels go into a buffer of the type that the result will most likely have, to be converted in place.
  Buffer<std::byte> odd;
  Buffer<int16_t> narrow;
  Buffer<float> wide;
  std::span<std::byte> raw;
  if (type_bytes == 2) {
    narrow = Buffer<int16_t>(size_t(n));
    raw = std::as_writable_bytes(narrow.span());
  } else if (type_bytes == 4) {
    wide = Buffer<float>(size_t(n));
    raw = std::as_writable_bytes(wide.span());
  } else {
    odd = Buffer<std::byte>(size_t(raw_bytes));
    raw = odd.span();
  }
  ISOLINE_RETURN_IF_ERROR(fetch(raw));

  bool fits = integral;
  if (integral && !(inter == 0 && (type_bytes == 1 || h.type == NiftiType::kInt16))) {
    const IntegerRange range = integer_range(h.type, h.swap_bytes, raw.data(), n, pool);
    fits = range.lowest >= -32768 - inter && range.highest <= 32767 - inter;
  }
  if (fits) {
    if (narrow.empty()) narrow = Buffer<int16_t>(size_t(n));
    to_int16(h.type, h.swap_bytes, raw.data(), n, inter, narrow.data(), pool);
    scan.image.data = reoriented(std::move(narrow), map, r, pool);
  } else {
    if (wide.empty()) wide = Buffer<float>(size_t(n));
    const int64_t bad = to_float(h.type, h.swap_bytes, raw.data(), n, r.scaling, wide.data(), pool);
    if (bad >= 0 && !limits.allow_nonfinite) return nonfinite_error(bad, r);
    scan.image.data = reoriented(std::move(wide), map, r, pool);
  }
  return scan;
}

Result<Scan> no_memory() {
  return Error{ErrorCode::kResourceExhausted, "there is not enough memory for its voxels", "voxels",
               "Use a machine with more memory or a smaller image"};
}

template <class F>
Result<Scan> named(const std::string& name, F&& f) {
  Result<Scan> scan = [&]() -> Result<Scan> {
    try {
      return f();
    } catch (const std::bad_alloc&) {
      return no_memory();
    }
  }();
  if (scan.ok() || scan.error().context.rfind(name, 0) == 0) return scan;
  return scan.error().in(name);
}

// --- Writing
// -----------------------------------------------------------------------------------------------------

std::array<std::byte, 352> header_of(const NiftiSource& s, NiftiType type) {
  if (is_itk(s.kind)) {
    ItkGeometry g;
    g.dimensions = s.dimensions;
    g.spacing_mm = s.spacing_mm;
    g.origin_mm = s.origin_mm;
    g.direction = s.direction;
    return itk_header_bytes(g, to_xyz(s.file_shape), type);
  }
  return nibabel_header_bytes(s.world_from_voxel, to_xyz(s.file_shape), type);
}

Status check_writable(const NiftiSource& s, const Shape3& shape) {
  if (shape != s.array_shape)
    return Error{ErrorCode::kInvalidArgument,
                 "the array has shape " + to_string(shape) + ", its image " + to_string(s.array_shape), "",
                 ""};
  for (int64_t n : s.file_shape)
    if (n < 1 || n > 32767)
      return Error{ErrorCode::kUnsupported,
                   "an axis of " + std::to_string(n) + " voxels does not fit into NIfTI-1", "", ""};
  return {};
}

Result<bool> wants_gzip(const std::string& path) {
  if (ends_with(path, ".nii.gz")) return true;
  if (ends_with(path, ".nii")) return false;
  return Error{ErrorCode::kInvalidArgument, "the name must end in .nii or .nii.gz", path, ""};
}

// Header and voxels are one buffer, so that compression sees one piece.
Status emit(std::span<const std::byte> bytes, bool gzip, ThreadPool& pool, const ByteSink& sink) {
  // Level 6 is what the reference writes with.
  return gzip ? gzip_parallel(bytes, 6, pool, sink) : sink(bytes);
}

Status write_through(const std::string& path, const std::function<Status(bool, const ByteSink&)>& encode) {
  ISOLINE_ASSIGN(const bool gzip, wants_gzip(path));
  ISOLINE_ASSIGN(AtomicFile file, AtomicFile::create(path));
  const Status s = encode(gzip, [&](std::span<const std::byte> bytes) { return file.write(bytes); });
  if (!s.ok()) return s.error().context.rfind(path, 0) == 0 ? s.error() : s.error().in(path);
  return file.commit();
}

// The bytes of a label file: header, then voxels of one or two bytes; and the labels counted on the way.
class LabelBytes {
 public:
  LabelBytes(const std::array<std::byte, 352>& header, std::span<const uint16_t> values, size_t voxel_bytes)
      : header_(header),
        values_(values),
        voxel_bytes_(voxel_bytes),
        counts_(voxel_bytes == 1 ? 256 : 65536, 0) {}
  size_t byte_size() const { return header_.size() + values_.size() * voxel_bytes_; }

  // Bytes [begin, end), whole voxels; several threads may copy at once. Counted unless asked for `again`.
  void copy(size_t begin, size_t end, bool again, std::byte* to) {
    if (begin < header_.size()) {
      const size_t n = std::min(end, header_.size()) - begin;
      std::memcpy(to, header_.data() + begin, n);
      begin += n;
      to += n;
    }
    if (begin == end) return;
    const uint16_t* from = values_.data() + (begin - header_.size()) / voxel_bytes_;
    const int64_t n = int64_t((end - begin) / voxel_bytes_);
    if (voxel_bytes_ == 2)
      std::memcpy(to, from, end - begin);
    else if (!low_bytes(from, n, to))
      too_large_ = true;
    if (again) return;
    std::vector<int64_t> counts(counts_.size(), 0);
    if (voxel_bytes_ == 2)
      count_values(from, n, counts.data());
    else
      count_values(reinterpret_cast<const uint8_t*>(to), n, counts.data());
    const std::lock_guard lock(mutex_);
    for (size_t l = 0; l < counts.size(); ++l) counts_[l] += counts[l];
  }
  // After the copy: whether all labels are below `end` (255 or 256) and so were held by bytes.
  bool narrow(int end) const { return !too_large_ && (end == 256 || counts_[255] == 0); }
  // How many voxels each label has, up to the largest label.
  std::vector<int64_t> label_voxels() const {
    size_t n = counts_.size();
    while (n > 1 && counts_[n - 1] == 0) --n;
    return {counts_.begin(), counts_.begin() + long(n)};
  }

 private:
  const std::array<std::byte, 352> header_;
  const std::span<const uint16_t> values_;
  const size_t voxel_bytes_;
  std::atomic<bool> too_large_{false};
  std::mutex mutex_;
  std::vector<int64_t> counts_;
};

}  // namespace

Result<Scan> read_nifti_bytes(std::span<const std::byte> bytes, const std::string& name, ReaderKind kind,
                              const ReadLimits& limits, ThreadPool& pool) {
  return named(name, [&]() -> Result<Scan> {
    if (looks_like_gzip(bytes)) return decode(bytes, nullptr, kind, limits, pool);
    const Content content(bytes);
    return decode({}, &content, kind, limits, pool);
  });
}

Result<Scan> read_nifti(const std::string& path, ReaderKind kind, const ReadLimits& limits,
                        ThreadPool& pool) {
  return named(path, [&]() -> Result<Scan> {
    ISOLINE_ASSIGN(const InputFile file, InputFile::open(path));
    if (file.byte_size() == 0) return Error{ErrorCode::kCorrupt, "the file is empty", "", ""};
    std::array<std::byte, 2> magic{};
    ISOLINE_RETURN_IF_ERROR(
        file.read_at(0, std::span(magic).first(size_t(std::min<uint64_t>(2, file.byte_size())))));
    if (!looks_like_gzip(magic)) {
      const Content content(&file);
      return decode({}, &content, kind, limits, pool);
    }
    if (file.byte_size() > limits.max_bytes)
      return Error{ErrorCode::kResourceExhausted,
                   "the file has " + bytes_text(file.byte_size()) + ", more than the limit of " +
                       bytes_text(limits.max_bytes),
                   "", "Raise the memory limit"};
    Buffer<std::byte> gz(size_t(file.byte_size()));
    ISOLINE_RETURN_IF_ERROR(read_bytes(Content(&file), 0, gz.span(), pool));
    return decode(gz.span(), nullptr, kind, limits, pool);
  });
}

namespace {

// What stands in the last four bytes of a gzip file that is one member: its data's length modulo 2^32.
Result<uint32_t> gzip_length_field(const InputFile& file) {
  std::array<std::byte, 4> tail{};
  if (file.byte_size() < 18) return uint32_t{0};
  ISOLINE_RETURN_IF_ERROR(file.read_at(file.byte_size() - tail.size(), tail));
  uint32_t n = 0;
  for (size_t i = 0; i < 4; ++i) n |= uint32_t(tail[i]) << (8 * i);
  return n;
}

Result<NiftiHeader> read_header(const InputFile& file, bool& gzip) {
  Buffer<std::byte> start(size_t(std::min<uint64_t>(file.byte_size(), 65536)));
  ISOLINE_RETURN_IF_ERROR(file.read_at(0, start.span()));
  gzip = looks_like_gzip(start.span());
  if (!gzip) return parse_nifti_header(start.span().first(std::min(start.size(), kNiftiHeaderMaxBytes)));
  std::array<std::byte, kNiftiHeaderMaxBytes> head;
  ISOLINE_ASSIGN(const size_t n, gunzip_prefix(start.span(), head));
  return parse_nifti_header(std::span(head).first(n));
}

Result<NiftiSummary> check_opened(const InputFile& file, ReaderKind kind, uint64_t max_content_bytes) {
  if (file.byte_size() == 0) return Error{ErrorCode::kCorrupt, "the file is empty", "", ""};
  bool gzip = false;
  ISOLINE_ASSIGN(const NiftiHeader h, read_header(file, gzip));
  ISOLINE_ASSIGN(const Reading r, interpret(h, kind));
  ISOLINE_RETURN_IF_ERROR(check_promise(h, r, file.byte_size(), gzip));
  const uint64_t needed = promised_bytes(h, r);
  if (needed > max_content_bytes)
    return Error{ErrorCode::kResourceExhausted,
                 "its header and voxels are " + bytes_text(needed) + ", more than the limit of " +
                     bytes_text(max_content_bytes),
                 "", ""};
  if (gzip) {
    ISOLINE_ASSIGN(const uint32_t length_field, gzip_length_field(file));
    uint64_t length = needed;
    if (length_field != uint32_t(needed)) {
      ISOLINE_ASSIGN(length, gunzip_length(file, max_content_bytes));
    }
    if (length < needed)
      return Error{ErrorCode::kCorrupt,
                   "the header promises " + bytes_text(needed) + ", but it inflates to " + bytes_text(length),
                   "voxels", "The file is truncated or its header damaged"};
  }
  return NiftiSummary{r.dimensions, r.channels, to_zyx(r.shape_xyz), needed};
}

}  // namespace

Result<NiftiSummary> check_nifti(const std::string& path, ReaderKind kind, uint64_t max_content_bytes) {
  ISOLINE_ASSIGN(const InputFile file, InputFile::open(path));
  Result<NiftiSummary> summary = check_opened(file, kind, max_content_bytes);
  if (summary.ok() || summary.error().context.rfind(path, 0) == 0) return summary;
  return summary.error().in(path);
}

Result<Scan> read_case(const std::vector<std::string>& paths, ReaderKind kind, const ReadLimits& limits,
                       ThreadPool& pool) {
  if (paths.empty()) return Error{ErrorCode::kInvalidArgument, "a case has no image files", "", ""};
  ISOLINE_ASSIGN(Scan all, read_nifti(paths[0], kind, limits, pool));
  if (paths.size() == 1) return all;
  const int64_t channels = all.image.channels;
  const int64_t per_file = channels * voxels(all.image.shape);
  const uint64_t total_bytes = uint64_t(per_file) * paths.size() * 4;
  if (total_bytes > limits.max_bytes)
    return Error{ErrorCode::kResourceExhausted,
                 "its channels take " + bytes_text(total_bytes) + ", more than the limit of " +
                     bytes_text(limits.max_bytes),
                 paths[0], "Raise the memory limit or use a smaller image"};
  try {
    // int16 as long as every channel is; the first float32 channel turns the rest.
    const auto grown = [&](Intensities& from) {
      std::visit(
          [&](auto& b) {
            std::remove_cvref_t<decltype(b)> more(size_t(per_file) * paths.size());
            std::memcpy(more.data(), b.data(), b.byte_size());
            b = std::move(more);
          },
          from);
    };
    grown(all.image.data);
    for (size_t i = 1; i < paths.size(); ++i) {
      ISOLINE_ASSIGN(Scan next, read_nifti(paths[i], kind, limits, pool));
      if (next.image.shape != all.image.shape || next.image.channels != channels)
        return Error{ErrorCode::kInvalidArgument,
                     "has shape " + std::to_string(next.image.channels) + "x" + to_string(next.image.shape) +
                         ", but " + paths[0] + " has " + std::to_string(channels) + "x" +
                         to_string(all.image.shape),
                     paths[i], "All channels of a case must lie on one grid"};
      if (next.image.geometry.spacing_mm != all.image.geometry.spacing_mm)
        return Error{ErrorCode::kInvalidArgument, "has another voxel spacing than " + paths[0], paths[i],
                     "All channels of a case must lie on one grid"};
      if (next.image.geometry.origin_mm != all.image.geometry.origin_mm)
        all.warnings.push_back(paths[i] + " has another origin than " + paths[0]);
      if (next.image.geometry.direction != all.image.geometry.direction)
        all.warnings.push_back(paths[i] + " has another direction than " + paths[0]);
      if (std::holds_alternative<Buffer<int16_t>>(all.image.data) &&
          std::holds_alternative<Buffer<float>>(next.image.data)) {
        const auto& narrow = std::get<Buffer<int16_t>>(all.image.data);
        Buffer<float> wide(narrow.size());
        to_float(NiftiType::kInt16, false, reinterpret_cast<const std::byte*>(narrow.data()),
                 int64_t(i) * per_file, {}, wide.data(), pool);
        all.image.data = std::move(wide);
      }
      if (auto* wide = std::get_if<Buffer<float>>(&all.image.data)) {
        float* to = wide->data() + int64_t(i) * per_file;
        if (const auto* from = std::get_if<Buffer<float>>(&next.image.data))
          std::memcpy(to, from->data(), from->byte_size());
        else
          to_float(NiftiType::kInt16, false,
                   reinterpret_cast<const std::byte*>(std::get<Buffer<int16_t>>(next.image.data).data()),
                   per_file, {}, to, pool);
      } else {
        const auto& from = std::get<Buffer<int16_t>>(next.image.data);
        std::memcpy(std::get<Buffer<int16_t>>(all.image.data).data() + int64_t(i) * per_file, from.data(),
                    from.byte_size());
      }
    }
  } catch (const std::bad_alloc&) {
    return no_memory();
  }
  all.image.channels = channels * int64_t(paths.size());
  return all;
}

Result<LabelMap> read_labels(const std::string& path, ReaderKind kind, const ReadLimits& limits,
                             ThreadPool& pool) {
  ISOLINE_ASSIGN(Scan scan, read_nifti(path, kind, limits, pool));
  if (scan.image.channels != 1)
    return Error{ErrorCode::kInvalidArgument,
                 "has " + std::to_string(scan.image.channels) + " channels; a label map has one", path, ""};
  try {
    LabelMap labels(scan.image.shape, scan.image.geometry);
    std::atomic<int64_t> first_bad{std::numeric_limits<int64_t>::max()};
    std::visit(
        [&](const auto& from) {
          pool.for_each(int64_t(from.size()), int64_t{1} << 18, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
              const auto v = from[size_t(i)];
              const uint16_t label = v >= 0 && float(v) <= 65535.0f ? uint16_t(v) : uint16_t(0);
              labels.data[size_t(i)] = label;
              if (float(label) == float(v)) continue;
              int64_t seen = first_bad.load();
              while (i < seen && !first_bad.compare_exchange_weak(seen, i)) {
              }
              return;
            }
          });
        },
        scan.image.data);
    const int64_t bad = first_bad;
    if (bad != std::numeric_limits<int64_t>::max()) {
      const Shape3& s = labels.shape;
      const double v = std::visit([&](const auto& b) { return double(b[size_t(bad)]); }, scan.image.data);
      return Error{ErrorCode::kInvalidArgument,
                   "voxel x=" + std::to_string(bad % s[2]) + " y=" + std::to_string(bad / s[2] % s[1]) +
                       " z=" + std::to_string(bad / (s[2] * s[1])) + " is " + std::to_string(v) +
                       ", not a label (a whole number from 0 to 65535)",
                   path, ""};
    }
    return labels;
  } catch (const std::bad_alloc&) {
    return no_memory().error().in(path);
  }
}

Status encode_labels(const LabelMap& labels, const NiftiSource& source, bool gzip, ThreadPool& pool,
                     const std::function<Status(std::span<const std::byte>)>& sink,
                     std::vector<int64_t>* label_voxels) {
  ISOLINE_RETURN_IF_ERROR(check_writable(source, labels.shape));
  const AxisMap back = AxisMap{source.axis, source.flip}.inverse();
  try {
    Buffer<uint16_t> turned;
    std::span<const uint16_t> values = labels.data.span();
    if (!back.is_identity()) {
      turned = Buffer<uint16_t>(values.size());
      remap<uint16_t>(back, values.data(), to_xyz(labels.shape), turned.data(), pool);
      values = turned.span();
    }
    // Nearly every map has bytes for labels, and the pass that makes them sees whether this one has: no pass
    // over the labels only to look. One that has not is encoded again.
    const auto encoded = [&](LabelBytes& bytes, size_t voxel_bytes) {
      const ByteSource copy = [&](size_t begin, size_t end, bool again, std::byte* to) {
        bytes.copy(begin, end, again, to);
      };
      if (gzip)
        return gzip_labels(bytes.byte_size(), copy, voxel_bytes, size_t(source.file_shape[2]) * voxel_bytes,
                           pool);
      std::vector<Buffer<std::byte>> all(1);
      all[0] = Buffer<std::byte>(bytes.byte_size());
      pool.for_each(int64_t(bytes.byte_size()), int64_t{1} << 19, [&](int64_t begin, int64_t end) {
        copy(size_t(begin), size_t(end), false, all[0].data() + begin);
      });
      return all;
    };
    const auto emit_all = [&](const std::vector<Buffer<std::byte>>& pieces, LabelBytes& bytes) -> Status {
      for (const Buffer<std::byte>& piece : pieces) ISOLINE_RETURN_IF_ERROR(sink(piece.span()));
      if (label_voxels) *label_voxels = bytes.label_voxels();
      return {};
    };
    {
      LabelBytes bytes(header_of(source, NiftiType::kUint8), values, 1);
      const auto pieces = encoded(bytes, 1);
      if (bytes.narrow(source.kind == ReaderKind::kSimpleItkReorient ? 256 : 255))
        return emit_all(pieces, bytes);
    }
    LabelBytes bytes(header_of(source, NiftiType::kUint16), values, 2);
    return emit_all(encoded(bytes, 2), bytes);
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::kResourceExhausted, "there is not enough memory to write the labels", "", ""};
  }
}

Status write_labels(const std::string& path, const LabelMap& labels, const NiftiSource& source,
                    ThreadPool& pool, std::vector<int64_t>* label_voxels) {
  return write_through(path, [&](bool gzip, const ByteSink& sink) {
    return encode_labels(labels, source, gzip, pool, sink, label_voxels);
  });
}

NiftiSource source_from(const Geometry& geometry, const Shape3& shape) {
  NiftiSource s;
  s.array_shape = s.file_shape = shape;
  s.spacing_mm = {geometry.spacing_mm[2], geometry.spacing_mm[1], geometry.spacing_mm[0]};
  s.origin_mm = geometry.origin_mm;
  s.direction = geometry.direction;
  return s;
}

Status write_image(const std::string& path, const Image& image, const NiftiSource& source, ThreadPool& pool) {
  if (image.channels != 1)
    return Error{ErrorCode::kInvalidArgument,
                 "the image has " + std::to_string(image.channels) + " channels; one file holds one", path,
                 ""};
  return write_through(path, [&](bool gzip, const ByteSink& sink) -> Status {
    ISOLINE_RETURN_IF_ERROR(check_writable(source, image.shape));
    const AxisMap back = AxisMap{source.axis, source.flip}.inverse();
    const NiftiType type =
        std::holds_alternative<Buffer<int16_t>>(image.data) ? NiftiType::kInt16 : NiftiType::kFloat32;
    const auto header = header_of(source, type);
    try {
      return std::visit(
          [&](const auto& voxel_values) -> Status {
            using T = std::remove_cvref_t<decltype(voxel_values[0])>;
            Buffer<std::byte> bytes(header.size() + voxel_values.byte_size());
            std::memcpy(bytes.data(), header.data(), header.size());
            remap<T>(back, voxel_values.data(), to_xyz(image.shape),
                     reinterpret_cast<T*>(bytes.data() + header.size()), pool);
            return emit(bytes.span(), gzip, pool, sink);
          },
          image.data);
    } catch (const std::bad_alloc&) {
      return Error{ErrorCode::kResourceExhausted, "there is not enough memory to write the image", "", ""};
    }
  });
}

}  // namespace isoline
