#include "isoline/report/report.h"

#include <gtest/gtest.h>

#include "isoline/report/html.h"
#include "isoline/report/markdown.h"

namespace isoline::report {
namespace {

lab::RunSummary golden(const std::string& name) {
  auto run = lab::read_summary(std::string(ISOLINE_SOURCE_DIR) + "/" + name);
  EXPECT_TRUE(run.ok()) << (run.ok() ? "" : run.error().to_string());
  return run.ok() ? *run : lab::RunSummary{};
}
lab::RunSummary gpu() {
  return golden("tests/goldens/lab/gpu_run.json");
}
lab::RunSummary cpu() {
  return golden("tests/goldens/lab/cpu_run.json");
}

std::string markdown(const std::vector<lab::RunSummary>& runs, const ReportOptions& options = {}) {
  std::vector<std::string> files;
  for (const auto& r : runs) files.push_back(r.id);
  const auto doc = make_report(runs, files, options);
  EXPECT_TRUE(doc.ok()) << (doc.ok() ? "" : doc.error().to_string());
  return doc.ok() ? render_markdown(*doc).text : "";
}

const Table* table_with(const Document& doc, const std::string& part_of_caption) {
  for (const Block& b : doc.blocks)
    if (const auto* t = std::get_if<Table>(&b); t && t->caption.find(part_of_caption) != std::string::npos)
      return t;
  return nullptr;
}

TEST(Report, HoldsEverySectionOfARun) {
  const std::string text = markdown({gpu()});
  for (const char* part :
       {"The sequence", "Verdicts", "Where the time goes", "Latency per window",
        "Two runtimes in one pipeline", "disagreement and lesions", "Trade-off", "Recommended setting",
        "Comparison", "Key terms", "Provenance", "Remarks and failures", "every case",
        "Registered before the first measurement", "figures/energy.svg", "figures/pareto-energy.svg",
        "figures/differences-1.svg", "figures/stages.svg", "NVML total energy counter"})
    EXPECT_NE(text.find(part), std::string::npos) << part;
}

TEST(Report, EveryTableIsRectangularAndNoCellIsEmptyOrZeroForMissing) {
  for (const auto& runs : {std::vector{gpu()}, std::vector{gpu(), cpu()}}) {
    ReportOptions options;
    options.prices.per_hour = 2;
    options.prices.per_kwh = .3;
    options.prices.co2_g_per_kwh = 380;
    std::vector<std::string> files(runs.size(), "f");
    const auto doc = make_report(runs, files, options);
    ASSERT_TRUE(doc.ok());
    int tables = 0;
    for (const Block& b : doc->blocks)
      if (const auto* t = std::get_if<Table>(&b)) {
        ++tables;
        for (const Table::Row& r : t->rows) {
          EXPECT_EQ(r.cells.size(), t->columns.size()) << t->caption;
          for (const Text& c : r.cells)
            for (const Span& s : c) EXPECT_FALSE(s.text.empty()) << t->caption;
        }
      }
    EXPECT_GT(tables, 10);
  }
}

TEST(Report, WhatWasNotReadIsNamed) {
  const auto doc = make_report({cpu()}, {"f"}, {});
  ASSERT_TRUE(doc.ok());
  const Table* t = table_with(*doc, "Time, energy and memory");
  ASSERT_NE(t, nullptr);
  EXPECT_EQ(t->rows[0].cells[4][0].text, "n/a");
  EXPECT_NE(std::find(t->notes.begin(), t->notes.end(), "no accelerator in this machine"), t->notes.end());
  const std::string text = render_markdown(*doc).text;
  EXPECT_NE(text.find("figures/time.svg"), std::string::npos);  // in place of energy, and it says why
  EXPECT_NE(text.find("because energy is not available"), std::string::npos);
  EXPECT_EQ(text.find("figures/energy.svg"), std::string::npos);
  EXPECT_NE(text.find("delta 0.005"), std::string::npos);  // the changed registration
}

TEST(Report, RuntimesOfOnePipelineStandSideBySide) {
  const auto doc = make_report({gpu()}, {"f"}, {});
  ASSERT_TRUE(doc.ok());
  const Table* t = table_with(*doc, "A: 04 no mirroring (torch); B: 05 compiled runtime (compiled)");
  ASSERT_NE(t, nullptr);
  ASSERT_EQ(t->rows.size(), 4u);
  EXPECT_EQ(t->rows[0].cells[0][0].text, "network");
  const double network = std::stod(t->rows[0].cells[4][0].text),
               whole = std::stod(t->rows[2].cells[4][0].text);
  EXPECT_NEAR(network, 2, .05);  // the network runs twice as fast,
  EXPECT_LT(whole, 1.1);         // the case does not
  // No other two settings differ in their runtime alone.
  int pairs = 0;
  for (const Block& b : doc->blocks)
    if (const auto* x = std::get_if<Table>(&b)) pairs += x->caption.starts_with("A: ");
  EXPECT_EQ(pairs, 1);
}

TEST(Report, HostileNamesStayText) {
  lab::RunSummary run = gpu();
  const std::string evil = "<script>alert(1)</script>|\"'&\xff";
  run.id = run.title = run.device_name = evil;
  run.remarks = {evil};
  run.provenance.device["name"] = evil;
  for (lab::SettingSummary& s : run.settings) {
    s.description = evil;
    for (lab::CaseRecord& c : s.per_case) c.case_id = evil + c.case_id;
  }
  const auto doc = make_report({run}, {evil}, {});
  ASSERT_TRUE(doc.ok());
  EXPECT_EQ(render_html(*doc).find("<script"), std::string::npos);
  EXPECT_EQ(render_markdown(*doc).text.find("<script"), std::string::npos);
}

TEST(Report, RefusesRunsOfAnotherModel) {
  lab::RunSummary other = cpu();
  other.provenance.model_sha256 = "00";
  const auto doc = make_report({gpu(), other}, {"a", "b"}, {});
  ASSERT_FALSE(doc.ok());
  EXPECT_NE(doc.error().to_string().find("model"), std::string::npos);
}

TEST(Report, RecommendationsAreShown) {
  ReportOptions options;
  options.recommendations = {{0, "energy", "03 step 0.75", "least energy among preserved settings", {}}};
  const std::string text = markdown({gpu()}, options);
  EXPECT_NE(text.find("By energy: 03 step 0.75"), std::string::npos);
}

TEST(Report, AnEmptyRunStillReports) {
  lab::RunSummary run;
  run.id = "empty";
  run.settings.resize(1);
  run.settings[0].name = "B0";
  const std::string text = markdown({run});
  EXPECT_NE(text.find("Not registered"), std::string::npos);
  EXPECT_NE(text.find("n/a"), std::string::npos);
}

}  // namespace
}  // namespace isoline::report
