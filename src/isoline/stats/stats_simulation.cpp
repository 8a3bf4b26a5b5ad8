// Simulated error rates of mean_bounds() and decide_noninferiority(), printed as a Markdown table.
// Usage: stats_simulation [repetitions, default 2000]. The true mean is -delta, where "preserved" is false.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#include "isoline/base/parallel.h"
#include "isoline/stats/describe.h"
#include "isoline/stats/noninferiority.h"

namespace {

using Random = std::mt19937_64;
struct Shape {
  const char* name;
  std::function<double(Random&)> draw;  // mean 0
};

double normal(Random& r) {
  return std::normal_distribution<double>()(r);
}

std::vector<Shape> shapes() {
  const auto lognormal = [](double s) {
    return [s](Random& r) {
      const double mean = std::exp(s * s / 2), sd = std::sqrt((std::exp(s * s) - 1) * std::exp(s * s));
      return -(std::exp(s * normal(r)) - mean) / sd;
    };
  };
  return {
      {"normal", normal},
      {"Laplace", [](Random& r) { return std::exponential_distribution<double>()(r) * (r() & 1 ? 1 : -1); }},
      {"Student t, 3 d.f.", [](Random& r) { return std::student_t_distribution<double>(3)(r); }},
      {"10 % with tenfold spread", [](Random& r) { return normal(r) * (r() % 10 ? 1 : 10); }},
      {"70 % exactly equal, else normal", [](Random& r) { return r() % 10 < 7 ? 0.0 : normal(r); }},
      {"left-skewed, lognormal .5", lognormal(0.5)},
      {"left-skewed, exponential", [](Random& r) { return 1 - std::exponential_distribution<double>()(r); }},
      {"left-skewed, lognormal 1", lognormal(1.0)},
      {"5 % of cases fail outright", [](Random& r) { return 0.2 * normal(r) + (r() % 20 ? 0.2 : -3.8); }}};
}

}  // namespace

int main(int argc, char** argv) {
  const int repetitions = argc > 1 ? std::atoi(argv[1]) : 2000;
  if (repetitions < 1) {
    std::fprintf(stderr, "stats_simulation: give a positive number of repetitions\n");
    return 2;
  }
  constexpr int kResamples = 2000;
  isoline::ThreadPool pool;
  std::printf("%d repetitions, %d resamples each; Monte Carlo standard error of a 5 %% rate: %.2f %%.\n\n",
              repetitions, kResamples, 100 * std::sqrt(.05 * .95 / repetitions));
  std::printf(
      "| differences | n | false \"preserved\" at a true loss of delta | the same, Student's t alone | mean "
      "inside the "
      "two-sided 95 %% interval | power: \"preserved\" at no loss, delta = sd/2 "
      "|\n|---|---|---|---|---|---|\n");
  for (const Shape& shape : shapes())
    for (int n : {10, 40, 200}) {
      const std::vector<int> zeros(static_cast<size_t>(repetitions));
      std::vector<int> wrong = zeros, t_wrong = zeros, inside = zeros, power = zeros;
      // Standard deviation of the shape, from a sample of its own (t with 3 d.f. converges slowly, but has
      // one).
      Random sample(7);
      std::vector<double> many(400'000);
      for (double& v : many) v = shape.draw(sample);
      const double delta = isoline::standard_deviation(many) / 2;
      pool.for_each(repetitions, 8, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          Random random(uint64_t(r) * 1000 + uint64_t(n));
          std::vector<double> x(static_cast<size_t>(n));
          for (double& v : x) v = shape.draw(random);
          const isoline::BootstrapOptions options{kResamples, uint64_t(r)};
          const auto b = isoline::mean_bounds(x, options);
          // Shifted by -delta, the bound is above -delta exactly if the unshifted one is above 0.
          wrong[size_t(r)] = b->lower > 0;
          const double t95 = n == 10 ? 1.8331129 : n == 40 ? 1.6848751 : 1.6525467;
          t_wrong[size_t(r)] = b->mean - t95 * b->sd / std::sqrt(double(n)) > 0;
          inside[size_t(r)] = b->low <= 0 && 0 <= b->high;
          power[size_t(r)] = b->lower > -delta;
        }
      });
      const auto percent = [&](const std::vector<int>& v) {
        int sum = 0;
        for (int i : v) sum += i;
        return 100.0 * sum / repetitions;
      };
      std::printf("| %s | %d | %.1f %% | %.1f %% | %.1f %% | %.0f %% |\n", shape.name, n, percent(wrong),
                  percent(t_wrong), percent(inside), percent(power));
      std::fflush(stdout);
    }
  return 0;
}
