#include "isoline/base/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <mutex>

namespace isoline {
namespace {

using Clock = std::chrono::steady_clock;

std::string clock_text(double seconds) {
  const long s = std::lround(std::max(0.0, std::min(seconds, 359999.0)));
  char text[32];
  if (s >= 3600)
    std::snprintf(text, sizeof text, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
  else
    std::snprintf(text, sizeof text, "%ld:%02ld", s / 60, s % 60);
  return text;
}

int terminal_columns() {
  struct winsize w {};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0) return w.ws_col;
  return 80;
}

}  // namespace

std::string progress_line(const std::string& label, int64_t done, int64_t total, double elapsed_s,
                          int width) {
  total = std::max<int64_t>(total, 0);
  done = std::clamp<int64_t>(done, 0, total);
  const double part = total > 0 ? double(done) / double(total) : 0.0;
  std::string tail = " " + std::to_string(done) + "/" + std::to_string(total);
  if (done == total && total > 0)
    tail += "  " + clock_text(elapsed_s);
  else if (done > 0)
    tail += "  " + clock_text(elapsed_s * (1.0 - part) / part) + " left";
  const int bar = std::min(40, width - int(label.size() + tail.size()) - 4);
  std::string line = label;
  if (bar >= 5) {
    const int full = int(part * bar);
    line += " [" + std::string(size_t(full), '#') + std::string(size_t(bar - full), '.') + "]";
  }
  line += tail;
  if (int(line.size()) > width) line.resize(size_t(std::max(0, width)));
  return line;
}

struct Progress::State {
  std::string label;
  int64_t total = 0;
  bool visible = false;
  std::atomic<int64_t> done{0};
  Clock::time_point start = Clock::now(), drawn{};
  std::mutex mutex;
  size_t last_length = 0;
  bool begun = false, finished = false;

  void draw(bool last) {
    const std::unique_lock lock(mutex);
    const auto now = Clock::now();
    if (finished || (!last && begun && now - drawn < std::chrono::milliseconds(100))) return;
    drawn = now;
    begun = true;
    std::string line =
        progress_line(label, done.load(), total, std::chrono::duration<double>(now - start).count(),
                      terminal_columns() - 1);
    const size_t length = line.size();
    if (length < last_length) line.append(last_length - length, ' ');
    last_length = length;
    line = "\r" + line + (last ? "\n" : "");
    finished = last;
    std::fputs(line.c_str(), stderr);
    std::fflush(stderr);
  }
};

Progress::Progress(std::string label, int64_t total, bool enabled) : state_(std::make_unique<State>()) {
  state_->label = std::move(label);
  state_->total = total;
  state_->visible = enabled && ::isatty(STDERR_FILENO) == 1;
  if (state_->visible) state_->draw(false);
}

Progress::~Progress() {
  if (state_->visible) state_->draw(true);
}

void Progress::advance(int64_t steps) {
  state_->done.fetch_add(steps);
  if (state_->visible) state_->draw(false);
}

void Progress::set(int64_t done) {
  state_->done.store(done);
  if (state_->visible) state_->draw(false);
}

void Progress::finish() {
  if (state_->visible) state_->draw(true);
}

int64_t Progress::done() const {
  return state_->done.load();
}

}  // namespace isoline
