#include "isoline/report/chart.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "isoline/report/escape.h"
#include "isoline/report/format.h"

namespace isoline::report {
namespace {

constexpr double kWidth = 760, kFont = 12, kSmall = 11;

std::string num(double v) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.2f", v);
  std::string s = buffer;
  while (s.back() == '0') s.pop_back();
  if (s.back() == '.') s.pop_back();
  return s == "-0" ? "0" : s;
}

// Wide enough for the fonts a page may fall back to.
double text_width(const std::string& text, double font = kFont) {
  return 0.62 * font * double(characters(text));
}

std::string text(double x, double y, const std::string& s, const std::string& anchor = "start",
                 const std::string& cls = "ct") {
  return "<text class=\"" + cls + "\" x=\"" + num(x) + "\" y=\"" + num(y) + "\"" +
         (anchor == "start" ? "" : " text-anchor=\"" + anchor + "\"") + ">" + escape(s) + "</text>\n";
}
std::string line(double x1, double y1, double x2, double y2, const std::string& cls) {
  return "<line class=\"" + cls + "\" x1=\"" + num(x1) + "\" y1=\"" + num(y1) + "\" x2=\"" + num(x2) +
         "\" y2=\"" + num(y2) + "\"/>\n";
}
std::string circle(double x, double y, double r, const std::string& cls) {
  return "<circle class=\"" + cls + "\" cx=\"" + num(x) + "\" cy=\"" + num(y) + "\" r=\"" + num(r) + "\"/>\n";
}
std::string rect(double x, double y, double w, double h, const std::string& cls,
                 const std::string& tip = "") {
  return "<rect class=\"" + cls + "\" x=\"" + num(x) + "\" y=\"" + num(y) + "\" width=\"" +
         num(std::max(0.0, w)) + "\" height=\"" + num(h) + "\"" +
         (tip.empty() ? "/>\n" : "><title>" + escape(tip) + "</title></rect>\n");
}

struct Scale {
  double low, high, from, to;
  double operator()(double v) const { return from + (v - low) / (high - low) * (to - from); }
};

// A row's name, cut to what its column holds; the whole name is the tooltip.
std::string row_label(double right, double y, const std::string& label, double width, bool muted = false) {
  const size_t fits = size_t(std::max(4.0, width / (0.62 * kFont)));
  const std::string shown = characters(label) > fits ? clean(label, fits - 1) : label;
  return "<text class=\"ct" + std::string(muted ? " cm" : "") + "\" x=\"" + num(right) + "\" y=\"" + num(y) +
         "\" text-anchor=\"end\">" + escape(shown) +
         (shown == label ? "" : "<title>" + escape(label) + "</title>") + "</text>\n";
}

double label_column(const std::vector<std::string>& labels) {
  double width = 40;
  for (const std::string& l : labels) width = std::max(width, text_width(l));
  return std::min(width + 4, 210.0);
}

std::string x_axis(const Scale& x, double top, double bottom, const std::string& name, int target = 6) {
  const Ticks ticks = nice_ticks(x.low, x.high, target);
  std::string out;
  for (double t : ticks.at) {
    out += line(x(t), top, x(t), bottom, "cg");
    out += text(x(t), bottom + 15, fixed(t, ticks.decimals), "middle", "cs");
  }
  return out + text((x.from + x.to) / 2, bottom + 33, name, "middle", "cs");
}

}  // namespace

Ticks nice_ticks(double low, double high, int target) {
  Ticks ticks;
  if (!(std::isfinite(low) && std::isfinite(high) && low < high) || target < 1) return ticks;
  const double raw = (high - low) / target, power = std::pow(10, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (double m : {1.0, 2.0, 5.0})
    if (m * power >= raw * (1 - 1e-9)) {
      step = m * power;
      break;
    }
  ticks.decimals = std::max(0, int(-std::floor(std::log10(step) + 1e-9)));
  const double slack = 1e-6 * step;
  for (int64_t i = int64_t(std::ceil((low - slack) / step)); double(i) * step <= high + slack; ++i)
    ticks.at.push_back(double(i) * step);
  return ticks;
}

const char* chart_variables_light() {
  return "--ink:#1c2430;--muted:#5b6674;--line:#d9dee5;--axis:#8a94a3;--paper:#ffffff;"
         "--s1:#2f67b1;--s2:#1a8577;--s3:#b9761a;--s4:#b0446e;--s5:#7557ad;--s6:#6b7684;"
         "--good:#1c7c46;--warn:#9a6400;--bad:#b3332d;";
}
const char* chart_variables_dark() {
  return "--ink:#e4e8ee;--muted:#9ba6b5;--line:#323b48;--axis:#6d7888;--paper:#14181e;"
         "--s1:#74a7e8;--s2:#56c2b1;--s3:#e3ac58;--s4:#e58bb0;--s5:#b39be6;--s6:#98a3b2;"
         "--good:#6cc795;--warn:#e0b155;--bad:#f08a80;";
}
const char* chart_classes() {
  return ".chart text{font-family:inherit;fill:var(--ink)}.chart .ct{font-size:12px}"
         ".chart .cs{font-size:11px;fill:var(--muted)}.chart .cm{fill:var(--muted)}"
         ".chart .cv{font-size:11px;fill:var(--paper)}.chart .cb{font-size:12px;font-weight:600}"
         ".chart .cg{stroke:var(--line);stroke-width:1}.chart .ca{stroke:var(--axis);stroke-width:1}"
         ".chart .cd{stroke:var(--bad);stroke-width:1.5;stroke-dasharray:5 3}.chart "
         ".cdt{font-size:11px;fill:var(--bad)}"
         ".chart .ci{stroke:var(--ink);stroke-width:2}.chart .cp{fill:var(--s1);opacity:.5}"
         ".chart .cpp{fill:var(--paper);stroke:var(--s1);stroke-width:1.3;opacity:.9}"
         ".chart .cn{stroke:var(--ink);stroke-width:2}"
         ".chart .cf{fill:none;stroke:var(--s1);stroke-width:1.5;stroke-dasharray:2 3}"
         ".chart .cx{fill:var(--s1)}.chart .co{fill:var(--paper);stroke:var(--s6);stroke-width:1.6}"
         ".chart .ck{fill:var(--ink)}"
         ".chart .f1{fill:var(--s1)}.chart .f2{fill:var(--s2)}.chart .f3{fill:var(--s3)}.chart "
         ".f4{fill:var(--s4)}"
         ".chart .f5{fill:var(--s5)}.chart .f6{fill:var(--s6)}"
         ".chart .t1{fill:var(--good)}.chart .t2{fill:var(--warn)}.chart .t3{fill:var(--bad)}";
}

std::string svg_element(const Chart& chart, const std::string& id) {
  const std::string name = escape(id);
  return "<svg class=\"chart\" role=\"img\" aria-labelledby=\"" + name + "-t " + name +
         "-d\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + num(chart.width) + " " +
         num(chart.height) + "\" width=\"" + num(chart.width) + "\" height=\"" + num(chart.height) +
         "\">\n<title id=\"" + name + "-t\">" + escape(chart.title) + "</title><desc id=\"" + name + "-d\">" +
         escape(chart.description) + "</desc>\n" + chart.body + "</svg>\n";
}

std::string svg_file(const Chart& chart) {
  std::string svg = svg_element(chart, "chart");
  const std::string style =
      std::string("<style>.chart{") + chart_variables_light() +
      "font-family:system-ui,'Segoe UI','DejaVu Sans',sans-serif;background:var(--paper)}"
      "@media (prefers-color-scheme:dark){.chart{" +
      chart_variables_dark() + "}}" + chart_classes() + "</style>\n";
  svg.insert(svg.find("<title"), style);
  return "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n" + svg;
}

Chart bar_chart(const std::string& title, const std::string& axis, const std::vector<BarRow>& rows) {
  Chart c;
  c.title = title;
  double most = 0, label_right = 0;
  std::vector<std::string> labels;
  for (const BarRow& r : rows) {
    labels.push_back(r.label);
    most = std::max({most, r.value.value_or(0), r.second.value_or(0)});
    for (double p : r.points) most = std::max(most, p);
    label_right = std::max(label_right, text_width(r.text));
    c.description += r.label + ": " + r.text + ". ";
  }
  if (rows.empty() || !(most > 0) || !std::isfinite(most)) return c;
  const double left = label_column(labels) + 12, step = 36, top = 8;
  const double bottom = top + step * double(rows.size());
  const Scale x{0, most, left, kWidth - std::min(label_right + 16, 260.0)};
  std::string body = x_axis(x, top, bottom, axis) + line(left, top, left, bottom, "ca");
  for (size_t i = 0; i < rows.size(); ++i) {
    const BarRow& r = rows[i];
    const double y = top + step * (double(i) + .5);
    body += row_label(left - 10, y + 4, r.label, left - 14, r.muted);
    double end = left;
    if (r.value) {
      body += rect(left, y - 10, x(*r.value) - left, 20, r.muted ? "f6" : "f1", r.label + ": " + r.text);
      end = std::max(end, x(*r.value));
    }
    if (r.second) body += line(x(*r.second), y - 13, x(*r.second), y + 13, "cn");
    for (size_t k = 0; k < r.points.size(); ++k) {
      // A fixed jitter, so that equal cases stay visible and the drawing is the same every time.
      const double jitter = double((k * 5) % 9) - 4;
      body += circle(x(r.points[k]), y + jitter, 2.4, "cpp");
      end = std::max(end, x(r.points[k]) + 3);
    }
    body += text(end + 8, y + 4, r.text, "start", r.value ? "ct" : "ct cm");
  }
  c.width = kWidth;
  c.height = bottom + 42;
  c.body = std::move(body);
  return c;
}

Chart scatter_chart(const std::string& title, const std::string& x_name, const std::string& y_name,
                    const std::vector<ScatterPoint>& points) {
  Chart c;
  c.title = title;
  if (points.empty()) return c;
  double x_most = 0, y_low = points[0].y, y_high = points[0].y;
  for (const ScatterPoint& p : points) {
    x_most = std::max(x_most, p.x);
    y_low = std::min(y_low, p.y);
    y_high = std::max(y_high, p.y);
    c.description +=
        p.label + ": " + significant(p.x) + ", " + significant(p.y, 4) + (p.front ? " (front)" : "") + ". ";
  }
  const double pad = std::max({(y_high - y_low) * .18, std::abs(y_high) * 2e-3, 1e-6});
  const double left = 74, right = kWidth - 20, top = 26, bottom = 300;
  const Scale x{0, (x_most > 0 ? x_most : 1) * 1.12, left, right}, y{y_low - pad, y_high + pad, bottom, top};
  std::string body = x_axis(x, top, bottom, x_name);
  const Ticks ticks = nice_ticks(y.low, y.high, 5);
  for (double t : ticks.at) {
    body += line(left, y(t), right, y(t), "cg");
    body += text(left - 8, y(t) + 4, fixed(t, ticks.decimals), "end", "cs");
  }
  body += text(8, 14, y_name, "start", "cs");
  body += line(left, top, left, bottom, "ca") + line(left, bottom, right, bottom, "ca");

  // The front in these two dimensions: from left to right, every point higher than all before it.
  std::vector<ScatterPoint> sorted = points;
  std::stable_sort(sorted.begin(), sorted.end(), [](const ScatterPoint& a, const ScatterPoint& b) {
    return a.x != b.x ? a.x < b.x : a.y > b.y;
  });
  std::string path;
  std::vector<std::pair<double, double>> corners;
  double best = -INFINITY;
  for (const ScatterPoint& p : sorted)
    if (p.y > best) {
      best = p.y;
      corners.emplace_back(x(p.x), y(p.y));
      path += (path.empty() ? "" : " ") + num(x(p.x)) + "," + num(y(p.y));
    }
  body += "<polyline class=\"cf\" points=\"" + path + "\"/>\n";

  // Labels keep off points, off the front's line and off each other where they can.
  struct Box {
    double x0, y0, x1, y1;
    bool meets(const Box& o) const { return x0 < o.x1 && o.x0 < x1 && y0 < o.y1 && o.y0 < y1; }
  };
  std::vector<Box> taken;
  for (const ScatterPoint& p : points) taken.push_back({x(p.x) - 6, y(p.y) - 6, x(p.x) + 6, y(p.y) + 6});
  for (size_t i = 1; i < corners.size(); ++i)
    for (int k = 0; k <= 64; ++k) {
      const double f = k / 64.0, px = corners[i - 1].first + f * (corners[i].first - corners[i - 1].first),
                   py = corners[i - 1].second + f * (corners[i].second - corners[i - 1].second);
      taken.push_back({px - 2, py - 2, px + 2, py + 2});
    }
  for (const ScatterPoint& p : points) body += circle(x(p.x), y(p.y), 5.5, p.front ? "cx" : "co");
  for (const ScatterPoint& p : points) {
    const std::string label = clean(p.label, 28);
    const double w = text_width(label), px = x(p.x), py = y(p.y);
    // Right, left, above, below, then further away; if all collide, the place that meets least.
    Box chosen{};
    int fewest = -1;
    for (double dy : {0.0, -15.0, 15.0, -30.0, 30.0})
      for (double x0 : {px + 9, px - 9 - w, px - w / 2}) {
        if (dy == 0 && x0 == px - w / 2) continue;
        const Box b{x0, py - 7 + dy, x0 + w, py + 7 + dy};
        if (b.x0 < left + 2 || b.x1 > kWidth || b.y0 < top - 8 || b.y1 > bottom - 2) continue;
        const int meets =
            int(std::count_if(taken.begin(), taken.end(), [&](const Box& t) { return t.meets(b); }));
        if (fewest < 0 || meets < fewest) {
          fewest = meets;
          chosen = b;
        }
      }
    if (fewest < 0) chosen = {px + 9, py - 7, px + 9 + w, py + 7};
    taken.push_back(chosen);
    body += text(chosen.x0, (chosen.y0 + chosen.y1) / 2 + 4.5, label, "start", p.front ? "cb" : "ct cm");
  }
  c.width = kWidth;
  c.height = bottom + 42;
  c.body = std::move(body);
  return c;
}

Chart difference_chart(const std::string& title, const std::string& axis, double delta,
                       const std::vector<DifferenceRow>& rows) {
  Chart c;
  c.title = title;
  if (rows.empty() || !(delta > 0)) return c;
  double low = -1.6 * delta, high = .8 * delta, most = high, least = low, verdict_width = 0;
  std::vector<std::string> labels;
  for (const DifferenceRow& r : rows) {
    labels.push_back(r.label);
    verdict_width = std::max(verdict_width, text_width(r.verdict));
    for (const auto& v : {r.mean, r.low, r.high})
      if (v && std::isfinite(*v)) {
        low = std::min(low, *v);
        high = std::max(high, *v);
      }
    for (double d : r.differences) {
      least = std::min(least, d);
      most = std::max(most, d);
    }
  }
  const double core = high - low;
  low = std::max(std::min(low, least), low - core) - .03 * core;
  high = std::min(std::max(high, most), high + core) + .03 * core;
  const double left = label_column(labels) + 12, right = kWidth - verdict_width - 16, step = 34, top = 26;
  const double bottom = top + step * double(rows.size());
  const Scale x{low, high, left, right};
  std::string body = x_axis(x, top, bottom, axis, 5);
  body += line(x(0), top, x(0), bottom, "ca") + line(x(-delta), top - 4, x(-delta), bottom, "cd");
  body += text(x(-delta), top - 9, "−δ = " + fixed(-delta, delta < .01 ? 4 : 3), "middle", "cdt");
  int beyond = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const DifferenceRow& r = rows[i];
    const double y = top + step * (double(i) + .5);
    body += row_label(left - 10, y + 4, r.label, left - 14);
    for (size_t k = 0; k < r.differences.size(); ++k) {
      const double d = r.differences[k], jitter = double((k * 5) % 9) * 1.6 - 6.4;
      if (d >= low && d <= high) {
        body += circle(x(d), y + jitter, 3, "cp");
        continue;
      }
      ++beyond;
      const double tip = d < low ? left + 1 : right - 1, base = d < low ? left + 9 : right - 9;
      body += "<path class=\"cp\" d=\"M" + num(tip) + " " + num(y + jitter) + "L" + num(base) + " " +
              num(y + jitter - 4) + "L" + num(base) + " " + num(y + jitter + 4) + "Z\"/>\n";
    }
    if (r.low && r.high) {
      body += line(x(*r.low), y, x(*r.high), y, "ci");
      body +=
          line(x(*r.low), y - 5, x(*r.low), y + 5, "ci") + line(x(*r.high), y - 5, x(*r.high), y + 5, "ci");
    }
    if (r.mean) {
      const double m = x(*r.mean);
      body += "<path class=\"ck\" d=\"M" + num(m - 5.5) + " " + num(y) + "L" + num(m) + " " + num(y - 5.5) +
              "L" + num(m + 5.5) + " " + num(y) + "L" + num(m) + " " + num(y + 5.5) + "Z\"/>\n";
    }
    body += text(right + 12, y + 4, r.verdict, "start", r.tone ? "cb t" + std::to_string(r.tone) : "cb");
    c.description +=
        r.label + ": " + (r.mean ? "mean " + fixed(*r.mean, 4, true) : std::string("no mean")) +
        (r.low && r.high ? ", bounds " + fixed(*r.low, 4, true) + " to " + fixed(*r.high, 4, true) : "") +
        ", " + r.verdict + ". ";
  }
  if (beyond)
    c.description += std::to_string(beyond) + " cases beyond the axis stand as triangles at its edge.";
  c.width = kWidth;
  c.height = bottom + 42;
  c.body = std::move(body);
  return c;
}

Chart stacked_chart(const std::string& title, const std::string& axis, const std::vector<std::string>& names,
                    const std::vector<StackRow>& rows) {
  Chart c;
  c.title = title;
  double most = 0, end_width = 0;
  std::vector<std::string> labels;
  for (const StackRow& r : rows) {
    double sum = 0;
    for (double p : r.parts) sum += p;
    most = std::max(most, sum);
    labels.push_back(r.label);
    end_width = std::max(end_width, text_width(r.text));
  }
  if (!(most > 0) || !std::isfinite(most)) return c;
  const double left = label_column(labels) + 12;
  std::string body;
  double lx = left, ly = 10;
  for (size_t k = 0; k < names.size(); ++k) {
    const double w = text_width(names[k], kSmall) + 28;
    if (lx + w > kWidth && lx > left) {
      lx = left;
      ly += 18;
    }
    body += rect(lx, ly - 8, 10, 10, "f" + std::to_string(k % 6 + 1)) +
            text(lx + 15, ly + 1, names[k], "start", "cs");
    lx += w;
  }
  const double top = ly + 12, step = 34, bottom = top + step * double(rows.size());
  const Scale x{0, most, left, kWidth - end_width - 16};
  body += x_axis(x, top, bottom, axis) + line(left, top, left, bottom, "ca");
  for (size_t i = 0; i < rows.size(); ++i) {
    const StackRow& r = rows[i];
    const double y = top + step * (double(i) + .5);
    body += row_label(left - 10, y + 4, r.label, left - 14);
    c.description += r.label + ": ";
    double at = 0;
    for (size_t k = 0; k < r.parts.size() && k < names.size(); ++k) {
      const double from = x(at), to = x(at + r.parts[k]);
      const std::string value = significant(r.parts[k]);
      body += rect(from, y - 11, to - from, 22, "f" + std::to_string(k % 6 + 1), names[k] + ": " + value);
      if (to - from > text_width(value, kSmall) + 6)
        body += text((from + to) / 2, y + 4, value, "middle", "cv");
      at += r.parts[k];
      c.description += names[k] + " " + value + ", ";
    }
    body += text(x(at) + 8, y + 4, r.text);
    c.description += "in all " + r.text + ". ";
  }
  c.width = kWidth;
  c.height = bottom + 42;
  c.body = std::move(body);
  return c;
}

}  // namespace isoline::report
