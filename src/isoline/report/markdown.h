// Document -> Markdown (CommonMark with pipe tables), the page's twin. Figures are .svg files beside it;
// their numbers also stand in tables, so the text alone says everything.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "isoline/report/document.h"

namespace isoline::report {

struct MarkdownReport {
  std::string text;
  std::vector<std::pair<std::string, std::string>>
      files;  // path relative to the text ("figures/x.svg"), content
};
MarkdownReport render_markdown(const Document& document);

// Text with every character that Markdown or HTML could read as markup escaped, in one line.
std::string escape_markdown(std::string_view text);

}  // namespace isoline::report
