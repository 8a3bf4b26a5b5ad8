#include "isoline/io/gzip.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "isoline/io/label_deflate.h"

namespace isoline {
namespace {

std::vector<std::byte> compressed(std::span<const std::byte> data, int level, int threads) {
  ThreadPool pool(threads);
  std::vector<std::byte> out;
  EXPECT_TRUE(gzip_parallel(data, level, pool, [&](std::span<const std::byte> b) {
                out.insert(out.end(), b.begin(), b.end());
                return Status();
              }).ok());
  return out;
}

// What any other program sees: one gzip member, read by zlib.
std::vector<std::byte> by_zlib(const std::vector<std::byte>& gz, size_t size) {
  std::vector<std::byte> out(size + 1);
  z_stream z{};
  EXPECT_EQ(inflateInit2(&z, 15 + 16), Z_OK);
  z.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(gz.data()));
  z.avail_in = uInt(gz.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = uInt(out.size());
  EXPECT_EQ(inflate(&z, Z_FINISH), Z_STREAM_END);
  EXPECT_EQ(z.avail_in, 0u);
  out.resize(out.size() - z.avail_out);
  inflateEnd(&z);
  return out;
}

// Content that ends deflate blocks at every bit position and makes stored, fixed and dynamic ones.
std::vector<std::byte> content(size_t size, int flavour) {
  std::mt19937 random(unsigned(size * 7 + size_t(flavour)));
  std::vector<std::byte> out(size);
  for (size_t i = 0; i < size; ++i) {
    const unsigned r = unsigned(random());
    out[i] = flavour == 0   ? std::byte(r)                     // incompressible
             : flavour == 1 ? std::byte(i / 5000 % 3)          // runs
             : flavour == 2 ? std::byte((r & 15) + (i >> 16))  // small alphabet
                            : (i > 40000 && r % 3 ? out[i - 40000 % i] : std::byte(r % 200));
  }
  return out;
}

TEST(Gzip, OneMemberWhateverTheThreads) {
  for (size_t size :
       {size_t{0}, size_t{1}, size_t{(1 << 20) - 1}, size_t{1 << 20}, size_t{(1 << 20) + 1}, size_t{3500001}})
    for (int flavour = 0; flavour < 4; ++flavour)
      for (int level : {1, 6}) {
        const auto data = content(size, flavour);
        const auto gz = compressed(data, level, 1);
        EXPECT_EQ(by_zlib(gz, size), data) << size << " " << flavour;
        EXPECT_EQ(compressed(data, level, 3), gz) << size << " " << flavour;
        std::vector<std::byte> back(size);
        EXPECT_TRUE(gunzip_exact(gz, back).ok());
        EXPECT_EQ(back, data);
      }
}

TEST(Gzip, ExactMeansExact) {
  const auto data = content(200000, 2);
  const auto gz = compressed(data, 6, 1);
  std::vector<std::byte> out(data.size() + 1);
  EXPECT_FALSE(gunzip_exact(gz, out).ok());  // one byte too few in the stream
  out.resize(150000);                        // more in the stream: fine, and still checked to the end
  EXPECT_TRUE(gunzip_exact(gz, out).ok());
  EXPECT_TRUE(std::equal(out.begin(), out.end(), data.begin()));
  auto bad = gz;
  bad[gz.size() - 8] ^= std::byte{1};
  EXPECT_FALSE(gunzip_exact(bad, out).ok());
  bad = gz;
  bad.push_back(std::byte{0});
  EXPECT_TRUE(gunzip_exact(bad, out).ok());
  bad.push_back(std::byte{7});
  EXPECT_FALSE(gunzip_exact(bad, out).ok());
  out.resize(200000);
  EXPECT_FALSE(gunzip_exact(bad, out).ok());
}

TEST(Gzip, PrefixAcrossMembers) {
  const auto data = content(5000, 2);
  std::vector<std::byte> gz;
  for (size_t at = 0; at < 5000; at += 1000) {
    const auto m = compressed(std::span(data).subspan(at, 1000), 6, 1);
    gz.insert(gz.end(), m.begin(), m.end());
  }
  std::vector<std::byte> out(2500);
  const auto got = gunzip_prefix(gz, out);
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(*got, 2500u);
  EXPECT_TRUE(std::equal(out.begin(), out.end(), data.begin()));
  out.resize(9000);
  EXPECT_EQ(*gunzip_prefix(gz, out), 5000u);
}

std::vector<std::byte> label_gzip(std::span<const std::byte> data, size_t voxel_bytes, size_t row_bytes,
                                  int threads) {
  ThreadPool pool(threads);
  std::vector<std::byte> out;
  const ByteSource source = [&](size_t begin, size_t end, bool, std::byte* to) {
    std::copy(data.begin() + long(begin), data.begin() + long(end), to);
  };
  for (const Buffer<std::byte>& piece : gzip_labels(data.size(), source, voxel_bytes, row_bytes, pool))
    out.insert(out.end(), piece.begin(), piece.end());
  return out;
}

// Whatever the data is, any reader gets it back; the encoder only has to be good at labels.
TEST(LabelGzip, AnyDataComesBack) {
  for (size_t size : {size_t{0}, size_t{1}, size_t{2}, size_t{352}, size_t{(2 << 20) - 1}, size_t{2 << 20},
                      size_t{(2 << 20) + 1}, size_t{9000001}})
    for (int flavour = 0; flavour < 4; ++flavour) {
      const auto data = content(size, flavour);
      const auto gz = label_gzip(data, 1, 5000, 1);
      ASSERT_EQ(by_zlib(gz, size), data) << size << " " << flavour;
      EXPECT_EQ(label_gzip(data, 1, 5000, 3), gz);
      std::vector<std::byte> back(size);
      EXPECT_TRUE(gunzip_exact(gz, back).ok());  // libdeflate's opinion
    }
  // Rows of one voxel, of the window's size and beyond it.
  const auto data = content(100000, 1);
  for (size_t row : {size_t{1}, size_t{2}, size_t{16384}, size_t{32768}, size_t{32769}, size_t{70000}})
    for (size_t voxel : {size_t{1}, size_t{2}})
      EXPECT_EQ(by_zlib(label_gzip(data, voxel, row, 1), data.size()), data);
}

// Frequencies like Fibonacci numbers make the deepest Huffman tree; deflate allows 15 levels.
TEST(LabelGzip, DeepCodesAreFlattened) {
  std::vector<std::byte> data;
  for (uint32_t symbol = 0, a = 1, b = 1; symbol < 28; ++symbol) {
    data.insert(data.end(), a, std::byte(symbol));
    b = std::exchange(a, b) + b;
  }
  std::shuffle(data.begin(), data.end(), std::mt19937(3));
  EXPECT_EQ(by_zlib(label_gzip(data, 1, 40000, 1), data.size()), data);
}

TEST(LabelGzip, LabelsGetSmall) {
  std::vector<std::byte> discs(200 * 256 * 256);
  for (int z = 0; z < 200; ++z)
    for (int y = 0; y < 256; ++y)
      for (int x = 0; x < 256; ++x)
        discs[size_t((z * 256 + y) * 256 + x)] =
            std::byte((x - 100) * (x - 100) + (y - 90 - z / 8) * (y - 90 - z / 8) < 60 * 60);
  const size_t ours = label_gzip(discs, 1, 256, 2).size(), general = compressed(discs, 6, 2).size();
  EXPECT_LT(double(ours), 1.1 * double(general));
}

// 1000 bytes that inflate to 1 MB and more: a stream longer than wanted by far is refused, not followed.
TEST(Gzip, BombIsBounded) {
  const std::vector<std::byte> zeros(size_t{100} << 20);
  const auto gz = compressed(zeros, 9, 2);
  std::vector<std::byte> out(10);
  const Status s = gunzip_exact(gz, out);
  ASSERT_FALSE(s.ok());
  EXPECT_NE(s.error().message.find("far longer"), std::string::npos);
}

}  // namespace
}  // namespace isoline
