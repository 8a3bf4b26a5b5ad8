#include "isoline/base/resources.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>

namespace isoline {
namespace {

constexpr uint64_t kUnknown = std::numeric_limits<uint64_t>::max();

// The number of kB behind `key` ("MemAvailable:") in a /proc file, in bytes.
uint64_t proc_kilobytes(const char* path, const std::string& key) {
  std::ifstream in(path);
  std::string word;
  while (in >> word) {
    if (word == key) {
      uint64_t kb = 0;
      if (in >> kb) return kb * 1024;
      return kUnknown;
    }
    in.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return kUnknown;
}

uint64_t number_in(const std::string& path) {
  std::ifstream in(path);
  uint64_t value = 0;
  return in >> value ? value : kUnknown;  // "max" is no number: unknown
}

// limit - usage of a control group, counting its reclaimable file cache as free.
uint64_t group_headroom(const std::string& folder, const char* limit_name, const char* usage_name) {
  const uint64_t limit = number_in(folder + "/" + limit_name);
  const uint64_t usage = number_in(folder + "/" + usage_name);
  if (limit == kUnknown || usage == kUnknown) return kUnknown;
  uint64_t cache = 0;
  std::ifstream in(folder + "/memory.stat");
  std::string key;
  uint64_t value;
  while (in >> key >> value)
    if (key == "inactive_file" || key == "total_inactive_file") cache = value;
  const uint64_t used = usage > cache ? usage - cache : 0;
  return limit > used ? limit - used : 0;
}

}  // namespace

uint64_t peak_rss_bytes() {
  const uint64_t peak = proc_kilobytes("/proc/self/status", "VmHWM:");
  if (peak != kUnknown) return peak;
  struct rusage usage {};
  return ::getrusage(RUSAGE_SELF, &usage) == 0 ? uint64_t(usage.ru_maxrss) * 1024 : 0;
}

uint64_t current_rss_bytes() {
  const uint64_t now = proc_kilobytes("/proc/self/status", "VmRSS:");
  return now == kUnknown ? 0 : now;
}

uint64_t available_memory_bytes() {
  uint64_t best = proc_kilobytes("/proc/meminfo", "MemAvailable:");
  // Version 2: one hierarchy, "0::/path"; version 1: "N:memory:/path". Inside a container the path is often
  // not visible under the mount point, so the mount's root counts too.
  std::ifstream in("/proc/self/cgroup");
  std::string line;
  while (std::getline(in, line)) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string path = line.substr(second + 1);
    const bool v2 = controllers.empty();
    if (!v2 && controllers.find("memory") == std::string::npos) continue;
    const std::string mount = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    for (;;) {  // a parent's limit binds its children
      const std::string folder = mount + (path == "/" ? "" : path);
      best = std::min(best, v2 ? group_headroom(folder, "memory.max", "memory.current")
                               : group_headroom(folder, "memory.limit_in_bytes", "memory.usage_in_bytes"));
      if (path.empty() || path == "/") break;
      path.resize(path.find_last_of('/'));
    }
  }
  return best;
}

}  // namespace isoline
