#include <png.h>

#include <csetjmp>
#include <cstring>
#include <string>
#include <vector>

#include "isoline/image/formats.h"

namespace isoline {
namespace {

// libpng reports by longjmp: between setjmp and the library's calls nothing with a destructor may be made.
struct Decoder {
  png_structp png = nullptr;
  png_infop info = nullptr;
  std::span<const std::byte> rest;
  bool truncated = false;
  char text[200] = "";

  explicit Decoder(std::span<const std::byte> file) : rest(file) {
    png = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, on_error, [](png_structp, png_const_charp) {});
    if (png) info = png_create_info_struct(png);
    if (!info) throw std::bad_alloc();
    png_set_read_fn(png, this, read);
    png_set_user_limits(png, 0x7fffffff, 0x7fffffff);  // decode_rows() has its own limit
    png_set_chunk_malloc_max(png, 4 << 20);            // profiles, texts
    png_set_chunk_cache_max(png, 64);
    png_set_crc_action(png, PNG_CRC_ERROR_QUIT, PNG_CRC_WARN_DISCARD);
  }
  ~Decoder() { png_destroy_read_struct(&png, &info, nullptr); }
  Decoder(const Decoder&) = delete;

  static void read(png_structp png, png_bytep to, size_t n) {
    auto* self = static_cast<Decoder*>(png_get_io_ptr(png));
    if (n > self->rest.size()) {
      self->truncated = true;
      png_error(png, "truncated");
    }
    std::memcpy(to, self->rest.data(), n);
    self->rest = self->rest.subspan(n);
  }
  [[noreturn]] static void on_error(png_structp png, png_const_charp text) {
    auto* self = static_cast<Decoder*>(png_get_error_ptr(png));
    std::strncpy(self->text, text, sizeof self->text - 1);
    png_longjmp(png, 1);
  }
  Error error() const {
    if (truncated) return {ErrorCode::kCorrupt, "the PNG file is truncated", "", ""};
    return {ErrorCode::kCorrupt, std::string("the PNG file is damaged: ") + text, "", ""};
  }
};

bool read_header(Decoder& d) {
  if (setjmp(png_jmpbuf(d.png))) return false;
  png_read_info(d.png, d.info);
  return true;
}

}  // namespace

Result<Size2> identify_png(std::span<const std::byte> file) {
  Decoder d(file);
  if (!read_header(d)) return d.error();
  return Size2{int64_t(png_get_image_height(d.png, d.info)), int64_t(png_get_image_width(d.png, d.info))};
}

Status decode_png(std::span<const std::byte> file, const DecodeLimits& limits, RowSink& sink) {
  Decoder d(file);
  std::vector<uint8_t> pixels;
  std::vector<png_bytep> rows;
  if (!read_header(d)) return d.error();
  const size_t height = png_get_image_height(d.png, d.info), width = png_get_image_width(d.png, d.info);
  const bool interlaced = png_get_interlace_type(d.png, d.info) != PNG_INTERLACE_NONE;
  const uint64_t held = uint64_t(width) * 3 * (interlaced ? height : 1);
  ISOLINE_RETURN_IF_ERROR(check_memory(held + uint64_t(width) * 32, limits,
                                       interlaced ? "this interlaced PNG" : "a row of this PNG"));
  pixels.resize(held);
  if (interlaced)
    for (size_t y = 0; y < height; ++y) rows.push_back(pixels.data() + y * width * 3);
  if (setjmp(png_jmpbuf(d.png))) return d.error();
  png_set_palette_to_rgb(d.png);
  png_set_expand_gray_1_2_4_to_8(d.png);
  png_set_strip_16(d.png);
  png_set_gray_to_rgb(d.png);
  png_set_strip_alpha(d.png);
  if (interlaced) {
    png_set_interlace_handling(d.png);
    png_read_update_info(d.png, d.info);
    png_read_image(d.png, rows.data());
    png_read_end(d.png, nullptr);
    for (size_t y = 0; y < height; ++y) sink.row(int64_t(y), std::span(rows[y], width * 3));
    return {};
  }
  png_read_update_info(d.png, d.info);
  for (size_t y = 0; y < height; ++y) {
    png_read_row(d.png, pixels.data(), nullptr);
    sink.row(int64_t(y), pixels);
  }
  png_read_end(d.png, nullptr);
  return {};
}

}  // namespace isoline
