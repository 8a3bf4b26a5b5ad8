// gzip and raw deflate for whole buffers: reading by libdeflate into a buffer of the size the caller knows,
// writing in parallel as one ordinary member.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "isoline/base/file.h"
#include "isoline/base/parallel.h"
#include "isoline/base/result.h"

namespace isoline {

// One byte of deflate stands for at most this many bytes of data.
inline constexpr uint64_t kMaxDeflateRatio = 1032;

bool looks_like_gzip(std::span<const std::byte> bytes);

// Inflates the beginning, up to out.size() bytes, and says how many it got (fewer if the data is shorter).
// kCorrupt for a damaged stream. Checksums are not looked at.
Result<size_t> gunzip_prefix(std::span<const std::byte> gz, std::span<std::byte> out);

// Inflates a whole gzip file (one or more members, zero padding allowed behind them) of which exactly
// out.size() bytes are wanted. kCorrupt: damaged or truncated, wrong checksum or length, fewer bytes than
// wanted, or garbage behind the last member. A stream that goes on behind the wanted bytes is checked to its
// end as well, slowly, unless that is more than 64 MiB: then kCorrupt.
Status gunzip_exact(std::span<const std::byte> gz, std::span<std::byte> out);
// The same, with all threads where the data is long enough for that to be faster and `max_scratch_bytes` are
// there to be held meanwhile. Not with fewer than three threads: one thread of libdeflate is as fast.
Status gunzip_exact(std::span<const std::byte> gz, std::span<std::byte> out, uint64_t max_scratch_bytes,
                    ThreadPool& pool);

// Takes the finished bytes in order.
using ByteSink = std::function<Status(std::span<const std::byte>)>;

struct DeflateResult {
  uint32_t crc32 = 0;
  uint64_t compressed_bytes = 0;
};
// Raw deflate of `data`: chunks are compressed by all threads and joined into one ordinary stream. The same
// data, level and chunking give the same bytes whatever the number of threads. Scratch: about 3 MiB a thread.
Result<DeflateResult> deflate_parallel(std::span<const std::byte> data, int level, ThreadPool& pool,
                                       const ByteSink& sink);

// How long the inflated data of a whole gzip file is, by inflating and dropping it piece by piece: kCorrupt
// as gunzip_exact(), kResourceExhausted beyond `most` bytes (nothing further is inflated then).
Result<uint64_t> gunzip_length(const InputFile& file, uint64_t most);

uint32_t crc32_of(std::span<const std::byte> data);
// CRC of two pieces one after the other, the second of `second_bytes`.
uint32_t crc32_join(uint32_t first, uint32_t second, uint64_t second_bytes);

// What stands before and behind the deflate data of a member without name and time.
std::array<std::byte, 10> gzip_head();
std::array<std::byte, 8> gzip_tail(uint32_t crc32, uint64_t uncompressed_bytes);

// A gzip file of one member: no name, no time (as SimpleITK writes it).
Status gzip_parallel(std::span<const std::byte> data, int level, ThreadPool& pool, const ByteSink& sink);

}  // namespace isoline
