// One deflate stream inflated by several threads. Internal to io.
//
// Deflate is a chain: a block may begin at any bit, and what it copies stands in the 32 KiB before it. As
// pugz and rapidgzip do, every thread looks in its share of the stream for a place where a block with dynamic
// codes can begin, decodes from there into 16-bit symbols, in which what is copied from before that place is
// a reference to it, and stops at the first such block in the next share. Pieces whose ends and beginnings
// are one bit position belong together; then the references are looked up, from front to back for the last 32
// KiB of each piece and by all threads for the rest. A wrong beginning is never the end of the piece before
// it, so it costs time and nothing else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "isoline/base/parallel.h"

namespace isoline {

struct ParallelInflated {
  size_t in_bytes = 0, out_bytes = 0;  // of the stream and of its data
  uint32_t crc32 = 0;                  // of the data
};

// Inflates the stream at the beginning of `deflate` to the beginning of `out`. nullopt, with `out` undefined:
// the stream is damaged, longer than `out`, or such that several threads are of no use (too short, too few
// threads, hardly any dynamic blocks, compressed too well, too little scratch); whoever decides that is
// whoever inflates it again on one thread. Checksums are the caller's to check. Holds at most
// `max_scratch_bytes`. Time is bounded by a small multiple of the serial way's, whatever the bytes.
std::optional<ParallelInflated> inflate_parallel(std::span<const std::byte> deflate, std::span<std::byte> out,
                                                 uint64_t max_scratch_bytes, ThreadPool& pool);

// For tests: shares of about `chunk_bytes` compressed bytes, and no regard to whether it is of use.
std::optional<ParallelInflated> inflate_parallel_in_chunks(std::span<const std::byte> deflate,
                                                           std::span<std::byte> out, size_t chunk_bytes,
                                                           size_t chunks_at_once, size_t max_symbols,
                                                           ThreadPool& pool);

}  // namespace isoline
