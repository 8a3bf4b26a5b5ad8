#include "isoline/pipeline/cases.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <map>

namespace isoline {
namespace {

namespace fs = std::filesystem;

bool ends_with(const std::string& s, const std::string& tail) {
  return s.size() > tail.size() && s.compare(s.size() - tail.size(), tail.size(), tail) == 0;
}

// "liver_07_0001" -> "liver_07"; empty if there is no channel suffix.
std::string without_channel(const std::string& stem) {
  const size_t n = stem.size();
  if (n <= 5 || stem[n - 5] != '_') return "";
  for (size_t i = n - 4; i < n; ++i)
    if (!std::isdigit(static_cast<unsigned char>(stem[i]))) return "";
  return stem.substr(0, n - 5);
}

Result<std::vector<std::string>> files_with_ending(const std::string& folder, const std::string& ending) {
  std::error_code ec;
  if (!fs::is_directory(folder, ec))
    return Error{ErrorCode::kNotFound, "no such folder", folder, "Give a folder of scans or a scan."};
  std::vector<std::string> names;
  for (fs::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec)) {
    std::error_code type_error;
    const std::string name = it->path().filename().string();
    if (ends_with(name, ending) && !it->is_directory(type_error)) names.push_back(name);
  }
  if (ec) return Error{ErrorCode::kIo, "cannot list the folder: " + ec.message(), folder, ""};
  std::sort(names.begin(), names.end());
  if (names.empty())
    return Error{ErrorCode::kNotFound, "no file here ends with " + ending, folder,
                 "The model's dataset.json asks for that file_ending."};
  return names;
}

std::string in_folder(const std::string& folder, const std::string& name) {
  return (fs::path(folder) / name).string();
}

std::string strip_nifti_ending(const std::string& name) {
  for (const char* ending : {".nii.gz", ".nii"})
    if (ends_with(name, ending)) return name.substr(0, name.size() - std::string(ending).size());
  return name;
}

}  // namespace

Result<std::vector<CaseFiles>> cases_in_folder(const std::string& folder, const std::string& file_ending,
                                               const std::string& output_folder,
                                               const std::string& previous_stage_folder) {
  ISOLINE_ASSIGN(const std::vector<std::string> names, files_with_ending(folder, file_ending));
  std::map<std::string, CaseFiles> cases;
  for (const std::string& name : names) {
    const std::string id = without_channel(name.substr(0, name.size() - file_ending.size()));
    if (id.empty())
      return Error{ErrorCode::kInvalidArgument, "the name has no channel number", in_folder(folder, name),
                   "nnU-Net's names are CASE_0000" + file_ending + ", CASE_0001" + file_ending + ", ..."};
    CaseFiles& c = cases[id];
    c.id = id;
    c.images.push_back(in_folder(folder, name));
    c.output = in_folder(output_folder, id + file_ending);
    if (!previous_stage_folder.empty()) c.previous_stage = in_folder(previous_stage_folder, id + file_ending);
  }
  std::vector<CaseFiles> out;
  for (auto& [id, c] : cases) out.push_back(std::move(c));
  return out;
}

Result<std::vector<CaseFiles>> cases_from_input(const std::vector<std::string>& inputs, int channels,
                                                const std::string& file_ending, const std::string& output,
                                                const std::string& previous_stage) {
  std::error_code ec;
  if (inputs.size() == 1 && fs::is_directory(inputs[0], ec)) {
    ISOLINE_ASSIGN(const std::vector<std::string> names, files_with_ending(inputs[0], file_ending));
    bool plain = channels == 1;
    for (const std::string& name : names)
      plain = plain && without_channel(name.substr(0, name.size() - file_ending.size())).empty();
    if (!plain) return cases_in_folder(inputs[0], file_ending, output, previous_stage);
    std::vector<CaseFiles> out;
    for (const std::string& name : names)
      out.push_back({name.substr(0, name.size() - file_ending.size()),
                     {in_folder(inputs[0], name)},
                     in_folder(output, name),
                     previous_stage.empty() ? "" : in_folder(previous_stage, name)});
    return out;
  }
  // One case given by its files.
  CaseFiles c;
  c.images = inputs;
  const std::string stem = strip_nifti_ending(fs::path(inputs[0]).filename().string());
  c.id = without_channel(stem).empty() ? stem : without_channel(stem);
  const bool output_is_file = ends_with(output, ".nii.gz") || ends_with(output, ".nii");
  c.output = output_is_file ? output : in_folder(output, c.id + file_ending);
  if (!previous_stage.empty())
    c.previous_stage =
        fs::is_directory(previous_stage, ec) ? in_folder(previous_stage, c.id + file_ending) : previous_stage;
  return std::vector<CaseFiles>{c};
}

}  // namespace isoline
