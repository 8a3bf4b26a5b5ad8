// Small charts as SVG. Data in, drawing out; no state, no fonts of their own. Colours are the page's CSS
// variables (chart_css), so that a drawing follows light and dark; text is the page's text colour.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace isoline::report {

struct Chart {
  double width = 0, height = 0;    // user units, 1 unit = 1 CSS px at full size
  std::string title, description;  // read out by screen readers; the description carries the figures' gist
  std::string body;                // SVG elements, already escaped
  bool empty() const { return body.empty(); }
};

// An <svg> element for a page that has chart_css().
std::string svg_element(const Chart& chart, const std::string& id);
// A complete .svg file with its own style (light and dark).
std::string svg_file(const Chart& chart);
// Custom properties and classes used by charts. `light`: the values; `dark`: the values under a dark scheme.
const char* chart_variables_light();
const char* chart_variables_dark();
const char* chart_classes();

// Round tick positions (1, 2 or 5 times a power of ten) that cover [low, high] inside, about `target` of
// them. low < high, both finite.
struct Ticks {
  std::vector<double> at;
  int decimals = 0;  // that labels need
};
Ticks nice_ticks(double low, double high, int target);

// Horizontal bars from 0, one row a setting: the mean, the cases as dots, a label with the figures.
struct BarRow {
  std::string label;
  std::optional<double> value;   // unset: `text` says why
  std::optional<double> second;  // marked on the bar (net energy)
  std::vector<double> points;    // cases
  std::string text;              // beside the bar
  bool muted = false;
};
Chart bar_chart(const std::string& title, const std::string& axis, const std::vector<BarRow>& rows);

// Points with labels; those on the front are filled and joined by a line in the order given by x.
struct ScatterPoint {
  std::string label;
  double x = 0, y = 0;
  bool front = false;
};
// Smaller x and larger y are better. The line joins the front in these two dimensions, which the chart finds
// itself; `front` (over all dimensions) decides the filling.
Chart scatter_chart(const std::string& title, const std::string& x_axis, const std::string& y_axis,
                    const std::vector<ScatterPoint>& points);

// Paired differences: a row a setting; dots are cases, the diamond their mean, the line from lower to upper
// bound.
struct DifferenceRow {
  std::string label;
  std::vector<double> differences;
  std::optional<double> mean, low, high;
  std::string verdict;
  int tone = 0;  // 0 plain, 1 good, 2 warn, 3 bad
};
// The axis covers means, bounds and -delta; cases beyond it stand as triangles at the edge, counted in the
// description.
Chart difference_chart(const std::string& title, const std::string& axis, double delta,
                       const std::vector<DifferenceRow>& rows);

// Stacked horizontal bars with a legend; parts in the same order in every row.
struct StackRow {
  std::string label;
  std::vector<double> parts;  // as many as names
  std::string text;           // at the end
};
Chart stacked_chart(const std::string& title, const std::string& axis, const std::vector<std::string>& names,
                    const std::vector<StackRow>& rows);

}  // namespace isoline::report
