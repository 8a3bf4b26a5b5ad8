#include "isoline/report/chart.h"

#include <gtest/gtest.h>

#include <cmath>

#include "isoline/report/format.h"

namespace isoline::report {
namespace {

TEST(Ticks, AreRoundAndInside) {
  const Ticks t = nice_ticks(0, 48.2, 6);
  EXPECT_EQ(t.at, (std::vector<double>{0, 10, 20, 30, 40}));
  EXPECT_EQ(t.decimals, 0);
  const Ticks small = nice_ticks(-.0163, .0041, 5);
  EXPECT_EQ(small.decimals, 3);
  ASSERT_EQ(small.at.size(), 4u);  // 0.005 is outside
  EXPECT_NEAR(small.at.front(), -.015, 1e-12);
  EXPECT_NEAR(small.at[3], 0, 1e-12);
}

TEST(Ticks, NothingForRangesThatAreNone) {
  EXPECT_TRUE(nice_ticks(1, 1, 5).at.empty());
  EXPECT_TRUE(nice_ticks(0, INFINITY, 5).at.empty());
}

TEST(Charts, LabelsAreEscaped) {
  const std::string evil = "<script>alert(1)</script>\"&";
  const Chart bars = bar_chart(evil, evil, {{evil, 2.0, {}, {1, 3}, evil, false}});
  const Chart points = scatter_chart(evil, evil, evil, {{evil, 1, .5, true}});
  const Chart differences = difference_chart(evil, evil, .01, {{evil, {.001}, .001, {}, {}, evil, 1}});
  const Chart stacks = stacked_chart(evil, evil, {evil}, {{evil, {1}, evil}});
  for (const Chart& c : {bars, points, differences, stacks}) {
    ASSERT_FALSE(c.empty());
    for (const std::string& svg : {svg_element(c, evil), svg_file(c)}) {
      EXPECT_EQ(svg.find("<script"), std::string::npos);
      EXPECT_NE(svg.find("&lt;script&gt;"), std::string::npos);
      EXPECT_NE(svg.find("<title"), std::string::npos);
    }
  }
}

TEST(Charts, BarsGrowWithTheirValue) {
  const auto width_of_last_bar = [](double value) {
    const Chart c = bar_chart("t", "kJ", {{"a", 4.0, {}, {}, "", false}, {"b", value, {}, {}, "", false}});
    const size_t at = c.body.rfind("width=\"") + 7;
    return std::stod(c.body.substr(at));
  };
  EXPECT_NEAR(width_of_last_bar(2) * 2, width_of_last_bar(4), .02);
}

TEST(Charts, ARowWithoutAValueHasNoBar) {
  const Chart c = bar_chart("t", "kJ", {{"a", 4.0, {}, {}, "4", false}, {"b", {}, {}, {}, "n/a", false}});
  EXPECT_EQ(c.body.find("<rect"), c.body.rfind("<rect"));
  EXPECT_NE(c.body.find("n/a"), std::string::npos);
}

TEST(Charts, CasesBeyondTheAxisAreMarkedAndCounted) {
  const Chart c = difference_chart("t", "d", .01, {{"a", {.001, -.9}, -.002, -.008, .003, "preserved", 1}});
  EXPECT_NE(c.description.find("1 cases beyond"), std::string::npos);
  EXPECT_NE(c.body.find("−δ = −0.010"), std::string::npos);
}

TEST(Format, SignificantDigits) {
  EXPECT_EQ(significant(0), "0");
  EXPECT_EQ(significant(41.26), "41.3");
  EXPECT_EQ(significant(9.996), "10.0");
  EXPECT_EQ(significant(1234.5), "1234");
  EXPECT_EQ(significant(.012345), "0.0123");
  EXPECT_EQ(significant(-.5), "\u22120.500");
  EXPECT_EQ(significant(.0000123), "1.23×10⁻⁵");
  EXPECT_EQ(fixed(-.00001, 3, true), "0.000");
  EXPECT_EQ(fixed(.0123, 3, true), "+0.012");
  EXPECT_EQ(bytes(3.5 * (1 << 30)), "3.50 GiB");
}

TEST(Format, ForeignTextIsMadeSafe) {
  EXPECT_EQ(clean("a\nb\tc"), "a b c");
  EXPECT_EQ(clean("ü€😀"), "ü€😀");
  EXPECT_EQ(clean("\xff\xc0\x80x"), "\uFFFD\uFFFD\uFFFDx");
  EXPECT_EQ(clean("\xed\xa0\x80"), "\uFFFD\uFFFD\uFFFD");  // a surrogate
  EXPECT_EQ(clean("a\u202Eb"), "a\uFFFDb");                // would show "b" before "a"
  EXPECT_EQ(clean("abcdef", 3), "abc…");
  EXPECT_EQ(clean("\xe2\x82"), "\uFFFD\uFFFD");  // cut in the middle
}

}  // namespace
}  // namespace isoline::report
