#include "isoline/measure/nvml.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>

namespace isoline::measure {
namespace {

// The part of NVML's C ABI that is used, after NVIDIA's public API reference.
using NvmlReturn = int;
constexpr NvmlReturn kSuccess = 0, kInsufficientSize = 7;
using NvmlDevice = struct NvmlDeviceOpaque*;
union NvmlValue {
  double d;
  int i;
  unsigned ui;
  unsigned long ul;
  unsigned long long ull;
  long long ll;
  unsigned short us;
};
struct NvmlFieldValue {
  unsigned field_id;
  unsigned scope_id;
  long long timestamp_us;
  long long latency_us;
  int value_type;  // 0 double, 1 unsigned, 2 unsigned long, 3 unsigned long long, 4 long long, 5 int, 6
                   // unsigned short
  NvmlReturn result;
  NvmlValue value;
};
static_assert(sizeof(NvmlFieldValue) == 40);
struct NvmlMemory {
  unsigned long long total, free, used;
};
struct NvmlMemoryV2 {
  unsigned version;
  unsigned long long total, reserved, free, used;
};
struct NvmlProcess {  // of ..._v2 and ..._v3
  unsigned pid;
  unsigned long long used_bytes;
  unsigned gpu_instance, compute_instance;
};
static_assert(sizeof(NvmlProcess) == 24);
struct NvmlUtilization {
  unsigned gpu_percent, memory_percent;
};
constexpr unsigned kFieldPowerAverage = 185, kFieldPowerInstant = 186;
constexpr unsigned kClockSm = 1, kClockMemory = 2;

// Loaded and initialised NVML; shut down and unloaded with the last source.
class Library {
 public:
  ~Library() {
    if (initialised) shutdown();
    if (handle) ::dlclose(handle);
  }
  // Empty: loaded. Else the reason, with the remedy.
  std::pair<std::string, std::string> load(const std::string& path) {
    handle = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
      const char* why = ::dlerror();
      return {std::string("NVML cannot be loaded: ") + (why ? why : path),
              "Install NVIDIA's driver; in a container, give it the GPU (e.g. --gpus all)"};
    }
    const char* missing = nullptr;
    const auto need = [&](auto& function, const char* name) {
      if (!get(function, name) && !missing) missing = name;
    };
    need(init, "nvmlInit_v2");
    need(shutdown, "nvmlShutdown");
    need(device_count, "nvmlDeviceGetCount_v2");
    need(device_by_index, "nvmlDeviceGetHandleByIndex_v2");
    need(device_uuid, "nvmlDeviceGetUUID");
    if (missing)
      return {path + " lacks the function " + missing,
              "Update NVIDIA's driver: this library is none of NVML's or old"};
    get(error_string, "nvmlErrorString");
    get(driver_version, "nvmlSystemGetDriverVersion");
    get(name, "nvmlDeviceGetName");
    get(total_energy, "nvmlDeviceGetTotalEnergyConsumption");
    get(field_values, "nvmlDeviceGetFieldValues");
    get(power_usage, "nvmlDeviceGetPowerUsage");
    get(power_limit, "nvmlDeviceGetEnforcedPowerLimit");
    get(memory_v2, "nvmlDeviceGetMemoryInfo_v2");
    get(memory, "nvmlDeviceGetMemoryInfo");
    if (!get(processes, "nvmlDeviceGetComputeRunningProcesses_v3"))
      get(processes, "nvmlDeviceGetComputeRunningProcesses_v2");
    get(clock, "nvmlDeviceGetClockInfo");
    if (!get(events, "nvmlDeviceGetCurrentClocksEventReasons"))
      get(events, "nvmlDeviceGetCurrentClocksThrottleReasons");
    get(temperature, "nvmlDeviceGetTemperature");
    get(utilization, "nvmlDeviceGetUtilizationRates");
    get(persistence, "nvmlDeviceGetPersistenceMode");
    get(ecc, "nvmlDeviceGetEccMode");
    get(mig, "nvmlDeviceGetMigMode");
    const NvmlReturn result = init();
    if (result != kSuccess) return {"NVML does not start: " + text(result), "Check that nvidia-smi works"};
    initialised = true;
    return {};
  }
  std::string text(NvmlReturn result) const {
    const char* known = error_string ? error_string(result) : nullptr;
    return known ? known : "NVML error " + std::to_string(result);
  }

  void* handle = nullptr;
  bool initialised = false;
  NvmlReturn (*init)() = nullptr;
  NvmlReturn (*shutdown)() = nullptr;
  const char* (*error_string)(NvmlReturn) = nullptr;
  NvmlReturn (*driver_version)(char*, unsigned) = nullptr;
  NvmlReturn (*device_count)(unsigned*) = nullptr;
  NvmlReturn (*device_by_index)(unsigned, NvmlDevice*) = nullptr;
  NvmlReturn (*device_uuid)(NvmlDevice, char*, unsigned) = nullptr;
  NvmlReturn (*name)(NvmlDevice, char*, unsigned) = nullptr;
  NvmlReturn (*total_energy)(NvmlDevice, unsigned long long*) = nullptr;
  NvmlReturn (*field_values)(NvmlDevice, int, NvmlFieldValue*) = nullptr;
  NvmlReturn (*power_usage)(NvmlDevice, unsigned*) = nullptr;
  NvmlReturn (*power_limit)(NvmlDevice, unsigned*) = nullptr;
  NvmlReturn (*memory_v2)(NvmlDevice, NvmlMemoryV2*) = nullptr;
  NvmlReturn (*memory)(NvmlDevice, NvmlMemory*) = nullptr;
  NvmlReturn (*processes)(NvmlDevice, unsigned*, NvmlProcess*) = nullptr;
  NvmlReturn (*clock)(NvmlDevice, unsigned, unsigned*) = nullptr;
  NvmlReturn (*events)(NvmlDevice, unsigned long long*) = nullptr;
  NvmlReturn (*temperature)(NvmlDevice, unsigned, unsigned*) = nullptr;
  NvmlReturn (*utilization)(NvmlDevice, NvmlUtilization*) = nullptr;
  NvmlReturn (*persistence)(NvmlDevice, unsigned*) = nullptr;
  NvmlReturn (*ecc)(NvmlDevice, unsigned*, unsigned*) = nullptr;
  NvmlReturn (*mig)(NvmlDevice, unsigned*, unsigned*) = nullptr;

 private:
  template <class Function>
  bool get(Function& function, const char* name) {
    function = reinterpret_cast<Function>(::dlsym(handle, name));
    return function != nullptr;
  }
};

std::string watts(double w) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", w);
  return text;
}

class NvmlSource : public EnergySource {
 public:
  NvmlSource(std::shared_ptr<Library> library, NvmlDevice device, std::string uuid)
      : nvml_(std::move(library)), device_(device) {
    info_.id = std::move(uuid);
    info_.kind = kKindGpu;
    char text[128] = "";
    info_.name = nvml_->name && nvml_->name(device_, text, sizeof text) == kSuccess ? text : "NVIDIA GPU";
    const auto fact = [this](const char* key, const Reading& r, const std::string& shown) {
      info_.facts[key] = r.ok() ? shown : "unavailable: " + r.reason;
    };
    info_.facts["driver"] = nvml_->driver_version && nvml_->driver_version(text, sizeof text) == kSuccess
                                ? text
                                : "unavailable: NVML does not say";
    const Reading limit = number(nvml_->power_limit, "nvmlDeviceGetEnforcedPowerLimit", 1e-3);
    fact("power_limit_w", limit, limit.ok() ? watts(*limit) : "");
    if (limit.ok()) info_.power_limit_w = *limit;
    const Reading persistence = number(nvml_->persistence, "nvmlDeviceGetPersistenceMode", 1);
    fact("persistence", persistence, persistence.ok() && *persistence != 0 ? "on" : "off");
    const auto mode = [&](auto function, const char* key, const char* function_name) {
      unsigned current = 0, pending = 0;
      const Reading r = checked(
          function, function_name, [&] { return function(device_, &current, &pending); },
          [&] { return current; });
      fact(key, r, current ? "on" : "off");
    };
    mode(nvml_->ecc, "ecc", "nvmlDeviceGetEccMode");
    mode(nvml_->mig, "mig", "nvmlDeviceGetMigMode");
    info_.facts["memory_call"] = nvml_->memory_v2
                                     ? "nvmlDeviceGetMemoryInfo_v2 (without the driver's reserve)"
                                     : "nvmlDeviceGetMemoryInfo (with the driver's reserve)";
    const CounterReading energy = read_counter();
    info_.counter = energy.count ? "nvmlDeviceGetTotalEnergyConsumption (mJ since the driver was loaded)"
                                 : "none: " + energy.reason;
    const Reading instant = field(kFieldPowerInstant);
    if (instant.ok()) {
      info_.power = "NVML field 186 (instant power)";
      info_.has_power = true;
    } else {
      legacy_power_ = true;
      const Reading legacy = read_power_w();
      info_.power = legacy.ok()
                        ? "nvmlDeviceGetPowerUsage (legacy: a 1-s average on Ampere and newer except GA100; "
                          "field 186 gives none: " +
                              instant.reason + ")"
                        : "none: " + legacy.reason;
      info_.has_power = legacy.ok();
    }
    info_.available = info_.has_power || energy.count.has_value();
    if (!info_.available) info_.reason = "neither energy nor power can be read: " + energy.reason;
  }

  const SourceInfo& info() const override { return info_; }
  CounterProperties counter_properties() const override {
    // Boards go over their limit for milliseconds; 1.5 times the limit over any part of a tick is taken as
    // the bound.
    return {1e-3, 0, info_.power_limit_w > 0 ? 1.5 * info_.power_limit_w : 2000};
  }
  CounterReading read_counter() override {
    unsigned long long mj = 0;
    if (!nvml_->total_energy) return {std::nullopt, lacks("nvmlDeviceGetTotalEnergyConsumption")};
    const NvmlReturn result = nvml_->total_energy(device_, &mj);
    if (result != kSuccess)
      return {std::nullopt, "nvmlDeviceGetTotalEnergyConsumption: " + nvml_->text(result)};
    return {uint64_t(mj), ""};
  }
  Reading read_power_w() override {
    if (legacy_power_) return number(nvml_->power_usage, "nvmlDeviceGetPowerUsage", 1e-3);
    return field(kFieldPowerInstant);
  }
  Reading read_average_power_w() override { return field(kFieldPowerAverage); }
  Reading read_utilization() override {
    NvmlUtilization rates{};
    return checked(
        nvml_->utilization, "nvmlDeviceGetUtilizationRates",
        [&] { return nvml_->utilization(device_, &rates); }, [&] { return rates.gpu_percent * 0.01; });
  }
  Health read_health() override {
    Health h;
    unsigned value = 0;
    const auto with = [&](auto function, const char* name, unsigned selector) {
      return checked(
          function, name, [&] { return function(device_, selector, &value); }, [&] { return value; });
    };
    h.temperature_c = with(nvml_->temperature, "nvmlDeviceGetTemperature", 0);
    h.sm_clock_mhz = with(nvml_->clock, "nvmlDeviceGetClockInfo", kClockSm);
    h.memory_clock_mhz = with(nvml_->clock, "nvmlDeviceGetClockInfo", kClockMemory);
    unsigned long long bits = 0;
    const char* events = "nvmlDeviceGetCurrentClocksEventReasons";
    const Reading r = checked(
        nvml_->events, events, [&] { return nvml_->events(device_, &bits); }, [] { return 0; });
    if (r.ok()) h.throttle_bits = bits;
    h.throttle_reason = r.reason;
    return h;
  }
  MemoryUse read_memory(int64_t pid) override {
    MemoryUse use;
    double total = 0;
    if (nvml_->memory_v2) {
      NvmlMemoryV2 memory{};
      memory.version = unsigned(sizeof memory) | (2u << 24);
      use.device_bytes = checked(
          nvml_->memory_v2, "nvmlDeviceGetMemoryInfo_v2", [&] { return nvml_->memory_v2(device_, &memory); },
          [&] { return memory.used; });
      total = double(memory.total);
    } else {
      NvmlMemory memory{};
      use.device_bytes = checked(
          nvml_->memory, "nvmlDeviceGetMemoryInfo", [&] { return nvml_->memory(device_, &memory); },
          [&] { return memory.used; });
      total = double(memory.total);
    }
    use.device_total_bytes =
        use.device_bytes.ok() ? Reading::of(total) : Reading::unavailable(use.device_bytes.reason);
    std::vector<NvmlProcess> list;
    const Reading listed = list_processes(list);
    if (!listed.ok()) {
      use.process_bytes = listed;
      return use;
    }
    double sum = 0;
    bool found = false;
    for (const NvmlProcess& p : list) {
      if (!is_descendant(p.pid, pid)) continue;
      if (p.used_bytes == ~0ull) {
        use.process_bytes =
            Reading::unavailable("the driver lists process " + std::to_string(p.pid) + " but not its memory");
        return use;
      }
      found = true;
      sum += double(p.used_bytes);
    }
    use.process_bytes =
        found ? Reading::of(sum)
              : Reading::unavailable(
                    "the driver lists " + std::to_string(list.size()) + " compute processes and process " +
                    std::to_string(pid) +
                    " or a child of it is not among them (it has no context, or its number inside a "
                    "container is not the driver's)");
    return use;
  }
  Reading read_contexts() override {
    std::vector<NvmlProcess> list;
    return list_processes(list);
  }

 private:
  static std::string lacks(const char* function) {
    return std::string("this driver's NVML lacks ") + function;
  }
  // Calls a function that may be missing; its value, or why not.
  template <class Function, class Call, class Value>
  Reading checked(Function function, const char* name, Call call, Value value) const {
    if (!function) return Reading::unavailable(lacks(name));
    const NvmlReturn result = call();
    if (result != kSuccess) return Reading::unavailable(std::string(name) + ": " + nvml_->text(result));
    return Reading::of(double(value()));
  }
  Reading number(NvmlReturn (*function)(NvmlDevice, unsigned*), const char* name, double unit) const {
    unsigned value = 0;
    return checked(
        function, name, [&] { return function(device_, &value); }, [&] { return value * unit; });
  }
  Reading field(unsigned id) const {
    if (!nvml_->field_values) return Reading::unavailable(lacks("nvmlDeviceGetFieldValues"));
    NvmlFieldValue f{};
    f.field_id = id;
    NvmlReturn result = nvml_->field_values(device_, 1, &f);
    if (result == kSuccess) result = f.result;
    if (result != kSuccess)
      return Reading::unavailable("NVML field " + std::to_string(id) + ": " + nvml_->text(result));
    switch (f.value_type) {  // all of these report milliwatts
      case 0:
        return Reading::of(f.value.d * 1e-3);
      case 1:
        return Reading::of(f.value.ui * 1e-3);
      case 2:
        return Reading::of(double(f.value.ul) * 1e-3);
      case 3:
        return Reading::of(double(f.value.ull) * 1e-3);
      case 4:
        return Reading::of(double(f.value.ll) * 1e-3);
      case 5:
        return Reading::of(f.value.i * 1e-3);
      case 6:
        return Reading::of(f.value.us * 1e-3);
    }
    return Reading::unavailable("NVML field " + std::to_string(id) + " has the unknown type " +
                                std::to_string(f.value_type));
  }
  // Number of processes, and the processes.
  Reading list_processes(std::vector<NvmlProcess>& list) const {
    const char* name = "nvmlDeviceGetComputeRunningProcesses";
    if (!nvml_->processes) return Reading::unavailable(lacks(name));
    list.resize(16);
    for (int attempt = 0; attempt < 4; ++attempt) {  // processes may start between two calls
      unsigned count = unsigned(list.size());
      const NvmlReturn result = nvml_->processes(device_, &count, list.data());
      if (result == kSuccess) {
        list.resize(std::min<size_t>(count, list.size()));
        return Reading::of(double(list.size()));
      }
      if (result != kInsufficientSize || count > 65536)
        return Reading::unavailable(std::string(name) + ": " + nvml_->text(result));
      list.resize(count + 16);
    }
    return Reading::unavailable(std::string(name) + ": the list keeps growing");
  }

  std::shared_ptr<Library> nvml_;
  NvmlDevice device_;
  SourceInfo info_;
  bool legacy_power_ = false;
};

SourceInfo missing_gpu(const std::string& id, const std::string& reason, const std::string& remedy) {
  SourceInfo info;
  info.id = id;
  info.name = "NVIDIA GPU";
  info.kind = kKindGpu;
  info.reason = reason;
  info.remedy = remedy;
  return info;
}

}  // namespace

NvmlSources open_nvml(const std::string& library) {
  NvmlSources result;
  const auto nvml = std::make_shared<Library>();
  const auto [reason, remedy] = nvml->load(library);
  if (!reason.empty()) {
    result.unavailable.push_back(missing_gpu("nvml", reason, remedy));
    return result;
  }
  unsigned count = 0;
  const NvmlReturn counted = nvml->device_count(&count);
  if (counted != kSuccess || count == 0) {
    result.unavailable.push_back(missing_gpu(
        "nvml",
        counted != kSuccess ? "nvmlDeviceGetCount_v2: " + nvml->text(counted) : "the driver knows no GPU",
        ""));
    return result;
  }
  for (unsigned i = 0; i < count && i < 1024; ++i) {
    NvmlDevice device = nullptr;
    const std::string place = "gpu-" + std::to_string(i);
    NvmlReturn r = nvml->device_by_index(i, &device);
    if (r != kSuccess) {
      result.unavailable.push_back(missing_gpu(place, "nvmlDeviceGetHandleByIndex_v2: " + nvml->text(r), ""));
      continue;
    }
    char uuid[128] = "";
    r = nvml->device_uuid(device, uuid, sizeof uuid);
    if (r != kSuccess) {
      result.unavailable.push_back(missing_gpu(place, "nvmlDeviceGetUUID: " + nvml->text(r), ""));
      continue;
    }
    auto source = std::make_unique<NvmlSource>(nvml, device, uuid);
    if (source->info().available)
      result.sources.push_back(std::move(source));
    else
      result.unavailable.push_back(source->info());
  }
  return result;
}

bool is_descendant(int64_t pid, int64_t root) {
  for (int depth = 0; depth < 64 && pid > 1; ++depth) {
    if (pid == root) return true;
    // "pid (name) state ppid ...": the name may hold anything, also ')'.
    std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
    std::string line;
    if (!std::getline(in, line)) return false;
    const size_t close = line.rfind(')');
    if (close == std::string::npos) return false;
    std::istringstream rest(line.substr(close + 1));
    std::string state;
    if (!(rest >> state >> pid)) return false;
  }
  return pid == root && pid > 0;
}

}  // namespace isoline::measure
