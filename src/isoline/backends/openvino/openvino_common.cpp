#include "isoline/backends/openvino/openvino_common.h"

#include "isoline/base/parallel.h"

namespace isoline::openvino_backend {

ov::Core& core() {
  static ov::Core instance;
  return instance;
}

Error from_exception(const std::exception& e, const std::string& doing) {
  return Error{ErrorCode::kInternal, "OpenVINO failed while " + doing + ": " + e.what(), "backend openvino",
               "Try --backend native or reference; please report this."};
}

Status supports_precision(Precision precision) {
  if (precision == Precision::kFloat16)
    return Error{ErrorCode::kUnsupported, "the openvino backend has no fp16 on CPUs", "--precision",
                 "Use fp32 or bf16."};
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
