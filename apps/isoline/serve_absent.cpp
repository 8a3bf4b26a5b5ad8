// In place of serve.cpp and bench.cpp where their libraries were not found.
#include "cli.h"

namespace isoline::cli {

Action add_serve(CLI::App& app) {
  app.allow_extras();
  return []() -> Status {
    return Error{
        ErrorCode::kUnsupported, "this build has no server", "serve",
        "Install libnghttp2-dev, libssl-dev and libsqlite3-dev and build again with -DISOLINE_SERVER=ON."};
  };
}

Action add_bench(CLI::App& app) {
  app.allow_extras();
  return []() -> Status {
    return Error{ErrorCode::kUnsupported, "this build has no clients of servers", "bench",
                 "Install libnghttp2-dev and libssl-dev and build again with -DISOLINE_SERVER=ON."};
  };
}

}  // namespace isoline::cli
