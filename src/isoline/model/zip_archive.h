// ZipArchive: the entries of a zip file held in memory (usually a mapping), read without copying where
// possible.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "isoline/base/buffer.h"
#include "isoline/base/result.h"

namespace isoline {

struct ZipEntry {
  uint64_t data_offset = 0;      // of the first stored byte, from the start of the archive
  uint64_t compressed_size = 0;  // bytes in the archive
  uint64_t size = 0;             // bytes when read
  uint32_t crc32 = 0;
  bool deflated = false;  // else stored as is
};

// An entry's bytes: inside the archive, or (deflated entries) in `owned`.
struct ZipContent {
  std::span<const std::byte> bytes;
  Buffer<std::byte> owned;
};

// zip and zip64; methods stored and deflate; not encrypted, not split. Immutable after opening, safe to read
// from several threads. The bytes given to open() must outlive it.
class ZipArchive {
 public:
  // kCorrupt for anything that is not such an archive, including two entries of one name and entries that
  // reach past the end. Work and memory are bounded by the archive's size and 200,000 entries.
  static Result<ZipArchive> open(std::span<const std::byte> archive);

  const std::map<std::string, ZipEntry>& entries() const { return entries_; }
  // False for archives that state checksum 0 for every entry, as torch.save does with compute_crc32 off: then
  // read() has nothing to check against.
  bool has_checksums() const { return has_checksums_; }
  const ZipEntry* find(const std::string& name) const;
  // Checks the CRC-32 where there is one. kResourceExhausted if the entry is larger than `max_bytes` when
  // read (nothing is allocated then); kCorrupt if its bytes do not give the size and the checksum the archive
  // states.
  Result<ZipContent> read(const std::string& name, uint64_t max_bytes) const;

 private:
  std::span<const std::byte> archive_;
  std::map<std::string, ZipEntry> entries_;
  bool has_checksums_ = false;
};

}  // namespace isoline
