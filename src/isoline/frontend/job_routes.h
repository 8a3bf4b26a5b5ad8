// Scans over REST: /v1/segmentations. Internal to the room.
#pragma once

#include "isoline/frontend/frontend.h"
#include "isoline/jobs/service.h"

namespace isoline::frontend {

// Bodies that are scans go to the disk as they come. Threads: handle() and plan() in the server's; what waits
// for the disk does so in threads of its own.
class JobRoutes {
 public:
  // Both must outlive it.
  JobRoutes(jobs::JobService& service, TaskPool& pool);

  static bool is_path(const std::vector<std::string>& path);  // /v1/segmentations and below
  // What becomes of the body of a request for such a path, which may be made by whoever sends it.
  net::BodyPlan plan(const net::HttpHead& head, const std::vector<std::string>& path);
  void handle(const std::shared_ptr<net::HttpExchange>& exchange, const std::vector<std::string>& path);

 private:
  class ScanSink;
  void accept_named_file(const std::shared_ptr<net::HttpExchange>& exchange);
  void list(const std::shared_ptr<net::HttpExchange>& exchange);
  void send_file(const std::shared_ptr<net::HttpExchange>& exchange, const std::string& id, bool labels);
  void in_pool(TaskPool& pool, const std::shared_ptr<net::HttpExchange>& exchange,
               std::function<net::HttpResponse()> work);

  jobs::JobService& service_;
  TaskPool& pool_;
  TaskPool disk_;  // last: its tasks use the rest
};

}  // namespace isoline::frontend
