#include "isoline/lab/experiment.h"

#define TOML_HEADER_ONLY 1
#include <toml++/toml.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include "isoline/base/file.h"

namespace isoline::lab {
namespace {

namespace fs = std::filesystem;
constexpr uint64_t kMaxExperimentBytes = 1 << 20;
constexpr size_t kMaxSettings = 256, kMaxListEntries = 100'000;

std::string short_number(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", v);
  return text;
}

std::string joined(const std::vector<std::string>& parts, const char* between) {
  std::string out;
  for (const std::string& p : parts) out += (out.empty() ? "" : between) + p;
  return out;
}

// Reads keys of one table and remembers which, so that the rest can be refused by name.
class TableReader {
 public:
  TableReader(const toml::table& table, std::string name, const std::string& file)
      : table_(table), name_(std::move(name)), file_(file) {}

  Error wrong(const std::string& key, const std::string& what) const {
    const toml::node* node = table_.get(key);
    return at(node ? node->source() : table_.source(),
              "key '" + (name_.empty() ? key : name_ + "." + key) + "' " + what);
  }
  bool has(const std::string& key) const { return table_.contains(key); }

  Status text(const std::string& key, std::string& out) {
    return scalar<std::string>(key, "is not text", out);
  }
  Status number(const std::string& key, double& out, double low, double high) {
    ISOLINE_RETURN_IF_ERROR(scalar<double>(key, "is not a number", out));
    if (has(key) && !(out >= low && out <= high))
      return wrong(key, "must lie between " + short_number(low) + " and " + short_number(high));
    return {};
  }
  template <class T>
  Status whole(const std::string& key, T& out, int64_t low, int64_t high) {
    int64_t value = int64_t(out);
    const toml::node* node = take(key);
    if (!node) return {};
    if (!node->is_integer()) return wrong(key, "is not a whole number");
    value = node->as_integer()->get();
    if (value < low || value > high)
      return wrong(key, "must lie between " + std::to_string(low) + " and " + std::to_string(high));
    out = T(value);
    return {};
  }
  Status choice(const std::string& key, std::string& out, const std::vector<std::string>& allowed) {
    ISOLINE_RETURN_IF_ERROR(text(key, out));
    if (has(key) && std::find(allowed.begin(), allowed.end(), out) == allowed.end())
      return wrong(key, "must be one of " + joined(allowed, ", "));
    return {};
  }
  Status texts(const std::string& key, std::vector<std::string>& out) {
    return list<std::string>(key, "a list of texts", out);
  }
  Status numbers(const std::string& key, std::vector<double>& out) {
    return list<double>(key, "a list of numbers", out);
  }
  Result<const toml::table*> table(const std::string& key) {
    const toml::node* node = take(key);
    if (!node) return static_cast<const toml::table*>(nullptr);
    if (!node->is_table()) return wrong(key, "is not a table");
    return node->as_table();
  }
  Result<std::vector<const toml::table*>> tables(const std::string& key) {
    std::vector<const toml::table*> out;
    const toml::node* node = take(key);
    if (!node) return out;
    if (!node->is_array()) return wrong(key, "must be written as [[" + key + "]]");
    for (const toml::node& entry : *node->as_array()) {
      if (!entry.is_table()) return wrong(key, "must be written as [[" + key + "]]");
      out.push_back(entry.as_table());
    }
    return out;
  }
  // Last: anything not asked for is a mistake worth telling.
  Status finish() const {
    for (const auto& [key, node] : table_)
      if (!used_.count(std::string(key.str()))) return wrong(std::string(key.str()), "is not known here");
    return {};
  }

 private:
  Error at(const toml::source_region& where, const std::string& message) const {
    return Error{ErrorCode::kInvalidArgument, message, file_ + ":" + std::to_string(where.begin.line),
                 "See docs/guides/lab.md for every key."};
  }
  const toml::node* take(const std::string& key) {
    used_.insert(key);
    return table_.get(key);
  }
  template <class T>
  static bool is(const toml::node& node) {
    if constexpr (std::is_same_v<T, double>)
      return node.is_number();
    else
      return node.is_string();
  }
  template <class T>
  Status scalar(const std::string& key, const char* problem, T& out) {
    const toml::node* node = take(key);
    if (!node) return {};
    if (!is<T>(*node)) return wrong(key, problem);
    out = *node->value<T>();
    if constexpr (std::is_same_v<T, double>)
      if (!std::isfinite(out)) return wrong(key, "is not finite");
    return {};
  }
  template <class T>
  Status list(const std::string& key, const char* what, std::vector<T>& out) {
    const toml::node* node = take(key);
    if (!node) return {};
    if (!node->is_array() || node->as_array()->size() > kMaxListEntries)
      return wrong(key, std::string("is not ") + what);
    out.clear();
    for (const toml::node& entry : *node->as_array()) {
      if (!is<T>(entry)) return wrong(key, std::string("is not ") + what);
      out.push_back(*entry.value<T>());
    }
    return {};
  }

  const toml::table& table_;
  std::string name_;
  const std::string& file_;
  std::set<std::string> used_;
};

bool is_folder_name(const std::string& name) {
  if (name.empty() || name.size() > 100 || name[0] == '.') return false;
  return std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return (c < 128 && std::isalnum(c)) || std::string("._+-=,").find(char(c)) != std::string::npos;
  });
}

const std::vector<std::string> kPrecisions{"fp32", "tf32", "bf16", "fp16"};

Status check_tta(const TableReader& in, const std::string& key, const std::string& tta) {
  const bool axes = !tta.empty() && tta.find_first_not_of("012,") == std::string::npos;
  if (tta != "all" && tta != "none" && !axes) return in.wrong(key, "must be all, none or axes such as 0,1");
  return {};
}

// What varies; keys that are absent keep what `s` holds.
Status read_values(TableReader& in, Setting& s) {
  ISOLINE_RETURN_IF_ERROR(in.text("backend", s.backend));
  ISOLINE_RETURN_IF_ERROR(in.choice("precision", s.precision, kPrecisions));
  ISOLINE_RETURN_IF_ERROR(in.text("tta", s.tta));
  if (in.has("tta")) ISOLINE_RETURN_IF_ERROR(check_tta(in, "tta", s.tta));
  ISOLINE_RETURN_IF_ERROR(in.number("step", s.step, 0.01, 1));
  ISOLINE_RETURN_IF_ERROR(in.whole("threads", s.threads, 0, 1024));
  return in.texts("folds", s.folds);
}

Status read_sequence(TableReader& root, Experiment& e) {
  ISOLINE_ASSIGN(const std::vector<const toml::table*> tables, root.tables("setting"));
  Setting current;
  for (const toml::table* table : tables) {
    TableReader in(*table, "setting", e.file);
    current.title.clear();
    current.not_run.clear();
    current.name.clear();
    ISOLINE_RETURN_IF_ERROR(in.text("name", current.name));
    ISOLINE_RETURN_IF_ERROR(in.text("title", current.title));
    ISOLINE_RETURN_IF_ERROR(in.text("not_run", current.not_run));
    if (in.has("not_run") && current.not_run.empty()) return in.wrong("not_run", "must give the reason");
    Setting changed = current;
    ISOLINE_RETURN_IF_ERROR(read_values(in, changed));
    ISOLINE_RETURN_IF_ERROR(in.finish());
    if (!is_folder_name(changed.name))
      return in.wrong("name", "must be 1 to 100 letters, digits or . _ + - = , and not begin with a dot");
    e.settings.push_back(changed);
    if (changed.not_run.empty()) current = changed;  // what was not run changes nothing for those after it
  }
  return {};
}

// Every combination, the last key fastest; the first combination is the baseline unless another is named.
Status read_grid(const toml::table& table, Experiment& e) {
  TableReader in(table, "grid", e.file);
  std::vector<std::string> backends{"auto"}, precisions{"fp32"}, ttas{"all"};
  std::vector<double> steps{0.5};
  ISOLINE_RETURN_IF_ERROR(in.texts("backend", backends));
  ISOLINE_RETURN_IF_ERROR(in.texts("precision", precisions));
  ISOLINE_RETURN_IF_ERROR(in.texts("tta", ttas));
  ISOLINE_RETURN_IF_ERROR(in.numbers("step", steps));
  Setting base;
  ISOLINE_RETURN_IF_ERROR(in.whole("threads", base.threads, 0, 1024));
  ISOLINE_RETURN_IF_ERROR(in.texts("folds", base.folds));
  ISOLINE_RETURN_IF_ERROR(in.finish());
  for (const std::string& p : precisions)
    if (std::find(kPrecisions.begin(), kPrecisions.end(), p) == kPrecisions.end())
      return in.wrong("precision", "may hold " + joined(kPrecisions, ", "));
  for (const std::string& t : ttas) ISOLINE_RETURN_IF_ERROR(check_tta(in, "tta", t));
  for (double s : steps)
    if (!(s >= 0.01 && s <= 1)) return in.wrong("step", "may hold numbers between 0.01 and 1");
  if (backends.size() * precisions.size() * ttas.size() * steps.size() > kMaxSettings)
    return in.wrong("precision",
                    "and the others make more than " + std::to_string(kMaxSettings) + " settings");
  for (const std::string& backend : backends)
    for (const std::string& precision : precisions)
      for (double step : steps)
        for (const std::string& tta : ttas) {
          Setting s = base;
          s.backend = backend, s.precision = precision, s.step = step, s.tta = tta;
          std::vector<std::string> parts;  // only what varies
          if (backends.size() > 1) parts.push_back(backend);
          if (precisions.size() > 1) parts.push_back(precision);
          if (steps.size() > 1) parts.push_back("step=" + short_number(step));
          if (ttas.size() > 1) parts.push_back("tta=" + tta);
          s.name = parts.empty() ? "only" : joined(parts, ",");
          if (!is_folder_name(s.name)) return in.wrong("backend", "gives a setting no usable name");
          e.settings.push_back(s);
        }
  return {};
}

Status read_quality(TableReader& root, Experiment& e) {
  ISOLINE_ASSIGN(const toml::table* table, root.table("quality"));
  if (!table) return {};
  TableReader in(*table, "quality", e.file);
  ISOLINE_RETURN_IF_ERROR(in.choice("preset", e.preset, {"kits23"}));
  if (in.has("surface_tolerance_mm")) {
    double mm = 0;
    ISOLINE_RETURN_IF_ERROR(in.number("surface_tolerance_mm", mm, 0, 1000));
    e.surface_tolerance_mm = mm;
  }
  ISOLINE_RETURN_IF_ERROR(in.text("lesions", e.lesion_region));
  ISOLINE_RETURN_IF_ERROR(in.number("lesion_min_mm3", e.lesion_min_mm3, 0, 1e9));
  ISOLINE_ASSIGN(const std::vector<const toml::table*> regions, in.tables("region"));
  for (const toml::table* region : regions) {
    TableReader r(*region, "quality.region", e.file);
    RegionChoice choice;
    std::vector<double> labels;
    ISOLINE_RETURN_IF_ERROR(r.text("name", choice.name));
    ISOLINE_RETURN_IF_ERROR(r.numbers("labels", labels));
    if (r.has("tolerance_mm")) {
      double mm = 0;
      ISOLINE_RETURN_IF_ERROR(r.number("tolerance_mm", mm, 0, 1000));
      choice.tolerance_mm = mm;
    }
    ISOLINE_RETURN_IF_ERROR(r.finish());
    for (double l : labels) {
      if (l != std::floor(l) || l < 0 || l > 65535)
        return r.wrong("labels", "may hold whole numbers from 0 to 65535");
      choice.labels.push_back(int(l));
    }
    if (choice.name.empty() || choice.labels.empty())
      return r.wrong("labels", "and name are needed for a region");
    for (const RegionChoice& other : e.regions)
      if (other.name == choice.name) return r.wrong("name", "is used twice");
    e.regions.push_back(std::move(choice));
  }
  if (!e.preset.empty() && !e.regions.empty())
    return in.wrong("preset", "and [[quality.region]] exclude each other");
  return in.finish();
}

Status read_endpoints(TableReader& root, Experiment& e) {
  ISOLINE_ASSIGN(const std::vector<const toml::table*> tables, root.tables("endpoint"));
  for (const toml::table* table : tables) {
    TableReader in(*table, "endpoint", e.file);
    Endpoint endpoint;
    ISOLINE_RETURN_IF_ERROR(in.choice("metric", endpoint.metric, {"dice", "surface_dice"}));
    ISOLINE_RETURN_IF_ERROR(in.text("region", endpoint.region));
    if (endpoint.metric.empty() || endpoint.region.empty())
      return in.wrong("metric", "and region are needed for an endpoint");
    if (!in.has("delta"))
      return in.wrong("delta", "is missing: an endpoint needs the largest loss that counts as preserved");
    ISOLINE_RETURN_IF_ERROR(in.number("delta", endpoint.delta, 0, 1));
    if (!(endpoint.delta > 0 && endpoint.delta < 1))
      return in.wrong("delta", "must lie between 0 and 1, exclusive");
    ISOLINE_RETURN_IF_ERROR(in.finish());
    for (const Endpoint& other : e.endpoints)
      if (other.metric == endpoint.metric && other.region == endpoint.region)
        return in.wrong("region", "and metric are used by another endpoint");
    e.endpoints.push_back(std::move(endpoint));
  }
  if (e.endpoints.empty())
    return Error{ErrorCode::kInvalidArgument, "there is no [[endpoint]]: nothing could be called preserved",
                 e.file, "Add at least one with metric, region and delta."};
  return {};
}

Status read_protocol(TableReader& root, Experiment& e) {
  ISOLINE_ASSIGN(const toml::table* table, root.table("protocol"));
  if (!table) return {};
  TableReader in(*table, "protocol", e.file);
  ISOLINE_RETURN_IF_ERROR(in.whole("repetitions", e.repetitions, 1, 1000));
  ISOLINE_RETURN_IF_ERROR(in.whole("warmup", e.warmup, 0, 100));
  ISOLINE_RETURN_IF_ERROR(in.choice("order", e.order, {"interleaved", "random", "blocked"}));
  ISOLINE_RETURN_IF_ERROR(in.whole("seed", e.seed, 0, INT64_MAX));
  ISOLINE_RETURN_IF_ERROR(in.number("idle_s", e.idle_s, 0, 3600));
  ISOLINE_RETURN_IF_ERROR(in.number("timeout_s", e.timeout_s, 1, 1e6));
  ISOLINE_RETURN_IF_ERROR(in.whole("max_workers", e.max_workers, 0, 256));
  return in.finish();
}

Status read_sources(TableReader& root, Experiment& e) {
  ISOLINE_ASSIGN(const toml::table* head, root.table("experiment"));
  ISOLINE_ASSIGN(const toml::table* cases, root.table("cases"));
  if (!head || !cases)
    return Error{ErrorCode::kInvalidArgument, "tables [experiment] and [cases] are needed", e.file,
                 "See docs/guides/lab.md for a whole file."};
  TableReader in(*head, "experiment", e.file);
  ISOLINE_RETURN_IF_ERROR(in.text("id", e.id));
  ISOLINE_RETURN_IF_ERROR(in.text("title", e.title));
  ISOLINE_RETURN_IF_ERROR(in.text("model", e.model));
  ISOLINE_RETURN_IF_ERROR(in.text("checkpoint", e.checkpoint));
  ISOLINE_RETURN_IF_ERROR(in.text("baseline", e.baseline));
  ISOLINE_RETURN_IF_ERROR(in.finish());
  if (e.id.empty() || e.model.empty()) return in.wrong("id", "and model are needed");
  TableReader c(*cases, "cases", e.file);
  ISOLINE_RETURN_IF_ERROR(c.text("images", e.images));
  ISOLINE_RETURN_IF_ERROR(c.text("references", e.references));
  ISOLINE_RETURN_IF_ERROR(c.texts("only", e.only));
  ISOLINE_RETURN_IF_ERROR(c.finish());
  if (e.images.empty() || e.references.empty()) return c.wrong("images", "and references are needed");
  const fs::path base = fs::path(e.file).parent_path();
  for (std::string* path : {&e.model, &e.images, &e.references})
    *path = (fs::path(*path).is_absolute() ? fs::path(*path) : base / *path).lexically_normal().string();
  return {};
}

}  // namespace

std::map<std::string, std::string> Setting::values() const {
  return {{"backend", backend},
          {"precision", precision},
          {"tta", tta},
          {"step", short_number(step)},
          {"threads", threads ? std::to_string(threads) : "all"},
          {"folds", folds.empty() ? "all" : joined(folds, ",")}};
}

Result<Experiment> parse_experiment(const std::string& text, const std::string& file) {
  Experiment e;
  e.file = file;
  e.text = text;
  toml::table table;
  try {
    table = toml::parse(text, file);
  } catch (const toml::parse_error& error) {
    return Error{ErrorCode::kCorrupt, "this is no TOML: " + std::string(error.description()),
                 file + ":" + std::to_string(error.source().begin.line), ""};
  }
  TableReader root(table, "", e.file);
  ISOLINE_RETURN_IF_ERROR(read_sources(root, e));
  ISOLINE_ASSIGN(const toml::table* grid, root.table("grid"));
  e.grid = grid != nullptr;
  if (e.grid && root.has("setting")) return root.wrong("grid", "and [[setting]] exclude each other");
  ISOLINE_RETURN_IF_ERROR(e.grid ? read_grid(*grid, e) : read_sequence(root, e));
  ISOLINE_RETURN_IF_ERROR(read_quality(root, e));
  ISOLINE_RETURN_IF_ERROR(read_endpoints(root, e));
  ISOLINE_RETURN_IF_ERROR(read_protocol(root, e));
  ISOLINE_RETURN_IF_ERROR(root.finish());

  const Error usage{ErrorCode::kInvalidArgument, "", file, ""};
  const auto problem = [&](const std::string& message, const std::string& remedy) {
    Error out = usage;
    out.message = message;
    out.remedy = remedy;
    return out;
  };
  if (e.settings.empty() || e.settings.size() > kMaxSettings)
    return problem("there are " + std::to_string(e.settings.size()) + " settings",
                   "Give 1 to " + std::to_string(kMaxSettings) + ", as [[setting]] or [grid].");
  std::set<std::string> names;
  for (const Setting& s : e.settings)
    if (!names.insert(s.name).second)
      return problem("setting '" + s.name + "' is there twice", "Give every setting a name of its own.");
  if (e.baseline.empty()) e.baseline = e.settings[0].name;
  const auto baseline = std::find_if(e.settings.begin(), e.settings.end(),
                                     [&](const Setting& s) { return s.name == e.baseline; });
  if (baseline == e.settings.end())
    return problem("the baseline '" + e.baseline + "' is none of the settings", "Name one of them.");
  if (!baseline->not_run.empty())
    return problem("the baseline '" + e.baseline + "' is marked not_run", "A baseline must be run.");
  return e;
}

Result<Experiment> read_experiment(const std::string& file) {
  ISOLINE_ASSIGN(const Buffer<std::byte> bytes, read_whole_file(file, kMaxExperimentBytes));
  return parse_experiment(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()), file);
}

}  // namespace isoline::lab
