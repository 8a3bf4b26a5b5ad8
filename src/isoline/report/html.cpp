#include "isoline/report/html.h"

#include "isoline/report/escape.h"

namespace isoline::report {
namespace {

constexpr const char* kStyle = R"css(
*{box-sizing:border-box}
html{color-scheme:light dark;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
 font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","Noto Sans","DejaVu Sans",sans-serif}
main{max-width:70rem;margin:0 auto;padding:2.5rem 1.5rem 4rem}
header{border-bottom:3px solid var(--s1);padding-bottom:1rem;margin-bottom:1.5rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .4rem;letter-spacing:-.01em;overflow-wrap:anywhere}
header p{margin:0;color:var(--muted);overflow-wrap:anywhere}
h2{font-size:1.3rem;line-height:1.3;margin:3rem 0 .8rem;padding-top:.9rem;border-top:1px solid var(--line)}
h3{font-size:1.02rem;margin:2rem 0 .6rem}
h2 .no,h3 .no{color:var(--muted);font-weight:400;margin-right:.6em;font-variant-numeric:tabular-nums}
h2,h3{overflow-wrap:anywhere}
p{margin:.6rem 0;max-width:46rem;overflow-wrap:anywhere}
ul{padding-left:1.3rem;max-width:56rem;overflow-wrap:anywhere}
li{margin:.25rem 0}
code{font:.86em/1.4 ui-monospace,"SFMono-Regular",Menlo,Consolas,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}
nav{font-size:.88rem;margin:0 0 1.5rem;column-width:15rem;column-gap:2rem}
nav a{display:block;padding:.12rem 0 .12rem 1.9em;text-indent:-1.9em;color:inherit;text-decoration:none;break-inside:avoid}
nav a:hover,nav a:focus{color:var(--s1);text-decoration:underline}
nav .no{color:var(--muted);display:inline-block;min-width:1.9em;text-indent:0}
figure{margin:1.4rem 0 1.8rem}
figcaption{font-size:.88rem;color:var(--muted);max-width:52rem;margin:.1rem 0 .5rem;overflow-wrap:anywhere}
figcaption b{color:var(--ink)}
.scroll{overflow-x:auto;max-width:100%}
.scroll:focus{outline:2px solid var(--s1);outline-offset:2px}
table{border-collapse:collapse;width:100%;font-size:.83rem;line-height:1.35;font-variant-numeric:tabular-nums;
 border-top:2px solid var(--ink);border-bottom:2px solid var(--ink)}
th{font-weight:600;text-align:right;vertical-align:bottom;padding:.4rem .55rem}
thead tr:last-child th{border-bottom:1px solid var(--ink)}
th.g{text-align:center;border-bottom:1px solid var(--line);padding-bottom:.15rem}
td{text-align:right;vertical-align:top;padding:.42rem .55rem;border-top:1px solid var(--line);white-space:nowrap}
tbody tr:first-child td{border-top:0}
th.l,td.l{text-align:left;white-space:normal;overflow-wrap:break-word;min-width:5.6rem}
th:first-child,td:first-child{padding-left:.1rem}
td:first-child.l{min-width:7.6rem;max-width:15rem}
tr.s td:first-child{font-weight:650}
.sub{display:block;font-size:.86em;font-weight:400;color:var(--muted);white-space:nowrap}
.nw{white-space:nowrap}
td.l .sub{white-space:normal}
.notes{font-size:.78rem;color:var(--muted);margin:.45rem 0 0;max-width:none}
.notes p{margin:.12rem 0;max-width:none}
sup{font-size:.75em;line-height:0;margin-left:.12em;color:var(--muted)}
.badge{display:inline-block;font-size:.86em;font-weight:600;line-height:1.3;padding:.05em .5em;border:1px solid;
 border-radius:.9em;white-space:nowrap}
.good{color:var(--good)}.warn{color:var(--warn)}.bad{color:var(--bad)}.info{color:var(--s1)}
.call{border-left:4px solid;padding:.15rem 0 .15rem 1rem;margin:1.2rem 0}
.call p{color:var(--ink);margin:.25rem 0}
.call .ti{font-weight:650;color:inherit}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(10.5rem,1fr));gap:.8rem;margin:1.3rem 0}
.card{border:1px solid var(--line);border-top:3px solid var(--axis);border-radius:3px;padding:.65rem .8rem .7rem;min-width:0}
.card.good{border-top-color:var(--good)}.card.warn{border-top-color:var(--warn)}.card.bad{border-top-color:var(--bad)}
.card.info{border-top-color:var(--s1)}
.card dt{font-size:.78rem;color:var(--muted)}
.card dd{margin:.1rem 0 0;font-size:1.28rem;line-height:1.25;font-weight:650;color:var(--ink);overflow-wrap:anywhere}
.card .d{font-size:.78rem;font-weight:400;color:var(--muted);line-height:1.4;display:block;margin-top:.2rem}
dl.terms{display:grid;grid-template-columns:minmax(8rem,13rem) minmax(0,1fr);gap:0;font-size:.9rem;margin:1rem 0;
 border-top:1px solid var(--line)}
dl.terms dt{font-weight:600;overflow-wrap:anywhere}
dl.terms dt,dl.terms dd{margin:0;padding:.4rem .8rem .4rem 0;border-bottom:1px solid var(--line)}
dl.terms dd{overflow-wrap:anywhere}
.fig svg{display:block;width:100%;max-width:47.5rem;height:auto;min-width:34rem}
@media (max-width:62rem){
 /* A shade at an edge says that more lies beyond it; the covers move with the content, the shades do not. */
 .scroll{background:linear-gradient(to right,var(--paper) 40%,transparent) left/2.2rem 100% no-repeat local,
  linear-gradient(to left,var(--paper) 40%,transparent) right/2.2rem 100% no-repeat local,
  linear-gradient(to right,var(--line),transparent) left/1rem 100% no-repeat scroll,
  linear-gradient(to left,var(--line),transparent) right/1rem 100% no-repeat scroll}
}
@media (max-width:40rem){
 main{padding:1.4rem 1rem 3rem}h1{font-size:1.45rem}h2{margin-top:2.2rem}
 dl.terms{grid-template-columns:minmax(0,1fr)}dl.terms dt{border-bottom:0;padding-bottom:0}
 dl.terms dd{padding-top:.1rem}
 .scroll td:first-child,.scroll th:first-child{position:sticky;left:0;background:var(--paper);max-width:8rem}
}
@page{size:A4;margin:16mm 14mm 18mm}
@media print{
 html{color-scheme:light}
 body{font-size:9.6pt;line-height:1.42;background:#fff}
 main{max-width:none;padding:0}
 nav{margin-bottom:.6rem}
 h2{break-after:avoid;margin-top:1.6rem}h3{break-after:avoid}
 p,li{orphans:3;widows:3}
 .scroll{overflow:visible;background:none}
 .cards{grid-template-columns:repeat(auto-fit,minmax(7.4rem,1fr));gap:.5rem}.card{padding:.4rem .55rem}.card dd{font-size:1.1rem}
 table{font-size:7.4pt}th,td{padding:.28rem .34rem}
 thead{display:table-header-group}tr,.call,.cards,.fig{break-inside:avoid}
 figure.table{break-inside:auto}figcaption{break-after:avoid}.notes{break-before:avoid}
 .fig svg{min-width:0;max-width:100%}
 .card{break-inside:avoid}
}
)css";

const char* tone_class(Tone tone) {
  switch (tone) {
    case Tone::kGood:
      return "good";
    case Tone::kWarn:
      return "warn";
    case Tone::kBad:
      return "bad";
    case Tone::kInfo:
      return "info";
    case Tone::kPlain:
      break;
  }
  return "";
}

std::string inline_html(const Text& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const Span& s = text[i];
    const std::string t = escape(s.text);
    // A mark never stands alone at the start of a line.
    const bool marked =
        i + 1 < text.size() && text[i + 1].kind == Span::Kind::kMark && s.kind == Span::Kind::kBadge;
    if (marked) out += "<span class=\"nw\">";
    switch (s.kind) {
      case Span::Kind::kText:
        out += t;
        break;
      case Span::Kind::kStrong:
        out += "<strong>" + t + "</strong>";
        break;
      case Span::Kind::kSub:
        out += "<span class=\"sub\">" + t + "</span>";
        break;
      case Span::Kind::kCode:
        out += "<code>" + t + "</code>";
        break;
      case Span::Kind::kBadge:
        out += std::string("<span class=\"badge ") + tone_class(s.tone) + "\">" + t + "</span>";
        break;
      case Span::Kind::kMark:
        out += "<sup>" + t + "</sup>";
        if (i > 0 && text[i - 1].kind == Span::Kind::kBadge) out += "</span>";
        break;
    }
  }
  return out;
}

class Writer {
 public:
  std::string run(const Document& d) {
    number(d);
    out_ =
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
        // The page needs nothing from anywhere; the policy makes the browser hold it to that.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
        "'unsafe-inline'\">\n"
        "<meta name=\"generator\" content=\"isoline report\">\n<title>" +
        escape(d.title) + "</title>\n<style>\n:root{" + chart_variables_light() +
        "}\n@media (prefers-color-scheme:dark){:root{" + chart_variables_dark() + "}}\n@media print{:root{" +
        chart_variables_light() + "}}\n" + kStyle + chart_classes() +
        "\n</style>\n</head>\n<body>\n<main>\n<header><h1>" + escape(d.title) + "</h1><p>" +
        escape(d.subtitle) + "</p></header>\n";
    if (!contents_.empty()) out_ += "<nav aria-label=\"Contents\">\n" + contents_ + "</nav>\n";
    section_ = part_ = 0;
    for (const Block& b : d.blocks) std::visit(*this, b);
    out_ += "</main>\n</body>\n</html>\n";
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
    const std::string tag = h.level <= 2 ? "h2" : "h3";
    out_ += "<" + tag + " id=\"s" + no + "\"><span class=\"no\">" + no + "</span>" + escape(h.text) + "</" +
            tag + ">\n";
  }
  void operator()(const Paragraph& p) { out_ += "<p>" + inline_html(p.text) + "</p>\n"; }
  void operator()(const Bullets& b) {
    out_ += "<ul>\n";
    for (const Text& t : b.items) out_ += "<li>" + inline_html(t) + "</li>\n";
    out_ += "</ul>\n";
  }
  void operator()(const Callout& c) {
    out_ += std::string("<div class=\"call ") + tone_class(c.tone) + "\"><p class=\"ti " +
            tone_class(c.tone) + "\">" + escape(c.title) + "</p>\n";
    for (const Text& t : c.lines) out_ += "<p>" + inline_html(t) + "</p>\n";
    out_ += "</div>\n";
  }
  void operator()(const Terms& t) {
    out_ += "<dl class=\"terms\">\n";
    for (const auto& [term, text] : t.entries)
      out_ += "<dt>" + escape(term) + "</dt><dd>" + inline_html(text) + "</dd>\n";
    out_ += "</dl>\n";
  }
  void operator()(const Cards& c) {
    out_ += "<div class=\"cards\">\n";
    for (const Cards::Card& card : c.cards)
      out_ += std::string("<dl class=\"card ") + tone_class(card.tone) + "\" style=\"margin:0\"><dt>" +
              escape(card.label) + "</dt><dd>" + escape(card.value) + "<span class=\"d\">" +
              escape(card.detail) + "</span></dd></dl>\n";
    out_ += "</div>\n";
  }
  void operator()(const Table& t) {
    const std::string no = std::to_string(++tables_);
    out_ += "<figure class=\"table\"><figcaption id=\"t" + no + "\"><b>Table " + no + ".</b> " +
            escape(t.caption) +
            "</figcaption>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-labelledby=\"t" + no +
            "\"><table>\n<thead>\n";
    const auto side = [&](size_t i) { return t.columns[i].align == Align::kLeft ? " class=\"l\"" : ""; };
    bool grouped = false;
    for (const Column& c : t.columns) grouped = grouped || !c.group.empty();
    if (grouped) {
      out_ += "<tr>";
      for (size_t i = 0; i < t.columns.size();) {
        size_t end = i + 1;
        while (end < t.columns.size() && !t.columns[i].group.empty() &&
               t.columns[end].group == t.columns[i].group)
          ++end;
        if (t.columns[i].group.empty())
          out_ += "<td></td>";
        else
          out_ += "<th class=\"g\" scope=\"colgroup\" colspan=\"" + std::to_string(end - i) + "\">" +
                  escape(t.columns[i].group) + "</th>";
        i = end;
      }
      out_ += "</tr>\n";
    }
    out_ += "<tr>";
    for (size_t i = 0; i < t.columns.size(); ++i)
      out_ += std::string("<th scope=\"col\"") + side(i) + ">" + escape(t.columns[i].header) + "</th>";
    out_ += "</tr>\n</thead>\n<tbody>\n";
    for (const Table::Row& r : t.rows) {
      out_ += r.strong ? "<tr class=\"s\">" : "<tr>";
      for (size_t i = 0; i < r.cells.size() && i < t.columns.size(); ++i)
        out_ += std::string("<td") + side(i) + ">" + inline_html(r.cells[i]) + "</td>";
      out_ += "</tr>\n";
    }
    out_ += "</tbody>\n</table></div>\n";
    if (!t.notes.empty()) {
      out_ += "<div class=\"notes\">";
      for (size_t i = 0; i < t.notes.size(); ++i)
        out_ += "<p><sup>" + note_letter(i) + "</sup> " + escape(t.notes[i]) + "</p>";
      out_ += "</div>\n";
    }
    out_ += "</figure>\n";
  }
  void operator()(const Figure& f) {
    const std::string no = std::to_string(++figures_);
    out_ += "<figure class=\"fig\"><figcaption id=\"f" + no + "\"><b>Figure " + no + ".</b> " +
            escape(f.caption) +
            "</figcaption>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-labelledby=\"f" + no +
            "\">\n" + svg_element(f.chart, "c" + no) + "</div></figure>\n";
  }

 private:
  void number(const Document& d) {
    int section = 0;
    for (const Block& b : d.blocks)
      if (const auto* h = std::get_if<Heading>(&b); h && h->level <= 2) {
        const std::string no = std::to_string(++section);
        contents_ +=
            "<a href=\"#s" + no + "\"><span class=\"no\">" + no + "</span>" + escape(h->text) + "</a>\n";
      }
  }

  std::string out_, contents_;
  int section_ = 0, part_ = 0, tables_ = 0, figures_ = 0;
};

}  // namespace

std::string render_html(const Document& document) {
  return Writer().run(document);
}

}  // namespace isoline::report
