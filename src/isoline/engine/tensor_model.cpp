#include "isoline/engine/tensor_model.h"

namespace isoline {
namespace {

struct Row {
  ElementType type;
  const char* name;
  size_t bytes;
};
constexpr Row kRows[] = {{ElementType::kBool, "BOOL", 1},     {ElementType::kUInt8, "UINT8", 1},
                         {ElementType::kUInt16, "UINT16", 2}, {ElementType::kUInt32, "UINT32", 4},
                         {ElementType::kUInt64, "UINT64", 8}, {ElementType::kInt8, "INT8", 1},
                         {ElementType::kInt16, "INT16", 2},   {ElementType::kInt32, "INT32", 4},
                         {ElementType::kInt64, "INT64", 8},   {ElementType::kFloat16, "FP16", 2},
                         {ElementType::kBFloat16, "BF16", 2}, {ElementType::kFloat32, "FP32", 4},
                         {ElementType::kFloat64, "FP64", 8},  {ElementType::kBytes, "BYTES", 0}};

const Row& row(ElementType type) {
  return kRows[size_t(type)];
}
static_assert(std::size(kRows) == size_t(ElementType::kBytes) + 1);

}  // namespace

const char* to_string(ElementType type) {
  return row(type).name;
}
size_t element_size(ElementType type) {
  return row(type).bytes;
}
Result<ElementType> parse_element_type(const std::string& text) {
  for (const Row& r : kRows)
    if (text == r.name) return r.type;
  return Error{ErrorCode::kInvalidArgument, "'" + text + "' is no datatype", "datatype",
               "Use BOOL, UINT8 to UINT64, INT8 to INT64, FP16, BF16, FP32, FP64 or BYTES."};
}

}  // namespace isoline
