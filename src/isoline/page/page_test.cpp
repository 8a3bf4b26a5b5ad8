#include "isoline/page/page.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

namespace isoline::page {
namespace {

std::string source(const std::string& name) {
  std::ifstream in(std::string(ISOLINE_SOURCE_DIR) + "/src/isoline/page/" + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(Page, FilesAreCompiledInByteForByte) {
  const std::pair<const char*, const char*> files[] = {
      {"/", "index.html"}, {"/page/app.js", "app.js"}, {"/page/style.css", "style.css"}};
  for (const auto& [path, name] : files) {
    const PageFile* file = find_file(path);
    ASSERT_NE(file, nullptr) << path;
    EXPECT_FALSE(file->text.empty());
    EXPECT_EQ(file->text, source(name)) << path;
  }
  for (const char* path : {"", "/page", "/page/", "/page/app.js/", "/index.html", "/page/../app.js"})
    EXPECT_EQ(find_file(path), nullptr) << path;
}

TEST(Page, NothingInlineAndNothingFromElsewhere) {
  const std::string_view html = find_file("/")->text;
  for (const char* forbidden :
       {"http:", "https:", "//", "<style", " style=", " onclick", "javascript:", "<script>"})
    EXPECT_EQ(html.find(forbidden), std::string_view::npos) << forbidden;
  // Markup is never made from text.
  const std::string_view script = find_file("/page/app.js")->text;
  for (const char* forbidden : {"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(",
                                "localStorage", "sessionStorage", "cookie"})
    EXPECT_EQ(script.find(forbidden), std::string_view::npos) << forbidden;
}

TEST(Page, PolicyAllowsOnlyItself) {
  std::string policy;
  for (const auto& [name, value] : security_headers())
    if (name == "Content-Security-Policy") policy = value;
  EXPECT_EQ(policy.rfind("default-src 'none'", 0), 0u);
  EXPECT_EQ(policy.find("unsafe"), std::string::npos);
  EXPECT_EQ(policy.find('*'), std::string::npos);
}

}  // namespace
}  // namespace isoline::page
