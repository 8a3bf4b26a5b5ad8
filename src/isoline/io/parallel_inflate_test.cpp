// Whatever several threads make of a stream is what zlib made it from, or they say that they cannot.
#include "isoline/io/parallel_inflate.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <random>
#include <vector>

#include "isoline/io/gzip.h"

namespace isoline {
namespace {

using Bytes = std::vector<std::byte>;

// Raw deflate by zlib; `flush_every` > 0: a flush of kind `flush` after so many bytes (as pigz does).
Bytes deflated(const Bytes& data, int level, int strategy = Z_DEFAULT_STRATEGY, int mem_level = 8,
               size_t flush_every = 0, int flush = Z_SYNC_FLUSH) {
  z_stream z{};
  EXPECT_EQ(deflateInit2(&z, level, Z_DEFLATED, -15, mem_level, strategy), Z_OK);
  Bytes out(size_t(deflateBound(&z, uLong(data.size()))) + 64 +
            (flush_every ? data.size() / flush_every * 16 : 0));
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = uInt(out.size());
  for (size_t at = 0; at <= data.size();) {
    const size_t n = flush_every ? std::min(flush_every, data.size() - at) : data.size();
    z.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(data.data() + at));
    z.avail_in = uInt(n);
    at += n;
    const bool last = at == data.size();
    EXPECT_EQ(deflate(&z, last ? Z_FINISH : flush), last ? Z_STREAM_END : Z_OK);
    if (last) break;
  }
  out.resize(out.size() - z.avail_out);
  deflateEnd(&z);
  return out;
}

// 0 a CT's slices (noise on a smooth ground, air around), 1 noise, 2 runs, 3 text-like copies from near and
// far.
Bytes content(int flavour, size_t size) {
  std::mt19937 random(unsigned(flavour) + 1);
  Bytes out(size);
  for (size_t i = 0; i < size; ++i) {
    const unsigned r = unsigned(random());
    if (flavour == 0) {
      const size_t voxel = i / 2, x = voxel % 256, y = voxel / 256 % 256;
      const bool air = (x - 128) * (x - 128) + (y - 128) * (y - 128) > 100 * 100;
      static int16_t v = 0;
      if (i % 2 == 0) v = air ? int16_t(-1024) : int16_t(x / 4 + r % 23 + r % 17);
      out[i] = std::byte(uint16_t(v) >> (8 * (i % 2)));
    } else if (flavour == 1) {
      out[i] = std::byte(r >> 8);
    } else if (flavour == 2) {
      out[i] = std::byte(i / 7001 % 5);
    } else {
      static size_t distance = 1, left = 0;
      if (left == 0) {
        distance = 1 + random() % (r % 3 ? 40u : 32768u);
        left = 1 + random() % 60;
      }
      --left;
      out[i] = i >= distance && r % 16 ? out[i - distance] : std::byte('a' + r % 26);
    }
  }
  return out;
}

struct Outcome {
  bool done = false, right = false;
};
Outcome tried(const Bytes& deflate, const Bytes& data, size_t chunk, size_t at_once, size_t symbols,
              int threads, size_t surplus = 0) {
  ThreadPool pool(threads);
  Bytes out(data.size() + surplus);
  const auto r = inflate_parallel_in_chunks(deflate, out, chunk, at_once, symbols, pool);
  if (!r) return {};
  return {true, r->out_bytes == data.size() && r->in_bytes == deflate.size() &&
                    std::equal(data.begin(), data.end(), out.begin()) && r->crc32 == crc32_of(data)};
}

TEST(ParallelInflate, EveryCutAndEveryEncoder) {
  size_t done = 0, all = 0;
  for (int flavour = 0; flavour < 4; ++flavour) {
    const Bytes data = content(flavour, 3000000);
    for (const Bytes& stream :
         {deflated(data, 1), deflated(data, 6), deflated(data, 9, Z_DEFAULT_STRATEGY, 9),
          deflated(data, 6, Z_DEFAULT_STRATEGY, 1), deflated(data, 6, Z_HUFFMAN_ONLY),
          deflated(data, 6, Z_FIXED), deflated(data, 0), deflated(data, 6, Z_DEFAULT_STRATEGY, 8, 131072),
          deflated(data, 6, Z_DEFAULT_STRATEGY, 8, 50001, Z_FULL_FLUSH)})
      for (size_t chunk : {size_t{4096}, size_t{20011}, size_t{100000}, size_t{1} << 20})
        for (size_t at_once : {size_t{1}, size_t{3}, size_t{16}}) {
          const Outcome o = tried(stream, data, chunk, at_once, size_t{1} << 20, 3);
          EXPECT_EQ(o.done, o.right) << flavour << " " << chunk << " " << at_once;
          ++all;
          done += o.done;
          EXPECT_TRUE(o.done || at_once > 1);  // with one it is only a decoder: nothing to go wrong
        }
  }
  EXPECT_GT(done * 4, all * 3);
}

// What the other threads are for: the pieces must really be found and joined, else this would only be serial.
TEST(ParallelInflate, PiecesAreJoined) {
  for (int flavour : {0, 3}) {
    const Bytes data = content(flavour, 6000000);
    const Bytes stream = deflated(data, 6);
    const Outcome o = tried(stream, data, stream.size() / 12 + 1, 12, size_t{2} << 20, 4);
    EXPECT_TRUE(o.done && o.right);
    // A front piece that stood alone four times in a row would have ended it: more than 8 rounds of 100
    // shares at once are only possible with pieces joined in most.
    EXPECT_TRUE(tried(stream, data, stream.size() / 100, 10, size_t{1} << 20, 4).right) << flavour;
  }
}

TEST(ParallelInflate, TooSmallRoomForAPieceCostsOnlyTime) {
  const Bytes data = content(0, 3000000);
  const Bytes stream = deflated(data, 6);
  size_t done = 0;
  for (size_t symbols : {size_t{1000}, size_t{33000}, size_t{70000}, size_t{200000}}) {
    const Outcome o = tried(stream, data, 100000, 4, symbols, 2);
    EXPECT_EQ(o.done, o.right) << symbols;
    done += o.done;
  }
  EXPECT_GE(done, 1u);
}

TEST(ParallelInflate, OutputThatIsLongerOrShorter) {
  const Bytes data = content(0, 2000000);
  const Bytes stream = deflated(data, 6);
  EXPECT_TRUE(tried(stream, data, 50000, 8, size_t{1} << 20, 3, 1000).right);
  ThreadPool pool(3);
  for (size_t missing : {size_t{1}, size_t{100}, size_t{32768}, size_t{1000000}, size_t{2000000}}) {
    Bytes out(data.size() - missing);
    EXPECT_FALSE(inflate_parallel_in_chunks(stream, out, 50000, 8, size_t{1} << 20, pool)) << missing;
  }
}

// Damage: no crash, no endless loop, and never a right checksum for wrong bytes.
TEST(ParallelInflate, DamagedStreams) {
  std::mt19937 random(5);
  ThreadPool pool(3);
  for (int flavour = 0; flavour < 4; ++flavour) {
    const Bytes data = content(flavour, 400000);
    const Bytes stream = deflated(data, 6);
    for (int i = 0; i < 120; ++i) {
      Bytes bad = stream;
      if (i % 3 == 0) {
        bad.resize(random() % bad.size());
      } else {
        for (unsigned k = 0; k < 1 + random() % 4; ++k)
          bad[random() % bad.size()] ^= std::byte(1u << (random() % 8));
      }
      Bytes out(data.size());
      const auto r = inflate_parallel_in_chunks(bad, out, 1000 + random() % 50000, 1 + random() % 8,
                                                1 + random() % 500000, pool);
      if (!r) continue;
      EXPECT_EQ(r->crc32, crc32_of(std::span<const std::byte>(out).first(r->out_bytes)));
      if (r->out_bytes == data.size() && out != data) {
        EXPECT_NE(r->crc32, crc32_of(data));
      }
    }
    for (int i = 0; i < 20; ++i) {  // noise
      Bytes noise(random() % 100000);
      for (std::byte& b : noise) b = std::byte(random() >> 8);
      Bytes out(100000);
      inflate_parallel_in_chunks(noise, out, 5000, 4, 100000, pool);
    }
  }
}

// The whole way: files of one and of several members, good and bad, exactly as one thread reads them.
TEST(ParallelInflate, GzipFilesAsOneThreadReadsThem) {
  const Bytes data = content(0, 20000000);
  const auto member = [](const Bytes& content, bool named) {
    Bytes out;
    const auto append = [&](std::span<const std::byte> b) { out.insert(out.end(), b.begin(), b.end()); };
    auto head = gzip_head();
    head[3] = named ? std::byte{8 + 4 + 2} : std::byte{0};
    append(head);
    if (named) {
      for (char c : {'\3', '\0', 'e', 'x', 't', 's', 'c', 'a', 'n', '\0'}) out.push_back(std::byte(c));
      const uint32_t check = crc32_of(out);
      out.push_back(std::byte(check));
      out.push_back(std::byte(check >> 8));
    }
    append(deflated(content, 6));
    append(gzip_tail(crc32_of(content), content.size()));
    return out;
  };
  ThreadPool pool(4);
  const auto both = [&](const Bytes& gz, size_t size, uint64_t scratch) {
    Bytes one(size), many(size);
    const Status a = gunzip_exact(gz, one), b = gunzip_exact(gz, many, scratch, pool);
    EXPECT_EQ(a.ok(), b.ok());
    if (!a.ok() && !b.ok()) {
      EXPECT_EQ(a.error().to_string(), b.error().to_string());
    } else {
      EXPECT_EQ(one, many);
    }
    return b.ok();
  };
  const Bytes gz = member(data, true);
  for (uint64_t scratch : {uint64_t{0}, uint64_t{20} << 20, uint64_t{1} << 30})
    EXPECT_TRUE(both(gz, data.size(), scratch));
  Bytes two = gz;
  const Bytes more = member(content(3, 9000000), false);
  two.insert(two.end(), more.begin(), more.end());
  two.resize(two.size() + 100);
  EXPECT_TRUE(both(two, data.size() + 9000000, uint64_t{1} << 30));
  EXPECT_TRUE(both(two, data.size(), uint64_t{1} << 30));  // what goes on behind is checked too
  for (size_t at : {size_t{3}, size_t{12}, gz.size() / 2, gz.size() - 6, gz.size() - 2}) {
    Bytes bad = gz;
    bad[at] ^= std::byte{0x21};
    both(bad, data.size(), uint64_t{1} << 30);
  }
  Bytes cut = gz;
  for (size_t size : {gz.size() - 1, gz.size() / 2, size_t{30}, size_t{11}}) {
    cut.resize(size);
    EXPECT_FALSE(both(cut, data.size(), uint64_t{1} << 30));
  }
}

}  // namespace
}  // namespace isoline
