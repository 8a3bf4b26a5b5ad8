#include "isoline/report/document.h"

#include <algorithm>

namespace isoline::report {

std::string note_letter(size_t index) {
  std::string out;
  for (size_t i = index + 1; i > 0; i = (i - 1) / 26) out.insert(out.begin(), char('a' + (i - 1) % 26));
  return out;
}

Text Table::mark(const std::string& note) {
  const auto at = std::find(notes.begin(), notes.end(), note);
  const size_t index = size_t(at - notes.begin());
  if (at == notes.end()) notes.push_back(note);
  return {{Span::Kind::kMark, note_letter(index), Tone::kPlain}};
}

Text Table::unavailable(const std::string& reason) {
  return plain("n/a") + mark(reason.empty() ? "not recorded" : reason);
}

}  // namespace isoline::report
