#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include <jpeglib.h>
// jerror.h's codes tell harmless warnings from damage.
#include <jerror.h>

#include "isoline/image/formats.h"

namespace isoline {
namespace {

// More scans than any encoder writes; a small file can otherwise keep a decoder busy for minutes.
constexpr int kMaxScans = 100;

// libjpeg reports by longjmp: between setjmp and the library's calls nothing with a destructor may be made.
struct Decoder {
  jpeg_decompress_struct c{};
  jpeg_error_mgr errors{};
  jpeg_progress_mgr progress{};
  std::jmp_buf back;
  int code = 0;  // of the message that ended decoding
  char text[JMSG_LENGTH_MAX] = "";

  Decoder() {
    c.err = jpeg_std_error(&errors);
    errors.error_exit = on_error;
    errors.emit_message = on_message;
    errors.output_message = [](j_common_ptr) {};
    c.client_data = this;
    progress.progress_monitor = on_progress;
  }
  ~Decoder() { jpeg_destroy_decompress(&c); }
  Decoder(const Decoder&) = delete;

  static void on_error(j_common_ptr info) {
    auto* self = static_cast<Decoder*>(info->client_data);
    self->code = info->err->msg_code;
    info->err->format_message(info, self->text);
    std::longjmp(self->back, 1);
  }
  static void on_message(j_common_ptr info, int level) {
    if (level >= 0) return;  // a trace
    switch (info->err->msg_code) {
      case JWRN_EXTRANEOUS_DATA:
      case JWRN_ADOBE_XFORM:
      case JWRN_JFIF_MAJOR:
      case JWRN_BOGUS_ICC:
        return;
      default:
        on_error(info);
    }
  }
  static void on_progress(j_common_ptr info) {
    auto* self = static_cast<Decoder*>(info->client_data);
    if (self->c.input_scan_number <= kMaxScans) return;
    std::snprintf(self->text, sizeof self->text, "more than %d scans", kMaxScans);
    std::longjmp(self->back, 1);
  }

  // The error after a jump back.
  Error error() const {
    switch (code) {
      case JWRN_JPEG_EOF:
      case JWRN_HIT_MARKER:
        return {ErrorCode::kCorrupt, "the JPEG file is truncated or damaged", "", ""};
      case JERR_BAD_PRECISION:
      case JERR_SOF_UNSUPPORTED:
      case JERR_ARITH_NOTIMPL:
      case JERR_NOT_COMPILED:
      case JERR_CONVERSION_NOTIMPL:
      case JERR_CCIR601_NOTIMPL:
      case JERR_FRACT_SAMPLE_NOTIMPL:
        return {ErrorCode::kUnsupported, std::string("this kind of JPEG is not read: ") + text, "",
                "Baseline and progressive JPEG with 8 bits are read; convert it."};
      case JERR_NO_BACKING_STORE:
      case JERR_OUT_OF_MEMORY:
        return {ErrorCode::kResourceExhausted, "decoding the JPEG file needs more memory than the limit", "",
                "Make the picture smaller or raise the limit."};
      default:
        return {ErrorCode::kCorrupt, std::string("the JPEG file is damaged: ") + text, "", ""};
    }
  }
};

// Pillow's conversion (libImaging/Convert.c, cmyk2rgb) of CMYK stored inverted, as Adobe does.
void cmyk_to_rgb(const uint8_t* in, uint8_t* out, size_t pixels) {
  for (size_t i = 0; i < pixels; ++i) {
    const int k = in[4 * i + 3];
    for (size_t ch = 0; ch < 3; ++ch) {
      const int ink = 255 - in[4 * i + ch], t = ink * k + 128;
      out[3 * i + ch] = uint8_t(std::max(0, k - (((t >> 8) + t) >> 8)));
    }
  }
}

// Header into d.c; false after an error.
bool read_header(Decoder& d, std::span<const std::byte> file) {
  if (setjmp(d.back)) return false;
  jpeg_create_decompress(&d.c);
  jpeg_mem_src(&d.c, reinterpret_cast<const unsigned char*>(file.data()),
               static_cast<unsigned long>(file.size()));
  jpeg_read_header(&d.c, TRUE);
  return true;
}

}  // namespace

Result<Size2> identify_jpeg(std::span<const std::byte> file) {
  Decoder d;
  if (!read_header(d, file)) return d.error();
  return Size2{int64_t(d.c.image_height), int64_t(d.c.image_width)};
}

Status decode_jpeg(std::span<const std::byte> file, const DecodeLimits& limits, RowSink& sink) {
  Decoder d;
  std::vector<uint8_t> row, rgb;
  if (!read_header(d, file)) return d.error();
  jpeg_decompress_struct& c = d.c;
  const bool four = c.num_components == 4;
  if (c.num_components != 1 && c.num_components != 3 && !four)
    return Error{ErrorCode::kUnsupported,
                 "a JPEG with " + std::to_string(c.num_components) + " components is not read", "",
                 "Grey, colour and CMYK are read; convert it."};
  const uint64_t pixels = uint64_t(c.image_height) * c.image_width;
  if (jpeg_has_multiple_scans(&c)) {  // holds all coefficients, 2 bytes each
    ISOLINE_RETURN_IF_ERROR(
        check_memory(pixels * uint64_t(c.num_components) * 2, limits, "this progressive JPEG"));
  }
  row.resize(size_t(c.image_width) * 4);
  if (four) rgb.resize(size_t(c.image_width) * 3);
  if (setjmp(d.back)) return d.error();
  c.progress = &d.progress;
  c.out_color_space = four ? JCS_CMYK : JCS_RGB;
  c.dct_method = JDCT_ISLOW;
  c.mem->max_memory_to_use = long(std::min<uint64_t>(limits.max_bytes, uint64_t{1} << 40));
  jpeg_start_decompress(&c);
  while (c.output_scanline < c.output_height) {
    JSAMPROW pointer = row.data();
    const int64_t y = c.output_scanline;
    if (jpeg_read_scanlines(&c, &pointer, 1) != 1) continue;
    if (four) cmyk_to_rgb(row.data(), rgb.data(), c.output_width);
    sink.row(y, std::span(four ? rgb.data() : row.data(), size_t(c.output_width) * 3));
  }
  jpeg_finish_decompress(&c);
  return {};
}

}  // namespace isoline
