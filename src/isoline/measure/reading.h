// Reading: a measured number, or the reason why there is none. Never a silent 0.
#pragma once

#include <optional>
#include <string>
#include <utility>

namespace isoline {

struct Reading {
  std::optional<double> value;
  std::string reason = "not measured";  // why there is no value; empty if there is one

  static Reading of(double v) { return {v, ""}; }
  static Reading unavailable(std::string why) { return {std::nullopt, std::move(why)}; }
  bool ok() const { return value.has_value(); }
  double operator*() const { return *value; }
};

}  // namespace isoline
