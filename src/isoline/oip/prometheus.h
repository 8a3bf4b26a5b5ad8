// The server's figures as Prometheus text: Triton's names, and histograms that can be added up over servers.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "isoline/serve/served_model.h"

namespace isoline::oip {

// What the sockets know.
struct TransportFigures {
  uint64_t connections = 0, connections_total = 0, rejected_total = 0, requests_total = 0,
           bytes_in_flight = 0;
};

std::string write_metrics(const std::vector<std::shared_ptr<serve::ServedModel>>& models,
                          const TransportFigures& transport);

}  // namespace isoline::oip
