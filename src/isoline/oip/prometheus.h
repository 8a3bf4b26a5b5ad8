// The server's figures as Prometheus text: Triton's names, and histograms that can be added up over servers.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "isoline/measure/energy_monitor.h"
#include "isoline/serve/served_model.h"

namespace isoline::oip {

// What the sockets know.
struct TransportFigures {
  uint64_t connections = 0, connections_total = 0, rejected_total = 0, requests_total = 0,
           bytes_in_flight = 0;
  std::map<int, uint64_t> http_responses, grpc_calls;  // by status
};

// What the process and the machine's devices use. A figure without a value is left out, never said as 0.
struct HostFigures {
  std::vector<measure::DeviceUse> devices;
  std::vector<measure::SourceInfo> unavailable;  // sources of energy that cannot be read here
  uint64_t inferences = 0;                       // of all models that were ever served
  Reading rss_bytes, cpu_s, start_time_s;        // start: seconds since 1970
};

std::string write_metrics(const std::vector<std::shared_ptr<serve::ServedModel>>& models,
                          const TransportFigures& transport, const HostFigures& host);

}  // namespace isoline::oip
