#include "isoline/backends/cuda/tuning.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "isoline/base/file.h"

namespace isoline::cuda {
namespace {

class Tuning : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = ::testing::TempDir() + "isoline_tuning_" +
              ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  const TuningKey key_{"Some GPU, sm_90, 132 SMs", "CUDA 13.0, 580.1", "isoline 1, kernels 1"};
  const ConvChoice mma_{ConvKernelKind::kMma, 2, 2, 1, 3}, wgmma_{ConvKernelKind::kWgmma, 0, 0, 0, 0, 2};
  std::string folder_;
};

TEST(TuningChoice, TextIsReadBackAndNothingElse) {
  for (const ConvChoice& c :
       {ConvChoice{}, ConvChoice{ConvKernelKind::kFp32}, ConvChoice{ConvKernelKind::kWgmma, 0, 0, 0, 0, 2},
        ConvChoice{ConvKernelKind::kChannels}, ConvChoice{ConvKernelKind::kMarch},
        ConvChoice{ConvKernelKind::kMma, 1, 4, 2, 16}}) {
    const auto back = parse_choice(to_string(c));
    ASSERT_TRUE(back.ok()) << to_string(c);
    EXPECT_EQ(*back, c);
  }
  for (const char* text : {"", "mma", "mma 2x2", "mma 2x2 s2", "mma 2x2 s2 k1 and more", "mma 2x2 s2 k0",
                           "Wgmma", "channels 1", "mma 2x2 s2 k99999999999999999999", "mma  2x2 s2 k1"})
    EXPECT_FALSE(parse_choice(text).ok()) << text;
}

TEST_F(Tuning, WhatIsSavedIsFoundByTheSameDeviceAndBuildOnly) {
  {
    TuningCache cache(folder_ + "/deep", key_);  // folders are made
    EXPECT_EQ(cache.note(), "");
    cache.put("a", mma_);
    cache.put("b", wgmma_);
    cache.save();
    EXPECT_EQ(cache.note(), "");
  }
  const TuningCache cache(folder_ + "/deep", key_);
  EXPECT_EQ(cache.note(), "");
  ASSERT_TRUE(cache.find("a") && cache.find("b"));
  EXPECT_EQ(*cache.find("a"), mma_);
  EXPECT_EQ(*cache.find("b"), wgmma_);
  EXPECT_FALSE(cache.find("c"));
  for (int part = 0; part < 3; ++part) {
    TuningKey other = key_;
    (part == 0 ? other.device : part == 1 ? other.driver : other.build) += "x";
    TuningCache foreign(folder_ + "/deep", other);
    EXPECT_FALSE(foreign.find("a"));
    EXPECT_NE(foreign.path(), cache.path());
    // The same file under another's name.
    std::filesystem::copy_file(cache.path(), foreign.path());
    const TuningCache copied(folder_ + "/deep", other);
    EXPECT_FALSE(copied.find("a"));
    EXPECT_NE(copied.note().find("another device or build"), std::string::npos) << copied.note();
  }
}

TEST_F(Tuning, ADamagedFileIsIgnoredNotedAndReplaced) {
  TuningCache good(folder_, key_);
  good.put("a", mma_);
  good.save();
  const auto bytes = read_whole_file(good.path(), 1 << 20);
  ASSERT_TRUE(bytes.ok());
  const std::string whole(reinterpret_cast<const char*>(bytes->data()), bytes->size());
  std::string impossible = whole, number = whole;
  impossible.replace(impossible.find("mma 2x2 s1 k3"), 13, "mma 2x2 s1 k");
  number.replace(number.find("\"mma 2x2 s1 k3\""), 15, "7");
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("[]"), std::string("{\"choices\": 1}"),
        whole.substr(0, whole.size() / 2), impossible, number}) {
    ASSERT_TRUE(write_file_atomically(good.path(), text).ok());
    TuningCache cache(folder_, key_);
    EXPECT_FALSE(cache.find("a")) << text;
    EXPECT_NE(cache.note().find(good.path()), std::string::npos) << text;
    cache.put("a", wgmma_);
    cache.save();
    const TuningCache again(folder_, key_);
    ASSERT_TRUE(again.find("a")) << text;
    EXPECT_EQ(*again.find("a"), wgmma_);
  }
}

TEST_F(Tuning, AFolderThatCannotBeWrittenToIsNotedAndChoicesStayForThisProcess) {
  ASSERT_TRUE(write_file_atomically(folder_, std::string("a file, no folder")).ok());
  TuningCache cache(folder_, key_);
  cache.put("a", mma_);
  cache.save();
  EXPECT_NE(cache.note().find("could not keep the choices"), std::string::npos) << cache.note();
  ASSERT_TRUE(cache.find("a"));

  TuningCache nowhere("", key_);
  nowhere.put("a", mma_);
  nowhere.save();
  EXPECT_TRUE(nowhere.find("a"));
  EXPECT_EQ(nowhere.note(), "");
}

TEST_F(Tuning, TheFolderIsTheUsersCache) {
  const char* const before = std::getenv("XDG_CACHE_HOME");
  const std::string kept = before ? before : "";
  setenv("XDG_CACHE_HOME", "/somewhere", 1);
  EXPECT_EQ(TuningCache::default_folder(), "/somewhere/isoline");
  setenv("XDG_CACHE_HOME", "relative", 1);
  EXPECT_EQ(TuningCache::default_folder().find("relative"), std::string::npos);
  before ? setenv("XDG_CACHE_HOME", kept.c_str(), 1) : unsetenv("XDG_CACHE_HOME");
}

}  // namespace
}  // namespace isoline::cuda
