// A few threads for what must not hold up the sockets: loading models, inflating and parsing large bodies.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace isoline::frontend {

class TaskPool {
 public:
  TaskPool(int threads, size_t max_waiting);
  ~TaskPool();  // finishes what waits
  // False when too much waits already.
  bool post(std::function<void()> task);

 private:
  void work();
  const size_t max_waiting_;
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<std::function<void()>> tasks_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace isoline::frontend
