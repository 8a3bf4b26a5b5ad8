// A model behind the Open Inference Protocol's REST.
#pragma once

#include "isoline/load/channel.h"
#include "isoline/load/client_socket.h"

namespace isoline::load {

// Asks for metadata and configuration. `version` may be empty. With `pictures`, requests are encoded
// pictures.
Result<std::unique_ptr<Target>> open_http_target(const Endpoint& endpoint, const std::string& model,
                                                 const std::string& version, bool pictures);
// The same through gRPC.
Result<std::unique_ptr<Target>> open_grpc_target(const Endpoint& endpoint, const std::string& model,
                                                 const std::string& version);

}  // namespace isoline::load
