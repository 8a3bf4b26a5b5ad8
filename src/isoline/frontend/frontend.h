// Frontend: the handlers of both protocols over one repository.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "isoline/frontend/host_watch.h"
#include "isoline/frontend/task_pool.h"
#include "isoline/jobs/service.h"
#include "isoline/net/server.h"
#include "isoline/oip/prometheus.h"
#include "isoline/oip/rest.h"
#include "isoline/serve/repository.h"

namespace isoline::frontend {

struct FrontendOptions {
  oip::ServerInfo server;
  std::vector<std::string>
      tokens;  // a request must carry one of them ("Authorization: Bearer ..."); empty: none needed
  // Where no token is needed: REST requests must be for an address, "localhost" or one of these names (header
  // Host), or a page of any site could make its own name mean this machine and ask as if it were of this
  // site.
  bool only_known_hosts = false;
  std::vector<std::string> host_names;
  bool model_control = true;  // clients may load and unload models
  int threads = 2;
  HostWatchOptions host;
};

// Answers requests of the server's listeners. Repository, jobs and net::Server must outlive it; stop serving
// before it goes.
class Frontend {
 public:
  // `jobs`: null where no scans are segmented.
  Frontend(FrontendOptions options, serve::Repository& repository, jobs::JobService* jobs,
           net::Server& server);
  ~Frontend();

  net::HttpHandler http();
  net::BodyPlanner body_planner();
  net::GrpcHandler grpc();
  // What health/ready says: after the models are loaded and until the server drains.
  void set_ready(bool ready) { ready_ = ready; }

 private:
  friend class RestRoutes;
  friend class GrpcRoutes;
  const FrontendOptions options_;
  serve::Repository& repository_;
  net::Server& server_;
  std::atomic<bool> ready_{false};
  HostWatch host_;
  std::unique_ptr<class RestRoutes> rest_;
  std::unique_ptr<class GrpcRoutes> grpc_;
  std::unique_ptr<class JobRoutes> jobs_;  // may be null
  TaskPool pool_;                          // last: its tasks use the rest
  TaskPool control_;  // loading and unloading, one after another, so that the pool stays free meanwhile
};

// A request on its way whose client may leave: the ticket arrives in one thread, the news of leaving in
// another.
class Abandonable {
 public:
  void started(serve::InferTicket ticket);
  void gone();
  bool is_gone() const;

 private:
  mutable std::mutex mutex_;
  serve::InferTicket ticket_;
  bool started_ = false, gone_ = false;
};

// Whether `authorization` carries one of the tokens; takes the same time wherever they differ.
bool authorized(const std::vector<std::string>& tokens, std::string_view authorization);

}  // namespace isoline::frontend
