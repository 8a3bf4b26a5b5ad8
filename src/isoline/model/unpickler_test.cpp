#include "isoline/model/unpickler.h"

#include <gtest/gtest.h>

namespace isoline {
namespace {

using namespace std::string_literals;

Result<Pickle> read(const std::string& pickle, UnpickleOptions options = {}) {
  return unpickle(std::as_bytes(std::span(pickle)), options);
}
std::string complaint(const std::string& pickle, UnpickleOptions options = {}) {
  auto r = read(pickle, options);
  return r.ok() ? "ok" : r.error().message;
}
UnpickleOptions torch() {
  UnpickleOptions o;
  o.torch = true;
  return o;
}
bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(Unpickler, BuildsPlainData) {
  // pickle.dumps({"a": [1, -2, 2**40, 2.5, None, True, b"xy", (3, "u")], "a": ...}, 2) in its essentials
  const auto p = read(
      "\x80\x02}q\x00(X\x01\x00\x00\x00"s + "a](K\x01J\xfe\xff\xff\xff\x8a\x06\x00\x00\x00\x00\x00\x01"s +
      "G\x40\x04\x00\x00\x00\x00\x00\x00N\x88"s + "C\x02xyK\x03X\x01\x00\x00\x00u\x86"s + "eu."s);
  ASSERT_TRUE(p.ok()) << p.error().to_string();
  const PickleObject* list = p->find(p->root(), "a");
  ASSERT_TRUE(list && list->kind == PickleKind::kList);
  ASSERT_EQ(list->items.size(), 8u);
  const auto item = [&](size_t i) { return p->at(list->items[i]); };
  EXPECT_EQ(item(0).integer, 1);
  EXPECT_EQ(item(1).integer, -2);
  EXPECT_EQ(item(2).integer, int64_t(1) << 40);
  EXPECT_EQ(item(3).number, 2.5);
  EXPECT_EQ(item(4).kind, PickleKind::kNone);
  EXPECT_TRUE(item(5).kind == PickleKind::kBool && item(5).integer);
  EXPECT_TRUE(item(6).kind == PickleKind::kBytes && item(6).text == "xy");
  ASSERT_EQ(item(7).items.size(), 2u);
  EXPECT_EQ(p->at(item(7).items[1]).text, "u");
  EXPECT_EQ(p->find(p->root(), "b"), nullptr);
}

TEST(Unpickler, IntegersOfAnyWidth) {
  const auto value = [](const std::string& digits) {
    auto p = read("\x80\x02\x8a"s + char(digits.size()) + digits + ".");
    return p->root();
  };
  EXPECT_EQ(value("").integer, 0);
  EXPECT_EQ(value("\xff"s).integer, -1);
  EXPECT_EQ(value("\xff\x00"s).integer, 255);
  EXPECT_EQ(value("\x00\x00\x00\x00\x00\x00\x00\x80"s).integer, INT64_MIN);
  EXPECT_EQ(value("\xff\xff\xff\xff\xff\xff\xff\x7f\x00"s).integer, INT64_MAX);
  EXPECT_EQ(value("\x00\x00\x00\x00\x00\x00\x00\x80\x00"s).kind, PickleKind::kBigInt);
}

TEST(Unpickler, TheLastOfEqualKeysWins) {
  auto p = read("\x80\x02}(X\x01\x00\x00\x00kK\x01X\x01\x00\x00\x00kK\x02u."s);
  EXPECT_EQ(p->find(p->root(), "k")->integer, 2);
}

TEST(Unpickler, ObjectsMayContainThemselves) {
  auto p = read("\x80\x02]q\x00h\x00"s + "a."s);  // l = []; l.append(l)
  ASSERT_TRUE(p.ok());
  ASSERT_EQ(p->root().items.size(), 1u);
  EXPECT_EQ(&p->at(p->root().items[0]), &p->root());
}

TEST(Unpickler, RefusesForeignNamesByName) {
  EXPECT_TRUE(contains(complaint("\x80\x02"s + "cos\nsystem\nX\x02\x00\x00\x00ls\x85R."s), "'os.system'"));
  EXPECT_TRUE(contains(complaint("\x80\x04\x8c\x05posix\x8c\x06system\x93)R."s), "'posix.system'"));
  EXPECT_TRUE(contains(complaint("\x80\x02"s + "c__builtin__\neval\n."s), "'__builtin__.eval'"));
  // Tensors only where they are expected.
  const std::string storage = "\x80\x02"s + "ctorch\nFloatStorage\n."s;
  EXPECT_EQ(complaint(storage, torch()), "ok");
  EXPECT_TRUE(contains(complaint(storage), "'torch.FloatStorage'"));
  EXPECT_TRUE(contains(complaint("\x80\x02"s + "ctorch\nload\n."s, torch()), "'torch.load'"));
}

TEST(Unpickler, AllowedNamesCannotBeMisused) {
  // A named function is data: calling it is refused.
  UnpickleOptions o;
  o.functions = {"mod fn"};
  EXPECT_EQ(complaint("\x80\x02"s + "cmod\nfn\n."s, o), "ok");
  EXPECT_TRUE(contains(complaint("\x80\x02"s + "cmod\nfn\n)R."s, o), "calls 'mod fn'"));
  EXPECT_TRUE(contains(complaint("\x80\x02"s + "ctorch\nFloatStorage\n)R."s, torch()), "calls"));
  EXPECT_TRUE(contains(complaint("\x80\x02K\x01)R."s), "calls a int"));
  EXPECT_TRUE(
      contains(complaint("\x80\x02"s + "ccollections\nOrderedDict\n)\x81."s), "constructs an object"));
  EXPECT_TRUE(contains(complaint("\x80\x02K\x01}b."s), "sets attributes of a int"));
  EXPECT_TRUE(contains(complaint("\x80\x02X\x01\x00\x00\x00xQ."s), "outside itself"));
  EXPECT_TRUE(
      contains(complaint("\x80\x02"s + "c_codecs\nencode\nX\x01\x00\x00\x00xX\x05\x00\x00\x00rot13\x86R."s),
               "'_codecs encode' with the wrong arguments"));
}

TEST(Unpickler, ReportsWhatIsNoPickle) {
  EXPECT_TRUE(contains(complaint(""), "not a pickle"));
  EXPECT_TRUE(contains(complaint("I1\n."), "not a pickle"));  // protocol 0
  EXPECT_TRUE(contains(complaint("\x80\x06N."), "protocol 6"));
  EXPECT_TRUE(contains(complaint("\x80\x02N"), "without STOP"));
  EXPECT_TRUE(contains(complaint("\x80\x02."), "empty stack"));
  EXPECT_TRUE(contains(complaint("\x80\x02X\xff\xff\xff\x7fx."s), "cut off"));
  EXPECT_TRUE(contains(complaint("\x80\x02h\x05."s), "empty memo slot"));
  EXPECT_TRUE(contains(complaint("\x80\x02K\x01(0e."s), "lacks a MARK"));
  EXPECT_TRUE(contains(complaint("\x80\x02](K\x01u."s), "adds items to a list"));
  EXPECT_TRUE(contains(complaint("\x80\x02}(K\x01u."s), "without a value"));
  EXPECT_TRUE(contains(complaint("\x80\x02\x97."s), "opcode 0x97"));
}

TEST(Unpickler, KeepsItsLimits) {
  UnpickleOptions o;
  o.max_objects = 100;
  std::string many = "\x80\x02]("s;
  for (int i = 0; i < 101; ++i) many += "K\x01";
  EXPECT_TRUE(contains(complaint(many + "e.", o), "more than 100 objects"));
  o = {};
  o.max_bytes = 10'000;
  EXPECT_TRUE(contains(complaint("\x80\x02" + std::string(10'000, 'N') + ".", o), "10000"));
  // One long text, encoded again and again from the memo.
  std::string bomb = "\x80\x02X\xa0\x0f\x00\x00"s + std::string(4000, 'x') +
                     "q\x00X\x06\x00\x00\x00latin1q\x01"s + "c_codecs\nencode\nq\x02"s;
  for (int i = 0; i < 500; ++i) bomb += "h\x02h\x00h\x01\x86R0"s;
  EXPECT_TRUE(contains(complaint(bomb + ".", o), "expands beyond its limit"));
  EXPECT_TRUE(contains(complaint("\x80\x02" + std::string(20'000, '(')), "nested too deeply"));
}

}  // namespace
}  // namespace isoline
