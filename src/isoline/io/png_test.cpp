#include "isoline/io/png.h"

#include <gtest/gtest.h>
#include <png.h>

#include <filesystem>
#include <vector>

namespace isoline {
namespace {

TEST(Png, PixelsComeBack) {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("isoline-png-" + std::to_string(::getpid()) + ".png"))
          .string();
  for (int channels : {1, 3}) {
    std::vector<uint8_t> pixels(size_t(7 * 5 * channels));
    for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = uint8_t(i * 11);
    ASSERT_TRUE(write_png(path, pixels, 7, 5, channels).ok());
    png_image image{};
    image.version = PNG_IMAGE_VERSION;
    ASSERT_TRUE(png_image_begin_read_from_file(&image, path.c_str()));
    EXPECT_EQ(image.width, 5u);
    EXPECT_EQ(image.height, 7u);
    image.format = channels == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
    std::vector<uint8_t> back(PNG_IMAGE_SIZE(image));
    ASSERT_TRUE(png_image_finish_read(&image, nullptr, back.data(), 0, nullptr));
    EXPECT_EQ(back, pixels);
  }
  std::filesystem::remove(path);
  EXPECT_FALSE(write_png(path, {}, 7, 5, 3).ok());
  EXPECT_FALSE(write_png("/nonexistent/a.png", std::vector<uint8_t>(1), 1, 1, 1).ok());
}

}  // namespace
}  // namespace isoline
