#include "isoline/page/page.h"

#include "page_files.h"  // made from the files beside this one

namespace isoline::page {
namespace {

constexpr PageFile kFiles[] = {
    {"/", "text/html; charset=utf-8", kIndexHtml},
    {"/page/app.js", "text/javascript; charset=utf-8", kAppJs},
    {"/page/style.css", "text/css; charset=utf-8", kStyleCss},
};

}  // namespace

const PageFile* find_file(std::string_view path) {
  for (const PageFile& file : kFiles)
    if (file.path == path) return &file;
  return nullptr;
}

const std::vector<std::pair<std::string, std::string>>& security_headers() {
  static const std::vector<std::pair<std::string, std::string>> headers = {
      // data: is the empty icon of the page; blob: what it shows of files it was given.
      {"Content-Security-Policy",
       "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
       "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
      {"X-Content-Type-Options", "nosniff"},
      {"X-Frame-Options", "DENY"},
      {"Referrer-Policy", "no-referrer"},
      {"Cross-Origin-Opener-Policy", "same-origin"},
      {"Cross-Origin-Resource-Policy", "same-origin"},
      {"Cache-Control", "no-cache"},
  };
  return headers;
}

}  // namespace isoline::page
