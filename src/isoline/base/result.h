// Result<T>: a value or an Error, for everything a user's file or request can cause.
// Bugs and dead devices throw instead (see docs/ARCHITECTURE.md, "Errors").
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace isoline {

// The kind of failure; each maps to one CLI exit code (exit_code() in error.cpp).
enum class ErrorCode {
  kInvalidArgument,    // an option or a call's argument is wrong
  kNotFound,           // a file, fold, configuration or backend is missing
  kCorrupt,            // bytes that are not what their format says
  kUnsupported,        // understood, but deliberately not done
  kResourceExhausted,  // memory, disk or a stated limit
  kIo,                 // the operating system refused a read or a write
  kCancelled,          // interrupted by the user
  kInternal,           // a dependency failed in a way its contract excludes
};

// One failure: what happened, where (file, tensor, field) and what to do about it.
struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;  // one sentence, names the offending thing
  std::string context;  // file, tensor or field; may be empty
  std::string remedy;   // what the user can do; may be empty

  // "context: message. remedy" on one line.
  std::string to_string() const;
  // The same error with `where` put in front of its context.
  Error in(const std::string& where) const;
};

// Process exit code of an error: 2 usage, 3 input, 4 model, ... see docs/guides/cli.md.
int exit_code(ErrorCode code);
// Stable lower-case name of a code, as it stands in --json output.
const char* error_code_name(ErrorCode code);

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : v_(std::in_place_index<0>, std::move(value)) {}      // NOLINT: implicit by design
  Result(Error error) : v_(std::in_place_index<1>, std::move(error)) {}  // NOLINT
  bool ok() const { return v_.index() == 0; }
  explicit operator bool() const { return ok(); }
  T& value() & { return std::get<0>(v_); }
  const T& value() const& { return std::get<0>(v_); }
  T&& value() && { return std::get<0>(std::move(v_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  const Error& error() const& { return std::get<1>(v_); }
  Error&& error() && { return std::get<1>(std::move(v_)); }

 private:
  std::variant<T, Error> v_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT: implicit by design
  bool ok() const { return !error_; }
  explicit operator bool() const { return ok(); }
  const Error& error() const& { return *error_; }
  Error&& error() && { return *std::move(error_); }

 private:
  std::optional<Error> error_;
};

using Status = Result<void>;

}  // namespace isoline

#define ISOLINE_CONCAT_INNER(a, b) a##b
#define ISOLINE_CONCAT(a, b) ISOLINE_CONCAT_INNER(a, b)
// Evaluates a Status/Result expression and returns its error from the enclosing function.
#define ISOLINE_RETURN_IF_ERROR(expr)                             \
  do {                                                            \
    if (auto isoline_status = (expr); !isoline_status.ok())       \
      return ::isoline::Error(std::move(isoline_status).error()); \
  } while (0)
// ISOLINE_ASSIGN(auto x, f()): x = the value of f(), or return f()'s error.
#define ISOLINE_ASSIGN(decl, expr)                                                         \
  auto ISOLINE_CONCAT(isoline_result_, __LINE__) = (expr);                                 \
  if (!ISOLINE_CONCAT(isoline_result_, __LINE__).ok())                                     \
    return ::isoline::Error(std::move(ISOLINE_CONCAT(isoline_result_, __LINE__)).error()); \
  decl = std::move(ISOLINE_CONCAT(isoline_result_, __LINE__)).value()
