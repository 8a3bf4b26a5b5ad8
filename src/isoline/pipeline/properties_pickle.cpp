#include "isoline/pipeline/properties_pickle.h"

#include <bit>

#include "isoline/base/file.h"

namespace isoline {
namespace {

// Emits the few pickle opcodes needed (protocol 2; Python's pickletools names them).
class Pickle {
 public:
  Pickle() { out_ = "\x80\x02"; }
  void text(const std::string& s) {  // BINUNICODE
    out_ += 'X';
    little_endian(uint32_t(s.size()), 4);
    out_ += s;
  }
  void integer(int64_t v) {  // LONG1 of 8 bytes
    out_ += "\x8a\x08";
    little_endian(uint64_t(v), 8);
  }
  void real(double v) {  // BINFLOAT, big-endian
    out_ += 'G';
    const uint64_t bits = std::bit_cast<uint64_t>(v);
    for (int i = 7; i >= 0; --i) out_ += char(bits >> (8 * i) & 0xff);
  }
  void mark() { out_ += '('; }
  void tuple() { out_ += 't'; }  // from the mark
  void list() { out_ += 'l'; }   // from the mark
  void dict() { out_ += 'd'; }   // from the mark: key, value, key, value, ...
  void global(const char* module, const char* name) {
    out_ += std::string("c") + module + "\n" + name + "\n";
  }
  void reduce() { out_ += 'R'; }
  std::string finish() { return out_ + '.'; }

 private:
  void little_endian(uint64_t v, int bytes) {
    for (int i = 0; i < bytes; ++i) out_ += char(v >> (8 * i) & 0xff);
  }
  std::string out_;
};

template <class Range>
void real_tuple(Pickle& p, const Range& values, size_t count) {
  p.mark();
  for (size_t i = 0; i < count; ++i) p.real(double(values[i]));
  p.tuple();
}

void integer_tuple(Pickle& p, const Shape3& values) {
  p.mark();
  for (int64_t v : values) p.integer(v);
  p.tuple();
}

}  // namespace

Status write_properties(const std::string& path, const NiftiSource& source, const Vec3<double>& spacing_mm,
                        const CropRecord& crop) {
  Pickle p;
  p.mark();
  const bool itk = source.kind == ReaderKind::kSimpleItk || source.kind == ReaderKind::kSimpleItkReorient;
  if (itk) {
    const auto n = size_t(source.dimensions);
    p.text("sitk_stuff");
    p.mark();
    p.text("spacing");
    real_tuple(p, source.spacing_mm, n);
    p.text("origin");
    real_tuple(p, source.origin_mm, n);
    p.text("direction");
    p.mark();
    for (size_t r = 0; r < n; ++r)
      for (size_t c = 0; c < n; ++c) p.real(source.direction[r][c]);
    p.tuple();
    p.dict();
  } else {
    p.text("nibabel_stuff");
    p.mark();
    p.text("original_affine");
    p.global("numpy", "array");
    p.mark();
    p.mark();
    for (const auto& row : source.world_from_voxel) {
      p.mark();
      for (double v : row) p.real(v);
      p.list();
    }
    p.list();
    p.tuple();
    p.reduce();
    p.dict();
  }
  p.text("spacing");
  p.mark();
  for (double v : spacing_mm) p.real(v);
  p.list();
  p.text("shape_before_cropping");
  integer_tuple(p, crop.shape_before);
  p.text("bbox_used_for_cropping");
  p.mark();
  for (size_t a = 0; a < 3; ++a) {
    p.mark();
    p.integer(crop.box.lo[a]);
    p.integer(crop.box.hi[a]);
    p.list();
  }
  p.list();
  p.text("shape_after_cropping_and_before_resampling");
  integer_tuple(p, crop.box.shape());
  p.dict();
  return write_file_atomically(path, p.finish());
}

}  // namespace isoline
