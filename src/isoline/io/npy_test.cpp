#include "isoline/io/npy.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstring>
#include <filesystem>

#include "isoline/base/file.h"
#include "isoline/io/gzip.h"

namespace isoline {
namespace {

std::string temporary(const char* name) {
  std::string pattern = (std::filesystem::temp_directory_path() / "isoline-npy-XXXXXX").string();
  return std::string(::mkdtemp(pattern.data())) + "/" + name;
}

std::vector<std::byte> npy(const std::string& dict, size_t payload) {
  std::string s("\x93NUMPY\x01\x00", 8);
  s += char(dict.size() & 0xff);
  s += char(dict.size() >> 8);
  s += dict + std::string(payload, '\1');
  const auto b = std::as_bytes(std::span(s.data(), s.size()));
  return {b.begin(), b.end()};
}

TEST(Npy, RoundTripOfEveryType) {
  const auto check = [](auto zero) {
    using T = decltype(zero);
    const std::string path = temporary("a.npy");
    std::vector<T> values(24);
    for (size_t i = 0; i < 24; ++i) values[i] = T(i * 10);
    ASSERT_TRUE(write_npy<T>(path, values, {2, 3, 4}).ok());
    const auto back = read_npy(path);
    ASSERT_TRUE(back.ok()) << back.error().to_string();
    EXPECT_EQ(back->shape, (std::vector<int64_t>{2, 3, 4}));
    ASSERT_NE(back->as<T>(), nullptr);
    EXPECT_TRUE(std::equal(values.begin(), values.end(), back->as<T>()->begin()));
    EXPECT_FALSE(write_npy<T>(path, values, {2, 3, 5}).ok());
    std::filesystem::remove_all(std::filesystem::path(path).parent_path());
  };
  check(float{});
  check(double{});
  check(int16_t{});
  check(uint8_t{});
  check(uint16_t{});
}

TEST(Npy, Refusals) {
  const std::string good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
  EXPECT_TRUE(parse_npy(npy(good, 24)).ok());
  EXPECT_FALSE(parse_npy(npy(good, 23)).ok());
  EXPECT_FALSE(parse_npy(npy(good, 25)).ok());
  EXPECT_FALSE(parse_npy({}).ok());
  EXPECT_TRUE(parse_npy(npy("{'descr': '|u1', 'fortran_order': False, 'shape': (), }", 1)).ok());
  EXPECT_TRUE(parse_npy(npy("{'descr': '|u1', 'fortran_order': False, 'shape': (0, 7), }", 0)).ok());
  const auto code = [](const std::string& dict) { return parse_npy(npy(dict, 24)).error().code; };
  EXPECT_EQ(code("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }"), ErrorCode::kUnsupported);
  EXPECT_EQ(code("{'descr': '>f4', 'fortran_order': False, 'shape': (2, 3), }"), ErrorCode::kUnsupported);
  EXPECT_EQ(code("{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }"), ErrorCode::kUnsupported);
  EXPECT_EQ(code("{'descr': '<f4', 'fortran_order': False, 'shape': (-2, 3), }"), ErrorCode::kCorrupt);
  EXPECT_EQ(code("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 3), }"),
            ErrorCode::kCorrupt);
  EXPECT_EQ(code("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 8), }"),
            ErrorCode::kCorrupt);
  EXPECT_EQ(code("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3"), ErrorCode::kCorrupt);
  EXPECT_EQ(code("{}"), ErrorCode::kCorrupt);
}

// The zip around it is checked by hand: one deflated member whose content is the .npy file.
TEST(Npy, CompressedArchive) {
  const std::string path = temporary("a.npz"), plain = temporary("b.npy");
  std::vector<float> values(700000);
  for (size_t i = 0; i < values.size(); ++i) values[i] = float(i % 1000) / 1000;
  ThreadPool pool(2);
  ASSERT_TRUE(write_npz<float>(path, "probabilities", values, {2, 350000}, pool).ok());
  ASSERT_TRUE(write_npy<float>(plain, values, {2, 350000}).ok());
  const auto zip = read_whole_file(path, 1 << 30), want = read_whole_file(plain, 1 << 30);
  ASSERT_TRUE(zip.ok() && want.ok());
  const auto number = [&](size_t at, size_t bytes) {
    uint64_t v = 0;
    std::memcpy(&v, zip->data() + at, bytes);
    return v;
  };
  EXPECT_EQ(number(0, 4), 0x04034b50u);
  const size_t name_bytes = number(26, 2), extra_bytes = number(28, 2);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(zip->data()) + 30, name_bytes), "probabilities.npy");
  EXPECT_EQ(number(30 + name_bytes + 4, 8), want->size());
  const uint64_t packed = number(30 + name_bytes + 12, 8), crc = number(14, 4);
  EXPECT_EQ(crc, crc32_of(want->span()));
  // The member's deflate data, dressed as gzip.
  std::vector<std::byte> gz(10);
  gz[0] = std::byte{0x1f}, gz[1] = std::byte{0x8b}, gz[2] = std::byte{8};
  const std::byte* data = zip->data() + 30 + name_bytes + extra_bytes;
  gz.insert(gz.end(), data, data + packed);
  for (int i = 0; i < 4; ++i) gz.push_back(std::byte(crc >> (8 * i)));
  for (int i = 0; i < 4; ++i) gz.push_back(std::byte(want->size() >> (8 * i)));
  Buffer<std::byte> back(want->size());
  const Status s = gunzip_exact(gz, back.span());
  ASSERT_TRUE(s.ok()) << s.error().to_string();
  EXPECT_TRUE(std::equal(want->begin(), want->end(), back.begin()));
  // The directory at the end points to it.
  const size_t end = zip->size() - 22;
  EXPECT_EQ(number(end, 4), 0x06054b50u);
  EXPECT_EQ(number(number(end + 16, 4), 4), 0x02014b50u);
  EXPECT_EQ(number(end + 16, 4), 30 + name_bytes + extra_bytes + packed);
  for (const std::string& p : {path, plain})
    std::filesystem::remove_all(std::filesystem::path(p).parent_path());
}

}  // namespace
}  // namespace isoline
