#include "isoline/backends/cuda/tuning.h"

#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "isoline/base/file.h"

namespace isoline::cuda {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kFormat = 1;
constexpr uint64_t kMaxBytes = uint64_t{4} << 20;

// A name for the file; what it holds says whose it is.
std::string file_name(const TuningKey& key) {
  uint64_t hash = 1469598103934665603u;  // FNV-1a
  for (const std::string* part : {&key.device, &key.driver, &key.build})
    for (const char c : *part + '\n') hash = (hash ^ uint8_t(c)) * 1099511628211u;
  char name[40];
  std::snprintf(name, sizeof name, "cuda-%016llx.json", static_cast<unsigned long long>(hash));
  return name;
}

Result<std::map<std::string, ConvChoice>> parse_file(const std::string& path, const TuningKey& key) {
  ISOLINE_ASSIGN(const Buffer<std::byte> bytes, read_whole_file(path, kMaxBytes));
  const auto* const text = reinterpret_cast<const char*>(bytes.data());
  const Json j = Json::parse(text, text + bytes.size(), nullptr, false);
  const Error damaged{ErrorCode::kCorrupt, "no tuning file", path, ""};
  if (!j.is_object() || !j.contains("choices") || !j["choices"].is_object()) return damaged;
  const auto says = [&](const char* field, const Json& value) {
    return j.contains(field) && j[field] == value;
  };
  if (!says("format", kFormat) || !says("device", key.device) || !says("driver", key.driver) ||
      !says("build", key.build))
    return Error{ErrorCode::kCorrupt, "a tuning file of another device or build", path, ""};
  std::map<std::string, ConvChoice> choices;
  for (const auto& [layer, value] : j["choices"].items()) {
    if (!value.is_string()) return damaged;
    ISOLINE_ASSIGN(choices[layer], parse_choice(value.get<std::string>()));
  }
  return choices;
}

}  // namespace

std::string to_string(const ConvChoice& c) {
  switch (c.kind) {
    case ConvKernelKind::kRule:
      return "rule";
    case ConvKernelKind::kFp32:
      return "fp32";
    case ConvKernelKind::kWgmma:
      return "wgmma p" + std::to_string(c.producers);
    case ConvKernelKind::kChannels:
      return "channels";
    case ConvKernelKind::kMarch:
      return "march";
    case ConvKernelKind::kMma:
      break;
  }
  return "mma " + std::to_string(c.m_warps) + "x" + std::to_string(c.n_warps) + " s" +
         std::to_string(c.stages) + " k" + std::to_string(c.splits);
}

Result<ConvChoice> parse_choice(const std::string& text) {
  for (const ConvKernelKind kind :
       {ConvKernelKind::kRule, ConvKernelKind::kFp32, ConvKernelKind::kChannels, ConvKernelKind::kMarch}) {
    const ConvChoice c{kind};
    if (text == to_string(c)) return c;
  }
  ConvChoice wgmma{ConvKernelKind::kWgmma};
  if (std::sscanf(text.c_str(), "wgmma p%4d", &wgmma.producers) == 1 && text == to_string(wgmma))
    return wgmma;
  ConvChoice c{ConvKernelKind::kMma};
  std::sscanf(text.c_str(), "mma %4dx%4d s%4d k%6d", &c.m_warps, &c.n_warps, &c.stages, &c.splits);
  if (c.splits > 0 && text == to_string(c)) return c;
  return Error{ErrorCode::kCorrupt, "'" + text + "' is no kernel", "", ""};
}

std::string TuningCache::default_folder() {
  const char* const cache = std::getenv("XDG_CACHE_HOME");
  if (cache && cache[0] == '/') return std::string(cache) + "/isoline";  // others are to be ignored, it says
  const char* const home = std::getenv("HOME");
  return home && home[0] == '/' ? std::string(home) + "/.cache/isoline" : "";
}

TuningCache::TuningCache(std::string folder, TuningKey key)
    : folder_(std::move(folder)), key_(std::move(key)) {
  if (folder_.empty()) return;
  path_ = folder_ + "/" + file_name(key_);
  auto choices = parse_file(path_, key_);
  if (choices.ok())
    choices_ = saved_ = std::move(choices).value();
  else if (choices.error().code != ErrorCode::kNotFound)
    note_ = "ignored " + path_ + ": " + choices.error().message;
}

const ConvChoice* TuningCache::find(const std::string& layer) const {
  const auto at = choices_.find(layer);
  return at == choices_.end() ? nullptr : &at->second;
}

void TuningCache::save() {
  if (path_.empty() || choices_ == saved_) return;
  Json j = {{"format", kFormat}, {"device", key_.device}, {"driver", key_.driver}, {"build", key_.build}};
  j["choices"] = Json::object();
  for (const auto& [layer, choice] : choices_) j["choices"][layer] = to_string(choice);
  std::error_code failed;
  std::filesystem::create_directories(folder_, failed);
  if (const Status s = write_file_atomically(path_, j.dump(1) + "\n"); s.ok())
    saved_ = choices_;
  else
    note_ = "could not keep the choices: " + s.error().message;
}

}  // namespace isoline::cuda
