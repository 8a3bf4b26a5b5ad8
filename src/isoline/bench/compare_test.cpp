#include "isoline/bench/compare.h"

#include <gtest/gtest.h>

#include "isoline/bench/page.h"
#include "isoline/report/html.h"

namespace isoline::bench {
namespace {

Point point(int64_t concurrency, double rate, double p99, std::optional<double> joules = {}) {
  Point p;
  p.concurrency = concurrency;
  p.stable = true;
  p.inferences_per_s = {rate, rate * .95, rate * 1.05};
  p.latency_ms.n = 1000;
  p.latency_ms.mean = {p99 / 2, {}, {}};
  p.latency_ms.quantiles = {{.5, {p99 / 2, {}, {}}}, {.99, {p99, p99 * .9, p99 * 1.1}}};
  if (joules) p.j_per_1000 = Reading::of(*joules);
  return p;
}

BenchResult result(const std::string& device, std::vector<Point> points, std::optional<double> price = {}) {
  BenchResult r;
  r.model = "m";
  r.device = device;
  r.boundary = "one request";
  r.inputs = {{"x", "FP32", {3, 224, 224}}};
  r.outputs = {{"y", "FP32", {512}}};
  r.price_per_hour = price;
  r.points = std::move(points);
  return r;
}

TEST(Compare, RatiosAtEqualLoadsAndTheCheapest) {
  const auto slow = result("a", {point(1, 100, 10, 50), point(4, 300, 20, 40)}, .9);
  const auto fast = result("b", {point(4, 600, 8, 10), point(8, 900, 30)}, 3.6);
  const auto c = compare({slow, fast}, {"a.json", "b.json"}, {});
  ASSERT_TRUE(c.ok());
  EXPECT_TRUE(c->differences.empty());
  ASSERT_EQ(c->rows.size(), 3u);
  EXPECT_EQ(c->rows[1].load, "batch 1, 4 at once");
  const Cell& cell = c->rows[1].cells[1];
  EXPECT_DOUBLE_EQ(*cell.throughput_ratio, 2);
  EXPECT_DOUBLE_EQ(*cell.throughput_x.low, 600 * .95 / (300 * 1.05));
  EXPECT_DOUBLE_EQ(*cell.p99_ratio, 2.5);
  EXPECT_DOUBLE_EQ(*cell.energy_ratio, 4);
  // .9 / 3600 / 300 * 1000 = 8.3e-4 is less than 3.6 / 3600 / 900 * 1000 = 1.1e-3.
  ASSERT_TRUE(c->recommendation.choice);
  EXPECT_EQ(c->recommendation.choice->result, 0u);
  EXPECT_NE(c->recommendation.why.find("batch 1, 4 at once"), std::string::npos);
  // Within 9 ms only the faster one is left, at 4.
  const auto limited = compare({slow, fast}, {"a.json", "b.json"}, {{}, 9.0});
  EXPECT_EQ(limited->recommendation.choice->result, 1u);
  EXPECT_EQ(limited->recommendation.passed_over.size(), 3u);
  const auto none = compare({slow, fast}, {"a.json", "b.json"}, {{}, 1.0});
  EXPECT_FALSE(none->recommendation.choice);
}

TEST(Compare, WithoutPricesTheFastestAndUnstableOnesNever) {
  auto r = result("a", {point(1, 100, 10), point(2, 500, 10)});
  EXPECT_EQ(compare({r}, {"a.json"}, {})->recommendation.choice->point, 1u);
  r.points[1].stable = false;
  EXPECT_EQ(compare({r}, {"a.json"}, {})->recommendation.choice->point, 0u);
  r.points[0].errors["HTTP 503"] = 1;
  EXPECT_FALSE(compare({r}, {"a.json"}, {})->recommendation.choice);
}

TEST(Compare, RefusesRatiosOfDifferentThings) {
  const auto a = result("a", {point(1, 100, 10)});
  for (int what = 0; what < 4; ++what) {
    auto b = a;
    if (what == 0) b.model = "other";
    if (what == 1) b.inputs[0].shape = {3, 288, 288};
    if (what == 2) b.boundary = "one batch";
    if (what == 3) b.request_bytes = 7;
    const auto c = compare({a, b}, {"a.json", "b.json"}, {});
    ASSERT_TRUE(c.ok());
    EXPECT_EQ(c->differences.size(), 1u) << what;
    EXPECT_FALSE(c->rows[0].cells[1].throughput_ratio.ok());
    EXPECT_FALSE(c->recommendation.choice);
  }
}

TEST(BenchResult, JsonAndBackAndAPage) {
  auto r = result("<b>a</b>", {point(1, 100, 10, 3)}, 2.5);
  r.points[0].errors["HTTP 503"] = 4;
  r.points[0].stable = false;
  r.points[0].why_unstable = "throughput moves";
  const std::string text = to_json_text(r);
  const auto back = parse_bench(text, "file");
  ASSERT_TRUE(back.ok()) << back.error().to_string();
  EXPECT_EQ(to_json_text(*back), text);
  EXPECT_FALSE(parse_bench("{\"format\": \"isoline-bench/1\", \"points\": 3}", "file").ok());
  EXPECT_FALSE(parse_bench("{}", "file").ok());
  const std::string html = report::render_html(make_page(r, ""));
  EXPECT_EQ(html.find("<b>a</b>"), std::string::npos);
  EXPECT_NE(html.find("throughput moves"), std::string::npos);
  EXPECT_NE(html.find("4 × HTTP 503"), std::string::npos);
}

}  // namespace
}  // namespace isoline::bench
