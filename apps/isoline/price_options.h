// Prices as options, for compare and report.
#pragma once

#include <CLI/CLI.hpp>

#include "isoline/lab/cost.h"

namespace isoline::cli {

inline void add_price_options(CLI::App& app, lab::Prices& prices) {
  app.add_option("--price-per-hour", prices.per_hour, "What an hour of the machine costs");
  app.add_option("--price-per-kwh", prices.per_kwh, "What a kilowatt-hour costs");
  app.add_option("--co2-g-per-kwh", prices.co2_g_per_kwh, "Grams of CO2 per kilowatt-hour");
  app.add_option("--currency", prices.currency, "Label of the prices (default: USD)");
}

}  // namespace isoline::cli
