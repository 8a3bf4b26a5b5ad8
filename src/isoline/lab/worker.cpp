#include "isoline/lab/worker.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>

#include "isoline/lab/json_fields.h"

extern char** environ;

namespace isoline::lab {

template <class V>
void fields(V& v, Setting& s) {
  v("name", s.name), v("backend", s.backend), v("precision", s.precision), v("tta", s.tta), v("step", s.step);
  v("threads", s.threads), v("folds", s.folds);
}
template <class V>
void fields(V& v, CaseFiles& f) {
  v("id", f.id), v("images", f.images), v("output", f.output), v("previous_stage", f.previous_stage);
}
template <class V>
void fields(V& v, SystemRun& r) {
  v("wall_s", r.wall_s), v("stages_s", r.stages_s), v("windows", r.windows), v("forwards", r.forwards);
  v("forward_ms", r.forward_ms), v("device_kind", r.device_kind), v("runtime", r.runtime),
      v("cpu_s", r.cpu_s);
  v("peak_rss_bytes", r.peak_rss_bytes), v("warnings", r.warnings);
}

namespace {

constexpr size_t kMaxLine = 64 << 20;

struct Prepare {
  std::string model, checkpoint;
  Setting setting;
};
template <class V>
void fields(V& v, Prepare& p) {
  v("model", p.model), v("checkpoint", p.checkpoint), v("setting", p.setting);
}

template <class T>
Json to_json(const T& value) {
  T copy = value;
  return JsonWriter::write(copy);
}
template <class T>
Status from_json(const Json& json, T& value) {
  Status status;
  JsonReader reader{json, "", status};
  reader.read(json, "message", value);
  return status;
}

Json error_json(const Error& e) {
  return {{"error",
           {{"code", int(e.code)}, {"message", e.message}, {"context", e.context}, {"remedy", e.remedy}}}};
}

// False if the other side is gone.
bool write_line(int fd, const Json& json) {
  const std::string line = json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  for (size_t done = 0; done < line.size();) {
    const ssize_t n = ::write(fd, line.data() + done, line.size() - done);
    if (n > 0)
      done += size_t(n);
    else if (errno != EINTR)
      return false;
  }
  return true;
}

class WorkerSystem final : public System {
 public:
  WorkerSystem(pid_t pid, int to, int from, WorkerOptions options)
      : pid_(pid), to_(to), from_(from), options_(std::move(options)) {}
  ~WorkerSystem() override { stop(); }
  int64_t process_id() const override { return pid_; }
  bool alive() const override { return pid_ > 0; }

  Result<SystemRun> run(const CaseFiles& files, const std::atomic<bool>* cancel) override {
    ISOLINE_ASSIGN(const Json reply, ask({{"run", to_json(files)}}, cancel));
    SystemRun out;
    if (const Status s = from_json(reply, out); !s.ok()) return broken("it answered nonsense");
    return out;
  }

  Result<Json> ask(const Json& request, const std::atomic<bool>* cancel) {
    if (pid_ < 0) return broken("it is no longer running");
    if (!write_line(to_, request)) return broken(how_it_ended());
    const auto end =
        std::chrono::steady_clock::now() + std::chrono::milliseconds(int64_t(options_.timeout_s * 1000));
    size_t newline;
    while ((newline = buffer_.find('\n')) == std::string::npos) {
      if (cancel && *cancel) {
        kill_now();
        return Error{ErrorCode::kCancelled, "interrupted", "", ""};
      }
      if (std::chrono::steady_clock::now() > end) {
        kill_now();
        return Error{
            ErrorCode::kResourceExhausted,
            "no answer within " + std::to_string(int64_t(options_.timeout_s)) + " s (protocol.timeout_s)", "",
            ""};
      }
      pollfd p{from_, POLLIN, 0};
      if (::poll(&p, 1, 100) <= 0) continue;
      char block[65536];
      const ssize_t n = ::read(from_, block, sizeof block);
      if (n == 0) return broken(how_it_ended());
      if (n < 0 && errno != EINTR) return broken(std::strerror(errno));
      if (n > 0) buffer_.append(block, size_t(n));
      if (buffer_.size() > kMaxLine) return broken("it answered without end");
    }
    const Json reply = Json::parse(buffer_.begin(), buffer_.begin() + ptrdiff_t(newline), nullptr, false);
    buffer_.erase(0, newline + 1);
    if (reply.is_object() && reply.contains("ok")) return reply["ok"];
    if (reply.is_object() && reply.contains("error") && reply["error"].is_object()) {
      const Json& e = reply["error"];
      const auto text = [&](const char* key) { return e.value(key, std::string()); };
      return Error{ErrorCode(e.value("code", int(ErrorCode::kInternal))), text("message"), text("context"),
                   text("remedy")};
    }
    return broken("it answered nonsense");
  }

 private:
  Error broken(const std::string& how) {
    kill_now();
    return Error{ErrorCode::kInternal, "the worker process failed: " + how, options_.log_file,
                 "Its messages are there."};
  }
  // Waits at most two seconds for the process to end.
  bool ended_by_itself(int* status) {
    for (int i = 0; i < 200 && pid_ > 0; ++i) {
      if (::waitpid(pid_, status, WNOHANG) == pid_) pid_ = -1;
      if (pid_ > 0) ::usleep(10'000);
    }
    return pid_ < 0;
  }
  std::string how_it_ended() {
    int status = 0;
    if (pid_ > 0 && ended_by_itself(&status)) {
      if (WIFSIGNALED(status))
        return std::string("it was ended by signal ") + std::to_string(WTERMSIG(status)) +
               (WTERMSIG(status) == SIGKILL ? " (memory may have run out)" : "");
      return "it exited with code " + std::to_string(WEXITSTATUS(status));
    }
    return "it closed its output";
  }
  void kill_now() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  // Closing its input asks it to end; one that does not within two seconds is killed.
  void stop() {
    if (to_ >= 0) ::close(to_);
    ended_by_itself(nullptr);
    kill_now();
    if (from_ >= 0) ::close(from_);
    to_ = from_ = -1;
  }

  pid_t pid_ = -1;
  int to_ = -1, from_ = -1;
  WorkerOptions options_;
  std::string buffer_;
};

}  // namespace

Result<std::unique_ptr<System>> start_worker(const WorkerOptions& options, const Setting& setting,
                                             const std::atomic<bool>* cancel) {
  ::signal(SIGPIPE, SIG_IGN);  // a worker that died is an error to report, not an end
  int request[2], reply[2];
  if (::pipe2(request, O_CLOEXEC) != 0)
    return Error{ErrorCode::kResourceExhausted, std::string("no pipe: ") + std::strerror(errno), "", ""};
  if (::pipe2(reply, O_CLOEXEC) != 0) {
    ::close(request[0]), ::close(request[1]);
    return Error{ErrorCode::kResourceExhausted, std::string("no pipe: ") + std::strerror(errno), "", ""};
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, request[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, reply[1], STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, options.log_file.c_str(),
                                   O_WRONLY | O_CREAT | O_APPEND, 0644);
  std::vector<char*> argv;
  for (const std::string& a : options.command) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  pid_t pid = -1;
  const int failure = ::posix_spawn(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  ::close(request[0]);
  ::close(reply[1]);
  if (failure) {
    ::close(request[1]);
    ::close(reply[0]);
    return Error{ErrorCode::kInternal, std::string("cannot start a worker: ") + std::strerror(failure),
                 options.command[0], ""};
  }
  auto system = std::make_unique<WorkerSystem>(pid, request[1], reply[0], options);
  ISOLINE_ASSIGN(
      [[maybe_unused]] const Json ready,
      system->ask({{"prepare", to_json(Prepare{options.model, options.checkpoint, setting})}}, cancel));
  return std::unique_ptr<System>(std::move(system));
}

Status serve_worker(const WorkerHandler& handler) {
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  ::signal(SIGPIPE, SIG_IGN);
  // Ctrl-C at a terminal reaches the whole group; the parent decides what happens to its workers.
  ::signal(SIGINT, SIG_IGN);
  const int out = ::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
  if (out < 0 || ::dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
    return Error{ErrorCode::kIo, std::string("no output: ") + std::strerror(errno), "", ""};
  std::string buffer;
  char block[65536];
  for (;;) {
    const size_t newline = buffer.find('\n');
    if (newline == std::string::npos) {
      const ssize_t n = ::read(STDIN_FILENO, block, sizeof block);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return {};
      buffer.append(block, size_t(n));
      if (buffer.size() > kMaxLine) return Error{ErrorCode::kCorrupt, "a request without end", "", ""};
      continue;
    }
    const Json request = Json::parse(buffer.begin(), buffer.begin() + ptrdiff_t(newline), nullptr, false);
    buffer.erase(0, newline + 1);
    Json reply = error_json({ErrorCode::kCorrupt, "this is no request", "", ""});
    if (request.is_object() && request.contains("prepare")) {
      Prepare p;
      Status s = from_json(request["prepare"], p);
      if (s.ok()) s = handler.prepare(p.model, p.checkpoint, p.setting);
      reply = s.ok() ? Json{{"ok", true}} : error_json(s.error());
    } else if (request.is_object() && request.contains("run")) {
      CaseFiles files;
      const Status s = from_json(request["run"], files);
      auto run = s.ok() ? handler.run(files) : Result<SystemRun>(s.error());
      reply = run.ok() ? Json{{"ok", to_json(*run)}} : error_json(run.error());
    }
    if (!write_line(out, reply)) return {};
  }
}

}  // namespace isoline::lab
