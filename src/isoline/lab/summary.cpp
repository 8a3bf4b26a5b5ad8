#include "isoline/lab/summary.h"

#include <filesystem>

#include "isoline/base/file.h"
#include "isoline/lab/json_fields.h"

namespace isoline::lab {
namespace {
constexpr uint64_t kMaxSummaryBytes = 256 << 20;
}

// Every struct's fields stand here once; writing and reading are both made from them.
template <class V>
void fields(V& v, Estimate& e) {
  v("value", e.value), v("low", e.low), v("high", e.high), v("n", e.n);
}
template <class V>
void fields(V& v, Spread& s) {
  v("n", s.n), v("mean", s.mean), v("min", s.min), v("q1", s.q1), v("median", s.median), v("q3", s.q3);
  v("max", s.max), v("p90", s.p90), v("p95", s.p95), v("p99", s.p99);
}
template <class V>
void fields(V& v, EndpointResult& e) {
  v("metric", e.metric), v("region", e.region), v("delta", e.delta), v("n", e.n);
  v("baseline_mean", e.baseline_mean), v("setting_mean", e.setting_mean);
  v("mean_difference", e.mean_difference), v("sd_difference", e.sd_difference);
  v("lower_bound", e.lower_bound), v("upper_bound", e.upper_bound);
  v("worst_difference", e.worst_difference), v("unseen_failure_rate", e.unseen_failure_rate);
  v("verdict", e.verdict), v("why", e.why);
  v("n_needed_80", e.n_needed_80), v("n_needed_90", e.n_needed_90), v("bound_method", e.bound_method);
}
template <class V>
void fields(V& v, RegionQuality& q) {
  v("region", q.region), v("dice", q.dice), v("dice_nnunet", q.dice_nnunet),
      v("surface_dice", q.surface_dice);
  v("tolerance_mm", q.tolerance_mm), v("hd95_median_mm", q.hd95_median_mm),
      v("hd95_infinite", q.hd95_infinite);
}
template <class V>
void fields(V& v, LesionCounts& l) {
  v("region", l.region), v("definition", l.definition), v("reference", l.reference), v("found", l.found);
  v("false_positive", l.false_positive), v("lost", l.lost), v("gained", l.gained);
}
template <class V>
void fields(V& v, CaseRecord& c) {
  v("case_id", c.case_id), v("wall_s", c.wall_s), v("wall_s_all", c.wall_s_all), v("stages_s", c.stages_s);
  v("windows", c.windows), v("forwards", c.forwards), v("energy_gross_j", c.energy_gross_j);
  v("energy_net_j", c.energy_net_j), v("cpu_energy_j", c.cpu_energy_j), v("dice", c.dice);
  v("surface_dice", c.surface_dice), v("hd95_mm", c.hd95_mm), v("disagreement", c.disagreement);
}
template <class V>
void fields(V& v, SettingSummary& s) {
  v("name", s.name), v("description", s.description), v("values", s.values), v("runtime", s.runtime);
  v("not_run", s.not_run), v("cases", s.cases), v("failures", s.failures), v("notes", s.notes);
  v("wall_s", s.wall_s), v("s_per_case", s.s_per_case), v("speedup", s.speedup), v("stages_s", s.stages_s);
  v("window_ms", s.window_ms), v("energy_gross_j", s.energy_gross_j), v("energy_net_j", s.energy_net_j);
  v("energy_integrated_j", s.energy_integrated_j), v("energy_disagreement", s.energy_disagreement);
  v("average_power_w", s.average_power_w), v("peak_power_w", s.peak_power_w);
  v("energy_reduction", s.energy_reduction), v("cpu_energy_j", s.cpu_energy_j), v("cpu_s", s.cpu_s);
  v("peak_vram_bytes", s.peak_vram_bytes), v("peak_rss_bytes", s.peak_rss_bytes), v("quality", s.quality);
  v("endpoints", s.endpoints), v("verdict", s.verdict), v("disagreement_mean", s.disagreement_mean);
  v("disagreement_max", s.disagreement_max), v("lesions", s.lesions);
  v("published_speedup", s.published_speedup), v("pareto", s.pareto), v("per_case", s.per_case);
}
template <class V>
void fields(V& v, Provenance& p) {
  v("isoline_version", p.isoline_version), v("commit", p.commit), v("started", p.started);
  v("finished", p.finished), v("model_name", p.model_name), v("model_sha256", p.model_sha256);
  v("cases_sha256", p.cases_sha256), v("experiment_sha256", p.experiment_sha256), v("device", p.device);
}
template <class V>
void fields(V& v, Registration& r) {
  v("status", r.status), v("sha256", r.sha256), v("time", r.time), v("file", r.file), v("changes", r.changes);
}
template <class V>
void fields(V& v, RunSummary& s) {
  v("kind", s.kind), v("id", s.id), v("title", s.title), v("source", s.source),
      v("device_name", s.device_name);
  v("device_kind", s.device_kind), v("boundary", s.boundary), v("provenance", s.provenance);
  v("registration", s.registration), v("mode", s.mode), v("order", s.order), v("seed", s.seed);
  v("repetitions", s.repetitions), v("warmup", s.warmup), v("case_ids", s.case_ids), v("regions", s.regions);
  v("definitions", s.definitions), v("energy_source", s.energy_source), v("idle_power_w", s.idle_power_w);
  v("idle_protocol", s.idle_protocol), v("meter", s.meter), v("baseline", s.baseline);
  v("settings", s.settings), v("remarks", s.remarks);
}

std::string to_json_text(const RunSummary& summary) {
  JsonWriter writer;
  writer.json["format"] = kSummaryFormat;
  RunSummary copy = summary;  // one set of fields() serves reading and writing
  fields(writer, copy);
  return writer.json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<RunSummary> parse_summary(const std::string& json_text, const std::string& file) {
  const Json json = parse_json_text(json_text);
  if (json.is_discarded() || !json.is_object() || json.value("format", Json()) != kSummaryFormat)
    return Error{ErrorCode::kCorrupt, std::string("this is no run summary (format ") + kSummaryFormat + ")",
                 file, "Give a run folder of 'isoline sweep' or a file of docs/reference."};
  RunSummary summary;
  Status status;
  JsonReader reader{json, "", status};
  fields(reader, summary);
  if (!status.ok()) return status.error().in(file);
  if (summary.kind != "measured" && summary.kind != "published")
    return Error{ErrorCode::kCorrupt, "field 'kind' is neither measured nor published", file, ""};
  return summary;
}

Result<RunSummary> read_summary(const std::string& path) {
  std::error_code ec;
  std::string file = path;
  if (std::filesystem::is_directory(path, ec)) {
    file = (std::filesystem::path(path) / "summary.json").string();
    if (!std::filesystem::exists(file, ec))
      return Error{ErrorCode::kNotFound, "no finished run here: summary.json is missing", path,
                   "Run 'isoline sweep' into this folder, or let it finish."};
  }
  ISOLINE_ASSIGN(const Buffer<std::byte> bytes, read_whole_file(file, kMaxSummaryBytes));
  return parse_summary(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()), file);
}

}  // namespace isoline::lab
