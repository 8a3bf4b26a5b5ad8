// A report before it has a form: headings, paragraphs, tables, figures. Renderers (html.h, markdown.h) turn
// one Document into text. Strings here are what a reader should see, never markup: escaping happens in the
// renderers, in one place each.
#pragma once

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "isoline/report/chart.h"

namespace isoline::report {

enum class Tone { kPlain, kInfo, kGood, kWarn, kBad };

struct Span {
  enum class Kind {
    kText,
    kStrong,
    kSub,    // belongs to what stands before it, in smaller type below it: an interval under its mean
    kCode,   // hashes, option names
    kBadge,  // a verdict or a status
    kMark,   // reference to a note of the same table: "a"
  };
  Kind kind = Kind::kText;
  std::string text;
  Tone tone = Tone::kPlain;  // badges only
};
using Text = std::vector<Span>;

inline Text plain(std::string text) {
  return {{Span::Kind::kText, std::move(text), Tone::kPlain}};
}
inline Text strong(std::string text) {
  return {{Span::Kind::kStrong, std::move(text), Tone::kPlain}};
}
inline Text code(std::string text) {
  return {{Span::Kind::kCode, std::move(text), Tone::kPlain}};
}
inline Text badge(Tone tone, std::string text) {
  return {{Span::Kind::kBadge, std::move(text), tone}};
}
inline Text sub(std::string text) {
  return {{Span::Kind::kSub, std::move(text), Tone::kPlain}};
}
inline Text operator+(Text a, const Text& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

enum class Align { kLeft, kRight };

struct Column {
  std::string header;
  Align align = Align::kRight;
  std::string group;  // neighbouring columns of one group share a head above theirs
};

struct Table {
  std::string caption;
  std::vector<Column> columns;
  struct Row {
    std::vector<Text> cells;  // as many as columns
    bool strong = false;      // stands out: the baseline, the recommended setting
  };
  std::vector<Row> rows;
  std::vector<std::string> notes;  // marked a, b, c, ... in cells

  // "n/a" with a note giving the reason; equal reasons share a note. Never empty: "not recorded" if there is
  // none.
  Text unavailable(const std::string& reason);
  // A mark for `note`, adding it if it is new.
  Text mark(const std::string& note);
};
// 0 -> "a", 25 -> "z", 26 -> "aa".
std::string note_letter(size_t index);

struct Heading {
  int level = 2;  // 2: numbered section, 3: part of one
  std::string text;
};
struct Paragraph {
  Text text;
};
struct Bullets {
  std::vector<Text> items;
};
struct Callout {
  Tone tone = Tone::kInfo;
  std::string title;
  std::vector<Text> lines;
};
// Term and explanation, or name and value.
struct Terms {
  std::vector<std::pair<std::string, Text>> entries;
};
// Few figures in large type.
struct Cards {
  struct Card {
    std::string label, value, detail;
    Tone tone = Tone::kPlain;
  };
  std::vector<Card> cards;
};
struct Figure {
  std::string name;  // file name without ending, [a-z0-9-]
  std::string caption;
  Chart chart;
};

using Block = std::variant<Heading, Paragraph, Bullets, Callout, Terms, Cards, Table, Figure>;

struct Document {
  std::string title, subtitle;
  std::vector<Block> blocks;
};

}  // namespace isoline::report
