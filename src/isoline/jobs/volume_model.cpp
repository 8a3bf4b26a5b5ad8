#include "isoline/jobs/volume_model.h"

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "isoline/model/load_model.h"

namespace isoline::jobs {
namespace {

namespace fs = std::filesystem;

bool is_real_folder(const fs::path& path) {
  std::error_code ec;
  return fs::symlink_status(path, ec).type() == fs::file_type::directory;
}

bool holds_model(const fs::path& folder) {
  std::error_code ec;
  const auto has = [&](const char* name) { return fs::is_regular_file(folder / name, ec); };
  return (has("dataset.json") && has("plans.json")) || has("isoline.json");
}

struct Place {
  int64_t version = 1;
  fs::path folder;
};
// Where the model of a folder lies: in it, or in its highest version.
std::optional<Place> find_place(const fs::path& folder) {
  if (holds_model(folder)) return Place{1, folder};
  std::optional<Place> highest;
  std::error_code ec;
  for (fs::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec)) {
    const std::string name = it->path().filename().string();
    int64_t version = 0;
    const auto r = std::from_chars(name.data(), name.data() + name.size(), version);
    if (r.ec != std::errc() || r.ptr != name.data() + name.size() || version < 1 || name[0] == '0') continue;
    if ((!highest || version > highest->version) && is_real_folder(it->path()) && holds_model(it->path()))
      highest = Place{version, it->path()};
  }
  return highest;
}

}  // namespace

bool is_volume_model(const std::string& folder) {
  return find_place(folder).has_value();
}

Result<std::vector<VolumeModel>> find_volume_models(const std::string& root) {
  std::vector<VolumeModel> models;
  std::error_code ec;
  fs::directory_iterator it(root, ec);
  if (ec)
    return Error{ErrorCode::kNotFound, "cannot list the folder: " + ec.message(), root,
                 "Give a folder of models."};
  for (const fs::directory_iterator end; !ec && it != end; it.increment(ec)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with('.') || !is_real_folder(it->path())) continue;
    const auto place = find_place(it->path());
    if (!place) continue;
    VolumeModel model{name, place->version, place->folder.string(), {}, std::nullopt};
    auto loaded = load_model(model.folder);
    if (!loaded.ok())
      model.error = loaded.error();
    else if (loaded->spec.previous_stage)
      model.error =
          Error{ErrorCode::kUnsupported, "the second stage of a cascade needs the first one's labels", name,
                "Use `isoline segment --prev-stage`."};
    else
      model.spec = std::move(loaded->spec);
    models.push_back(std::move(model));
  }
  std::sort(models.begin(), models.end(),
            [](const VolumeModel& a, const VolumeModel& b) { return a.name < b.name; });
  return models;
}

}  // namespace isoline::jobs
