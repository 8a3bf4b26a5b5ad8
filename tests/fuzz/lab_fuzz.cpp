// Fuzzes the lab's files: experiment (TOML), run summary (JSON) and the changes between two registered parts.
// Input: 'e', 's' or 'c', then text; for 'c' two texts separated by a NUL byte.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "isoline/lab/experiment.h"
#include "isoline/lab/registration.h"
#include "isoline/lab/summary.h"

using namespace isoline;
using namespace isoline::lab;

namespace {
void check(bool ok) {
  if (!ok) std::abort();
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] == 'e') {
    const auto e = parse_experiment(text, "e.toml");
    if (!e) return 0;
    check(!e->settings.empty() && !e->endpoints.empty());
    for (const Endpoint& p : e->endpoints) check(p.delta > 0 && p.delta < 1);
    for (const Setting& s : e->settings) check(!s.name.empty() && s.name.find('/') == std::string::npos);
  } else if (data[0] == 's') {
    const auto s = parse_summary(text, "summary.json");
    if (!s) return 0;
    // What is read can be written and read again, and stays the same.
    const std::string again = to_json_text(*s);
    const auto back = parse_summary(again, "summary.json");
    check(back.ok());
    check(to_json_text(*back) == again);
  } else if (data[0] == 'c') {
    const size_t split = text.find('\0');
    if (split == std::string::npos) return 0;
    check(json_changes(text.substr(0, split), text.substr(0, split)).empty());
    (void)json_changes(text.substr(0, split), text.substr(split + 1));
  }
  return 0;
}
