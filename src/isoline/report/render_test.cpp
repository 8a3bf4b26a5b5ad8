#include <gtest/gtest.h>

#include "isoline/report/html.h"
#include "isoline/report/markdown.h"

namespace isoline::report {
namespace {

const char* const kEvil = "<script>alert('x')</script> | [a](javascript:b) `c` **d** &amp; \"e\"";

// Every kind of block with the same hostile text everywhere.
Document hostile() {
  Document d;
  d.title = d.subtitle = kEvil;
  Table t;
  t.caption = kEvil;
  t.columns = {{kEvil, Align::kLeft, kEvil}, {"n", Align::kRight, ""}};
  t.rows.push_back({{plain(kEvil) + strong(kEvil) + sub(kEvil) + code(kEvil) + badge(Tone::kBad, kEvil),
                     t.unavailable(kEvil)},
                    true});
  Chart c = bar_chart(kEvil, kEvil, {{kEvil, 1.0, {}, {}, kEvil, false}});
  d.blocks = {Heading{2, kEvil},
              Paragraph{plain(kEvil)},
              Bullets{{plain(kEvil)}},
              Callout{Tone::kWarn, kEvil, {plain(kEvil)}},
              Terms{{{kEvil, plain(kEvil)}}},
              Cards{{{kEvil, kEvil, kEvil, Tone::kGood}}},
              t,
              Figure{"bars", kEvil, c}};
  return d;
}

TEST(Html, NothingForeignIsMarkup) {
  const std::string page = render_html(hostile());
  EXPECT_EQ(page.find("<script"), std::string::npos);
  EXPECT_EQ(page.find("alert('x')"), std::string::npos);
  EXPECT_NE(page.find("&lt;script&gt;alert(&#39;x&#39;)"), std::string::npos);
  EXPECT_NE(page.find("&amp;amp;"), std::string::npos);
}

TEST(Html, NeedsNothingFromOutside) {
  const std::string page = render_html(hostile());
  for (const char* outside : {"src=", "@import", "url(", "<link", "<iframe"})
    EXPECT_EQ(page.find(outside), std::string::npos) << outside;
  EXPECT_NE(page.find("default-src 'none'"), std::string::npos);
}

TEST(Html, ShowsLightDarkNarrowAndPrint) {
  const std::string page = render_html(hostile());
  for (const char* rule :
       {"prefers-color-scheme:dark", "max-width:40rem", "@media print", "@page", "overflow-x:auto"})
    EXPECT_NE(page.find(rule), std::string::npos) << rule;
}

TEST(Markdown, NothingForeignIsMarkup) {
  const MarkdownReport md = render_markdown(hostile());
  EXPECT_EQ(md.text.find("<script"), std::string::npos);
  EXPECT_EQ(md.text.find("[a]("), std::string::npos);
  EXPECT_EQ(md.text.find("** d"), std::string::npos);
  // Each table line keeps its two columns: three bars that are not escaped.
  size_t rows = 0, at = 0;
  while (at < md.text.size()) {
    const size_t end = md.text.find('\n', at);
    const std::string row = md.text.substr(at, end - at);
    at = end + 1;
    if (row.empty() || row[0] != '|') continue;
    ++rows;
    int bars = 0;
    for (size_t i = 0; i < row.size(); ++i) bars += row[i] == '|' && (i == 0 || row[i - 1] != '\\');
    EXPECT_EQ(bars, 3) << row;
  }
  EXPECT_EQ(rows, 3u);
  ASSERT_EQ(md.files.size(), 1u);
  EXPECT_EQ(md.files[0].first, "figures/bars.svg");
  EXPECT_NE(md.text.find("(figures/bars.svg)"), std::string::npos);
}

TEST(Markdown, ALineCannotBecomeAHeadingOrList) {
  Document d;
  d.blocks = {Paragraph{plain("# no heading")}, Paragraph{plain("1. no list")},
              Bullets{{plain("- no list")}}};
  const std::string text = render_markdown(d).text;
  EXPECT_NE(text.find("\\# no heading"), std::string::npos);
  EXPECT_NE(text.find("1\\. no list"), std::string::npos);
  EXPECT_NE(text.find("- \\- no list"), std::string::npos);
}

TEST(TableNotes, EqualReasonsShareALetter) {
  Table t;
  const Text a = t.unavailable("no GPU"), b = t.unavailable(""), c = t.unavailable("no GPU");
  EXPECT_EQ(a[1].text, "a");
  EXPECT_EQ(b[1].text, "b");
  EXPECT_EQ(c[1].text, "a");
  EXPECT_EQ(t.notes, (std::vector<std::string>{"no GPU", "not recorded"}));
  EXPECT_EQ(note_letter(25), "z");
  EXPECT_EQ(note_letter(26), "aa");
  EXPECT_EQ(note_letter(27), "ab");
}

}  // namespace
}  // namespace isoline::report
