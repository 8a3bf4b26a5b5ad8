#include "isoline/pipeline/cases.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace isoline {
namespace {

class CasesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(::testing::TempDir()) / ("cases_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void touch(const std::string& name) { std::ofstream(folder_ / name) << "x"; }
  std::filesystem::path folder_;
};

TEST_F(CasesTest, GroupsChannelsByCaseInOrder) {
  for (const char* n : {"b_0001.nii.gz", "b_0000.nii.gz", "a_0000.nii.gz", "a_0001.nii.gz", "notes.txt"})
    touch(n);
  const auto cases = cases_in_folder(folder_.string(), ".nii.gz", "out", "prev");
  ASSERT_TRUE(cases.ok()) << cases.error().to_string();
  ASSERT_EQ(cases->size(), 2u);
  EXPECT_EQ((*cases)[0].id, "a");
  EXPECT_EQ((*cases)[1].images[1], (folder_ / "b_0001.nii.gz").string());
  EXPECT_EQ((*cases)[1].output, "out/b.nii.gz");
  EXPECT_EQ((*cases)[1].previous_stage, "prev/b.nii.gz");
}

TEST_F(CasesTest, NamesTheFileWithoutChannelNumber) {
  touch("a_0000.nii.gz");
  touch("stray.nii.gz");
  const auto cases = cases_in_folder(folder_.string(), ".nii.gz", "out", "");
  ASSERT_FALSE(cases.ok());
  EXPECT_NE(cases.error().context.find("stray"), std::string::npos);
}

TEST_F(CasesTest, PlainNamesServeSingleChannelModels) {
  touch("x.nii.gz");
  touch("y.nii.gz");
  const auto cases = cases_from_input({folder_.string()}, 1, ".nii.gz", "out", "");
  ASSERT_TRUE(cases.ok());
  EXPECT_EQ((*cases)[1].output, "out/y.nii.gz");
  EXPECT_FALSE(cases_from_input({folder_.string()}, 2, ".nii.gz", "out", "").ok());
}

TEST_F(CasesTest, MissingAndEmptyFoldersAreErrors) {
  EXPECT_EQ(cases_in_folder((folder_ / "none").string(), ".nii.gz", "o", "").error().code,
            ErrorCode::kNotFound);
  EXPECT_EQ(cases_in_folder(folder_.string(), ".nii.gz", "o", "").error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace isoline
