// Any text as a model's configuration, in Triton's text form or as JSON.
#include <cstdlib>

#include "isoline/serve/model_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto config = isoline::serve::parse_model_config(text);
  if (config.ok() ? !config->validate().ok() || config->instances() < 1 : config.error().message.empty())
    std::abort();
  return 0;
}
