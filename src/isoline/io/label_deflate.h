// gzip for label maps: a deflate encoder that knows where to look. Internal to io.
//
// A label map repeats its last voxel or the row before almost everywhere. General encoders find that out by
// hashing every position; this one tries a handful of distances and takes the longest match, several times
// faster at about the size of zlib's level 6. Any other data is encoded correctly too, only not well.
#pragma once

#include <cstddef>
#include <span>

#include "isoline/base/parallel.h"
#include "isoline/base/result.h"
#include "isoline/io/gzip.h"

namespace isoline {

// One gzip member without name or time. Distances tried: one voxel, one row, a row more or less one voxel,
// two rows (where deflate's window of 32 KiB reaches). The same bytes whatever the number of threads.
Status gzip_labels(std::span<const std::byte> data, size_t voxel_bytes, size_t row_bytes, ThreadPool& pool,
                   const ByteSink& sink);

}  // namespace isoline
