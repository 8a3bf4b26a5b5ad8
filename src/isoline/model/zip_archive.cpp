#include "isoline/model/zip_archive.h"

#include <libdeflate.h>
#include <minizip/unzip.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "isoline/model/printable.h"

namespace isoline {
namespace {

constexpr uint64_t kMaxEntries = 200'000;

// minizip reads through these: a cursor over memory instead of a FILE.
struct Cursor {
  std::span<const std::byte> bytes;
  uint64_t at = 0;
};

voidpf open_cursor(voidpf opaque, const void*, int) {
  return opaque;
}
uLong read_cursor(voidpf, voidpf stream, void* to, uLong size) {
  auto* c = static_cast<Cursor*>(stream);
  const uint64_t n = std::min<uint64_t>(size, c->bytes.size() - c->at);
  if (n) std::memcpy(to, c->bytes.data() + c->at, n);
  c->at += n;
  return uLong(n);
}
uLong write_cursor(voidpf, voidpf, const void*, uLong) {
  return 0;
}
ZPOS64_T tell_cursor(voidpf, voidpf stream) {
  return static_cast<Cursor*>(stream)->at;
}
long seek_cursor(voidpf, voidpf stream, ZPOS64_T offset, int origin) {
  auto* c = static_cast<Cursor*>(stream);
  uint64_t base = 0;
  if (origin == ZLIB_FILEFUNC_SEEK_CUR) base = c->at;
  if (origin == ZLIB_FILEFUNC_SEEK_END) base = c->bytes.size();
  if (offset > c->bytes.size() - base) return -1;
  c->at = base + offset;
  return 0;
}
int close_cursor(voidpf, voidpf) {
  return 0;
}
int error_cursor(voidpf, voidpf) {
  return 0;
}

Error corrupt(std::string message) {
  return Error{ErrorCode::kCorrupt, std::move(message), "", "copy or download the file again"};
}

}  // namespace

Result<ZipArchive> ZipArchive::open(std::span<const std::byte> archive) {
  Cursor cursor{archive, 0};
  zlib_filefunc64_def functions{open_cursor, read_cursor,  write_cursor, tell_cursor,
                                seek_cursor, close_cursor, error_cursor, &cursor};
  std::unique_ptr<void, int (*)(unzFile)> zip(unzOpen2_64("", &functions), unzClose);
  if (!zip) return corrupt("no zip directory found: the file is damaged or cut off");
  unz_global_info64 info{};
  if (unzGetGlobalInfo64(zip.get(), &info) != UNZ_OK || info.number_entry > kMaxEntries)
    return corrupt("the zip directory states " + std::to_string(info.number_entry) + " entries");

  ZipArchive out;
  out.archive_ = archive;
  std::vector<char> name_buffer(65536);  // a name has at most 65,535 bytes
  uint64_t seen = 0;
  for (int rc = info.number_entry ? unzGoToFirstFile(zip.get()) : UNZ_END_OF_LIST_OF_FILE;
       rc != UNZ_END_OF_LIST_OF_FILE; rc = unzGoToNextFile(zip.get())) {
    if (rc != UNZ_OK || ++seen > kMaxEntries) return corrupt("the zip directory is damaged");
    unz_file_info64 entry{};
    if (unzGetCurrentFileInfo64(zip.get(), &entry, name_buffer.data(), uLong(name_buffer.size()), nullptr, 0,
                                nullptr, 0) != UNZ_OK)
      return corrupt("the zip directory is damaged");
    const std::string name(name_buffer.data(), std::min<size_t>(entry.size_filename, name_buffer.size()));
    const std::string what = "zip entry '" + printable(name) + "'";
    if (entry.flag & 1)
      return Error{ErrorCode::kUnsupported, what + " is encrypted", "", "store it without a password"};
    if (entry.compression_method != 0 && entry.compression_method != Z_DEFLATED)
      return Error{ErrorCode::kUnsupported,
                   what + " uses compression method " + std::to_string(entry.compression_method), "",
                   "store it or use deflate"};
    // Opening compares the local header with the directory and finds where the data begins.
    if (unzOpenCurrentFile2(zip.get(), nullptr, nullptr, 1) != UNZ_OK)
      return corrupt(what + " disagrees with the zip directory");
    ZipEntry e;
    e.data_offset = unzGetCurrentFileZStreamPos64(zip.get());
    unzCloseCurrentFile(zip.get());
    e.compressed_size = entry.compressed_size;
    e.size = entry.uncompressed_size;
    e.crc32 = uint32_t(entry.crc);
    e.deflated = entry.compression_method == Z_DEFLATED;
    if (e.data_offset > archive.size() || e.compressed_size > archive.size() - e.data_offset)
      return corrupt(what + " reaches past the end of the file");
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
  if (!e) return Error{ErrorCode::kCorrupt, what + " is missing", "", "copy or download the file again"};
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
