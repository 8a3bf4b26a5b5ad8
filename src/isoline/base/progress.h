// A progress bar with remaining time on standard error.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace isoline {

// Draws "label [#####.....] 12/345 0:42 left" on one line, at most ten times a second, and clears nothing:
// finish() leaves the full bar and a newline. Silent when standard error is not a terminal, or when `enabled`
// is false. Threads: advance() and set() may be called from several at once; the rest from the owner.
class Progress {
 public:
  Progress(std::string label, int64_t total, bool enabled = true);
  ~Progress();  // finishes the line if it was begun
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void advance(int64_t steps = 1);
  void set(int64_t done);
  void finish();
  int64_t done() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// One line as Progress draws it (no carriage return), `width` columns at most; elapsed and remaining in
// seconds, remaining < 0: not known yet. Separate so that it can be tested without a terminal.
std::string progress_line(const std::string& label, int64_t done, int64_t total, double elapsed_s, int width);

}  // namespace isoline
