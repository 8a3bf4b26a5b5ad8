#include "isoline/measure/rapl.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

namespace isoline::measure {
namespace {

namespace fs = std::filesystem;

constexpr const char* kNoPower = "RAPL has one counter and no power reading of its own";
constexpr const char* kPermissionRemedy =
    "Only root may read RAPL counters (they leak what other processes compute): run as root, or give this "
    "program "
    "CAP_DAC_READ_SEARCH, or make energy_uj readable and accept that";
// More than any CPU package draws; tells a wrap of the counter from a reset.
constexpr double kMaxPackageW = 3000;

struct TextFile {
  std::string text;
  int error = 0;  // errno; 0: read
};

TextFile read_text(int fd) {
  char bytes[256];
  const ssize_t n = ::pread(fd, bytes, sizeof bytes, 0);
  if (n < 0) return {"", errno};
  std::string text(bytes, size_t(n));
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return {text, 0};
}

TextFile read_text(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {"", errno};
  TextFile file = read_text(fd);
  ::close(fd);
  return file;
}

bool parse_count(const std::string& text, uint64_t& value) {
  if (text.empty() || text.size() > 20 || text.find_first_not_of("0123456789") != std::string::npos)
    return false;
  errno = 0;
  value = std::strtoull(text.c_str(), nullptr, 10);
  return errno == 0;
}

class RaplSource : public EnergySource {
 public:
  RaplSource(SourceInfo info, int fd, uint64_t range) : info_(std::move(info)), fd_(fd), range_(range) {}
  ~RaplSource() override { ::close(fd_); }
  const SourceInfo& info() const override { return info_; }
  CounterProperties counter_properties() const override { return {1e-6, range_, kMaxPackageW}; }
  CounterReading read_counter() override {
    const TextFile file = read_text(fd_);
    if (file.error)
      return {std::nullopt, std::string("energy_uj cannot be read: ") + std::strerror(file.error)};
    uint64_t value = 0;
    if (!parse_count(file.text, value))
      return {std::nullopt, "energy_uj holds no number: '" + file.text + "'"};
    return {value, ""};
  }
  Reading read_power_w() override { return Reading::unavailable(kNoPower); }
  Health read_health() override {
    const char* why = "RAPL says nothing about temperature and clocks";
    Health h;
    h.temperature_c = h.sm_clock_mhz = h.memory_clock_mhz = Reading::unavailable(why);
    h.throttle_reason = why;
    return h;
  }
  MemoryUse read_memory(int64_t) override {
    const Reading none = Reading::unavailable("a CPU package has no memory of its own");
    return {none, none};
  }
  Reading read_contexts() override { return Reading::unavailable("a CPU package has no contexts"); }

 private:
  SourceInfo info_;
  int fd_;
  uint64_t range_;
};

// "intel-rapl:3" -> true; "intel-rapl:3:0" (nested) and "intel-rapl" (the control type) -> false.
bool is_domain(const std::string& name, const std::string& prefix, bool nested) {
  if (name.rfind(prefix + ":", 0) != 0) return false;
  const std::string rest = name.substr(prefix.size() + 1);
  const bool has_colon = rest.find(':') != std::string::npos;
  return !rest.empty() && rest.find_first_not_of("0123456789:") == std::string::npos && has_colon == nested;
}

SourceInfo describe(const std::string& domain_name) {
  SourceInfo info;
  info.id = "rapl:" + domain_name;
  info.name = "CPU " + domain_name;
  info.kind = kKindCpuPackage;
  info.counter = "RAPL energy_uj";
  info.power = std::string("none: ") + kNoPower;
  return info;
}

}  // namespace

RaplSources open_rapl(const std::string& root) {
  RaplSources result;
  std::error_code error;
  std::vector<std::string> entries;
  for (fs::directory_iterator it(root, error), end; !error && it != end; it.increment(error))
    entries.push_back(it->path().filename().string());
  std::sort(entries.begin(), entries.end());
  const auto any = [&](const std::string& prefix) {
    return std::any_of(entries.begin(), entries.end(),
                       [&](const std::string& e) { return is_domain(e, prefix, false); });
  };
  // The mmio tree shows the same packages a second time.
  const std::string prefix = any("intel-rapl") ? "intel-rapl" : "intel-rapl-mmio";
  if (error || !any(prefix)) {
    SourceInfo info;
    info.id = "rapl";
    info.name = "CPU packages (RAPL)";
    info.kind = kKindCpuPackage;
    info.reason = error ? root + ": " + error.message() : "no RAPL domain under " + root;
    info.remedy =
        "Virtual machines and containers usually hide RAPL; on a machine of your own load the module "
        "intel_rapl_msr "
        "(AMD too)";
    result.unavailable.push_back(std::move(info));
    return result;
  }
  for (const std::string& entry : entries) {
    const bool top = is_domain(entry, prefix, false);
    if (!top && !is_domain(entry, prefix, true)) continue;
    const fs::path folder = fs::path(root) / entry;
    const TextFile name = read_text(folder / "name");
    SourceInfo info = describe(name.text.empty() ? entry : name.text);
    const auto refuse = [&](std::string reason, std::string remedy = "") {
      info.reason = std::move(reason);
      info.remedy = std::move(remedy);
      result.unavailable.push_back(info);
    };
    if (name.error) {
      refuse(entry + "/name cannot be read: " + std::strerror(name.error));
      continue;
    }
    if (!top) {
      info.id += "@" + entry;
      refuse("not counted: " + entry + " lies inside a package");
      continue;
    }
    if (name.text.rfind("package-", 0) != 0) {
      refuse(name.text == "psys" ? "not counted: psys contains the packages and more"
                                 : "not counted: only packages are, and this domain is '" + name.text + "'");
      continue;
    }
    const TextFile range = read_text(folder / "max_energy_range_uj");
    uint64_t range_uj = 0;
    if (range.error || !parse_count(range.text, range_uj) || range_uj == 0) {
      refuse(entry + "/max_energy_range_uj cannot be read, so a wrap of the counter could not be told",
             range.error == EACCES ? kPermissionRemedy : "");
      continue;
    }
    const int fd = ::open((folder / "energy_uj").c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
      const int why = errno;
      refuse(entry + "/energy_uj cannot be opened: " + std::strerror(why),
             why == EACCES || why == EPERM ? kPermissionRemedy : "");
      continue;
    }
    SourceInfo readable = info;
    readable.available = true;
    readable.facts["domain"] = entry;
    readable.facts["range_j"] = std::to_string(range_uj / 1'000'000);
    auto source = std::make_unique<RaplSource>(std::move(readable), fd, range_uj);
    const CounterReading first = source->read_counter();
    if (first.count)
      result.sources.push_back(std::move(source));
    else
      refuse(entry + "/" + first.reason);
  }
  return result;
}

}  // namespace isoline::measure
