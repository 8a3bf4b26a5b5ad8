// A stand-in for libnvidia-ml.so.1 with two devices whose power is a square wave of real time. Built three
// times: CURRENT has every function used, OLD has no field values and only the old names, BROKEN lacks
// nvmlInit_v2. fake_nvml_control(key, value) sets its faults: "lost" (device 0 fails), "offset_mj" (added to
// its counter).
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <ctime>

extern "C" {

struct Device {
  const char* uuid;
  const char* name;
};

static Device devices[2] = {{"GPU-fake-0000", "Fake H100"}, {"GPU-fake-0001", "Fake H100 too"}};
static bool lost = false;
static long long offset_mj = 0;

static double now_s() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return double(t.tv_sec) + double(t.tv_nsec) * 1e-9;
}
// 100 W, and 300 W in the first half of every 0.4 s.
static double power_w(double t) {
  return std::fmod(t, 0.4) < 0.2 ? 300 : 100;
}
static double energy_j(double t) {
  const double whole = std::floor(t / 0.4), part = t - whole * 0.4;
  return 100 * t + 200 * (whole * 0.2 + (part < 0.2 ? part : 0.2));
}
static bool gone(void* device) {
  return lost && device == &devices[0];
}

void fake_nvml_control(const char* key, double value) {
  if (std::strcmp(key, "lost") == 0) lost = value != 0;
  if (std::strcmp(key, "offset_mj") == 0) offset_mj = (long long)value;
}

#ifndef FAKE_NVML_BROKEN
int nvmlInit_v2() {
  return 0;
}
#endif
int nvmlShutdown() {
  return 0;
}
const char* nvmlErrorString(int result) {
  return result == 15  ? "GPU is lost"
         : result == 3 ? "Not Supported"
         : result == 7 ? "Insufficient Size"
                       : "Success";
}
int nvmlSystemGetDriverVersion(char* to, unsigned n) {
  return std::snprintf(to, n, "123.45.67"), 0;
}
int nvmlDeviceGetCount_v2(unsigned* n) {
  return *n = 2, 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void** device) {
  return *device = &devices[i], 0;
}
int nvmlDeviceGetUUID(void* d, char* to, unsigned n) {
  return std::snprintf(to, n, "%s", static_cast<Device*>(d)->uuid), 0;
}
int nvmlDeviceGetName(void* d, char* to, unsigned n) {
  return std::snprintf(to, n, "%s", static_cast<Device*>(d)->name), 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void* d, unsigned long long* mj) {
  if (gone(d)) return 15;
  const double tick = std::floor(now_s() / 0.1) * 0.1;
  *mj = (unsigned long long)((long long)(energy_j(tick) * 1e3) + offset_mj);
  return 0;
}
int nvmlDeviceGetPowerUsage(void* d, unsigned* mw) {
  if (gone(d)) return 15;
  return *mw = unsigned(power_w(now_s()) * 1e3), 0;
}
int nvmlDeviceGetEnforcedPowerLimit(void*, unsigned* mw) {
  return *mw = 700000, 0;
}
int nvmlDeviceGetClockInfo(void* d, unsigned type, unsigned* mhz) {
  if (gone(d)) return 15;
  return *mhz = type == 1 ? 1980 : 2619, 0;
}
int nvmlDeviceGetTemperature(void*, unsigned, unsigned* c) {
  return *c = 41, 0;
}
int nvmlDeviceGetPersistenceMode(void*, unsigned* on) {
  return *on = 1, 0;
}
int nvmlDeviceGetEccMode(void* d, unsigned* current, unsigned* pending) {
  if (d != &devices[0]) return 3;
  return *current = *pending = 1, 0;
}

#ifdef FAKE_NVML_CURRENT
struct FieldValue {
  unsigned id, scope;
  long long timestamp, latency;
  int type, result;
  union {
    unsigned ui;
    unsigned long long ull;
  } value;
};
int nvmlDeviceGetFieldValues(void* d, int n, FieldValue* f) {
  for (int i = 0; i < n; ++i) {
    f[i].result = gone(d) ? 15 : f[i].id == 185 || f[i].id == 186 ? 0 : 3;
    f[i].type = 1;
    f[i].value.ui = f[i].id == 185 ? 200000 : unsigned(power_w(now_s()) * 1e3);
  }
  return 0;
}
int nvmlDeviceGetCurrentClocksEventReasons(void*, unsigned long long* bits) {
  return *bits = 0x4 | 0x20, 0;
}
struct Utilization {
  unsigned gpu, memory;
};
int nvmlDeviceGetUtilizationRates(void* d, Utilization* u) {
  if (gone(d)) return 15;
  return *u = {37, 12}, 0;
}
struct MemoryV2 {
  unsigned version;
  unsigned long long total, reserved, free, used;
};
int nvmlDeviceGetMemoryInfo_v2(void* d, MemoryV2* m) {
  if (gone(d)) return 15;
  if (m->version != (sizeof(MemoryV2) | (2u << 24))) return 25;
  m->total = 80ull << 30;
  m->used = 3ull << 30;
  return 0;
}
struct Process {
  unsigned pid;
  unsigned long long used;
  unsigned gi, ci;
};
// Twenty processes, so that a caller must grow its array; one of them is the caller.
int nvmlDeviceGetComputeRunningProcesses_v3(void* d, unsigned* n, Process* p) {
  if (d != &devices[0]) return *n = 0, 0;
  const unsigned room = *n;
  *n = 20;
  if (room < 20) return 7;
  for (unsigned i = 0; i < 20; ++i)
    p[i] = {i == 7 ? unsigned(getpid()) : 4000000000u + i, (i + 1ull) << 20, 0, 0};
  return 0;
}
#endif
#ifdef FAKE_NVML_OLD
int nvmlDeviceGetCurrentClocksThrottleReasons(void*, unsigned long long* bits) {
  return *bits = 1, 0;
}
struct Memory {
  unsigned long long total, free, used;
};
int nvmlDeviceGetMemoryInfo(void*, Memory* m) {
  return *m = {24ull << 30, 19ull << 30, 5ull << 30}, 0;
}
#endif
}
