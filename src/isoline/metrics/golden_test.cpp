// Against the reference implementations, on maps drawn from recipes: tests/goldens/make_metric_goldens.py.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "isoline/metrics/evaluate_case.h"
#include "isoline/metrics/surfel_area.h"

namespace isoline {
namespace {

using Json = nlohmann::json;

const Json& goldens() {
  static const Json json =
      Json::parse(std::ifstream(ISOLINE_SOURCE_DIR "/tests/goldens/metrics/goldens.json"));
  return json;
}

ThreadPool& pool() {
  static ThreadPool p(3);
  return p;
}

LabelMap draw(const Shape3& shape, const Json& recipe) {
  LabelMap m(shape, {});
  std::fill(m.data.begin(), m.data.end(), uint16_t(0));
  for (const Json& step : recipe) {
    const std::string kind = step[0];
    const uint16_t label = step[1];
    uint64_t state = kind == "noise" ? step[2].get<uint64_t>() : 0;
    std::vector<int64_t> a;
    for (size_t i = 2; i < step.size(); ++i) a.push_back(step[i]);
    for (int64_t z = 0; z < shape[0]; ++z)
      for (int64_t y = 0; y < shape[1]; ++y)
        for (int64_t x = 0; x < shape[2]; ++x) {
          bool paint = false;
          if (kind == "box") paint = a[0] <= z && z < a[1] && a[2] <= y && y < a[3] && a[4] <= x && x < a[5];
          if (kind == "ball")
            paint = a[3] * (z - a[0]) * (z - a[0]) + a[4] * (y - a[1]) * (y - a[1]) +
                        a[5] * (x - a[2]) * (x - a[2]) <=
                    a[6];
          if (kind == "noise") {
            state = state * 6364136223846793005u + 1442695040888963407u;
            paint = int64_t(state >> 56) < a[1];
          }
          if (kind == "checker") paint = (z + y + x) % 2 == 0;
          if (paint) m.at(z, y, x) = label;
        }
  }
  return m;
}

std::string hash(const LabelMap& m) {
  uint64_t h = 14695981039346656037u;
  for (uint16_t v : m.data) h = (h ^ v) * 1099511628211u;
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(h));
  return text;
}

double number(const Json& j) {
  return j.is_string() ? std::strtod(j.get<std::string>().c_str(), nullptr) : j.get<double>();
}

void expect_close(double got, const Json& want_json, const std::string& what) {
  const double want = number(want_json);
  if (std::isnan(want))
    EXPECT_TRUE(std::isnan(got)) << what << ": " << got;
  else if (std::isinf(want))
    EXPECT_EQ(got, want) << what;
  else
    EXPECT_NEAR(got, want, 1e-11 * std::max(1.0, want)) << what;
}

TEST(MetricGoldens, SurfelAreas) {
  for (const Json& t : goldens()["surfels"]) {
    const std::vector<double> s = t["spacing"];
    const auto areas = surfel_areas_mm2({s[0], s[1], s[2]});
    for (size_t code = 0; code < 256; ++code)
      EXPECT_NEAR(areas[code], t["areas"][code].get<double>(), 1e-12 * areas[255 - code] + 1e-300) << code;
  }
}

TEST(MetricGoldens, EveryCase) {
  std::vector<LabelSet> regions;
  for (const auto& [name, labels] : goldens()["regions"].items()) regions.push_back({name, labels});
  size_t compared = 0;
  for (const Json& c : goldens()["cases"]) {
    const Shape3 shape{c["shape"][0], c["shape"][1], c["shape"][2]};
    LabelMap reference = draw(shape, c["reference"]), prediction = draw(shape, c["prediction"]);
    ASSERT_EQ(hash(reference), c["hash"][0]) << "drawn differently: " << c["name"];
    ASSERT_EQ(hash(prediction), c["hash"][1]) << "drawn differently: " << c["name"];
    reference.geometry.spacing_mm = {c["spacing"][0], c["spacing"][1], c["spacing"][2]};
    std::optional<int> ignore;
    if (!c["ignore"].is_null()) ignore = c["ignore"].get<int>();

    std::vector<SurfaceRegion> surfaces;
    for (const LabelSet& r : regions) surfaces.push_back({r, c["regions"][r.name]["tolerances"]});
    const auto overlaps = count_overlaps(reference, prediction, regions, ignore, pool());
    const auto measured = surface_metrics(reference, prediction, surfaces, ignore, pool());
    ASSERT_TRUE(overlaps.ok() && measured.ok());
    for (size_t r = 0; r < regions.size(); ++r) {
      const Json& want = c["regions"][regions[r].name];
      const std::string where = c["name"].get<std::string>() + ", " + regions[r].name + ", ";
      const OverlapCounts& o = (*overlaps)[r];
      EXPECT_EQ(Json({o.true_positive, o.false_positive, o.false_negative, o.true_negative}), want["counts"])
          << where;
      expect_close(o.dice(BothEmpty::kNan), want["dice"], where + "dice");
      const SurfaceMetrics& m = (*measured)[r];
      expect_close(m.reference_area_mm2, want["areas"][0], where + "reference area");
      expect_close(m.predicted_area_mm2, want["areas"][1], where + "predicted area");
      if (!m.reference_empty() && !m.predicted_empty()) {
        expect_close(m.reference_mean_mm, want["mean"][0], where + "reference mean");
        expect_close(m.predicted_mean_mm, want["mean"][1], where + "predicted mean");
      }
      // DeepMind's distance of two empty surfaces is infinite; ours is undefined, or 0 by the other
      // convention.
      if (!m.reference_empty() || !m.predicted_empty())
        expect_close(m.hd95_mm(BothEmpty::kNan), want["hd95"], where + "hd95");
      for (size_t t = 0; t < m.tolerances_mm.size(); ++t)
        expect_close(m.surface_dice(t, BothEmpty::kNan), want["surface_dice"][t],
                     where + "surface dice at " + std::to_string(m.tolerances_mm[t]));
      if (want.contains("kits")) {
        expect_close(o.dice(BothEmpty::kOne), want["kits"][0], where + "KiTS dice");
        expect_close(m.surface_dice(3, BothEmpty::kOne), want["kits"][1], where + "KiTS surface dice");
      }
      ++compared;
    }

    const auto lesions = detect_lesions(reference, prediction, {{"tumor", {2}}}, ignore);
    ASSERT_TRUE(lesions.ok());
    Json found = Json::array(), sizes = Json::array();
    for (const Lesion& l : lesions->reference) {
      found.push_back(int(l.found));
      sizes.push_back(l.voxels);
    }
    EXPECT_EQ(found, c["lesions"]["found"]) << c["name"];
    EXPECT_EQ(sizes, c["lesions"]["voxels"]) << c["name"];
    EXPECT_EQ(lesions->predicted, c["lesions"]["predicted"].get<int>()) << c["name"];
    EXPECT_EQ(int(lesions->false_positives.size()), c["lesions"]["false_positive"].get<int>()) << c["name"];
  }
  EXPECT_GE(compared, 800u);
}

}  // namespace
}  // namespace isoline
