#include "isoline/load/driver.h"

#include <algorithm>
#include <deque>
#include <unordered_map>

namespace isoline::load {
namespace {

constexpr int64_t kLookUpNs = 50'000'000;  // how often an idle wait looks for cancellation
constexpr size_t kMostBacklog = 1'000'000;

int64_t ns(double seconds) {
  return int64_t(seconds * 1e9);
}

class Driver {
 public:
  Driver(Channel& channel, const LoadPlan& plan, const std::function<void()>& at_boundary)
      : channel_(channel), plan_(plan), at_boundary_(at_boundary), due_(plan.arrivals, plan.rate, plan.seed) {
    under_way_.reserve(channel.capacity() * 2);
  }

  Result<LoadRecord> run() {
    began_ns_ = now_ns();
    window_began_ns_ = began_ns_;
    if (plan_.open_loop) next_due_ns_ = began_ns_ + due_.next();
    while (!finished_) {
      if (plan_.cancel && plan_.cancel->load()) return Error{ErrorCode::kCancelled, "interrupted", "", ""};
      plan_.open_loop ? offer_due() : offer_closed();
      ISOLINE_RETURN_IF_ERROR(channel_.health());
      const int64_t now = now_ns();
      collect(std::min({now + kLookUpNs, window_end_ns(), plan_.open_loop ? wake_for_due() : INT64_MAX}));
      if (now_ns() >= window_end_ns()) end_window();
    }
    drain();
    return std::move(record_);
  }

 private:
  struct UnderWay {
    int64_t start_ns, begun_ns;
  };

  void send(int64_t start_ns, int64_t begun_ns) {
    under_way_.emplace(tag_, UnderWay{start_ns, begun_ns});
    channel_.send(tag_, size_t(tag_ % plan_.payloads));
    ++tag_;
    ++record_.sent;
  }

  void offer_closed() {
    while (under_way_.size() < plan_.concurrency) {
      const int64_t now = now_ns();
      send(now, now);
    }
  }

  // Everything that is due by now and has room; what has none keeps its intended start and waits.
  void offer_due() {
    const int64_t now = now_ns();
    while (next_due_ns_ <= now && backlog_.size() < kMostBacklog) {
      backlog_.push_back(next_due_ns_);
      next_due_ns_ = began_ns_ + due_.next();
    }
    while (!backlog_.empty() && under_way_.size() < channel_.capacity()) {
      send(backlog_.front(), now_ns());
      backlog_.pop_front();
    }
  }
  int64_t wake_for_due() const { return under_way_.size() < channel_.capacity() ? next_due_ns_ : INT64_MAX; }

  void collect(int64_t until_ns) {
    done_.clear();
    channel_.wait(until_ns, done_);
    for (Completion& c : done_) {
      const auto it = under_way_.find(c.tag);
      if (it == under_way_.end()) continue;
      const UnderWay u = it->second;
      under_way_.erase(it);
      ++ended_;
      if (!c.error.empty()) {
        ++record_.errors[c.error];
        record_.error_examples.try_emplace(c.error, c.message.substr(0, 300));
        record_.error_ends_ns.push_back(c.end_ns);
        continue;
      }
      record_.samples.push_back({u.start_ns, u.begun_ns, c.sent_ns, c.first_byte_ns, c.end_ns});
      ++answers_;
      latency_ns_ += double(c.end_ns - u.start_ns);
    }
  }

  int64_t window_end_ns() const {
    const double seconds = record_.boundaries_ns.empty() ? plan_.warmup_s : plan_.window_s;
    return window_began_ns_ + ns(ended_ >= kLeastEnded ? seconds : 10 * std::max(seconds, .1));
  }

  // The end of the warm-up, or of a window.
  void end_window() {
    const int64_t now = now_ns();
    if (!record_.boundaries_ns.empty())
      windows_.push_back({double(answers_) / (double(now - window_began_ns_) * 1e-9),
                          answers_ ? latency_ns_ / double(answers_) * 1e-6 : 0});
    record_.boundaries_ns.push_back(now);
    at_boundary_();
    window_began_ns_ = now;
    answers_ = ended_ = 0;
    latency_ns_ = 0;
    record_.why_unstable = bench::why_unstable(windows_, plan_.stability);
    const bool full = record_.samples.size() + record_.error_ends_ns.size() >= kMostSamples;
    finished_ = !windows_.empty() &&
                (record_.why_unstable.empty() || int(windows_.size()) >= plan_.max_windows || full);
  }

  // Nothing more is sent; what is under way may still be answered, so that counts agree with the server's.
  void drain() {
    const int64_t until = now_ns() + ns(plan_.answer_timeout_s);
    while (!under_way_.empty() && now_ns() < until && !(plan_.cancel && plan_.cancel->load()))
      collect(std::min(until, now_ns() + kLookUpNs));
    record_.unanswered = under_way_.size();
  }

  Channel& channel_;
  const LoadPlan& plan_;
  const std::function<void()>& at_boundary_;
  ArrivalTimes due_;
  int64_t began_ns_ = 0, window_began_ns_ = 0, next_due_ns_ = 0;
  std::deque<int64_t> backlog_;  // intended starts of what is due and has no room
  std::unordered_map<uint64_t, UnderWay> under_way_;
  std::vector<Completion> done_;
  uint64_t tag_ = 0, answers_ = 0, ended_ = 0;  // the latter two: of this window
  double latency_ns_ = 0;
  bool finished_ = false;
  std::vector<bench::WindowFigures> windows_;
  LoadRecord record_;
};

}  // namespace

Result<LoadRecord> drive(Channel& channel, const LoadPlan& plan, const std::function<void()>& at_boundary) {
  return Driver(channel, plan, at_boundary).run();
}

}  // namespace isoline::load
