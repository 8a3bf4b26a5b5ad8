#include "isoline/lab/compare.h"

#include <gtest/gtest.h>

#include <cmath>

namespace isoline::lab {
namespace {

SettingSummary setting(const std::string& name, std::vector<double> wall_s, std::vector<double> dice) {
  SettingSummary s;
  s.name = name;
  double wall = 0, quality = 0;
  for (size_t i = 0; i < wall_s.size(); ++i) {
    CaseRecord c;
    c.case_id = "case_" + std::to_string(i);
    c.wall_s = wall_s[i];
    c.dice["kidney"] = dice[i];
    c.energy_gross_j = Reading::of(100 * wall_s[i]);
    wall += wall_s[i];
    quality += dice[i];
    s.per_case.push_back(c);
  }
  const int n = int(wall_s.size());
  s.cases = n;
  s.s_per_case = {wall / n, {}, {}, n};
  s.energy_gross_j = Reading::of(100 * wall / n);
  s.quality.push_back({"kidney", {quality / n, {}, {}, n}, {}, {}, {}, {}, 0});
  return s;
}

RunSummary run(const std::string& id, double slowness) {
  RunSummary r;
  r.id = id;
  r.device_kind = "gpu";
  r.device_name = "card " + id;
  r.boundary = "file to file";
  r.baseline = "B0";
  r.provenance.model_sha256 = "aaaa";
  r.provenance.cases_sha256 = "bbbb";
  r.settings.push_back(setting("B0", {10 * slowness, 40 * slowness}, {.9, .8}));
  r.settings.push_back(setting("01", {5 * slowness, 10 * slowness}, {.89, .80}));
  return r;
}

RunSummary table() {
  RunSummary r = run("t", 1000);
  r.kind = "published";
  r.source = "Step 6A";
  r.boundary = "one request";
  r.provenance = {};
  for (SettingSummary& s : r.settings) s.per_case.clear();
  return r;
}

TEST(Compare, PairsCasesAndTakesTheGeometricMean) {
  const auto c = compare({run("a", 1)}, {"a/"}, {});
  ASSERT_TRUE(c.ok()) << c.error().to_string();
  EXPECT_EQ(c->baseline, "a:B0");
  const ComparedSetting& s = c->settings[1];
  EXPECT_NEAR(*s.speed_x.value, std::sqrt(2.0 * 4.0), 1e-12);  // the ratio of means would be 3.33
  EXPECT_EQ(s.speed_x.n, 2);
  EXPECT_NEAR(*s.quality.at(0).delta.value, -.005, 1e-12);
  EXPECT_TRUE(c->settings[0].is_baseline);
}

TEST(Compare, OtherDeviceAgainstTheChosenBaselineAndSettingForSetting) {
  const auto c = compare({run("a", 1), run("b", 2)}, {"a", "b"}, {"b:01", {}});
  ASSERT_TRUE(c.ok()) << c.error().to_string();
  EXPECT_EQ(c->baseline, "b:01");
  EXPECT_NEAR(*c->settings[1].speed_x.value, 2, 1e-12);  // a:01 against b:01
  ASSERT_EQ(c->matches.size(), 2u);
  EXPECT_EQ(c->matches[0].entries[0].run, 1u);  // the baseline's run comes first
  EXPECT_NEAR(*c->matches[0].entries[1].speed_x.value, 2, 1e-12);
  EXPECT_NEAR(*c->matches[0].entries[1].energy_x.value, 2, 1e-12);
}

TEST(Compare, RefusesAnotherModelOrOtherCasesAndNamesBoth) {
  RunSummary other = run("b", 1);
  other.provenance.model_sha256 = "cccc";
  auto c = compare({run("a", 1), other}, {"runs/a", "runs/b"}, {});
  ASSERT_FALSE(c.ok());
  EXPECT_EQ(c.error().code, ErrorCode::kInvalidArgument);
  for (const char* part : {"runs/a", "aaaa", "runs/b", "cccc", "model"})
    EXPECT_NE(c.error().to_string().find(part), std::string::npos) << part;
  other = run("b", 1);
  other.provenance.cases_sha256 = "dddd";
  c = compare({run("a", 1), other}, {"runs/a", "runs/b"}, {});
  ASSERT_FALSE(c.ok());
  EXPECT_NE(c.error().to_string().find("cases"), std::string::npos);
  other.provenance.cases_sha256 = "";  // a run that does not say what it ran on proves nothing
  EXPECT_FALSE(compare({run("a", 1), other}, {"a", "b"}, {}).ok());
}

TEST(Compare, PublishedTablesStandAgainstTheirOwnBaseline) {
  const auto c = compare({run("a", 1), table()}, {"a", "t.json"}, {});
  ASSERT_TRUE(c.ok()) << c.error().to_string();
  EXPECT_NEAR(*c->settings[3].speed_x.value, 25.0 / 7.5, 1e-12);
  EXPECT_EQ(c->settings[3].speed_x.how, "ratio of means");
  EXPECT_NE(c->notes.at(0).find(kPublishedNote), std::string::npos);
  EXPECT_TRUE(c->matches.empty());
  const auto refused = compare({run("a", 1), table()}, {"a", "t.json"}, {"t.json", {}});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().context, "--baseline");
  EXPECT_TRUE(compare({table()}, {"t.json"}, {}).ok());
}

TEST(Compare, ClocksWithOtherBoundariesHaveNoRatio) {
  RunSummary other = run("b", 2);
  other.boundary = "one forward";
  const auto c = compare({run("a", 1), other}, {"a", "b"}, {});
  ASSERT_TRUE(c.ok());
  EXPECT_FALSE(c->settings[2].speed_x.value.ok());
  EXPECT_NE(c->settings[2].speed_x.value.reason.find("one forward"), std::string::npos);
  EXPECT_FALSE(c->notes.empty());
}

TEST(Compare, AcceleratorAndPackageJoulesAreNotCompared) {
  RunSummary cpu = run("b", 2);
  cpu.device_kind = "cpu";
  for (SettingSummary& s : cpu.settings) {
    s.energy_gross_j = Reading::unavailable("no accelerator");
    s.cpu_energy_j = Reading::of(5);
  }
  const auto c = compare({run("a", 1), cpu}, {"a", "b"}, {});
  ASSERT_TRUE(c.ok());
  EXPECT_FALSE(c->settings[3].energy_x.value.ok());
  EXPECT_NE(c->settings[3].energy_x.value.reason.find("CPU packages"), std::string::npos);
}

TEST(Compare, UnknownBaselinesAreNamed) {
  const auto no_run = compare({run("a", 1)}, {"a"}, {"zz:B0", {}});
  ASSERT_FALSE(no_run.ok());
  const auto no_setting = compare({run("a", 1)}, {"a"}, {"a:zz", {}});
  ASSERT_FALSE(no_setting.ok());
  EXPECT_NE(no_setting.error().to_string().find("B0, 01"), std::string::npos);
}

TEST(Compare, LabelsAreUnique) {
  const RunSummary same = run("a", 1);
  RunSummary elsewhere = run("a", 1);
  elsewhere.device_name = "other card";
  EXPECT_EQ(run_labels({same, elsewhere, same}, {"x", "y", "z"}),
            (std::vector<std::string>{"a, card a #1", "a, other card", "a, card a #3"}));
}

TEST(Cost, Arithmetic) {
  RunSummary r = run("a", 1);
  SettingSummary& s = r.settings[0];
  s.s_per_case = {36, {}, {}, 10};
  s.energy_gross_j = Reading::of(7200);
  Prices p;
  p.per_hour = 2.0;
  p.per_kwh = 0.5;
  p.co2_g_per_kwh = 400;
  const Cost c = cost_per_case(r, s, p);
  EXPECT_NEAR(*c.machine, .02, 1e-15);
  EXPECT_NEAR(*c.electricity, .001, 1e-15);
  EXPECT_NEAR(*c.total, .021, 1e-15);
  EXPECT_NEAR(*c.co2_g, .8, 1e-12);
}

TEST(Cost, WhatIsMissingIsNamedAndNeverZero) {
  RunSummary r = run("a", 1);
  SettingSummary& s = r.settings[0];
  s.energy_gross_j = Reading::unavailable("counter vanished");
  Prices p;
  p.per_hour = 2.0;
  p.per_kwh = 0.5;
  const Cost c = cost_per_case(r, s, p);
  EXPECT_TRUE(c.machine.ok());
  EXPECT_EQ(c.electricity.reason, "counter vanished");
  EXPECT_EQ(c.total.reason, "counter vanished");  // half a price is no price
  EXPECT_EQ(c.co2_g.reason, "no --co2-g-per-kwh was given");
  EXPECT_FALSE(cost_per_case(r, s, {}).total.ok());
  p.per_hour = -1;
  EXPECT_FALSE(validate(p).ok());
}

}  // namespace
}  // namespace isoline::lab
