// When the requests of an open loop are due. Seeded: the same seed gives the same times on every machine.
#pragma once

#include <cstdint>
#include <random>

namespace isoline::load {

enum class Arrivals { kPoisson, kConstant };

class ArrivalTimes {
 public:
  // `per_s` > 0 requests a second on average, from time 0.
  ArrivalTimes(Arrivals kind, double per_s, uint64_t seed) : kind_(kind), per_s_(per_s), random_(seed) {}
  // Nanoseconds from the start; never decreasing. Constant: 0, 1/rate, 2/rate ... without drift.
  int64_t next();

 private:
  const Arrivals kind_;
  const double per_s_;
  std::mt19937_64 random_;
  uint64_t count_ = 0;
  double at_s_ = 0;
};

}  // namespace isoline::load
