// A model in this process: through the serving core without sockets, or its sessions alone.
#pragma once

#include "isoline/load/channel.h"
#include "isoline/serve/served_model.h"

namespace isoline::load {

// Through queue and batching. With `pictures`, samples are decoded from files by the sending thread, as part
// of the request.
Result<std::unique_ptr<Target>> open_core_target(std::shared_ptr<serve::ServedModel> model, bool pictures);
// Batches on sessions of their own, one a lane and a thread, without queue or batching.
Result<std::unique_ptr<Target>> open_session_target(std::shared_ptr<serve::ServedModel> model);

}  // namespace isoline::load
