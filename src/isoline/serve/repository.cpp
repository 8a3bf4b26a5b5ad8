#include "isoline/serve/repository.h"

#include <malloc.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <set>

#include "isoline/base/file.h"
#include "isoline/serve/identity.h"

namespace isoline::serve {
namespace {

namespace fs = std::filesystem;
constexpr size_t kMaxModels = 10000;

// A folder itself, not a link to one.
bool is_real_folder(const fs::path& path) {
  std::error_code ec;
  return fs::symlink_status(path, ec).type() == fs::file_type::directory;
}

Result<std::vector<std::string>> model_folders(const std::string& root) {
  std::error_code ec;
  std::vector<std::string> names;
  fs::directory_iterator it(root, ec);
  if (ec)
    return Error{ErrorCode::kNotFound, "cannot list the folder: " + ec.message(), root,
                 "Give a folder of models."};
  for (const fs::directory_iterator end; it != end; it.increment(ec)) {
    const std::string name = it->path().filename().string();
    if (check_model_name(name).ok() && is_real_folder(it->path())) names.push_back(name);
    if (names.size() > kMaxModels)
      return Error{ErrorCode::kResourceExhausted, "more than " + std::to_string(kMaxModels) + " models", root,
                   ""};
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::optional<int64_t> version_number(const std::string& text) {
  int64_t n = 0;
  const auto r = std::from_chars(text.data(), text.data() + text.size(), n);
  if (text.empty() || r.ec != std::errc() || r.ptr != text.data() + text.size() || n < 1 || text[0] == '0')
    return std::nullopt;
  return n;
}

// The versions to serve, and where they lie.
Result<std::map<int64_t, std::string>> choose_versions(const std::string& folder,
                                                       const VersionPolicy& policy) {
  std::map<int64_t, std::string> all;
  std::error_code ec;
  for (fs::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec))
    if (const auto n = version_number(it->path().filename().string()); n && is_real_folder(it->path()))
      all[*n] = it->path().string();
  if (ec) return Error{ErrorCode::kIo, "cannot list the folder: " + ec.message(), folder, ""};
  if (all.empty()) all[1] = folder;
  switch (policy.kind) {
    case VersionPolicy::Kind::kAll:
      return all;
    case VersionPolicy::Kind::kLatest:
      while (all.size() > policy.latest) all.erase(all.begin());
      return all;
    case VersionPolicy::Kind::kSpecific:
      break;
  }
  std::map<int64_t, std::string> chosen;
  for (int64_t n : policy.specific) {
    const auto it = all.find(n);
    if (it == all.end())
      return Error{ErrorCode::kNotFound, "version " + std::to_string(n) + " is asked for and has no folder",
                   folder, ""};
    chosen.insert(*it);
  }
  return chosen;
}

}  // namespace

Status check_model_name(const std::string& name) {
  const bool ok = !name.empty() && name.size() <= 128 && name[0] != '.' &&
                  std::all_of(name.begin(), name.end(), [](unsigned char c) {
                    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                           c == '_' || c == '.' || c == '-';
                  });
  if (ok) return {};
  return Error{ErrorCode::kInvalidArgument,
               "is no model name: letters, digits, '_', '.' and '-', at most 128", "model name", ""};
}

Repository::Repository(RepositoryOptions options) : options_(std::move(options)) {}

Repository::~Repository() {
  drain();
}

const ModelState* Repository::find_elsewhere(std::string_view name) const {
  for (const ModelState& m : options_.elsewhere)
    if (m.name == name) return &m;
  return nullptr;
}

Status Repository::refuse_elsewhere(const std::string& name) const {
  if (!find_elsewhere(name)) return {};
  return Error{ErrorCode::kInvalidArgument, "model '" + name + "' takes no tensors", "",
               options_.elsewhere_remedy};
}

Result<Repository::Versions> Repository::open(const std::string& name,
                                              const std::optional<std::string>& text) const {
  const fs::path folder = fs::path(options_.root) / name;
  if (!is_real_folder(folder))
    return Error{ErrorCode::kNotFound, "failed to load '" + name + "', failed to poll from model repository",
                 "", ""};
  ModelConfig config;
  const fs::path file = folder / "config.pbtxt";
  std::error_code ec;
  const auto kind = fs::symlink_status(file, ec).type();
  if (text || kind != fs::file_type::not_found) {
    std::string content;
    if (text) {
      content = *text;
    } else {
      if (kind != fs::file_type::regular)
        return Error{ErrorCode::kInvalidArgument, "is not a regular file", name + "/config.pbtxt", ""};
      ISOLINE_ASSIGN(const auto bytes, read_whole_file(file.string(), uint64_t{1} << 20));
      content.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    }
    auto parsed = parse_model_config(content);
    if (!parsed.ok()) return parsed.error().in(text ? name : name + "/config.pbtxt");
    config = std::move(*parsed);
  }
  ISOLINE_ASSIGN(const auto chosen, choose_versions(folder.string(), config.version_policy));
  Versions versions;
  for (const auto& [number, version_folder] : chosen) {
    ModelConfig completed = config;
    const ModelSource source{name, number, folder.string(), version_folder,
                             text || kind != fs::file_type::not_found};
    const std::string& platform = config.platform.empty() ? config.backend : config.platform;
    auto model =
        platform == kIdentityPlatform ? open_identity_model(config)
        : options_.open_model
            ? options_.open_model(source, completed)
            : Error{ErrorCode::kUnsupported, "no way to open models of platform '" + platform + "'", "", ""};
    if (!model.ok()) return model.error().in(name + "/" + std::to_string(number));
    ISOLINE_ASSIGN(versions[number], ServedModel::start(std::move(*model), std::move(completed), name, number,
                                                        options_.scheduler));
  }
  return versions;
}

std::vector<Error> Repository::load_all() {
  std::vector<Error> errors;
  const auto names = model_folders(options_.root);
  if (!names.ok()) return {names.error()};
  for (const std::string& name : *names) {
    if (find_elsewhere(name)) continue;
    if (Status s = load(name); !s.ok()) errors.push_back(s.error());
  }
  return errors;
}

Status Repository::load(const std::string& name, const std::optional<std::string>& config) {
  ISOLINE_RETURN_IF_ERROR(check_model_name(name));
  ISOLINE_RETURN_IF_ERROR(refuse_elsewhere(name));
  std::lock_guard one_at_a_time(changing_);
  bool was_ready = false;
  {
    std::unique_lock lock(mutex_);
    if (drained_) return Error{ErrorCode::kResourceExhausted, "the server is stopping", name, ""};
    const auto it = entries_.find(name);
    was_ready = it != entries_.end() && !it->second.versions.empty();
    if (!was_ready && is_real_folder(fs::path(options_.root) / name)) entries_[name].state = "LOADING";
  }
  Result<Versions> opened = Versions{};
  try {
    opened = open(name, config);
  } catch (const std::bad_alloc&) {
    opened = Error{ErrorCode::kResourceExhausted, "memory ran out while loading", name, ""};
  } catch (const std::exception& e) {
    opened = Error{ErrorCode::kInternal, e.what(), name, ""};
  }
  Versions old;
  {
    std::unique_lock lock(mutex_);
    if (!opened.ok()) {
      if (const auto it = entries_.find(name); it != entries_.end() && !was_ready)
        it->second = {{}, "UNAVAILABLE", opened.error().to_string()};
      return opened.error();
    }
    Entry& entry = entries_[name];
    old = std::move(entry.versions);
    entry = {std::move(*opened), "READY", ""};
  }
  for (const auto& [number, model] : old) model->drain();
  old.clear();
  malloc_trim(0);
  return {};
}

Status Repository::unload(const std::string& name) {
  ISOLINE_RETURN_IF_ERROR(check_model_name(name));
  ISOLINE_RETURN_IF_ERROR(refuse_elsewhere(name));
  std::lock_guard one_at_a_time(changing_);
  Versions old;
  {
    std::unique_lock lock(mutex_);
    const auto it = entries_.find(name);
    if (it == entries_.end())
      return Error{ErrorCode::kNotFound, "failed to unload '" + name + "', unknown model", "", ""};
    old = std::move(it->second.versions);
    it->second = {{}, "UNLOADING", ""};
  }
  for (const auto& [number, model] : old) model->drain();
  old.clear();
  malloc_trim(0);
  std::unique_lock lock(mutex_);
  entries_[name] = {{}, "UNAVAILABLE", "unloaded"};
  return {};
}

Result<std::shared_ptr<ServedModel>> Repository::find(const std::string& name,
                                                      const std::string& version) const {
  ISOLINE_RETURN_IF_ERROR(refuse_elsewhere(name));
  std::shared_lock lock(mutex_);
  const auto it = entries_.find(name);
  if (it == entries_.end())
    return Error{ErrorCode::kNotFound,
                 "Request for unknown model: '" + name.substr(0, 128) + "' is not found", "", ""};
  const Entry& entry = it->second;
  if (entry.versions.empty()) {
    const bool coming = entry.state == "LOADING";
    return Error{coming ? ErrorCode::kResourceExhausted : ErrorCode::kNotFound,
                 "Request for unknown model: '" + name + "' has no available versions", "", ""};
  }
  if (version.empty()) return entry.versions.rbegin()->second;
  const auto number = version_number(version);
  const auto found = number ? entry.versions.find(*number) : entry.versions.end();
  if (found == entry.versions.end())
    return Error{ErrorCode::kNotFound,
                 "Request for unknown model: '" + name + "' version " + version.substr(0, 32) +
                     " is not at ready state",
                 "", ""};
  return found->second;
}

bool Repository::ready(const std::string& name, const std::string& version) const {
  if (const ModelState* m = find_elsewhere(name))
    return m->state == "READY" && (version.empty() || version == m->version);
  return find(name, version).ok();
}

std::vector<ModelState> Repository::index(bool only_ready) const {
  std::vector<ModelState> out;
  std::set<std::string> names;
  if (const auto folders = model_folders(options_.root); folders.ok() && !only_ready)
    names.insert(folders->begin(), folders->end());
  std::shared_lock lock(mutex_);
  for (const auto& [name, entry] : entries_) names.insert(name);
  for (const ModelState& m : options_.elsewhere) names.insert(m.name);
  for (const std::string& name : names) {
    if (const ModelState* m = find_elsewhere(name)) {
      if (m->state == "READY" || !only_ready) out.push_back(*m);
      continue;
    }
    const auto it = entries_.find(name);
    if (it == entries_.end()) {
      out.push_back({name, "", "", ""});  // in the folder, never loaded
      continue;
    }
    for (const auto& [number, model] : it->second.versions)
      out.push_back({name, std::to_string(number), it->second.state, ""});
    if (it->second.versions.empty() && !only_ready)
      out.push_back({name, "1", it->second.state, it->second.reason});
  }
  return out;
}

std::vector<std::shared_ptr<ServedModel>> Repository::served() const {
  std::shared_lock lock(mutex_);
  std::vector<std::shared_ptr<ServedModel>> out;
  for (const auto& [name, entry] : entries_)
    for (const auto& [number, model] : entry.versions) out.push_back(model);
  return out;
}

void Repository::drain() {
  std::lock_guard one_at_a_time(changing_);
  {
    std::unique_lock lock(mutex_);
    drained_ = true;
  }
  for (const auto& model : served()) model->drain();
}

}  // namespace isoline::serve
