#include "isoline/lab/experiment.h"

#include <gtest/gtest.h>

namespace isoline::lab {
namespace {

const char* const kGood = R"([experiment]
id = "E1"
model = "m"
[cases]
images = "im"
references = "/ref"
[[setting]]
name = "B0"
[[setting]]
name = "01"
precision = "bf16"
[[setting]]
name = "02"
precision = "fp16"
not_run = "no hardware"
[[setting]]
name = "03"
step = 0.75
tta = "none"
[[endpoint]]
metric = "dice"
region = "kidney"
delta = 0.01
)";

TEST(Experiment, SequenceKeepsWhatChangedButNotWhatWasNotRun) {
  auto e = parse_experiment(kGood, "folder/e.toml");
  ASSERT_TRUE(e.ok()) << e.error().to_string();
  EXPECT_EQ(e->model, "folder/m");
  EXPECT_EQ(e->references, "/ref");
  EXPECT_EQ(e->baseline, "B0");
  ASSERT_EQ(e->settings.size(), 4u);
  EXPECT_EQ(e->settings[2].precision, "fp16");
  EXPECT_EQ(e->settings[3].precision, "bf16");
  EXPECT_EQ(e->settings[3].step, 0.75);
  EXPECT_EQ(e->settings[3].not_run, "");
}

TEST(Experiment, GridIsEveryCombination) {
  std::string text = kGood;
  const size_t from = text.find("[[setting]]"), to = text.find("[[endpoint]]");
  text.replace(from, to - from, "[grid]\nprecision = [\"fp32\", \"bf16\"]\nstep = [0.5, 0.75]\n");
  auto e = parse_experiment(text, "e.toml");
  ASSERT_TRUE(e.ok()) << e.error().to_string();
  ASSERT_EQ(e->settings.size(), 4u);
  EXPECT_EQ(e->settings[0].name, "fp32,step=0.5");
  EXPECT_EQ(e->settings[3].name, "bf16,step=0.75");
  EXPECT_EQ(e->baseline, "fp32,step=0.5");
}

struct Bad {
  const char *from, *to, *expected;
};

// One change to the good file each; the error must name it.
class BadExperiment : public testing::TestWithParam<Bad> {};

TEST_P(BadExperiment, IsRefusedByName) {
  std::string text = kGood;
  const size_t at = text.find(GetParam().from);
  ASSERT_NE(at, std::string::npos);
  text.replace(at, std::string(GetParam().from).size(), GetParam().to);
  auto e = parse_experiment(text, "e.toml");
  ASSERT_FALSE(e.ok());
  EXPECT_NE(e.error().to_string().find(GetParam().expected), std::string::npos) << e.error().to_string();
  EXPECT_NE(e.error().to_string().find("e.toml"), std::string::npos) << e.error().to_string();
}

INSTANTIATE_TEST_SUITE_P(
    All, BadExperiment,
    testing::Values(
        Bad{"delta = 0.01", "", "delta' is missing"}, Bad{"delta = 0.01", "delta = 0", "between 0 and 1"},
        Bad{"delta = 0.01", "delta = \"x\"", "not a number"},
        Bad{"delta = 0.01", "delta = nan", "not finite"}, Bad{"delta = 0.01", "detla = 0.01", "delta"},
        Bad{"metric = \"dice\"", "metric = \"dcie\"", "one of"}, Bad{"step = 0.75", "step = 7.5", "between"},
        Bad{"step = 0.75", "stpe = 0.75", "stpe' is not known"},
        Bad{"tta = \"none\"", "tta = \"some\"", "tta"}, Bad{"name = \"01\"", "name = \"B0\"", "twice"},
        Bad{"name = \"01\"", "name = \"../x\"", "name"}, Bad{"name = \"01\"", "name = \"\"", "name"},
        Bad{"id = \"E1\"", "id = \"E1\"\nbaseline = \"B9\"", "B9"},
        Bad{"id = \"E1\"", "id = \"E1\"\nbaseline = \"02\"", "not_run"}, Bad{"[cases]", "[casse]", "needed"},
        Bad{"[cases]", "[cases", "no TOML"}, Bad{"precision = \"bf16\"", "precision = \"int8\"", "one of"},
        Bad{"[[endpoint]]", "[protocol]\nrepetitions = 0\n[[endpoint]]", "repetitions"},
        Bad{"[[endpoint]]", "[protocol]\norder = \"any\"\n[[endpoint]]", "order"},
        Bad{"[[endpoint]]", "[grid]\nstep = [0.5]\n[[endpoint]]", "exclude"},
        Bad{"[[endpoint]]", "[endpoint]", "[[endpoint]]"},
        Bad{"not_run = \"no hardware\"", "not_run = \"\"", "reason"}));

TEST(Experiment, HugeAndMissingFiles) {
  EXPECT_EQ(read_experiment("/no/such/file.toml").error().code, ErrorCode::kNotFound);
  std::string deep(100'000, '[');
  EXPECT_FALSE(parse_experiment("x = " + deep, "e.toml").ok());
}

}  // namespace
}  // namespace isoline::lab
