// What the sessions and the tensor models of this backend share. Internal to backends/openvino.
#pragma once

#include <exception>
#include <string>

#include <openvino/openvino.hpp>

#include "isoline/engine/backend.h"

namespace isoline::openvino_backend {

// One core per process: plugins are loaded once, and destroying it at exit is left to the library.
ov::Core& core();

// What an exception of the library says, on one line. Where it names places in the library's sources and also
// says what is wrong, only the latter.
std::string reason(const std::exception& e);

// An exception of the library as an error of this program.
Error from_exception(const std::exception& e, const std::string& doing);

// fp16 is refused, and bf16 where the processor has none.
Status supports_precision(Precision precision);
ov::element::Type element_type(Precision precision);

// "openvino <version> CPU, fp32, 2 threads".
std::string describe(Precision precision, int threads);

}  // namespace isoline::openvino_backend
