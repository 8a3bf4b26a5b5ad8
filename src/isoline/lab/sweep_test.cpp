// The whole way from an experiment file to a recommendation, with a system that only pretends.
#include "isoline/lab/sweep.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "isoline/io/nifti.h"
#include "isoline/lab/journal.h"
#include "isoline/lab/recommend.h"
#include "isoline/lab/registration.h"
#include "isoline/lab/summarize.h"
#include "isoline/measure/simulated.h"

namespace isoline::lab {
namespace {

namespace fs = std::filesystem;
constexpr int kCases = 8;

class SweepTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "isoline_sweep_XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    fs::create_directories(folder_ + "/images");
    fs::create_directories(folder_ + "/labels");
    for (int i = 0; i < kCases; ++i) write_case(i);
    write_experiment("0.02");
  }
  void TearDown() override { fs::remove_all(folder_); }

  static std::string id(int i) { return "case_" + std::to_string(i); }
  // Kidney: a box whose size differs from case to case.
  LabelMap reference(int i) const {
    LabelMap labels({12, 16, 16}, Geometry{});
    for (uint16_t& v : labels.data) v = 0;
    for (int64_t z = 2; z < 10; ++z)
      for (int64_t y = 2; y < 10 + i % 4; ++y)
        for (int64_t x = 2; x < 12; ++x) labels.at(z, y, x) = uint16_t(x < 6 ? 2 : 1);
    return labels;
  }
  void write_case(int i) {
    Image image;
    image.channels = 1;
    image.shape = {12, 16, 16};
    Buffer<int16_t> data(12 * 16 * 16);
    for (size_t k = 0; k < data.size(); ++k) data[k] = int16_t(k % 100 + size_t(i));
    image.data = std::move(data);
    ASSERT_TRUE(
        write_image(folder_ + "/images/" + id(i) + "_0000.nii.gz", image, source_from({}, image.shape), pool_)
            .ok());
    ASSERT_TRUE(write_labels(folder_ + "/labels/" + id(i) + ".nii.gz", reference(i),
                             source_from({}, image.shape), pool_)
                    .ok());
  }
  void write_experiment(const std::string& delta, const std::string& extra = "") {
    std::ofstream(folder_ + "/e.toml")
        << "[experiment]\nid = \"E\"\nmodel = \"" ISOLINE_SOURCE_DIR
           "/tests/goldens/parity/plain3d_iso_regions/model\"\n"
        << "[cases]\nimages = \"images\"\nreferences = \"labels\"\n"
        << "[[setting]]\nname = \"B0\"\n[[setting]]\nname = \"same\"\nprecision = \"bf16\"\n"
        << "[[setting]]\nname = \"worse\"\nstep = 0.75\n[[setting]]\nname = \"fails\"\ntta = \"none\"\n"
        << "[[quality.region]]\nname = \"kidney\"\nlabels = [1, 2]\n[[quality.region]]\nname = "
           "\"mass\"\nlabels = [2]\n"
        << "[quality]\nlesions = \"mass\"\nsurface_tolerance_mm = 1\n"
        << "[[endpoint]]\nmetric = \"dice\"\nregion = \"kidney\"\ndelta = " << delta << "\n"
        << "[[endpoint]]\nmetric = \"surface_dice\"\nregion = \"mass\"\ndelta = 0.1\n"
        << "[protocol]\nwarmup = 1\nrepetitions = 2\n"
        << extra;
  }
  Result<Plan> plan() {
    ISOLINE_ASSIGN(Experiment e, read_experiment(folder_ + "/e.toml"));
    return make_plan(std::move(e), pool_);
  }

  // Writes the reference, without its last rows under "worse"; refuses one case under "fails".
  class FakeSystem : public System {
   public:
    FakeSystem(SweepTest& test, std::string setting) : test_(test), setting_(std::move(setting)) {}
    int64_t process_id() const override { return 0; }
    bool alive() const override { return true; }
    Result<SystemRun> run(const CaseFiles& files, const std::atomic<bool>*) override {
      ++test_.runs_;
      if (test_.stop_after_ > 0 && test_.runs_ > test_.stop_after_)
        return Error{ErrorCode::kCancelled, "interrupted", "", ""};
      const int i = files.id.back() - '0';
      if (setting_ == "fails" && i == 3 && files.output.find("warmup") == std::string::npos)
        return Error{ErrorCode::kUnsupported, "case 3 is not liked", "", ""};
      LabelMap labels = test_.reference(i);
      if (setting_ == "worse")
        for (int64_t z = 2; z < 10; ++z)
          for (int64_t y = 8; y < 16; ++y)
            for (int64_t x = 0; x < 16; ++x) labels.at(z, y, x) = 0;
      ISOLINE_RETURN_IF_ERROR(write_labels(files.output, labels, source_from({}, labels.shape), test_.pool_));
      SystemRun r;
      r.device_kind = test_.clock_ ? "gpu" : "cpu";
      if (test_.clock_) test_.clock_->sleep_until(test_.clock_->now_ns() + measure::ns_from_s(2));
      r.wall_s = (setting_ == "B0" ? 4.0 : setting_ == "same" ? 2.0 : 1.0) * (1 + 0.1 * i);
      r.stages_s = {{"network", r.wall_s / 2}};
      r.forward_ms = {1, 2, 3};
      r.windows = r.forwards = 3;
      r.runtime = "fake";
      r.cpu_s = Reading::of(1);
      return r;
    }
    SweepTest& test_;
    std::string setting_;
  };
  SweepOptions options() {
    SweepOptions o;
    o.run_folder = folder_ + "/run";
    o.open_system = [this](const Setting& s) -> Result<std::unique_ptr<System>> {
      return std::unique_ptr<System>(std::make_unique<FakeSystem>(*this, s.name));
    };
    return o;
  }

  std::string folder_;
  ThreadPool pool_{2};
  int runs_ = 0, stop_after_ = 0;
  measure::SimulatedClock* clock_ = nullptr;  // every run takes two seconds on it
};

TEST_F(SweepTest, FromExperimentToRecommendation) {
  auto p = plan();
  ASSERT_TRUE(p.ok()) << p.error().to_string();
  ASSERT_TRUE(register_plan(*p).ok());
  const Status swept = run_sweep(*p, options(), pool_);
  ASSERT_TRUE(swept.ok()) << swept.error().to_string();
  auto s = summarize_run(*p, folder_ + "/run", pool_);
  ASSERT_TRUE(s.ok()) << s.error().to_string();
  EXPECT_EQ(s->registration.status, "registered");
  ASSERT_EQ(s->settings.size(), 4u);
  const SettingSummary &b0 = s->settings[0], &same = s->settings[1], &worse = s->settings[2],
                       &fails = s->settings[3];
  EXPECT_FALSE(b0.verdict.has_value());
  EXPECT_EQ(same.verdict, Verdict::kPreserved);
  EXPECT_EQ(same.disagreement_max, 0.0);
  ASSERT_TRUE(same.speedup);
  EXPECT_NEAR(same.speedup->value, 2, 1e-12);
  EXPECT_EQ(worse.verdict, Verdict::kNotPreserved);
  EXPECT_GT(*worse.disagreement_mean, 0.01);
  EXPECT_LT(worse.endpoints[0].mean_difference, -0.02);
  // One case failed twice (once a repetition): its setting is never preserved, and the case is named.
  EXPECT_EQ(fails.verdict, Verdict::kInconclusive);
  ASSERT_EQ(fails.failures.size(), 1u);
  EXPECT_NE(fails.failures[0].find("case_3"), std::string::npos);
  EXPECT_EQ(fails.cases, kCases - 1);
  EXPECT_FALSE(b0.energy_gross_j.ok());
  EXPECT_NE(b0.energy_gross_j.reason, "");
  ASSERT_EQ(same.lesions.size(), 1u);
  EXPECT_EQ(same.lesions[0].reference, kCases);
  EXPECT_EQ(same.lesions[0].lost, 0);
  EXPECT_EQ(same.description, "precision fp32 -> bf16");
  EXPECT_TRUE(fails.pareto);
  EXPECT_FALSE(b0.pareto);  // "same" is as good and faster

  auto r = recommend(*s, "time");
  ASSERT_TRUE(r.ok());
  EXPECT_EQ(r->setting, "same");
  EXPECT_EQ(r->passed_over.size(), 2u);
  EXPECT_EQ(recommend(*s, "energy").error().code, ErrorCode::kUnsupported);
  // What was written is what was returned.
  auto back = read_summary(folder_ + "/run");
  ASSERT_TRUE(back.ok()) << back.error().to_string();
  EXPECT_EQ(to_json_text(*back), to_json_text(*s));
}

// A card that always draws 300 W: two seconds are 600 J gross and, with the idle power it also draws, 0 J
// net.
TEST_F(SweepTest, EnergyComesFromTheMeterAndThrottledRunsAreRepeated) {
  measure::SimulatedClock clock;
  measure::SimulatedConfig config;
  config.power.low_w = config.power.high_w = 300;
  config.power_gain = 1.02;  // the second reading is off by 2 %
  config.throttle_at_s = 60;
  std::vector<std::unique_ptr<measure::EnergySource>> sources;
  sources.push_back(std::make_unique<measure::SimulatedSource>(config, clock));
  measure::Meter meter(std::move(sources), clock);
  clock_ = &clock;
  auto p = plan();
  ASSERT_TRUE(p.ok());
  SweepOptions o = options();
  o.meter = &meter;
  const Status swept = run_sweep(*p, o, pool_);
  ASSERT_TRUE(swept.ok()) << swept.error().to_string();
  const JournalContent journal = *read_journal(folder_ + "/run");
  auto s = summarize_run(*p, folder_ + "/run", pool_);
  ASSERT_TRUE(s.ok()) << s.error().to_string();
  EXPECT_EQ(s->device_kind, "gpu");
  EXPECT_EQ(s->device_name, "Simulated GPU");
  EXPECT_NEAR(*s->idle_power_w["context alive"], 300, 3);
  const SettingSummary& same = s->settings[1];
  ASSERT_TRUE(same.energy_gross_j.ok()) << same.energy_gross_j.reason;
  EXPECT_NEAR(*same.energy_gross_j, 600, 15);
  EXPECT_NEAR(*same.energy_net_j, 0, 15);
  EXPECT_NEAR(*same.energy_disagreement, -0.02, 0.01);
  ASSERT_TRUE(same.energy_reduction);
  EXPECT_NEAR(same.energy_reduction->value, 1, 0.02);
  // From the sixtieth second on every run is throttled: each is tried three times, and that is said.
  int throttled = 0;
  for (const RunEntry& r : journal.runs) throttled += r.throttled;
  EXPECT_GT(throttled, 3);
  EXPECT_EQ(throttled % 3, 0);
  ASSERT_FALSE(same.notes.empty());
  EXPECT_NE(same.notes[0].find("throttled"), std::string::npos);
  auto r = recommend(*s, "energy");
  ASSERT_TRUE(r.ok()) << r.error().to_string();
}

TEST_F(SweepTest, AnInterruptedSweepGoesOnWhereItWas) {
  auto p = plan();
  ASSERT_TRUE(p.ok());
  stop_after_ = 10;
  EXPECT_EQ(run_sweep(*p, options(), pool_).error().code, ErrorCode::kCancelled);
  const size_t kept = read_journal(folder_ + "/run")->runs.size();
  EXPECT_GT(kept, 3u);
  stop_after_ = 0;
  runs_ = 0;
  ASSERT_TRUE(run_sweep(*p, options(), pool_).ok());
  // Four warm-ups again; nothing that was kept is run again.
  EXPECT_EQ(size_t(runs_), 4 + 4 * kCases * 2 - kept);
  runs_ = 0;
  ASSERT_TRUE(run_sweep(*p, options(), pool_).ok());
  EXPECT_EQ(runs_, 1 + 2) << "only the failing case is tried again, after one warm-up";
}

TEST_F(SweepTest, AChangedThresholdIsSaidInEveryOutput) {
  ASSERT_TRUE(register_plan(*plan()).ok());
  ASSERT_TRUE(run_sweep(*plan(), options(), pool_).ok());
  write_experiment("0.5");
  auto p = plan();
  ASSERT_TRUE(run_sweep(*p, options(), pool_).ok());
  auto s = summarize_run(*p, folder_ + "/run", pool_);
  ASSERT_TRUE(s.ok());
  EXPECT_EQ(s->registration.status, "changed");
  ASSERT_EQ(s->registration.changes.size(), 1u);
  EXPECT_NE(s->registration.changes[0].find("delta: 0.02 -> 0.5"), std::string::npos)
      << s->registration.changes[0];
  EXPECT_FALSE(recommend(*s)->caveats.empty());
  // And it cannot be registered over.
  EXPECT_EQ(register_plan(*p).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(SweepTest, MissingLateAndEditedRegistrations) {
  auto p = plan();
  ASSERT_TRUE(run_sweep(*p, options(), pool_).ok());
  EXPECT_EQ(summarize_run(*p, folder_ + "/run", pool_)->registration.status, "missing");
  RegistrationRecord late{"e.registered.json", "2999-01-01T00:00:00Z", "", p->registered};
  EXPECT_EQ(judge_registration(*p, late, "2026-01-01T00:00:00Z").status, "late");
  ASSERT_TRUE(register_plan(*p).ok());
  const std::string file = registration_path(folder_ + "/e.toml");
  std::ifstream in(file);
  std::string text((std::istreambuf_iterator<char>(in)), {});
  text.replace(text.find("0.02"), 4, "0.05");
  std::ofstream(file) << text;
  EXPECT_EQ(read_registration(file).error().code, ErrorCode::kCorrupt);
}

TEST_F(SweepTest, AFolderOfAnotherRunIsLeftAlone) {
  ASSERT_TRUE(run_sweep(*plan(), options(), pool_).ok());
  write_experiment("0.02", "seed = 9\n");
  const Status s = run_sweep(*plan(), options(), pool_);
  ASSERT_FALSE(s.ok());
  EXPECT_NE(s.error().to_string().find("protocol/seed: 1 -> 9"), std::string::npos) << s.error().to_string();
  fs::create_directories(folder_ + "/other/things");
  SweepOptions o = options();
  o.run_folder = folder_ + "/other";
  EXPECT_FALSE(run_sweep(*plan(), o, pool_).ok());
  EXPECT_TRUE(fs::exists(folder_ + "/other/things"));
}

TEST_F(SweepTest, CasesThatDoNotFitAreNamedBeforeAnythingRuns) {
  fs::remove(folder_ + "/labels/case_5.nii.gz");
  EXPECT_EQ(plan().error().code, ErrorCode::kNotFound);
  EXPECT_NE(plan().error().to_string().find("case_5"), std::string::npos);
  Geometry other;
  other.spacing_mm = {2, 1, 1};
  LabelMap labels = reference(5);
  ASSERT_TRUE(
      write_labels(folder_ + "/labels/case_5.nii.gz", labels, source_from(other, labels.shape), pool_).ok());
  EXPECT_NE(plan().error().to_string().find("spacing"), std::string::npos) << plan().error().to_string();
  write_case(5);
  fs::remove_all(folder_ + "/images");
  EXPECT_EQ(plan().error().code, ErrorCode::kNotFound);
}

TEST_F(SweepTest, OrdersCoverEverythingOnce) {
  for (const char* order : {"interleaved", "random", "blocked"}) {
    write_experiment("0.02", std::string("order = \"") + order + "\"\n");
    auto p = plan();
    ASSERT_TRUE(p.ok());
    std::set<std::tuple<size_t, size_t, int>> seen;
    const std::vector<Job> jobs = order_jobs(*p);
    for (const Job& j : jobs) seen.insert({j.setting, j.case_index, j.repetition});
    EXPECT_EQ(jobs.size(), 4u * kCases * 2);
    EXPECT_EQ(seen.size(), jobs.size()) << order;
    bool setting_by_setting = true;
    for (size_t i = 1; i < jobs.size(); ++i) setting_by_setting &= jobs[i - 1].setting <= jobs[i].setting;
    EXPECT_EQ(setting_by_setting, std::string(order) == "blocked");
  }
}

}  // namespace
}  // namespace isoline::lab
