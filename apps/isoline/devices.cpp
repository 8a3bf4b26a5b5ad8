#include <iostream>

#include "cli.h"
#include "isoline/backends/registry/registry.h"
#include "isoline/base/parallel.h"
#include "isoline/base/resources.h"

namespace isoline::cli {

Action add_devices(CLI::App& app) {
  auto output = std::make_shared<Output>();
  add_output_options(app, *output);
  return [output]() -> Status {
    const BackendRegistry registry = builtin_backends();
    const uint64_t memory = available_memory_bytes();
    if (output->json) {
      Json backends = Json::array();
      for (const Backend* b : registry.all())
        backends.push_back({{"name", b->name()},
                            {"device", b->device_description()},
                            {"kind", b->device_kind()},
                            {"available", b->available()}});
      print({{"version", ISOLINE_VERSION},
             {"cores", available_cores()},
             {"available_memory_bytes", memory == UINT64_MAX ? Json(nullptr) : Json(memory)},
             {"backends", backends}});
      return {};
    }
    std::cout << "cores: " << available_cores();
    if (memory != UINT64_MAX) std::cout << ", available memory: " << (memory >> 20) << " MiB";
    std::cout << "\n";
    for (const Backend* b : registry.all()) std::cout << b->name() << ": " << b->device_description() << "\n";
    return {};
  };
}

}  // namespace isoline::cli
