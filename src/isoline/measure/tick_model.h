// TickModel: where the ticks of a periodic counter lie, learnt from intervals in which it was seen to change.
// Lets a meter read an expensive counter rarely and still know when the value it read was published.
#pragma once

#include <cstdint>
#include <vector>

namespace isoline::measure {

class TickModel {
 public:
  // A tick at `at_ns` +- `half_ns`.
  struct Tick {
    int64_t at_ns = 0, half_ns = 0;
  };

  // Five consecutive ticks of nearly equal distance make the model valid.
  bool valid() const { return valid_; }
  int64_t period_ns() const { return valid_ ? int64_t(period_) : 0; }
  // One tick fell into [lo, hi]. While the model is not valid every tick must be observed, else call reset().
  // A valid model takes any tick; one that lies more than a quarter period off shows that the model no longer
  // holds and starts a new one.
  void observe(int64_t lo_ns, int64_t hi_ns);
  void reset();

  // Latest tick at or before t, first tick after t. Valid models only.
  Tick last_before(int64_t t_ns) const;
  Tick next_after(int64_t t_ns) const;
  // Latest tick that is known to within half_ns without another observation; the last one observed at least.
  Tick known_until(int64_t half_ns) const;

 private:
  Tick tick(int64_t index) const;
  bool valid_ = false;
  std::vector<double> run_;  // middles of consecutive ticks, while learning
  double widest_half_ = 0;   // of them
  // Tick `index_` lies at ref_ +- half_; tick 0 at first_ +- first_half_. Observations that contradict each
  // other although each is certain show jitter_, which is added to every prediction.
  int64_t index_ = 0;
  double ref_ = 0, half_ = 0, first_ = 0, first_half_ = 0, period_ = 0, period_error_ = 0, jitter_ = 0;
};

}  // namespace isoline::measure
