// Against Pillow's and torchvision's answers (tests/goldens/make_image_goldens.py), bit for bit, and against
// damage.
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "isoline/base/file.h"
#include "isoline/image/decode.h"
#include "isoline/image/preprocessor.h"
#include "isoline/io/npy.h"
#include "isoline/model/json_value.h"

namespace isoline {
namespace {

namespace fs = std::filesystem;

fs::path goldens(const std::string& folder) {
  return fs::path(ISOLINE_SOURCE_DIR) / "tests/goldens/image" / folder;
}
std::vector<std::byte> read(const fs::path& file) {
  auto bytes = read_whole_file(file.string(), 1 << 20);
  EXPECT_TRUE(bytes.ok()) << bytes.error().to_string();
  return {bytes->begin(), bytes->end()};
}
// Goldens with an encoded picture beside a .npy of the same name.
std::vector<fs::path> pictures(const std::string& folder) {
  std::vector<fs::path> out;
  for (const auto& entry : fs::directory_iterator(goldens(folder)))
    if (entry.path().extension() != ".npy") out.push_back(entry.path());
  std::sort(out.begin(), out.end());
  return out;
}

TEST(Decode, GivesPillowsPixels) {
  const auto files = pictures("decode");
  EXPECT_GE(files.size(), 35u);
  for (const fs::path& file : files) {
    const auto want = read_npy(file.string() + ".npy");
    ASSERT_TRUE(want.ok()) << file;
    const auto got = decode_picture(read(file), {});
    ASSERT_TRUE(got.ok()) << file << ": " << got.error().to_string();
    ASSERT_EQ(got->size.height, want->shape[0]) << file;
    ASSERT_EQ(got->size.width, want->shape[1]) << file;
    const auto& pixels = *want->as<uint8_t>();
    ASSERT_EQ(got->pixels.size(), pixels.size()) << file;
    int largest = 0;
    for (size_t i = 0; i < pixels.size(); ++i)
      largest = std::max(largest, std::abs(int(pixels[i]) - int(got->pixels[i])));
    EXPECT_EQ(largest, 0) << file;
  }
}

Picture resized(const Picture& in, Size2 to, ResizeFilter filter) {
  RowResizer resizer(in.size, {}, 3, {to, 0, 0, to}, filter);
  for (int64_t y = 0; y < in.size.height; ++y)
    resizer.row(y, std::span(in.pixels.data() + y * in.size.width * 3, size_t(in.size.width * 3)));
  Picture out{to, Buffer<uint8_t>(size_t(to.height * to.width * 3))};
  resizer.finish(out.pixels.span());
  return out;
}

TEST(Resize, GivesPillowsPixels) {
  const auto source = decode_picture(read(goldens("resize") / "source.png"), {});
  ASSERT_TRUE(source.ok());
  int compared = 0;
  for (const auto& entry : fs::directory_iterator(goldens("resize"))) {
    if (entry.path().extension() != ".npy") continue;
    const auto want = read_npy(entry.path().string());
    ASSERT_TRUE(want.ok());
    const bool cubic = entry.path().filename().string().starts_with("bicubic");
    const Picture got = resized(*source, {want->shape[0], want->shape[1]},
                                cubic ? ResizeFilter::kBicubic : ResizeFilter::kBilinear);
    const auto& pixels = *want->as<uint8_t>();
    EXPECT_TRUE(std::equal(pixels.begin(), pixels.end(), got.pixels.begin(), got.pixels.end()))
        << entry.path();
    ++compared;
  }
  EXPECT_EQ(compared, 16);
}

// Pixel by pixel from the definition of the eight orientations.
Picture turned(const Picture& in, int exif) {
  const int64_t h = in.size.height, w = in.size.width;
  const bool swap = exif >= 5;
  Picture out{swap ? Size2{w, h} : Size2{h, w}, Buffer<uint8_t>(in.pixels.size())};
  for (int64_t y = 0; y < out.size.height; ++y)
    for (int64_t x = 0; x < out.size.width; ++x) {
      int64_t sy = y, sx = x;
      switch (exif) {
        case 2:
          sx = w - 1 - x;
          break;
        case 3:
          sy = h - 1 - y, sx = w - 1 - x;
          break;
        case 4:
          sy = h - 1 - y;
          break;
        case 5:
          sy = x, sx = y;
          break;
        case 6:
          sy = h - 1 - x, sx = y;
          break;
        case 7:
          sy = h - 1 - x, sx = w - 1 - y;
          break;
        case 8:
          sy = x, sx = w - 1 - y;
          break;
        default:
          break;
      }
      for (int64_t c = 0; c < 3; ++c)
        out.pixels[size_t((y * out.size.width + x) * 3 + c)] = in.pixels[size_t((sy * w + sx) * 3 + c)];
    }
  return out;
}

TEST(Resize, TurningWhileRowsComeIsTurningBeforehand) {
  std::mt19937 rng(3);
  for (const Size2 size : {Size2{37, 53}, Size2{64, 11}, Size2{5, 7}})
    for (const ResizeFilter filter : {ResizeFilter::kBilinear, ResizeFilter::kBicubic})
      for (int exif = 1; exif <= 8; ++exif) {
        Picture in{size, Buffer<uint8_t>(size_t(size.height * size.width * 3))};
        for (uint8_t& v : in.pixels) v = uint8_t(rng());
        const Picture upright = turned(in, exif);
        const Size2 scaled{23, 17};
        const ResizePlan plan{scaled, 3, 2, {13, 11}};
        const Picture whole = resized(upright, scaled, filter);
        RowResizer resizer(size, {exif}, 3, plan, filter);
        for (int64_t y = 0; y < size.height; ++y)
          resizer.row(y, std::span(in.pixels.data() + y * size.width * 3, size_t(size.width * 3)));
        std::vector<uint8_t> got(size_t(13 * 11 * 3));
        resizer.finish(got);
        for (int64_t y = 0; y < 13; ++y)
          for (int64_t x = 0; x < 11 * 3; ++x)
            ASSERT_EQ(got[size_t(y * 33 + x)], whole.pixels[size_t((y + 3) * 17 * 3 + 2 * 3 + x)])
                << "orientation " << exif << ", row " << y;
      }
}

TEST(Preprocess, GivesPillowsAndTorchvisionsTensors) {
  int compared = 0;
  for (const fs::path& json : pictures("preprocess")) {
    if (json.extension() != ".json") continue;
    // The specification alone: there is no network beside it.
    const auto root = read_json(json.string());
    ASSERT_TRUE(root.ok());
    const auto spec = parse_image_model(JsonField(*root, json.string()), "");
    ASSERT_TRUE(spec.ok()) << spec.error().to_string();
    const ImagePreprocessor preprocessor(spec->preprocess);
    for (const fs::path& photo : pictures("preprocess")) {
      if (photo.extension() == ".json") continue;
      const auto want = read_npy(
          (json.parent_path() / (json.stem().string() + "_" + photo.filename().string() + ".npy")).string());
      ASSERT_TRUE(want.ok()) << want.error().to_string();
      std::vector<std::byte> got(preprocessor.bytes_per_image(), std::byte{0x5a});
      const Status status = preprocessor.run(read(photo), got);
      ASSERT_TRUE(status.ok()) << status.error().to_string();
      EXPECT_EQ(want->shape, spec->preprocess.shape()) << json;
      std::visit(
          [&](const auto& b) {
            ASSERT_EQ(b.byte_size(), got.size()) << json;
            EXPECT_EQ(std::memcmp(b.data(), got.data(), got.size()), 0) << json << " of " << photo;
          },
          want->data);
      ++compared;
    }
  }
  EXPECT_EQ(compared, 20);
}

TEST(Decode, EveryTruncationIsAnErrorThatSaysSo) {
  for (const char* name : {"rgb420.jpg", "progressive.jpg", "turned6.jpg", "rgb.png", "interlaced.png",
                           "palette4.png", "lossy.webp", "lossless_alpha.webp"}) {
    const auto file = read(goldens("decode") / name);
    for (size_t n = 0; n < file.size(); ++n) {
      const auto got = decode_picture(std::span(file).first(n), {});
      if (got.ok()) {
        EXPECT_EQ(n + 1, file.size()) << name;  // a byte of padding
        EXPECT_TRUE(std::string(name).ends_with(".webp")) << name;
        continue;
      }
      EXPECT_FALSE(got.error().message.empty());
      if (n > 100) {
        EXPECT_EQ(got.error().code, ErrorCode::kCorrupt)
            << name << " cut to " << n << ": " << got.error().to_string();
      }
    }
  }
}

TEST(Decode, DamageIsAnErrorOrAPictureButNeverACrash) {
  std::mt19937 rng(11);
  int errors = 0;
  for (const fs::path& path : pictures("decode")) {
    const auto file = read(path);
    for (int round = 0; round < 60; ++round) {
      auto damaged = file;
      for (int k = 0; k < 3; ++k) damaged[rng() % damaged.size()] = std::byte(rng());
      const auto got = decode_picture(damaged, {1 << 20, 64 << 20});
      if (got.ok()) {
        EXPECT_EQ(got->pixels.size(), size_t(got->size.height * got->size.width * 3));
      } else {
        EXPECT_FALSE(got.error().message.empty());
        ++errors;
      }
    }
  }
  EXPECT_GT(errors, 500);
}

std::string big(uint32_t v, int bytes) {
  std::string out;
  for (int i = bytes - 1; i >= 0; --i) out += char(v >> (8 * i));
  return out;
}
std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

// The golden with other dimensions in its header.
std::string with_jpeg_size(const std::string& name, uint32_t height, uint32_t width) {
  const auto file = read(goldens("decode") / name);
  std::string text(reinterpret_cast<const char*>(file.data()), file.size());
  for (size_t at = 2; at + 9 < text.size();) {
    const auto marker = uint8_t(text[at + 1]);
    if (marker == 0xc0 || marker == 0xc2) {
      text.replace(at + 5, 4, big(height, 2) + big(width, 2));
      return text;
    }
    at += 2 + (size_t(uint8_t(text[at + 2])) << 8 | uint8_t(text[at + 3]));
  }
  ADD_FAILURE() << "no frame header";
  return text;
}

TEST(Decode, DimensionBombsAreRefusedBeforeAnythingIsAllocated) {
  // libpng checks the header's CRC before its size is believed, so this one is right.
  const std::string png = std::string("\x89PNG\r\n\x1a\n") + big(13, 4) + "IHDR" + big(60000, 4) +
                          big(60000, 4) + std::string("\x08\x02\0\0\0", 5) + big(0xfb0e215u, 4) + big(0, 4) +
                          "IDAT";
  const std::string jpeg = with_jpeg_size("rgb420.jpg", 65500, 65500);
  const std::string line = std::string("\x89PNG\r\n\x1a\n") + big(13, 4) + "IHDR" + big(70000, 4) +
                           big(1, 4) + std::string("\x08\x02\0\0\0", 5) + big(0x7d21ea1cu, 4) + big(0, 4) +
                           "IDAT";
  struct Bomb {
    std::string file;
    const char* size;
  };
  for (const Bomb& bomb : {Bomb{jpeg, "65500x65500"}, Bomb{png, "60000x60000"}, Bomb{line, "70000x1"}}) {
    const auto start = std::chrono::steady_clock::now();
    const auto got = decode_picture(bytes_of(bomb.file), {});
    ASSERT_FALSE(got.ok());
    EXPECT_EQ(got.error().code, ErrorCode::kResourceExhausted) << got.error().to_string();
    EXPECT_NE(got.error().message.find(bomb.size), std::string::npos) << got.error().to_string();
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(200));
  }
}

TEST(Decode, WhatHoldsWholePicturesAsksForThatMuchMemory) {
  const std::string progressive = with_jpeg_size("progressive.jpg", 4000, 4000);
  const auto refused = decode_picture(bytes_of(progressive), {100'000'000, 32 << 20});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kResourceExhausted) << refused.error().to_string();
  EXPECT_NE(refused.error().message.find("progressive"), std::string::npos);
  // The same limit is enough for a baseline file of that size, which is then found to be truncated.
  const std::string baseline = with_jpeg_size("rgb420.jpg", 4000, 4000);
  EXPECT_EQ(decode_picture(bytes_of(baseline), {100'000'000, 32 << 20}).error().code, ErrorCode::kCorrupt);
}

TEST(Decode, OtherFormatsAreRefusedByName) {
  struct Case {
    std::string bytes, name;
    ErrorCode code;
  };
  const auto unsupported = ErrorCode::kUnsupported;
  for (const Case& c : {Case{"GIF89a......", "GIF", unsupported}, Case{"BM..........", "BMP", unsupported},
                        Case{std::string("II*\0........", 12), "TIFF", unsupported},
                        Case{std::string("\0\0\0 ftypheic....", 16), "HEIC", unsupported},
                        Case{std::string("\0\0\0 ftypavif....", 16), "AVIF", unsupported},
                        Case{"hello", "no JPEG", unsupported}, Case{"", "empty", ErrorCode::kCorrupt}}) {
    const auto got = decode_picture(bytes_of(c.bytes), {});
    ASSERT_FALSE(got.ok());
    EXPECT_EQ(got.error().code, c.code) << got.error().to_string();
    EXPECT_NE(got.error().message.find(c.name), std::string::npos) << got.error().to_string();
  }
}

}  // namespace
}  // namespace isoline
