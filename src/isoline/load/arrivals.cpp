#include "isoline/load/arrivals.h"

#include <cmath>

namespace isoline::load {

int64_t ArrivalTimes::next() {
  if (kind_ == Arrivals::kConstant) return int64_t(double(count_++) / per_s_ * 1e9);
  // Own exponential: std::exponential_distribution's values are not the same everywhere.
  at_s_ += -std::log1p(-double(random_() >> 11) * 0x1p-53) / per_s_;
  return int64_t(at_s_ * 1e9);
}

}  // namespace isoline::load
