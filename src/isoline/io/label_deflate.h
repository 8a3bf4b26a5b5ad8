// gzip for label maps: a deflate encoder that knows where to look. Internal to io.
//
// A label map repeats its last voxel or the row before almost everywhere. General encoders find that out by
// hashing every position; this one tries a handful of distances and takes the longest match, several times
// faster at about the size of zlib's level 6. Any other data is encoded correctly too, only not well.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "isoline/base/buffer.h"
#include "isoline/base/parallel.h"

namespace isoline {

// Where the bytes to encode come from: puts bytes [begin, end) of them to `to`. Called by several threads at
// once; every byte is asked for once with `again` false, and once more with `again` true where a chunk's
// matches reach back to it.
using ByteSource = std::function<void(size_t begin, size_t end, bool again, std::byte* to)>;

// One gzip member of `byte_size` bytes without name or time, as pieces to be written one after the other.
// Distances tried: one voxel, one row, a row more or less one voxel, two rows (where deflate's window of
// 32 KiB reaches). The same bytes whatever the number of threads. Scratch: about 3 MiB a thread.
std::vector<Buffer<std::byte>> gzip_labels(size_t byte_size, const ByteSource& source, size_t voxel_bytes,
                                           size_t row_bytes, ThreadPool& pool);

}  // namespace isoline
