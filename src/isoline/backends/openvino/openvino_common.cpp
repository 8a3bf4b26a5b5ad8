#include "isoline/backends/openvino/openvino_common.h"

#include <sstream>

#include "isoline/base/parallel.h"

namespace isoline::openvino_backend {

ov::Core& core() {
  static ov::Core instance;
  return instance;
}

std::string reason(const std::exception& e) {
  std::string places, rest, line;
  std::istringstream text(e.what());
  while (std::getline(text, line)) {
    const size_t begin = line.find_first_not_of(" \t\r"), end = line.find_last_not_of(" \t\r");
    if (begin == std::string::npos) continue;
    line = line.substr(begin, end - begin + 1);
    const bool place = line.starts_with("Check '") || line.starts_with("Exception from ") ||
                       line.starts_with("FrontEnd API failed");
    std::string& to = place ? places : rest;
    to += (to.empty() ? "" : "; ") + line;
  }
  return rest.empty() ? places : rest;
}

Error from_exception(const std::exception& e, const std::string& doing) {
  return Error{ErrorCode::kInternal, "OpenVINO failed while " + doing + ": " + reason(e), "backend openvino",
               "Try --backend native or reference; please report this."};
}

Status supports_precision(Precision precision) {
  if (precision == Precision::kFloat16 || precision == Precision::kTensorFloat32)
    return Error{ErrorCode::kUnsupported,
                 std::string("the openvino backend has no ") + to_string(precision) + " on CPUs",
                 "--precision", "Use fp32 or bf16."};
  if (precision == Precision::kBFloat16) {
    try {
      for (const std::string& c : core().get_property("CPU", ov::device::capabilities))
        if (c == "BF16") return {};
    } catch (const std::exception& e) {
      return from_exception(e, "asking for the CPU's capabilities");
    }
    return Error{ErrorCode::kUnsupported, "this CPU has no bf16 instructions", "--precision", "Use fp32."};
  }
  return {};
}

ov::element::Type element_type(Precision precision) {
  return precision == Precision::kBFloat16 ? ov::element::bf16 : ov::element::f32;
}

std::string describe(Precision precision, int threads) {
  return "openvino " + std::string(ov::get_openvino_version().buildNumber) + " CPU, " + to_string(precision) +
         ", " + std::to_string(threads > 0 ? threads : available_cores()) + " threads";
}

}  // namespace isoline::openvino_backend
