#include "isoline/io/gzip.h"

#include <libdeflate.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <string>

#include "isoline/base/buffer.h"
#include "isoline/io/parallel_inflate.h"

namespace isoline {
namespace {

constexpr uint64_t kMaxSurplusBytes = uint64_t{64} << 20;
constexpr size_t kChunkBytes = size_t{1} << 20;

Error corrupt(const std::string& what) {
  return Error{ErrorCode::kCorrupt, what, "gzip", "The file is damaged; fetch or write it again"};
}

struct InflateDeleter {
  void operator()(libdeflate_decompressor* d) const { libdeflate_free_decompressor(d); }
};
struct DeflateDeleter {
  void operator()(libdeflate_compressor* c) const { libdeflate_free_compressor(c); }
};

// A zlib stream that ends itself. `window_bits` as in inflateInit2.
class Inflater {
 public:
  explicit Inflater(int window_bits) {
    if (inflateInit2(&stream_, window_bits) != Z_OK) throw std::bad_alloc();
  }
  ~Inflater() { inflateEnd(&stream_); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;
  z_stream& operator*() { return stream_; }
  z_stream* operator->() { return &stream_; }

 private:
  z_stream stream_{};
};

// What may stand behind the last member: nothing, or zeros up to a block boundary (tar and tape habits).
bool is_zero_padding(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

// The next bytes of a file, 16 or more of them unless the file ends there.
class FileWindow {
 public:
  explicit FileWindow(const InputFile& file) : file_(file), space_(size_t{1} << 18) {}
  std::span<const std::byte> bytes() const { return {space_.data() + begin_, end_ - begin_}; }
  void drop(size_t n) { begin_ += n; }
  Status fill() {
    if (end_ - begin_ >= 16) return {};
    std::memmove(space_.data(), space_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
    const size_t n = size_t(std::min<uint64_t>(space_.size() - end_, file_.byte_size() - at_));
    ISOLINE_RETURN_IF_ERROR(file_.read_at(at_, {space_.data() + end_, n}));
    at_ += n;
    end_ += n;
    return {};
  }

 private:
  const InputFile& file_;
  Buffer<std::byte> space_;
  size_t begin_ = 0, end_ = 0;
  uint64_t at_ = 0;
};

// The slow way through zlib: members one after the other, wanted bytes kept, the rest counted and dropped.
Status gunzip_streaming(std::span<const std::byte> gz, std::span<std::byte> out) {
  std::array<std::byte, 65536> surplus_space;
  uint64_t got = 0, surplus = 0;
  std::span<const std::byte> rest = gz;
  while (!rest.empty()) {
    if (!looks_like_gzip(rest)) {
      if (is_zero_padding(rest)) break;
      return corrupt("there is garbage behind the compressed data");
    }
    Inflater z(15 + 16);
    for (;;) {
      const size_t in = std::min<size_t>(rest.size(), size_t{1} << 30);
      z->next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(rest.data()));
      z->avail_in = uInt(in);
      const bool full = got == out.size();
      const std::span<std::byte> to = full ? std::span<std::byte>(surplus_space) : out.subspan(size_t(got));
      const size_t room = std::min<size_t>(to.size(), size_t{1} << 30);
      z->next_out = reinterpret_cast<Bytef*>(to.data());
      z->avail_out = uInt(room);
      const int code = inflate(&*z, Z_NO_FLUSH);
      rest = rest.subspan(in - z->avail_in);
      const size_t produced = room - z->avail_out;
      (full ? surplus : got) += produced;
      if (surplus > kMaxSurplusBytes) return corrupt("the data is far longer than the header says");
      if (code == Z_STREAM_END) break;
      if (code != Z_OK && code != Z_BUF_ERROR)
        return corrupt(z->msg ? z->msg : "the compressed data is damaged");
      if (rest.empty() && produced == 0) return corrupt("the file ends in the middle of the compressed data");
    }
  }
  if (got < out.size())
    return corrupt("the data ends after " + std::to_string(got) + " of " + std::to_string(out.size()) +
                   " bytes");
  return {};
}

// One chunk as a piece of a longer deflate stream: a complete stream from libdeflate whose last block is
// marked as not the last, followed (unless it really is the last) by an empty stored block that brings the
// piece to a byte boundary. `room` has space for the bound plus 6.
size_t compress_piece(libdeflate_compressor* c, std::span<const std::byte> data, bool last, std::byte* room,
                      size_t room_bytes) {
  const size_t size = libdeflate_deflate_compress(c, data.data(), data.size(), room, room_bytes - 6);
  if (size == 0) return 0;  // cannot happen with a bound of room; the caller treats it as a failure
  if (last) return size;
  // Where the last block begins is known only to one who reads the stream: walk it block by block.
  Inflater z(-15);
  std::array<std::byte, 65536> sink;
  z->next_in = reinterpret_cast<Bytef*>(room);
  z->avail_in = uInt(size);
  uint64_t last_block_bit = 0;
  int spare_bits = 0;
  for (;;) {
    z->next_out = reinterpret_cast<Bytef*>(sink.data());
    z->avail_out = uInt(sink.size());
    const int code = inflate(&*z, Z_BLOCK);
    if (code != Z_OK) return 0;
    if (!(z->data_type & 128)) continue;  // in the middle of a block: only the output was full
    // Just behind a block. 64: it was the last one; & 7: bits of the last byte taken that are not used yet.
    if (z->data_type & 64) {
      spare_bits = z->data_type & 7;
      break;
    }
    last_block_bit = uint64_t(size - z->avail_in) * 8 - uint64_t(z->data_type & 7);
  }
  room[last_block_bit / 8] &= ~(std::byte{1} << (last_block_bit % 8));
  size_t end = size;
  if (spare_bits < 3) room[end++] = std::byte{0};  // the three header bits of a stored block are zero
  const std::byte empty_block[4] = {std::byte{0}, std::byte{0}, std::byte{0xff}, std::byte{0xff}};
  std::memcpy(room + end, empty_block, 4);
  return end + 4;
}

}  // namespace

bool looks_like_gzip(std::span<const std::byte> b) {
  return b.size() >= 2 && b[0] == std::byte{0x1f} && b[1] == std::byte{0x8b};
}

Result<uint64_t> gunzip_length(const InputFile& file, uint64_t most) {
  FileWindow in(file);
  std::array<std::byte, 65536> dropped;
  uint64_t length = 0;
  bool any = false;
  for (;;) {
    ISOLINE_RETURN_IF_ERROR(in.fill());
    if (!looks_like_gzip(in.bytes())) break;
    Inflater z(15 + 16);
    int code = Z_OK;
    while (code == Z_OK) {
      ISOLINE_RETURN_IF_ERROR(in.fill());
      z->next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(in.bytes().data()));
      z->avail_in = uInt(in.bytes().size());
      z->next_out = reinterpret_cast<Bytef*>(dropped.data());
      z->avail_out = uInt(dropped.size());
      code = inflate(&*z, Z_NO_FLUSH);
      in.drop(in.bytes().size() - z->avail_in);
      length += dropped.size() - z->avail_out;
      if (length > most)
        return Error{ErrorCode::kResourceExhausted,
                     "it inflates to more than the limit of " + std::to_string(most) + " bytes", "gzip", ""};
    }
    if (code == Z_BUF_ERROR) return corrupt("the compressed data ends too early");
    if (code != Z_STREAM_END) return corrupt(z->msg ? z->msg : "the compressed data is damaged");
    any = true;
  }
  while (!in.bytes().empty()) {
    if (!any || !is_zero_padding(in.bytes())) return corrupt("there is garbage in it");
    in.drop(in.bytes().size());
    ISOLINE_RETURN_IF_ERROR(in.fill());
  }
  return length;
}

Result<size_t> gunzip_prefix(std::span<const std::byte> gz, std::span<std::byte> out) {
  size_t got = 0;
  std::span<const std::byte> rest = gz;
  while (got < out.size() && looks_like_gzip(rest)) {
    Inflater z(15 + 16);
    const size_t in = std::min<size_t>(rest.size(), size_t{1} << 30);
    z->next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(rest.data()));
    z->avail_in = uInt(in);
    z->next_out = reinterpret_cast<Bytef*>(out.data() + got);
    z->avail_out = uInt(std::min<size_t>(out.size() - got, size_t{1} << 30));
    int code = Z_OK;
    while (code == Z_OK && z->avail_out > 0 && z->avail_in > 0) code = inflate(&*z, Z_NO_FLUSH);
    if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR)
      return corrupt(z->msg ? z->msg : "the compressed data is damaged");
    got = size_t(reinterpret_cast<std::byte*>(z->next_out) - out.data());
    rest = rest.subspan(in - z->avail_in);
    if (code != Z_STREAM_END) break;
  }
  return got;
}

namespace {

// Bytes before the deflate data of a member (RFC 1952), or 0 for a header that is cut or not understood.
size_t member_head_bytes(std::span<const std::byte> gz) {
  if (gz.size() < 18 || gz[2] != std::byte{8}) return 0;
  const auto at = [&](size_t i) { return unsigned(gz[i]); };
  const unsigned flags = at(3);
  if (flags & 0xe0) return 0;
  size_t n = 10;
  if (flags & 4) n += 2 + (at(10) | at(11) << 8);
  for (unsigned text : {8u, 16u}) {  // name, comment
    if (!(flags & text)) continue;
    while (n < gz.size() && at(n) != 0) ++n;
    ++n;
  }
  if (flags & 2) n += 2;
  return n + 8 <= gz.size() ? n : 0;
}

// One member with all threads; false if that is of no use or anything about it is wrong.
bool inflate_member(std::span<const std::byte> gz, std::span<std::byte> out, uint64_t max_scratch_bytes,
                    ThreadPool& pool, size_t* in_bytes, size_t* out_bytes) {
  const size_t head = member_head_bytes(gz);
  if (head == 0) return false;
  const auto r = inflate_parallel(gz.subspan(head), out, max_scratch_bytes, pool);
  if (!r || gz.size() - head - r->in_bytes < 8) return false;
  const auto tail = gzip_tail(r->crc32, r->out_bytes);
  if (std::memcmp(gz.data() + head + r->in_bytes, tail.data(), tail.size()) != 0) return false;
  *in_bytes = head + r->in_bytes + tail.size();
  *out_bytes = r->out_bytes;
  return true;
}

Status gunzip(std::span<const std::byte> gz, std::span<std::byte> out, uint64_t max_scratch_bytes,
              ThreadPool* pool) {
  const std::unique_ptr<libdeflate_decompressor, InflateDeleter> d(libdeflate_alloc_decompressor());
  if (!d) throw std::bad_alloc();
  size_t got = 0;
  std::span<const std::byte> rest = gz;
  do {
    if (!looks_like_gzip(rest)) {
      if (got > 0 && is_zero_padding(rest)) break;
      return corrupt(rest.size() == gz.size() ? "this is not gzip data"
                                              : "there is garbage behind the compressed data");
    }
    size_t in = 0, produced = 0;
    if (pool && inflate_member(rest, out.subspan(got), max_scratch_bytes, *pool, &in, &produced)) {
      got += produced;
      rest = rest.subspan(in);
      continue;
    }
    switch (libdeflate_gzip_decompress_ex(d.get(), rest.data(), rest.size(), out.data() + got,
                                          out.size() - got, &in, &produced)) {
      case LIBDEFLATE_SUCCESS:
        break;
      case LIBDEFLATE_INSUFFICIENT_SPACE:  // goes on behind what is wanted: rare, and only zlib can walk it
        return gunzip_streaming(gz, out);
      default: {
        // libdeflate does not tell a cut from damage; the trailer of a whole file would give the length.
        const Status why = gunzip_streaming(gz, out);
        return why.ok() ? Status(corrupt("the compressed data is damaged")) : why;
      }
    }
    got += produced;
    rest = rest.subspan(in);
  } while (!rest.empty());
  if (got < out.size())
    return corrupt("the data ends after " + std::to_string(got) + " of " + std::to_string(out.size()) +
                   " bytes");
  return {};
}

}  // namespace

Status gunzip_exact(std::span<const std::byte> gz, std::span<std::byte> out) {
  return gunzip(gz, out, 0, nullptr);
}

Status gunzip_exact(std::span<const std::byte> gz, std::span<std::byte> out, uint64_t max_scratch_bytes,
                    ThreadPool& pool) {
  return gunzip(gz, out, max_scratch_bytes, &pool);
}

Result<DeflateResult> deflate_parallel(std::span<const std::byte> data, int level, ThreadPool& pool,
                                       const ByteSink& sink) {
  DeflateResult result;
  const size_t chunks = std::max<size_t>(1, (data.size() + kChunkBytes - 1) / kChunkBytes);
  const size_t batch = size_t(pool.threads()) * 2;  // two a thread even out chunks of unequal cost
  struct Worker {
    std::unique_ptr<libdeflate_compressor, DeflateDeleter> compressor;
    Buffer<std::byte> room;
    size_t size = 0;
    uint32_t crc = 0;
  };
  std::vector<Worker> workers(std::min(batch, chunks));
  size_t room_bytes = 0;
  for (Worker& w : workers) {
    w.compressor.reset(libdeflate_alloc_compressor(level));
    if (!w.compressor) throw std::bad_alloc();
    room_bytes =
        libdeflate_deflate_compress_bound(w.compressor.get(), std::min(kChunkBytes, data.size())) + 6;
    w.room = Buffer<std::byte>(room_bytes);
  }
  for (size_t first = 0; first < chunks; first += workers.size()) {
    const size_t count = std::min(workers.size(), chunks - first);
    pool.for_each(int64_t(count), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        Worker& w = workers[size_t(i)];
        const size_t offset = (first + size_t(i)) * kChunkBytes;
        const auto piece = data.subspan(offset, std::min(kChunkBytes, data.size() - offset));
        w.size = compress_piece(w.compressor.get(), piece, first + size_t(i) + 1 == chunks, w.room.data(),
                                room_bytes);
        w.crc = libdeflate_crc32(0, piece.data(), piece.size());
      }
    });
    for (size_t i = 0; i < count; ++i) {
      const Worker& w = workers[i];
      if (w.size == 0) return Error{ErrorCode::kInternal, "libdeflate refused to compress", "gzip", ""};
      const size_t offset = (first + i) * kChunkBytes;
      const size_t length = std::min(kChunkBytes, data.size() - offset);
      result.crc32 = crc32_join(result.crc32, w.crc, length);
      result.compressed_bytes += w.size;
      ISOLINE_RETURN_IF_ERROR(sink({w.room.data(), w.size}));
    }
  }
  return result;
}

uint32_t crc32_of(std::span<const std::byte> data) {
  return libdeflate_crc32(0, data.data(), data.size());
}

uint32_t crc32_join(uint32_t first, uint32_t second, uint64_t second_bytes) {
  return uint32_t(crc32_combine(first, second, z_off_t(second_bytes)));
}

std::array<std::byte, 10> gzip_head() {
  return {std::byte{0x1f}, std::byte{0x8b}, std::byte{8}, {}, {}, {}, {}, {}, {}, std::byte{3}};
}

std::array<std::byte, 8> gzip_tail(uint32_t crc32, uint64_t uncompressed_bytes) {
  std::array<std::byte, 8> tail;
  for (size_t i = 0; i < 4; ++i) {
    tail[i] = std::byte(crc32 >> (8 * i));
    tail[4 + i] = std::byte(uncompressed_bytes >> (8 * i));
  }
  return tail;
}

Status gzip_parallel(std::span<const std::byte> data, int level, ThreadPool& pool, const ByteSink& sink) {
  ISOLINE_RETURN_IF_ERROR(sink(gzip_head()));
  ISOLINE_ASSIGN(const DeflateResult result, deflate_parallel(data, level, pool, sink));
  return sink(gzip_tail(result.crc32, data.size()));
}

}  // namespace isoline
