// ThreadPool: a fixed set of workers and one blocking parallel_for.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace isoline {

// Owns `threads` - 1 workers; the calling thread takes part. Not reentrant: a body must not call for_each
// on the same pool. An exception thrown by a body is rethrown to the caller after all workers have stopped.
class ThreadPool {
 public:
  // threads = 0 means one per available core (affinity respected).
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const;
  // Calls body(begin, end) over disjoint chunks of at most `grain` covering [0, n); chunks are handed out in
  // increasing order to whichever thread is free. Blocks until all are done.
  void for_each(int64_t n, int64_t grain, const std::function<void(int64_t begin, int64_t end)>& body);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Cores this process may run on.
int available_cores();

}  // namespace isoline
