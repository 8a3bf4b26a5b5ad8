#include "isoline/base/result.h"

namespace isoline {

std::string Error::to_string() const {
  std::string out;
  if (!context.empty()) out += context + ": ";
  out += message;
  if (!remedy.empty()) out += (message.empty() || message.back() == '.' ? " " : ". ") + remedy;
  return out;
}

Error Error::in(const std::string& where) const {
  Error copy = *this;
  copy.context = context.empty() ? where : where + ": " + context;
  return copy;
}

int exit_code(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return 2;
    case ErrorCode::kNotFound:
      return 3;
    case ErrorCode::kCorrupt:
      return 4;
    case ErrorCode::kUnsupported:
      return 5;
    case ErrorCode::kResourceExhausted:
      return 6;
    case ErrorCode::kIo:
      return 7;
    case ErrorCode::kInternal:
      return 70;
    case ErrorCode::kCancelled:
      return 130;
  }
  return 70;
}

const char* error_code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "invalid_argument";
    case ErrorCode::kNotFound:
      return "not_found";
    case ErrorCode::kCorrupt:
      return "corrupt";
    case ErrorCode::kUnsupported:
      return "unsupported";
    case ErrorCode::kResourceExhausted:
      return "resource_exhausted";
    case ErrorCode::kIo:
      return "io";
    case ErrorCode::kInternal:
      return "internal";
    case ErrorCode::kCancelled:
      return "cancelled";
  }
  return "internal";
}

}  // namespace isoline
