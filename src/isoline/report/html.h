// Document -> one self-contained HTML page: no script, no network, styles inline, light and dark by the
// reader's preference, wide tables scroll inside their own frame, and a print style with page breaks. Every
// string of the document passes escape() (escape.h).
#pragma once

#include <string>

#include "isoline/report/document.h"

namespace isoline::report {

std::string render_html(const Document& document);

}  // namespace isoline::report
