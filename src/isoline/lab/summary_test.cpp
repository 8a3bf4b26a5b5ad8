#include "isoline/lab/summary.h"

#include <gtest/gtest.h>

namespace isoline::lab {
namespace {

RunSummary example() {
  RunSummary s;
  s.id = "EXP-1";
  s.device_name = "a <card> & \"quotes\"";
  s.registration = {"changed", "ab", "2026-01-01T00:00:00Z", "e.json", {"delta 0.01 -> 0.02"}};
  s.regions = {{"kidney", "1,2,3"}};
  s.idle_power_w["cold"] = Reading::unavailable("no GPU");
  s.seed = UINT64_MAX;
  SettingSummary b;
  b.name = "B0";
  b.values["precision"] = "fp32";
  b.energy_gross_j = Reading::of(12.5);
  b.energy_net_j = Reading::unavailable("idle was not measured");
  b.speedup = Estimate{2, 1.9, 2.1, 6};
  b.verdict = Verdict::kNotPreserved;
  EndpointResult e;
  e.metric = "dice";
  e.lower_bound = -0.02;
  e.verdict = Verdict::kPreserved;
  e.n_needed_80 = 7;
  b.endpoints.push_back(e);
  CaseRecord c;
  c.case_id = "case_1";
  c.wall_s_all = {1, 2};
  c.dice["kidney"] = 0.5;
  b.per_case.push_back(c);
  s.settings.push_back(b);
  return s;
}

TEST(Summary, WhatIsWrittenIsRead) {
  const std::string text = to_json_text(example());
  auto back = parse_summary(text, "x");
  ASSERT_TRUE(back.ok()) << back.error().to_string();
  EXPECT_EQ(to_json_text(*back), text);
  EXPECT_EQ(back->seed, UINT64_MAX);
  EXPECT_EQ(back->settings[0].energy_net_j.reason, "idle was not measured");
  EXPECT_EQ(*back->settings[0].energy_gross_j, 12.5);
  EXPECT_FALSE(back->settings[0].endpoints[0].upper_bound.has_value());
}

TEST(Summary, ErrorsNameTheField) {
  std::string text = to_json_text(example());
  const size_t at = text.find("\"delta\": 0.0");
  ASSERT_NE(at, std::string::npos);
  text.replace(at, 12, "\"delta\": \"x\"");
  auto bad = parse_summary(text, "run/summary.json");
  ASSERT_FALSE(bad.ok());
  EXPECT_EQ(bad.error().code, ErrorCode::kCorrupt);
  EXPECT_NE(bad.error().to_string().find("settings[0].endpoints[0].delta"), std::string::npos);
  EXPECT_NE(bad.error().to_string().find("run/summary.json"), std::string::npos);
}

TEST(Summary, OtherJsonAndGarbageAreRefused) {
  EXPECT_FALSE(parse_summary("{}", "f").ok());
  EXPECT_FALSE(parse_summary("not json", "f").ok());
  const std::string deep(1'000'000, '[');
  EXPECT_FALSE(
      parse_summary(R"({"format":"isoline-run-summary/1","idle_power_w":{"x":{"value":)" + deep, "f").ok());
  EXPECT_FALSE(parse_summary(R"({"format":"isoline-run-summary/1","settings":{}})", "f").ok());
  EXPECT_FALSE(
      parse_summary(R"({"format":"isoline-run-summary/1","idle_power_w":{"cold":{"value":null}}})", "f")
          .ok());
  EXPECT_FALSE(parse_summary(R"({"format":"isoline-run-summary/1","warmup":1e99})", "f").ok());
}

}  // namespace
}  // namespace isoline::lab
