#include "isoline/lab/registration.h"

#include <array>
#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "isoline/base/file.h"
#include "isoline/lab/fingerprint.h"
#include "isoline/lab/json_fields.h"

namespace isoline::lab {
namespace {
constexpr const char* kFormat = "isoline-registration/1";
constexpr uint64_t kMaxBytes = 64 << 20;
}  // namespace

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text.data();
}

std::string registration_path(const std::string& experiment_file) {
  return std::filesystem::path(experiment_file).replace_extension(".registered.json").string();
}

std::vector<std::string> json_changes(const std::string& before, const std::string& after) {
  using Json = nlohmann::json;
  const Json a = parse_json_text<Json>(before).flatten(), b = parse_json_text<Json>(after).flatten();
  std::set<std::string> keys;
  for (const auto& [key, value] : a.items()) keys.insert(key);
  for (const auto& [key, value] : b.items()) keys.insert(key);
  std::vector<std::string> out;
  const auto text = [](const Json& j, const std::string& key) {
    return j.contains(key) ? j[key].dump(-1, ' ', false, Json::error_handler_t::replace) : "(absent)";
  };
  for (const std::string& key : keys) {
    const std::string was = text(a, key), is = text(b, key);
    if (was != is) out.push_back((key.size() > 1 ? key.substr(1) : "all") + ": " + was + " -> " + is);
  }
  return out;
}

Result<std::optional<RegistrationRecord>> read_registration(const std::string& file) {
  std::error_code ec;
  if (!std::filesystem::exists(file, ec)) return std::optional<RegistrationRecord>();
  ISOLINE_ASSIGN(const Buffer<std::byte> bytes, read_whole_file(file, kMaxBytes));
  const auto json = parse_json_text<nlohmann::json>(
      std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  const auto text = [&](const char* key) {
    return json.is_object() && json.contains(key) && json[key].is_string() ? json[key].get<std::string>()
                                                                           : "";
  };
  RegistrationRecord r{file, text("time"), text("sha256"), ""};
  if (text("format") != kFormat || r.time.empty() || !json.contains("registered"))
    return Error{ErrorCode::kCorrupt, "this is no registration", file,
                 "Restore it, or register under a new name."};
  r.registered = json["registered"].dump(1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (sha256_of_text(r.registered) != r.sha256)
    return Error{ErrorCode::kCorrupt, "the registration was edited: its content does not fit its hash", file,
                 "Restore it from where it was kept, or register under a new name."};
  return std::optional<RegistrationRecord>(std::move(r));
}

Result<RegistrationRecord> register_plan(const Plan& plan) {
  const std::string file = registration_path(plan.experiment.file);
  ISOLINE_ASSIGN(const std::optional<RegistrationRecord> existing, read_registration(file));
  if (existing) {
    const std::vector<std::string> changes = json_changes(existing->registered, plan.registered);
    if (changes.empty()) return *existing;
    return Error{ErrorCode::kInvalidArgument,
                 "already registered at " + existing->time + ", and this differs: " + changes[0] +
                     (changes.size() > 1 ? " (and " + std::to_string(changes.size() - 1) + " more)" : ""),
                 file,
                 "A registration is not rewritten. Copy the experiment under a new name and register that."};
  }
  RegistrationRecord r{file, utc_now(), sha256_of_text(plan.registered), plan.registered};
  nlohmann::ordered_json json;
  json["format"] = kFormat;
  json["time"] = r.time;
  json["sha256"] = r.sha256;
  json["registered"] = nlohmann::ordered_json::parse(r.registered);
  ISOLINE_RETURN_IF_ERROR(
      write_file_atomically(file, json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n"));
  return r;
}

Registration judge_registration(const Plan& plan, const std::optional<RegistrationRecord>& record,
                                const std::string& first_measurement) {
  Registration out;
  if (!record) {
    out.status = "missing";
    return out;
  }
  out.sha256 = record->sha256;
  out.time = record->time;
  out.file = std::filesystem::path(record->file).filename().string();
  out.changes = json_changes(record->registered, plan.registered);
  if (!out.changes.empty())
    out.status = "changed";
  else if (!first_measurement.empty() && record->time > first_measurement)
    out.status = "late";
  else
    out.status = "registered";
  return out;
}

}  // namespace isoline::lab
