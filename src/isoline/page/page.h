// The server's own page: its files, compiled in, and the headers that go with them.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace isoline::page {

struct PageFile {
  std::string_view path, content_type, text;  // of the program: valid for ever
};

// The file at this path ("/", "/page/app.js", "/page/style.css"); null if there is none. They hold no secrets
// and may be given to anybody.
const PageFile* find_file(std::string_view path);

// Nothing from elsewhere, no inline scripts or styles, no frames. To be sent with each file.
const std::vector<std::pair<std::string, std::string>>& security_headers();

}  // namespace isoline::page
