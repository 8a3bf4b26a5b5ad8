#include "isoline/model/zip_archive.h"

#include <gtest/gtest.h>

#include <cstring>

#include "isoline/base/file.h"

namespace isoline {
namespace {

std::vector<std::byte> golden(const std::string& name) {
  auto bytes = read_whole_file(ISOLINE_SOURCE_DIR "/tests/goldens/checkpoint/" + name, 1 << 20);
  EXPECT_TRUE(bytes.ok());
  return {bytes->begin(), bytes->end()};
}
std::string text(const ZipContent& c) {
  return {reinterpret_cast<const char*>(c.bytes.data()), c.bytes.size()};
}

TEST(ZipArchive, ReadsStoredDeflatedAndZip64Alike) {
  const auto plain = golden("views.pth");
  auto want = ZipArchive::open(plain);
  ASSERT_TRUE(want.ok()) << want.error().to_string();
  ASSERT_FALSE(want->find("views/data/0")->deflated);
  for (const char* name : {"views_deflated.pth", "views_unaligned.pth", "views_zip64.pth"}) {
    const auto bytes = golden(name);
    auto got = ZipArchive::open(bytes);
    ASSERT_TRUE(got.ok()) << name << ": " << got.error().to_string();
    EXPECT_EQ(got->find("views/data/0")->deflated, name == std::string("views_deflated.pth"));
    for (const auto& [entry, info] : want->entries()) {
      auto a = want->read(entry, 1 << 20), b = got->read(entry, 1 << 20);
      ASSERT_TRUE(a.ok() && b.ok()) << name << " " << entry;
      EXPECT_EQ(text(*a), text(*b)) << name << " " << entry;
    }
  }
}

TEST(ZipArchive, StoredEntriesAreViewsIntoTheArchive) {
  const auto bytes = golden("views.pth");
  auto zip = ZipArchive::open(bytes);
  auto content = zip->read("views/data/0", 1 << 20);
  EXPECT_TRUE(content->owned.empty());
  EXPECT_GE(content->bytes.data(), bytes.data());
  EXPECT_LT(content->bytes.data(), bytes.data() + bytes.size());
}

TEST(ZipArchive, NoticesDamageAndLimits) {
  const auto bytes = golden("views.pth");
  auto zip = ZipArchive::open(bytes);
  const ZipEntry entry = *zip->find("views/data/0");
  EXPECT_EQ(zip->read("views/data/0", entry.size - 1).error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(zip->read("views/data/99", 100).error().code, ErrorCode::kCorrupt);

  auto flipped = bytes;
  flipped[entry.data_offset] ^= std::byte{1};
  auto damaged = ZipArchive::open(flipped);
  ASSERT_TRUE(damaged.ok());
  EXPECT_EQ(damaged->read("views/data/0", 1 << 20).error().message,
            "zip entry 'views/data/0' does not match its checksum");
  EXPECT_TRUE(damaged->read("views/data.pkl", 1 << 20).ok());
}

TEST(ZipArchive, EveryTruncationIsAnError) {
  const auto bytes = golden("views_zip64.pth");
  for (size_t n = 0; n < bytes.size(); ++n)
    ASSERT_EQ(ZipArchive::open(std::span(bytes).first(n)).error().code, ErrorCode::kCorrupt) << n;
}

// Writes `value` over the 32-bit field at `offset` of the first directory entry.
std::vector<std::byte> with_field(std::vector<std::byte> zip, size_t offset, uint32_t value) {
  const std::byte signature[] = {std::byte{'P'}, std::byte{'K'}, std::byte{1}, std::byte{2}};
  const auto at = std::search(zip.begin(), zip.end(), std::begin(signature), std::end(signature));
  EXPECT_NE(at, zip.end());
  std::memcpy(&*at + offset, &value, 4);
  return zip;
}

TEST(ZipArchive, RefusesLies) {
  const auto bytes = golden("views.pth");
  const auto message = [](const std::vector<std::byte>& zip) {
    auto r = ZipArchive::open(zip);
    return r.ok() ? std::string("ok") : r.error().message;
  };
  EXPECT_EQ(message(bytes), "ok");
  EXPECT_NE(message(with_field(bytes, 20, 1 << 30)).find("reaches past the end"), std::string::npos);
  EXPECT_NE(message(with_field(bytes, 24, 7)).find("has two sizes"), std::string::npos);
  EXPECT_NE(message(with_field(bytes, 42, 13)).find("disagrees"), std::string::npos);
  EXPECT_NE(message(with_field(bytes, 8, 1)).find("is encrypted"), std::string::npos);
  EXPECT_NE(message(with_field(golden("views_deflated.pth"), 24, 1 << 30)).find("impossible size"),
            std::string::npos);
}

}  // namespace
}  // namespace isoline
