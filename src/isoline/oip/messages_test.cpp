// Requests as REST bodies and as protocol buffers: what is read from them, and what hostile ones get.
#include <gtest/gtest.h>

#include <random>

#include "isoline/oip/grpc_messages.h"
#include "isoline/oip/rest.h"
#include "isoline/oip/wire.h"

namespace isoline::oip {
namespace {

using Type = WireField::Type;

std::span<const std::byte> bytes(std::string_view text) {
  return std::as_bytes(std::span(text));
}
std::string text_of(std::span<const std::byte> b) {
  return {reinterpret_cast<const char*>(b.data()), b.size()};
}
template <class T>
std::string raw(std::initializer_list<T> values) {
  return std::string(reinterpret_cast<const char*>(std::data(values)), values.size() * sizeof(T));
}

const TensorModelInfo kInfo{
    "test", 8, {{"A", ElementType::kFloat32, {-1}}}, {{"B", ElementType::kFloat32, {-1}}}, ""};

Result<RestInfer> rest(std::string_view json, std::string_view data = "",
                       std::optional<uint64_t> header = std::nullopt) {
  static std::string body;  // what the tensors lie in
  body = std::string(json) + std::string(data);
  if (!header && !data.empty()) header = json.size();
  return parse_infer(bytes(body), nullptr, header, kInfo);
}

TEST(RestInfer, ReadsEverything) {
  const auto r = rest(
      R"({"id":"7","parameters":{"priority":2,"timeout":30,"x":[1],"binary_data_output":true,"sequence_id":0},
    "inputs":[{"name":"A","datatype":"FP32","shape":[1,2],"data":[1,2]},
              {"name":"C","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":5}}],
    "outputs":[{"name":"B","parameters":{"binary_data":false,"classification":0}},{"name":"D"}]})",
      std::string("\1\0\0\0x", 5));
  ASSERT_TRUE(r.ok()) << r.error().to_string();
  EXPECT_EQ(r->request.id, "7");
  EXPECT_EQ(r->request.priority, 2u);
  EXPECT_EQ(r->request.timeout_us, 30u);
  ASSERT_EQ(r->request.inputs.size(), 2u);
  EXPECT_EQ(text_of(r->request.inputs[0].data), raw<float>({1, 2}));
  EXPECT_EQ(text_of(r->request.inputs[1].data), std::string("\1\0\0\0x", 5));
  EXPECT_EQ(r->request.outputs, (std::vector<std::string>{"B", "D"}));
  EXPECT_FALSE(r->outputs.is_binary("B"));
  EXPECT_TRUE(r->outputs.is_binary("D"));
}

TEST(RestInfer, BinaryTensorsLieAlignedWhereverTheyCame) {
  for (size_t spaces = 0; spaces < 8; ++spaces) {
    const std::string json =
        R"({"inputs":[{"name":"A","datatype":"FP32","shape":[2],"parameters":{"binary_data_size":8}}]})" +
        std::string(spaces, ' ');
    const auto r = rest(json, raw<float>({3, 4}));
    ASSERT_TRUE(r.ok()) << r.error().to_string();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(r->request.inputs[0].data.data()) % 4, 0u);
    EXPECT_EQ(text_of(r->request.inputs[0].data), raw<float>({3, 4}));
  }
}

TEST(RestInfer, Refuses) {
  const std::string a = R"("name":"A","datatype":"FP32","shape":[1])";
  const std::string cases[] = {
      "",
      "[]",
      "{}",
      R"({"inputs":{}})",
      R"({"inputs":[],"inputs":[]})",
      R"({"inputs":[{"name":"A","name":"A"}]})",
      R"({"inputs":[{"datatype":"FP32","shape":[1],"data":[1]}]})",
      R"({"inputs":[{"name":"A","shape":[1],"data":[1]}]})",
      R"({"inputs":[{"name":"A","datatype":"FP32","data":[1]}]})",
      R"({"inputs":[{"name":"A","datatype":"FP31","shape":[1],"data":[1]}]})",
      R"({"inputs":[{"name":"A","datatype":"FP32","shape":[1.5],"data":[1]}]})",
      R"({"inputs":[{"name":"A","datatype":"FP32","shape":[-1],"data":[1]}]})",
      R"({"inputs":[{"name":"A","datatype":"FP32","shape":[4611686018427387904,4],"data":[]}]})",
      R"({"inputs":[{"name":"A","datatype":"FP32","shape":[)" + std::string("1,").append(200, '1') +
          R"(],"data":[1]}]})",
      "{\"inputs\":[{" + a + "}]}",
      "{\"inputs\":[{" + a + R"(,"data":[1],"parameters":{"binary_data_size":4}}]})",
      "{\"inputs\":[{" + a + R"(,"parameters":{"binary_data_size":4}}]})",  // no header length
      "{\"inputs\":[{" + a + R"(,"parameters":{"binary_data_size":-4}}]})",
      "{\"inputs\":[{" + a + R"(,"parameters":{"shared_memory_region":"x"}}]})",
      "{\"inputs\":[{" + a + R"(,"data":[1]}],"outputs":[{}]})",
      "{\"inputs\":[{" + a + R"(,"data":[1]}],"outputs":[{"name":"B","parameters":{"classification":3}}]})",
      "{\"inputs\":[{" + a + R"(,"data":[1]}],"parameters":{"sequence_id":5}})",
      "{\"inputs\":[{" + a + R"(,"data":[1]}],"parameters":{"priority":-1}})",
      "{\"inputs\":[{" + a + R"(,"data":[1]}]}x)",
  };
  for (const std::string& c : cases) EXPECT_FALSE(rest(c).ok()) << c;
  std::string dims = "1";
  for (int i = 0; i < 64; ++i) dims += ",1";
  EXPECT_FALSE(
      rest(R"({"inputs":[{"name":"A","datatype":"FP32","shape":[)" + dims + R"(],"data":[1]}]})").ok());
  std::string many = R"({"inputs":[)";
  for (int i = 0; i < 1025; ++i) many += (i ? ",{" : "{") + a + ",\"data\":[1]}";
  EXPECT_FALSE(rest(many + "]}").ok());
  const std::string sized = "{\"inputs\":[{" + a + R"(,"parameters":{"binary_data_size":8}}]})";
  EXPECT_TRUE(rest(sized, "12345678").ok());
  EXPECT_FALSE(rest(sized, "1234567").ok());
  EXPECT_FALSE(rest(sized, "123456789").ok());  // belongs to no input
  EXPECT_FALSE(rest(sized, "12345678", sized.size() + 9).ok());
  EXPECT_FALSE(rest(sized, "12345678", UINT64_MAX).ok());
  EXPECT_FALSE(rest(sized, "12345678", sized.size() - 1).ok());
  const std::string huge =
      "{\"inputs\":[{" + a + R"(,"parameters":{"binary_data_size":18446744073709551615}}]})";
  EXPECT_FALSE(rest(huge, "12345678").ok());
}

TEST(RestInfer, RawBodies) {
  const auto r = rest("", raw<float>({1, 2, 3}), 0);
  ASSERT_TRUE(r.ok());
  EXPECT_EQ(r->request.inputs[0].shape, (std::vector<int64_t>{1, 3}));
  EXPECT_TRUE(r->outputs.is_binary("B"));
  TensorModelInfo two = kInfo;
  two.inputs.push_back(two.inputs[0]);
  EXPECT_FALSE(parse_infer(bytes("abcd"), nullptr, 0, two).ok());
  TensorModelInfo open = kInfo;
  open.inputs[0].shape = {-1, -1};
  EXPECT_FALSE(parse_infer(bytes("abcd"), nullptr, 0, open).ok());
  open.inputs[0].shape = {-1, int64_t{1} << 40, int64_t{1} << 40};
  EXPECT_FALSE(parse_infer(bytes("abcd"), nullptr, 0, open).ok());
  open.inputs[0] = {"A", ElementType::kBytes, {-1}};
  const auto text = parse_infer(bytes("word"), nullptr, 0, open);
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(text_of(text->request.inputs[0].data), std::string("\4\0\0\0word", 8));
}

TEST(RestControl, Bodies) {
  EXPECT_FALSE(*parse_index_request(""));
  EXPECT_FALSE(*parse_index_request(" {} "));
  EXPECT_TRUE(*parse_index_request(R"({"ready":true})"));
  EXPECT_FALSE(parse_index_request(R"({"ready":1})").ok());
  EXPECT_FALSE(parse_load_request("")->has_value());
  EXPECT_EQ(**parse_load_request(R"({"parameters":{"x":1,"config":"{}"}})"), "{}");
  EXPECT_EQ(parse_load_request(R"({"parameters":{"file:1/model.onnx":"AA=="}})").error().code,
            ErrorCode::kUnsupported);
}

TEST(Wire, NumbersOfAllLengths) {
  std::mt19937_64 random(2);
  for (int i = 0; i < 10000; ++i) {
    const uint64_t v = random() >> (random() % 64);
    WireWriter w;
    w.varint(v);
    EXPECT_EQ(w.str().size(), varint_size(v));
    WireReader in(bytes(w.str()));
    uint64_t back = 0;
    ASSERT_TRUE(*in.next_varint(back));
    EXPECT_EQ(back, v);
    EXPECT_FALSE(*in.next_varint(back));
  }
}

TEST(Wire, RefusesWhatIsNoMessage) {
  for (const std::string& bad :
       {std::string("\x80"), std::string(10, '\x80'), std::string("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"),
        std::string("\x0a"), std::string("\x0a\x05xx"),
        std::string("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), std::string("\x09xxxx"),
        std::string("\x0dxx"), std::string("\x0b"), std::string("\x0c"), std::string("\x0e"),
        std::string("\x00\x00", 2), std::string("\x08"), std::string("\xff\xff\xff\xff\xff\x01\x00", 7)}) {
    WireReader in(bytes(bad));
    WireField f;
    bool failed = false;
    for (;;) {
      const auto more = in.next(f);
      failed = !more.ok();
      if (failed || !*more) break;
    }
    EXPECT_TRUE(failed) << testing::PrintToString(bad);
  }
}

// A ModelInferRequest with one input.
WireWriter input(std::string_view type, std::vector<int64_t> shape, const WireWriter* contents = nullptr) {
  WireWriter i;
  i.text(1, "A");
  i.text(2, type);
  i.numbers(3, shape);
  if (contents) i.message(5, *contents);
  return i;
}
Result<GrpcInfer> infer(const WireWriter& in, std::initializer_list<std::string_view> raws = {}) {
  static std::string message;  // what the tensors lie in
  WireWriter w;
  w.text(1, "m");
  w.text(2, "3");
  w.text(3, "an id");
  w.message(5, in);
  for (std::string_view r : raws) w.text(7, r, true);
  message = w.take();
  return parse_model_infer(bytes(message), nullptr);
}

TEST(GrpcInfer, RawContents) {
  const auto r = infer(input("FP32", {1, 2}), {raw<float>({1, 2})});
  ASSERT_TRUE(r.ok()) << r.error().to_string();
  EXPECT_EQ(r->request.model, "m");
  EXPECT_EQ(r->request.version, "3");
  EXPECT_EQ(r->request.id, "an id");
  EXPECT_EQ(r->request.inputs.at(0).shape, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(text_of(r->request.inputs[0].data), raw<float>({1, 2}));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(r->request.inputs[0].data.data()) % 4, 0u);
  EXPECT_FALSE(infer(input("FP32", {1}), {"abcd", "abcd"}).ok());
  WireWriter contents;
  contents.numbers(2, std::vector<int>{1});
  EXPECT_FALSE(infer(input("INT32", {1}, &contents), {"abcd"}).ok());  // both
}

TEST(GrpcInfer, TypedContentsOfEveryDatatype) {
  struct Case {
    const char* type;
    uint32_t field;
    std::vector<int64_t> values;
    std::string want;
  };
  const Case cases[] = {
      {"BOOL", 1, {0, 1, 7}, raw<uint8_t>({0, 1, 1})},
      {"INT8", 2, {-128, 127}, raw<int8_t>({-128, 127})},
      {"INT16", 2, {-32768, 32767}, raw<int16_t>({-32768, 32767})},
      {"INT32", 2, {INT32_MIN, INT32_MAX}, raw<int32_t>({INT32_MIN, INT32_MAX})},
      {"INT64", 3, {INT64_MIN, INT64_MAX}, raw<int64_t>({INT64_MIN, INT64_MAX})},
      {"UINT8", 4, {255}, raw<uint8_t>({255})},
      {"UINT16", 4, {65535}, raw<uint16_t>({65535})},
      {"UINT32", 4, {4294967295}, raw<uint32_t>({4294967295u})},
      {"UINT64", 5, {-1}, raw<uint64_t>({UINT64_MAX})},
  };
  for (const Case& c : cases) {
    WireWriter packed, single;
    packed.numbers(c.field, c.values);
    for (int64_t v : c.values) single.number(c.field, uint64_t(v), true);
    for (const WireWriter* contents : {&packed, &single}) {
      const auto r = infer(input(c.type, {int64_t(c.values.size())}, contents));
      ASSERT_TRUE(r.ok()) << c.type << r.error().to_string();
      EXPECT_EQ(text_of(r->request.inputs[0].data), c.want) << c.type;
    }
    WireWriter other;
    other.numbers(c.field == 2 ? 3 : 2, c.values);
    EXPECT_FALSE(infer(input(c.type, {1}, &other)).ok()) << c.type;
  }
  const std::pair<const char*, int64_t> beyond[] = {{"INT8", 128},
                                                    {"INT8", -129},
                                                    {"INT16", 32768},
                                                    {"INT32", int64_t{1} << 31},
                                                    {"UINT8", 256},
                                                    {"UINT16", 65536},
                                                    {"UINT32", int64_t{1} << 32},
                                                    {"UINT8", -1}};
  for (const auto& [type, value] : beyond) {
    WireWriter contents;
    contents.numbers(type[0] == 'U' ? 4 : 2, std::vector<int64_t>{value});
    EXPECT_FALSE(infer(input(type, {1}, &contents)).ok()) << type << value;
  }
}

TEST(GrpcInfer, RealsAndStrings) {
  WireWriter floats, doubles, words, crossed;
  floats.text(6, raw<float>({1.5f, -2}));
  floats.tag(6, Type::kFixed32);
  std::string f = floats.take() + raw<float>({3});
  WireWriter whole;
  whole.text(5, f);
  for (double d : {1.0, -0.5}) doubles.real(7, d, true);
  words.text(8, "ab");
  words.text(8, "", true);
  crossed.real(6, 1.0, true);  // a double where floats belong
  WireWriter in = input("FP32", {3});
  in.text(5, f, true);
  const auto r = infer(in);
  ASSERT_TRUE(r.ok()) << r.error().to_string();
  EXPECT_EQ(text_of(r->request.inputs[0].data), raw<float>({1.5f, -2, 3}));
  EXPECT_EQ(text_of(infer(input("FP64", {2}, &doubles))->request.inputs[0].data), raw<double>({1, -.5}));
  EXPECT_EQ(text_of(infer(input("BYTES", {2}, &words))->request.inputs[0].data),
            std::string("\2\0\0\0ab\0\0\0\0", 10));
  EXPECT_FALSE(infer(input("FP32", {2}, &crossed)).ok());
  EXPECT_FALSE(infer(input("FP16", {3}, &doubles)).ok());
}

TEST(GrpcInfer, EveryCutOfAMessageIsAnErrorOrAMessage) {
  WireWriter contents;
  contents.text(6, raw<float>({1, 2}));
  WireWriter w;
  w.text(1, "m");
  w.message(5, input("FP32", {1, 2}, &contents));
  WireWriter parameter, value;
  value.number(2, 3);
  parameter.text(1, "priority");
  parameter.message(2, value);
  w.message(4, parameter);
  const std::string message = w.take();
  ASSERT_EQ(parse_model_infer(bytes(message), nullptr)->request.priority, 3u);
  for (size_t n = 0; n < message.size(); ++n) {
    const auto r = parse_model_infer(bytes(std::string_view(message).substr(0, n)), nullptr);
    EXPECT_TRUE(r.ok() || !r.error().message.empty());
  }
  std::mt19937 random(4);
  for (int i = 0; i < 20000; ++i) {
    std::string changed = message;
    changed[random() % changed.size()] = char(random());
    static_cast<void>(parse_model_infer(bytes(changed), nullptr));
  }
}

TEST(GrpcAnswer, PiecesMakeTheMessage) {
  const std::string a = "abcd", b(1000, 'x');
  serve::InferResponse response;
  response.model = "m";
  response.version = "1";
  response.id = "7";
  response.outputs = {{"B", ElementType::kUInt8, {4}, bytes(a)},
                      {"C", ElementType::kUInt8, {2, 500}, bytes(b)},
                      {"D", ElementType::kUInt8, {0}, {}}};
  for (const bool stream : {false, true})
    for (const size_t outputs : {size_t{3}, size_t{0}}) {
      serve::InferResponse r = response;
      r.outputs.resize(outputs);
      const GrpcAnswer answer = write_model_infer(r, stream, stream);
      std::string whole;
      for (const auto& part : answer.parts) whole += text_of(part);
      EXPECT_EQ(whole.size(), answer.byte_size);
      WireReader in(bytes(whole));
      WireField f;
      std::string inner;
      if (stream) {
        ASSERT_TRUE(*in.next(f));
        EXPECT_EQ(f.id, 2u);
        inner = std::string(f.text());
        EXPECT_FALSE(*in.next(f));
        in = WireReader(bytes(inner));
      }
      std::vector<std::string> raws;
      std::string model, id;
      size_t tensors = 0;
      while (*in.next(f)) {
        if (f.id == 1) model = f.text();
        if (f.id == 3) id = f.text();
        if (f.id == 5) ++tensors;
        if (f.id == 6) raws.emplace_back(f.text());
      }
      EXPECT_EQ(model, "m");
      EXPECT_EQ(id, "7");
      EXPECT_EQ(tensors, outputs);
      EXPECT_EQ(raws, outputs ? (std::vector<std::string>{a, b, ""}) : std::vector<std::string>{});
    }
}

TEST(GrpcControl, Messages) {
  WireWriter load, entry, value;
  value.text(3, "{}");
  entry.text(1, "config");
  entry.message(2, value);
  load.text(2, "m");
  load.message(3, entry);
  const auto r = parse_load_message(bytes(load.str()));
  ASSERT_TRUE(r.ok());
  EXPECT_EQ(r->name, "m");
  EXPECT_EQ(r->config, "{}");
  WireWriter file, with_file;
  file.text(1, "file:1/model.onnx");
  with_file.message(3, file);
  EXPECT_EQ(parse_load_message(bytes(with_file.str())).error().code, ErrorCode::kUnsupported);
  WireWriter name;
  name.text(1, std::string(5000, 'x'));
  EXPECT_FALSE(parse_model_name(bytes(name.str())).ok());
  WireWriter number;
  number.number(1, 5);
  EXPECT_FALSE(parse_model_name(bytes(number.str())).ok());
  EXPECT_EQ(write_bool_message(true), std::string("\x08\x01", 2));
  EXPECT_EQ(write_bool_message(false), "");
}

}  // namespace
}  // namespace isoline::oip
