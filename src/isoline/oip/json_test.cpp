#include "isoline/oip/json.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "isoline/oip/elements.h"

namespace isoline::oip {
namespace {

bool accepts(std::string_view text) {
  JsonReader in(text);
  return in.skip().ok() && in.end().ok();
}

TEST(JsonReader, TakesJsonAndNothingElse) {
  for (const char* good : {"{}", "[]", " [ 1 , -0 , 0.5 , 1e9 , 1E+9 , 1e-9 ] ", "true", "false", "null",
                           "\"\"", "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e4\\ud83d\\ude00\"",
                           "{\"a\":{\"b\":[[],{}]}}", "\"\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80\""})
    EXPECT_TRUE(accepts(good)) << good;
  for (const char* bad : {"",
                          " ",
                          "{",
                          "}",
                          "[",
                          "[1",
                          "[1,",
                          "[1,]",
                          "[,1]",
                          "{\"a\"}",
                          "{\"a\":}",
                          "{\"a\":1,}",
                          "{a:1}",
                          "{'a':1}",
                          "01",
                          "-",
                          "-a",
                          "+1",
                          ".5",
                          "1.",
                          "1.e3",
                          "1e",
                          "1e+",
                          "0x1",
                          "NaN",
                          "Infinity",
                          "tru",
                          "truE",
                          "nul",
                          "\"",
                          "\"\\\"",
                          "\"\\x\"",
                          "\"\\u12\"",
                          "\"\\u12g4\"",
                          "\"\\ud800\"",
                          "\"\\ud800x\"",
                          "\"\\ud800\\u0041\"",
                          "\"\\udc00\"",
                          "\"\n\"",
                          "\"\t\"",
                          "\"\x80\"",
                          "\"\xC3\"",
                          "\"\xC0\x80\"",
                          "\"\xED\xA0\x80\"",
                          "\"\xF4\x90\x80\x80\"",
                          "\"\xE0\x80\x80\"",
                          "[1] 2",
                          "{}{}",
                          "// x\n1",
                          "[1]\x01"}) {
    EXPECT_FALSE(accepts(bad)) << bad;
    // The reader that keeps strings judges as the one that passes over them.
    JsonReader in(bad);
    EXPECT_FALSE(bad[0] == '"' && in.string().ok() && in.end().ok()) << bad;
  }
}

TEST(JsonReader, DepthIsBounded) {
  const auto nested = [](int n) { return std::string(size_t(n), '[') + std::string(size_t(n), ']'); };
  EXPECT_TRUE(accepts(nested(100)));
  EXPECT_FALSE(accepts(nested(101)));
  EXPECT_FALSE(accepts(std::string(5'000'000, '[')));
  std::string objects;
  for (int i = 0; i < 200000; ++i) objects += "{\"a\":";
  EXPECT_FALSE(accepts(objects));
}

TEST(JsonReader, Numbers) {
  const auto integer = [](const char* t) { return JsonReader(t).integer(); };
  const auto natural = [](const char* t) { return JsonReader(t).unsigned_integer(); };
  EXPECT_EQ(*integer("-9223372036854775808"), INT64_MIN);
  EXPECT_EQ(*natural("18446744073709551615"), UINT64_MAX);
  for (const char* bad : {"9223372036854775808", "-9223372036854775809", "1.0", "1e2", "\"1\""})
    EXPECT_FALSE(integer(bad).ok()) << bad;
  for (const char* bad : {"-1", "-0", "18446744073709551616", "1.5"}) EXPECT_FALSE(natural(bad).ok()) << bad;
}

TEST(JsonWriter, WhatItWritesReadsBackTheSame) {
  std::mt19937_64 random(5);
  for (int i = 0; i < 20000; ++i) {
    const uint64_t bits = random();
    double d = 0;
    float f = 0;
    std::memcpy(&d, &bits, sizeof d);
    std::memcpy(&f, &bits, sizeof f);
    JsonWriter w;
    w.begin_array();
    if (std::isfinite(d)) w.number(d);
    if (std::isfinite(f)) w.number(f);
    std::string text;
    for (int k = 0; k < 8; ++k) text += char(random());
    w.string(text).integer(int64_t(bits)).unsigned_integer(bits).boolean(bits & 1);
    w.end_array();
    const std::string json = w.take();
    JsonReader in(json);
    int n = 0;
    const Status s = in.array([&]() -> Status {
      if (in.peek() == '"') {
        ISOLINE_ASSIGN(const std::string back, in.string());
        EXPECT_TRUE(back == text || !is_utf8(text));
        return {};
      }
      if (in.peek() == 't' || in.peek() == 'f') return in.boolean().ok() ? Status() : Status(in.fail("no"));
      ISOLINE_ASSIGN(const std::string_view number, in.number());
      const std::string copy(number);
      EXPECT_TRUE(n > 0 || !std::isfinite(d) || std::strtod(copy.c_str(), nullptr) == d) << copy;
      ++n;
      return {};
    });
    ASSERT_TRUE(s.ok()) << s.error().to_string() << json;
    ASSERT_TRUE(in.end().ok());
  }
}

template <class T>
std::vector<std::byte> binary(std::initializer_list<T> values) {
  std::vector<std::byte> out(values.size() * sizeof(T));
  std::memcpy(out.data(), std::data(values), out.size());
  return out;
}
std::vector<std::byte> words(std::initializer_list<std::string> values) {
  std::vector<std::byte> out;
  for (const std::string& v : values) {
    const uint32_t n = uint32_t(v.size());
    const auto* head = reinterpret_cast<const std::byte*>(&n);
    out.insert(out.end(), head, head + 4);
    const auto* text = reinterpret_cast<const std::byte*>(v.data());
    out.insert(out.end(), text, text + n);
  }
  return out;
}

TEST(Elements, EveryDatatypeThroughJsonAndBack) {
  using L32 = std::numeric_limits<int32_t>;
  const std::tuple<ElementType, std::string, std::vector<std::byte>> cases[] = {
      {ElementType::kBool, "[true,false,true]", binary<uint8_t>({1, 0, 1})},
      {ElementType::kUInt8, "[0,255]", binary<uint8_t>({0, 255})},
      {ElementType::kUInt16, "[0,65535]", binary<uint16_t>({0, 65535})},
      {ElementType::kUInt32, "[0,4294967295]", binary<uint32_t>({0, 4294967295u})},
      {ElementType::kUInt64, "[0,18446744073709551615]", binary<uint64_t>({0, UINT64_MAX})},
      {ElementType::kInt8, "[-128,127]", binary<int8_t>({-128, 127})},
      {ElementType::kInt16, "[-32768,32767]", binary<int16_t>({-32768, 32767})},
      {ElementType::kInt32, "[-2147483648,2147483647]", binary<int32_t>({L32::min(), L32::max()})},
      {ElementType::kInt64, "[-9223372036854775808,9223372036854775807]",
       binary<int64_t>({INT64_MIN, INT64_MAX})},
      {ElementType::kFloat32, "[0.1,-0,3.4028235e+38,1e-45]",
       binary<float>({0.1f, -0.f, 3.4028235e38f, 1e-45f})},
      {ElementType::kFloat64, "[0.1,1.7976931348623157e+308,5e-324]",
       binary<double>({0.1, 1.7976931348623157e308, 5e-324})},
      {ElementType::kBytes, "[\"\",\"a\\u0001\\\"\",\"ä\"]", words({"", "a\x01\"", "ä"})},
  };
  for (const auto& [type, json, data] : cases) {
    const uint64_t n = type == ElementType::kBytes ? 3 : data.size() / element_size(type);
    const auto read = elements_from_json(json, type, n);
    ASSERT_TRUE(read.ok()) << json << read.error().to_string();
    EXPECT_EQ(*read, data) << json;
    JsonWriter w;
    ASSERT_TRUE(write_elements(w, type, data).ok());
    EXPECT_EQ(w.take(), json);
    EXPECT_FALSE(elements_from_json(json, type, n + 1).ok());
    EXPECT_FALSE(elements_from_json(json, type, n - 1).ok());
  }
}

TEST(Elements, NestedOnesAreTheSame) {
  EXPECT_EQ(*elements_from_json("[[[1],[2]],[],[3,[4]]]", ElementType::kUInt8, 4),
            binary<uint8_t>({1, 2, 3, 4}));
  EXPECT_FALSE(elements_from_json("[[1],{}]", ElementType::kUInt8, 1).ok());
  EXPECT_FALSE(elements_from_json("1", ElementType::kUInt8, 1).ok());
}

TEST(Elements, OutOfRangeAndOfAnotherKind) {
  const std::pair<ElementType, const char*> cases[] = {{ElementType::kUInt8, "[256]"},
                                                       {ElementType::kUInt8, "[-1]"},
                                                       {ElementType::kUInt8, "[1.0]"},
                                                       {ElementType::kInt8, "[128]"},
                                                       {ElementType::kInt8, "[-129]"},
                                                       {ElementType::kUInt16, "[65536]"},
                                                       {ElementType::kInt64, "[9223372036854775808]"},
                                                       {ElementType::kFloat32, "[1e39]"},
                                                       {ElementType::kFloat64, "[1e309]"},
                                                       {ElementType::kFloat32, "[\"1\"]"},
                                                       {ElementType::kFloat32, "[null]"},
                                                       {ElementType::kFloat32, "[true]"},
                                                       {ElementType::kBytes, "[1]"},
                                                       {ElementType::kBool, "[\"true\"]"},
                                                       {ElementType::kFloat16, "[1]"},
                                                       {ElementType::kBFloat16, "[1]"}};
  for (const auto& [type, json] : cases)
    EXPECT_FALSE(elements_from_json(json, type, 1).ok()) << to_string(type) << json;
  JsonWriter w;
  for (float f : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()})
    EXPECT_FALSE(write_elements(w, ElementType::kFloat32, binary<float>({f})).ok());
  EXPECT_FALSE(write_elements(w, ElementType::kBytes, words({"\xff"})).ok());
  EXPECT_FALSE(write_elements(w, ElementType::kBytes, binary<uint32_t>({9})).ok());
  EXPECT_FALSE(write_elements(w, ElementType::kBytes, binary<uint8_t>({9, 0})).ok());
  EXPECT_FALSE(write_elements(w, ElementType::kFloat16, binary<uint16_t>({0})).ok());
  // A shape that promises much reserves no more than the text could hold.
  EXPECT_FALSE(elements_from_json("[1]", ElementType::kFloat64, UINT64_MAX).ok());
}

}  // namespace
}  // namespace isoline::oip
