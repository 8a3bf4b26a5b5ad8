#include "isoline/model/zip_archive.h"

#include <libdeflate.h>

#include <algorithm>
#include <memory>

#include "isoline/model/printable.h"

namespace isoline {
namespace {

constexpr uint64_t kMaxEntries = 200'000;
constexpr uint64_t kOfZip64 = 0xffffffff;  // "see the zip64 field"

Error corrupt(std::string message) {
  return Error{ErrorCode::kCorrupt, std::move(message), "", "Copy or download the file again"};
}

// Little-endian fields of a record; reads past the end give 0 and clear ok().
class Fields {
 public:
  Fields(std::span<const std::byte> bytes, uint64_t at) : bytes_(bytes), at_(at) {}
  uint64_t take(unsigned width) {
    if (!has(width)) return 0;
    uint64_t v = 0;
    for (unsigned i = width; i-- > 0;) v = v << 8 | std::to_integer<uint64_t>(bytes_[size_t(at_ + i)]);
    at_ += width;
    return v;
  }
  std::string take_text(uint64_t n) {
    if (!has(n)) return "";
    std::string s(reinterpret_cast<const char*>(bytes_.data()) + at_, size_t(n));
    at_ += n;
    return s;
  }
  void skip(uint64_t n) {
    if (has(n)) at_ += n;
  }
  bool ok() const { return ok_; }
  uint64_t at() const { return at_; }

 private:
  bool has(uint64_t n) { return ok_ = ok_ && at_ <= bytes_.size() && n <= bytes_.size() - at_; }
  std::span<const std::byte> bytes_;
  uint64_t at_;
  bool ok_ = true;
};

struct Directory {
  uint64_t entries = 0, byte_size = 0, offset = 0;
};

// The end-of-directory record is the last thing in the file, but for a comment of up to 65,535 bytes.
Result<Directory> find_directory(std::span<const std::byte> archive) {
  constexpr uint64_t kRecord = 22, kLocator = 20;
  for (uint64_t back = kRecord; back <= std::min<uint64_t>(archive.size(), kRecord + 65535); ++back) {
    const uint64_t end = archive.size() - back;
    Fields f(archive, end);
    if (f.take(4) != 0x06054b50) continue;
    const uint64_t disk = f.take(2), directory_disk = f.take(2);
    f.skip(2);
    Directory d;
    d.entries = f.take(2);
    d.byte_size = f.take(4);
    d.offset = f.take(4);
    if (f.take(2) != back - kRecord) continue;  // the signature occurred inside something else
    uint64_t limit = end;
    if (end >= kLocator) {
      Fields locator(archive, end - kLocator);
      if (locator.take(4) == 0x07064b50) {
        locator.skip(4);
        const uint64_t at = locator.take(8);
        Fields zip64(archive, at);
        if (zip64.take(4) != 0x06064b50) return corrupt("the zip64 directory is damaged");
        zip64.skip(8 + 2 + 2 + 4 + 4 + 8);
        d.entries = zip64.take(8);
        d.byte_size = zip64.take(8);
        d.offset = zip64.take(8);
        if (!zip64.ok()) return corrupt("the zip64 directory is damaged");
        limit = at;
      } else if (disk != 0 || directory_disk != 0) {
        return Error{ErrorCode::kUnsupported, "the zip file is split into several", "", ""};
      }
    }
    if (d.offset > limit || d.byte_size > limit - d.offset) return corrupt("the zip directory is damaged");
    if (d.entries > kMaxEntries)
      return corrupt("the zip directory states " + std::to_string(d.entries) + " entries");
    return d;
  }
  return corrupt("no zip directory found: the file is damaged or cut off");
}

}  // namespace

Result<ZipArchive> ZipArchive::open(std::span<const std::byte> archive) {
  ISOLINE_ASSIGN(const Directory directory, find_directory(archive));
  ZipArchive out;
  out.archive_ = archive;
  uint64_t stored_total = 0;
  // Reads stay inside the directory, as its entries must.
  Fields f(archive.first(size_t(directory.offset + directory.byte_size)), directory.offset);
  for (uint64_t i = 0; i < directory.entries; ++i) {
    if (f.take(4) != 0x02014b50) return corrupt("the zip directory is damaged");
    f.skip(4);
    const uint64_t flags = f.take(2), method = f.take(2);
    f.skip(4);
    ZipEntry e;
    e.crc32 = uint32_t(f.take(4));
    e.compressed_size = f.take(4);
    e.size = f.take(4);
    const uint64_t name_size = f.take(2), extra_size = f.take(2), comment_size = f.take(2);
    f.skip(2 + 2 + 4);
    uint64_t header = f.take(4);
    const std::string name = f.take_text(name_size);
    const std::string what = "zip entry '" + printable(name) + "'";
    const uint64_t extra_end = f.at() + extra_size;
    f.skip(extra_size + comment_size);
    if (!f.ok()) return corrupt("the zip directory is cut off");
    // Extra fields: id, size, data. The one of zip64 holds the values that did not fit, in this order.
    Fields extra(archive.first(size_t(extra_end)), extra_end - extra_size);
    while (extra_end - extra.at() >= 4) {
      const uint64_t id = extra.take(2), size = extra.take(2);
      if (id != 1) {
        extra.skip(size);
      } else {
        Fields wide = extra;
        if (e.size == kOfZip64) e.size = wide.take(8);
        if (e.compressed_size == kOfZip64) e.compressed_size = wide.take(8);
        if (header == kOfZip64) header = wide.take(8);
        if (!wide.ok() || wide.at() - extra.at() > size) return corrupt(what + " has a damaged zip64 field");
        break;
      }
      if (!extra.ok()) return corrupt(what + " has damaged extra fields");
    }
    if (flags & 1)
      return Error{ErrorCode::kUnsupported, what + " is encrypted", "", "Store it without a password"};
    if (method != 0 && method != 8)
      return Error{ErrorCode::kUnsupported, what + " uses compression method " + std::to_string(method), "",
                   "Store it or use deflate"};
    e.deflated = method == 8;
    Fields local(archive, header);
    const bool is_header = local.take(4) == 0x04034b50;
    local.skip(4);
    const bool same_method = local.take(2) == method;
    local.skip(4 + 4 + 4 + 4);  // time; checksum and sizes may follow the data instead of standing here
    const uint64_t local_name_size = local.take(2), local_extra_size = local.take(2);
    const bool same_name = local_name_size == name_size && local.take_text(local_name_size) == name;
    local.skip(local_extra_size);
    if (!is_header || !same_method || !same_name || !local.ok())
      return corrupt(what + " disagrees with the zip directory");
    e.data_offset = local.at();
    if (e.compressed_size > archive.size() - e.data_offset)
      return corrupt(what + " reaches past the end of the file");
    stored_total += e.compressed_size;  // no overflow: 200,000 entries, each within the file
    if (stored_total > archive.size()) return corrupt(what + " overlaps others");
    if (!e.deflated && e.size != e.compressed_size) return corrupt(what + " has two sizes");
    // Deflate cannot do better than 1032:1, so a larger size is a lie and must not be allocated.
    if (e.deflated && e.size / 1032 > e.compressed_size) return corrupt(what + " states an impossible size");
    if (e.size && e.crc32) out.has_checksums_ = true;
    if (!out.entries_.emplace(name, e).second) return corrupt(what + " occurs twice");
  }
  return out;
}

const ZipEntry* ZipArchive::find(const std::string& name) const {
  const auto it = entries_.find(name);
  return it == entries_.end() ? nullptr : &it->second;
}

Result<ZipContent> ZipArchive::read(const std::string& name, uint64_t max_bytes) const {
  const std::string what = "zip entry '" + printable(name) + "'";
  const ZipEntry* e = find(name);
  if (!e) return Error{ErrorCode::kCorrupt, what + " is missing", "", "Copy or download the file again"};
  if (e->size > max_bytes)
    return Error{ErrorCode::kResourceExhausted,
                 what + " has " + std::to_string(e->size) + " bytes; at most " + std::to_string(max_bytes) +
                     " are read",
                 "", ""};
  ZipContent content;
  const auto raw = archive_.subspan(e->data_offset, e->compressed_size);
  if (!e->deflated) {
    content.bytes = raw;
  } else {
    content.owned = Buffer<std::byte>(e->size);
    std::unique_ptr<libdeflate_decompressor, void (*)(libdeflate_decompressor*)> inflate(
        libdeflate_alloc_decompressor(), libdeflate_free_decompressor);
    if (!inflate) throw std::bad_alloc();
    std::byte none{};
    size_t got = 0;
    if (libdeflate_deflate_decompress(inflate.get(), raw.data(), raw.size(),
                                      e->size ? content.owned.data() : &none, e->size,
                                      &got) != LIBDEFLATE_SUCCESS ||
        got != e->size)
      return corrupt(what + " cannot be decompressed");
    content.bytes = content.owned.span();
  }
  if (has_checksums_ && libdeflate_crc32(0, content.bytes.data(), content.bytes.size()) != e->crc32)
    return corrupt(what + " does not match its checksum");
  return content;
}

}  // namespace isoline
