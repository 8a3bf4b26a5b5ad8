#include "isoline/report/markdown.h"

#include "isoline/report/format.h"

namespace isoline::report {
namespace {

std::string inline_markdown(const Text& text) {
  std::string out;
  for (const Span& s : text) {
    const std::string t = escape_markdown(s.text);
    if (t.empty()) continue;
    switch (s.kind) {
      case Span::Kind::kText:
        out += t;
        break;
      case Span::Kind::kStrong:
      case Span::Kind::kBadge:
        out += "**" + t + "**";
        break;
      case Span::Kind::kSub:
        out += (out.empty() ? "" : " ") + t;
        break;
      case Span::Kind::kCode:
        out += t;
        break;  // a backtick inside would end a code span
      case Span::Kind::kMark:
        out += " (" + t + ")";
        break;
    }
  }
  return out;
}

class Writer {
 public:
  MarkdownReport run(const Document& d) {
    out_.text = "# " + escape_markdown(d.title) + "\n\n" + escape_markdown(d.subtitle) + "\n\n";
    for (const Block& b : d.blocks) std::visit(*this, b);
    return std::move(out_);
  }
  void operator()(const Heading& h) {
    std::string no;
    if (h.level <= 2) {
      no = std::to_string(++section_);
      part_ = 0;
    } else {
      no = std::to_string(section_) + "." + std::to_string(++part_);
    }
    out_.text += (h.level <= 2 ? "## " : "### ") + no + " " + escape_markdown(h.text) + "\n\n";
  }
  void operator()(const Paragraph& p) { out_.text += start_of_line(inline_markdown(p.text)) + "\n\n"; }
  void operator()(const Bullets& b) {
    for (const Text& t : b.items) out_.text += "- " + start_of_line(inline_markdown(t)) + "\n";
    out_.text += "\n";
  }
  void operator()(const Callout& c) {
    out_.text += "> **" + escape_markdown(c.title) + "**\n";
    for (const Text& t : c.lines) out_.text += ">\n> " + start_of_line(inline_markdown(t)) + "\n";
    out_.text += "\n";
  }
  void operator()(const Terms& t) {
    for (const auto& [term, text] : t.entries)
      out_.text += "- **" + escape_markdown(term) + "**: " + inline_markdown(text) + "\n";
    out_.text += "\n";
  }
  void operator()(const Cards& c) {
    for (const Cards::Card& card : c.cards)
      out_.text += "- " + escape_markdown(card.label) + ": **" + escape_markdown(card.value) + "**" +
                   (card.detail.empty() ? "" : " (" + escape_markdown(card.detail) + ")") + "\n";
    out_.text += "\n";
  }
  void operator()(const Table& t) {
    out_.text += "**Table " + std::to_string(++tables_) + ".** " + escape_markdown(t.caption) + "\n\n|";
    for (const Column& c : t.columns)
      out_.text += " " + escape_markdown(c.group.empty() ? c.header : c.group + " " + c.header) + " |";
    out_.text += "\n|";
    for (const Column& c : t.columns) out_.text += c.align == Align::kLeft ? ":---|" : "---:|";
    out_.text += "\n";
    for (const Table::Row& r : t.rows) {
      out_.text += "|";
      for (const Text& cell : r.cells) out_.text += " " + inline_markdown(cell) + " |";
      out_.text += "\n";
    }
    out_.text += "\n";
    for (size_t i = 0; i < t.notes.size(); ++i)
      out_.text += "(" + note_letter(i) + ") " + escape_markdown(t.notes[i]) + "  \n";
    if (!t.notes.empty()) out_.text += "\n";
  }
  void operator()(const Figure& f) {
    const std::string path = "figures/" + f.name + ".svg";
    out_.text += "![" + escape_markdown(f.chart.title) + "](" + path + ")\n\n**Figure " +
                 std::to_string(++figures_) + ".** " + escape_markdown(f.caption) + "\n\n";
    out_.files.emplace_back(path, svg_file(f.chart));
  }

 private:
  // A line must not begin as a heading, list, quote or number does.
  static std::string start_of_line(std::string s) {
    if (s.empty()) return s;
    if (std::string("#+-=>").find(s[0]) != std::string::npos) return "\\" + s;
    const size_t digits = s.find_first_not_of("0123456789");
    if (digits != 0 && digits != std::string::npos && (s[digits] == '.' || s[digits] == ')'))
      s.insert(digits, "\\");
    return s;
  }

  MarkdownReport out_;
  int section_ = 0, part_ = 0, tables_ = 0, figures_ = 0;
};

}  // namespace

std::string escape_markdown(std::string_view text) {
  std::string out;
  for (char c : clean(text)) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (std::string_view("\\`*_[]|~>").find(c) != std::string_view::npos)
      out += std::string("\\") + c;
    else
      out += c;
  }
  return out;
}

MarkdownReport render_markdown(const Document& document) {
  return Writer().run(document);
}

}  // namespace isoline::report
