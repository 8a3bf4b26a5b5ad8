// Configurations as text and as JSON, histograms, and the names of models.
#include "isoline/serve/model_config.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "isoline/serve/config_text.h"
#include "isoline/serve/repository.h"
#include "isoline/serve/statistics.h"

namespace isoline::serve {
namespace {

std::string text_as_json(const std::string& text) {
  const auto r = parse_config_text(text);
  return r.ok() ? r->dump() : "error: " + r.error().to_string();
}

TEST(ConfigText, BecomesJson) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "{}"},
      {"# nothing\n", "{}"},
      {"a: 1 b: -2 c: 1.5 d: true e: WORD f: 'x' \"y\\n\"",
       R"({"a":1,"b":-2,"c":1.5,"d":true,"e":"WORD","f":"xy\n"})"},
      {"a { b < c: [] > }", R"({"a":{"b":{"c":[]}}})"},
      {"a: [1, 2] a: 3", R"({"a":[1,2,3]})"},
      {"a: 1; a: 2, a: 3", R"({"a":[1,2,3]})"},
      {"a [ { b: 1 }, { b: 2 } ]", R"({"a":[{"b":1},{"b":2}]})"},
      {"a: 9223372036854775807", R"({"a":9223372036854775807})"},
  };
  for (const auto& [text, json] : cases) EXPECT_EQ(text_as_json(text), json) << text;
}

TEST(ConfigText, RefusesWithALine) {
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "a{";
  std::string deep_lists = "a:" + std::string(100000, '[');
  for (const std::string& text :
       {std::string("a"), std::string("a:"), std::string("a: }"), std::string("a { b: 1"),
        std::string("a: [1 2]"), std::string("a: [1,"), std::string("a: 'x"), std::string("a: 'x\n'"),
        std::string("a: '\\q'"), std::string("a: '\\"), std::string("a: -"), std::string("a: -x"),
        std::string("a: 1e999"), std::string("a: 1x"), std::string("}"), std::string("a b"),
        std::string("\0", 1), deep, deep_lists}) {
    const auto r = parse_config_text("\n" + text);
    ASSERT_FALSE(r.ok()) << text.substr(0, 20);
    EXPECT_EQ(r.error().context.substr(0, 5), "line ") << text.substr(0, 20);
  }
  EXPECT_EQ(parse_config_text(std::string((1 << 20) + 1, ' ')).error().code, ErrorCode::kResourceExhausted);
}

constexpr const char* kWhole = R"(
  name: "m" platform: "isoline_identity" max_batch_size: 8
  version_policy { specific { versions: [1, 3] } }
  input [ { name: "A" data_type: TYPE_FP32 dims: [ -1, 3 ] } ]
  output { name: "B" data_type: TYPE_STRING dims: 1 }
  dynamic_batching { preferred_batch_size: [ 2, 4 ] max_queue_delay_microseconds: 100 priority_levels: 2
    default_priority_level: 2 default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 5 }
    priority_queue_policy { key: 1 value { max_queue_size: 7 allow_timeout_override: true } } }
  instance_group [ { kind: KIND_AUTO count: 2 }, { name: "x" } ]
  parameters { key: "p" value { string_value: "v" } }
  model_warmup { name: "w" count: 2 inputs { key: "A" value { data_type: TYPE_FP32 dims: [4, 3] random_data: true } } })";

TEST(ModelConfig, ReadsEveryFieldThatIsServed) {
  const auto r = parse_model_config(kWhole);
  ASSERT_TRUE(r.ok()) << r.error().to_string();
  EXPECT_EQ(r->name, "m");
  EXPECT_EQ(r->max_batch_size, 8);
  EXPECT_EQ(r->version_policy.specific, (std::vector<int64_t>{1, 3}));
  ASSERT_EQ(r->input.size(), 1u);
  EXPECT_EQ(r->input[0].shape, (std::vector<int64_t>{-1, 3}));
  EXPECT_EQ(r->output.at(0).type, ElementType::kBytes);
  ASSERT_TRUE(r->dynamic_batching);
  EXPECT_EQ(r->dynamic_batching->preferred_batch_size, (std::vector<int64_t>{2, 4}));
  EXPECT_TRUE(r->dynamic_batching->default_queue_policy->delay_on_timeout);
  EXPECT_EQ(r->dynamic_batching->priority_queue_policy.at(1).max_queue_size, 7u);
  EXPECT_EQ(r->instances(), 3);
  EXPECT_EQ(r->parameters.at("p"), "v");
  EXPECT_TRUE(r->warmup.at(0).inputs.at("A").random);
}

TEST(ModelConfig, RefusesWhatItDoesNotServe) {
  const std::pair<const char*, const char*> cases[] = {
      {"max_batchsize: 3", "max_batchsize"},
      {"max_batch_size: -1", "max_batch_size"},
      {"max_batch_size: 1e3", "max_batch_size"},
      {"max_batch_size: 'x'", "max_batch_size"},
      {"max_batch_size: 99999999999", "max_batch_size"},
      {"max_batch_size: [1, 2]", "max_batch_size"},
      {"name: 3", "name"},
      {"input { data_type: TYPE_FP32 }", "name"},
      {"input { name: 'A' }", "data_type"},
      {"input { name: 'A' data_type: TYPE_FP31 }", "TYPE_FP31"},
      {"input { name: 'A' data_type: TYPE_FP32 dims: -2 }", "dims"},
      {"input { name: 'A' data_type: TYPE_FP32 optional: true }", "optional"},
      {"input { name: 'A' data_type: TYPE_FP32 reshape { shape: 1 } }", "reshape"},
      {"input [{ name: 'A' data_type: TYPE_FP32 }, { name: 'A' data_type: TYPE_FP32 }]", "twice"},
      {"max_batch_size: 0 dynamic_batching {}", "max_batch_size"},
      {"max_batch_size: 4 dynamic_batching { preferred_batch_size: 5 }", "preferred_batch_size"},
      {"dynamic_batching { priority_levels: 2 }", "default_priority_level"},
      {"dynamic_batching { priority_queue_policy { key: 'x' value {} } }", "level"},
      {"dynamic_batching { default_queue_policy { timeout_action: LATER } }", "timeout_action"},
      {"dynamic_batching { preserve_ordering: true } instance_group { count: 2 }", "preserve_ordering"},
      {"instance_group { count: 0 }", "count"},
      {"instance_group { count: 200 } instance_group { count: 200 }", "instances"},
      {"instance_group { kind: KIND_TPU }", "kind"},
      {"sequence_batching {} sequence_batching { max_sequence_idle_microseconds: 1 }", "sequence_batching"},
      {"response_cache { enable: true }", "response_cache"},
      {"model_warmup { inputs { key: 'A' value { data_type: TYPE_FP32 dims: 0 zero_data: true } } }", "dims"},
      {"parameters { key: 'a' }", "parameters"},
      {"[1]", ""},
      {"{\"name\": {\"a\": ", ""},
      {"{\"name\": \"a\"} x", ""},
  };
  for (const auto& [text, word] : cases) {
    const auto r = parse_model_config(text);
    ASSERT_FALSE(r.ok()) << text;
    EXPECT_NE(r.error().to_string().find(word), std::string::npos) << text << ": " << r.error().to_string();
  }
  std::string deep = "{\"a\":";
  for (int i = 0; i < 100000; ++i) deep += "[";
  EXPECT_FALSE(parse_model_config(deep).ok());
  std::string closed = "{\"name\":";
  for (int i = 0; i < 1000; ++i) closed += "[";
  EXPECT_FALSE(parse_model_config(closed + std::string(1000, ']') + "}").ok());
}

TEST(ModelConfig, TypeNames) {
  for (int i = 0; i <= int(ElementType::kBytes); ++i)
    EXPECT_EQ(*parse_config_type(config_type_name(ElementType(i))), ElementType(i));
  for (const char* bad : {"", "FP32", "TYPE_BYTES", "TYPE_", "type_fp32"})
    EXPECT_FALSE(parse_config_type(bad).ok()) << bad;
}

TEST(Histogram, CountsCumulatively) {
  static constexpr double kBounds[] = {1, 10};
  Histogram h(kBounds);
  for (double v : {0.0, 1.0, 1.5, 10.0, 11.0, 1e9}) h.add(v);
  EXPECT_EQ(h.cumulative(), (std::vector<uint64_t>{2, 4, 6}));
  EXPECT_DOUBLE_EQ(h.sum(), 1000000023.5);
}

TEST(ModelNames, StayInTheirFolder) {
  for (const char* good : {"m", "A-b_c.9", "a..b"}) EXPECT_TRUE(check_model_name(good).ok()) << good;
  for (const std::string& bad : {std::string(), std::string("."), std::string(".."), std::string(".m"),
                                 std::string("a/b"), std::string("a\\b"), std::string("a b"),
                                 std::string("a\0b", 3), std::string("ä"), std::string(129, 'a')})
    EXPECT_FALSE(check_model_name(bad).ok()) << bad;
  EXPECT_FALSE(tensor_elements({1, -1}).ok());
  EXPECT_FALSE(tensor_elements({int64_t{1} << 62, 4}).ok());
  EXPECT_EQ(*tensor_elements({}), 1u);
  EXPECT_EQ(*tensor_elements({int64_t{1} << 62, 0, 4}), 0u);
}

}  // namespace
}  // namespace isoline::serve
