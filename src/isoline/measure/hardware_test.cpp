// The readers of real hardware, against a stand-in NVML loaded through dlopen and powercap folders of files.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <vector>

#include "isoline/measure/meter.h"
#include "isoline/measure/nvml.h"
#include "isoline/measure/process.h"
#include "isoline/measure/rapl.h"

namespace isoline::measure {
namespace {

namespace fs = std::filesystem;

void control(const char* library, const char* key, double value) {
  void* handle = ::dlopen(library, RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(handle, nullptr);
  reinterpret_cast<void (*)(const char*, double)>(::dlsym(handle, "fake_nvml_control"))(key, value);
  ::dlclose(handle);
}

TEST(Nvml, NoLibraryIsAReasonAndARemedy) {
  const NvmlSources n = open_nvml("libno-such-nvml.so.1");
  EXPECT_TRUE(n.sources.empty());
  ASSERT_EQ(n.unavailable.size(), 1u);
  EXPECT_FALSE(n.unavailable[0].available);
  EXPECT_NE(n.unavailable[0].reason.find("libno-such-nvml.so.1"), std::string::npos);
  EXPECT_FALSE(n.unavailable[0].remedy.empty());
}

TEST(Nvml, MissingSymbolIsNamed) {
  const NvmlSources n = open_nvml(FAKE_NVML_BROKEN);
  EXPECT_TRUE(n.sources.empty());
  ASSERT_EQ(n.unavailable.size(), 1u);
  EXPECT_NE(n.unavailable[0].reason.find("lacks the function nvmlInit_v2"), std::string::npos);
}

TEST(Nvml, ReadsEverything) {
  NvmlSources n = open_nvml(FAKE_NVML_CURRENT);
  ASSERT_EQ(n.sources.size(), 2u);
  EnergySource& s = *n.sources[0];
  const SourceInfo& info = s.info();
  EXPECT_TRUE(info.available);
  EXPECT_EQ(info.id, "GPU-fake-0000");
  EXPECT_EQ(info.name, "Fake H100");
  EXPECT_EQ(info.facts.at("driver"), "123.45.67");
  EXPECT_EQ(info.facts.at("power_limit_w"), "700");
  EXPECT_EQ(info.facts.at("persistence"), "on");
  EXPECT_EQ(info.facts.at("ecc"), "on");
  EXPECT_EQ(n.sources[1]->info().facts.at("ecc"), "unavailable: nvmlDeviceGetEccMode: Not Supported");
  EXPECT_EQ(info.facts.at("mig"), "unavailable: this driver's NVML lacks nvmlDeviceGetMigMode");
  EXPECT_NE(info.power.find("186"), std::string::npos);
  EXPECT_TRUE(s.read_counter().count);
  EXPECT_TRUE(*s.read_power_w() == 100 || *s.read_power_w() == 300);
  EXPECT_EQ(*s.read_average_power_w(), 200);
  const Health h = s.read_health();
  EXPECT_EQ(*h.temperature_c, 41);
  EXPECT_EQ(*h.sm_clock_mhz, 1980);
  EXPECT_EQ(*h.memory_clock_mhz, 2619);
  EXPECT_EQ(throttle_names(*h.throttle_bits),
            (std::vector<std::string>{"sw_power_cap", "sw_thermal_slowdown"}));
  EXPECT_TRUE(is_throttled(*h.throttle_bits));
  EXPECT_FALSE(is_throttled(0x4));  // at the power limit is no fault
  EXPECT_TRUE(is_power_capped(0x4));
  const MemoryUse m = s.read_memory(::getpid());
  EXPECT_EQ(*m.device_bytes, double(3ull << 30));
  EXPECT_EQ(*m.device_total_bytes, double(80ull << 30));
  EXPECT_DOUBLE_EQ(*s.read_utilization(), 0.37);
  EXPECT_EQ(*m.process_bytes, double(8 << 20));  // the eighth entry is this process
  EXPECT_EQ(*s.read_contexts(), 20);
  const MemoryUse other = n.sources[1]->read_memory(::getpid());
  EXPECT_FALSE(other.process_bytes.ok());
  EXPECT_NE(other.process_bytes.reason.find("not among them"), std::string::npos);
}

TEST(Nvml, OldDriverFallsBackAndSaysSo) {
  NvmlSources n = open_nvml(FAKE_NVML_OLD);
  ASSERT_EQ(n.sources.size(), 2u);
  EnergySource& s = *n.sources[0];
  EXPECT_NE(s.info().power.find("legacy"), std::string::npos);
  EXPECT_TRUE(s.read_power_w().ok());
  EXPECT_FALSE(s.read_average_power_w().ok());
  EXPECT_EQ(throttle_names(*s.read_health().throttle_bits), std::vector<std::string>{"gpu_idle"});
  const MemoryUse m = s.read_memory(1);
  EXPECT_EQ(*m.device_bytes, double(5ull << 30));
  EXPECT_EQ(*m.device_total_bytes, double(24ull << 30));
  EXPECT_FALSE(s.read_utilization().ok());
  EXPECT_NE(m.process_bytes.reason.find("lacks nvmlDeviceGetComputeRunningProcesses"), std::string::npos);
}

TEST(Nvml, MeterMeasuresThroughTheLibrary) {
  MeterOptions o;
  o.nvml_library = FAKE_NVML_CURRENT;
  o.rapl_root = "/no/such/folder";
  o.gpu_ids = {"GPU-fake-0001"};
  auto meter = Meter::open(o);
  ASSERT_TRUE(meter.ok());
  const std::vector<SourceInfo> sources = (*meter)->sources();
  ASSERT_EQ(sources.size(), 2u);
  EXPECT_EQ(sources[1].id, "rapl");
  EXPECT_FALSE(sources[1].available);
  const int64_t token = (*meter)->begin();
  (*meter)->clock().sleep_until((*meter)->clock().now_ns() + ns_from_s(0.6));
  const auto report = (*meter)->end(token);
  ASSERT_TRUE(report.ok());
  ASSERT_EQ(report->devices.size(), 1u);
  const DeviceWindow& d = report->devices[0];
  ASSERT_TRUE(d.energy_gross_j.ok()) << d.energy_gross_j.reason;
  ASSERT_TRUE(d.energy_integrated_j.ok()) << d.energy_integrated_j.reason;
  // Truth of the square wave over the window; the wave's real time is the meter's clock.
  const auto energy = [](int64_t ns) {
    const double t = s_from_ns(ns), whole = std::floor(t / 0.4), part = t - whole * 0.4;
    return 100 * t + 200 * (whole * 0.2 + std::min(part, 0.2));
  };
  const double truth = energy(report->end_ns) - energy(report->begin_ns);
  EXPECT_NEAR(*d.energy_gross_j, truth, *d.energy_uncertainty_j + 1);
  EXPECT_NEAR(*d.energy_integrated_j, truth, 30);
  EXPECT_TRUE(d.throttled);
  EXPECT_TRUE(d.power_capped);
  EXPECT_FALSE((*meter)->end(token).ok());
}

TEST(Nvml, LostDeviceGivesAReasonAndNoNumber) {
  MeterOptions o;
  o.nvml_library = FAKE_NVML_CURRENT;
  o.cpu_packages = false;
  o.max_gap_s = 0.2;
  auto meter = Meter::open(o);
  ASSERT_TRUE(meter.ok());
  const int64_t token = (*meter)->begin();
  control(FAKE_NVML_CURRENT, "lost", 1);
  (*meter)->clock().sleep_until((*meter)->clock().now_ns() + ns_from_s(0.4));
  const auto report = (*meter)->end(token);
  control(FAKE_NVML_CURRENT, "lost", 0);
  ASSERT_TRUE(report.ok());
  const DeviceWindow& d = report->devices[0];
  EXPECT_FALSE(d.energy_gross_j.ok());
  EXPECT_NE(d.energy_gross_j.reason.find("GPU is lost"), std::string::npos) << d.energy_gross_j.reason;
  EXPECT_FALSE(d.energy_integrated_j.ok());
  EXPECT_FALSE(report->total_gross_j(kKindGpu).ok());
  EXPECT_TRUE(report->devices[1].energy_gross_j.ok());
}

TEST(Nvml, UnknownUuidIsAnErrorNamingTheKnownOnes) {
  MeterOptions o;
  o.nvml_library = FAKE_NVML_CURRENT;
  o.gpu_ids = {"GPU-other"};
  const auto meter = Meter::open(o);
  ASSERT_FALSE(meter.ok());
  EXPECT_EQ(meter.error().code, ErrorCode::kNotFound);
  EXPECT_NE(meter.error().remedy.find("GPU-fake-0001"), std::string::npos);
}

TEST(Process, DescendantsOnly) {
  EXPECT_TRUE(is_descendant(::getpid(), ::getpid()));
  EXPECT_TRUE(is_descendant(::getpid(), ::getppid()));
  EXPECT_FALSE(is_descendant(::getppid(), ::getpid()));
  EXPECT_FALSE(is_descendant(4000000000, ::getpid()));
}

TEST(Process, PeakCanStartAnewOrSaysWhyNot) {
  { std::vector<char> big(256 << 20, 1); }
  ProcessWindow window;
  const Reading before = window.peak_rss_bytes();
  if (!before.ok()) {
    EXPECT_NE(before.reason.find("clear_refs"), std::string::npos) << before.reason;
    return;
  }
  std::vector<char> some(16 << 20, 1);
  const Reading after = window.peak_rss_bytes();
  EXPECT_GE(*after - *before, 15.0 * (1 << 20));
  EXPECT_LT(*after - *before, 160.0 * (1 << 20));  // the 256 MiB before the window do not count
  EXPECT_GT(*window.cpu_s(), 0);
}

// A powercap tree under a temporary folder.
class Powercap : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/isoline-rapl-XXXXXX";
    root_ = ::mkdtemp(name);
    domain("intel-rapl:0", "package-0", 999000000, 1000000000);
    domain("intel-rapl:0:0", "core", 5, 1000000000);
    domain("intel-rapl:1", "psys", 5, 1000000000);
    domain("intel-rapl-mmio:0", "package-0", 5, 1000000000);
    fs::create_directory(root_ / "intel-rapl");
  }
  void TearDown() override { fs::remove_all(root_); }
  void domain(const std::string& folder, const std::string& name, uint64_t uj, uint64_t range) {
    fs::create_directory(root_ / folder);
    std::ofstream(root_ / folder / "name") << name << "\n";
    std::ofstream(root_ / folder / "energy_uj") << uj << "\n";
    std::ofstream(root_ / folder / "max_energy_range_uj") << range << "\n";
  }
  fs::path root_;
};

TEST_F(Powercap, CountsPackagesOnceAndSaysWhatItLeavesOut) {
  RaplSources r = open_rapl(root_);
  ASSERT_EQ(r.sources.size(), 1u);
  EXPECT_EQ(r.sources[0]->info().id, "rapl:package-0");
  EXPECT_EQ(r.sources[0]->counter_properties().range_counts, 1000000000u);
  EXPECT_EQ(*r.sources[0]->read_counter().count, 999000000u);
  std::ofstream(root_ / "intel-rapl:0" / "energy_uj") << "1500\n";
  EXPECT_EQ(*r.sources[0]->read_counter().count, 1500u);
  ASSERT_EQ(r.unavailable.size(), 2u);
  EXPECT_EQ(r.unavailable[0].id, "rapl:core@intel-rapl:0:0");
  EXPECT_NE(r.unavailable[0].reason.find("inside a package"), std::string::npos);
  EXPECT_NE(r.unavailable[1].reason.find("psys contains the packages"), std::string::npos);
}

TEST_F(Powercap, GarbageAndMissingRangeAreReasons) {
  std::ofstream(root_ / "intel-rapl:0" / "energy_uj") << "-17 J\n";
  RaplSources r = open_rapl(root_);
  EXPECT_TRUE(r.sources.empty());
  EXPECT_NE(r.unavailable[0].reason.find("no number: '-17 J'"), std::string::npos) << r.unavailable[0].reason;
  fs::remove(root_ / "intel-rapl:0" / "max_energy_range_uj");
  r = open_rapl(root_);
  EXPECT_NE(r.unavailable[0].reason.find("max_energy_range_uj"), std::string::npos);
}

TEST_F(Powercap, MissingPermissionHasARemedy) {
  fs::permissions(root_, fs::perms::all);
  fs::permissions(root_ / "intel-rapl:0" / "energy_uj", fs::perms::owner_read);
  const uid_t me = ::geteuid();
  if (me == 0) {
    ASSERT_EQ(::chown((root_ / "intel-rapl:0" / "energy_uj").c_str(), 0, 0), 0);
    ASSERT_EQ(::seteuid(65534), 0);
  } else {
    fs::permissions(root_ / "intel-rapl:0" / "energy_uj", fs::perms::none);
  }
  const RaplSources r = open_rapl(root_);
  if (me == 0) {
    ASSERT_EQ(::seteuid(0), 0);
  }
  EXPECT_TRUE(r.sources.empty());
  ASSERT_FALSE(r.unavailable.empty());
  EXPECT_NE(r.unavailable[0].reason.find("Permission denied"), std::string::npos) << r.unavailable[0].reason;
  EXPECT_NE(r.unavailable[0].remedy.find("root"), std::string::npos);
}

TEST(Rapl, AbsentTreeIsAReason) {
  const RaplSources r = open_rapl("/no/such/powercap");
  ASSERT_EQ(r.unavailable.size(), 1u);
  EXPECT_NE(r.unavailable[0].reason.find("/no/such/powercap"), std::string::npos);
  EXPECT_NE(r.unavailable[0].remedy.find("intel_rapl_msr"), std::string::npos);
}

}  // namespace
}  // namespace isoline::measure
