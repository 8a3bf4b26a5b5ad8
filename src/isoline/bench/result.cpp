#include "isoline/bench/result.h"

#include <cmath>

#include "isoline/base/file.h"
#include "isoline/lab/json_fields.h"
#include "isoline/report/format.h"

namespace isoline::bench {
namespace {

using lab::Json;
constexpr uint64_t kMaxBytes = 64 << 20;

}  // namespace

template <class V>
void fields(V& v, Interval& i) {
  v("value", i.value), v("low", i.low), v("high", i.high);
}
template <class V>
void fields(V& v, Quantile& q) {
  v("q", q.q), v("ms", q.ms);
}
template <class V>
void fields(V& v, Latency& l) {
  v("n", l.n), v("mean", l.mean), v("min", l.min), v("max", l.max), v("quantiles", l.quantiles);
}
template <class V>
void fields(V& v, Parts& p) {
  v("client_wait", p.client_wait), v("client_send", p.client_send), v("client_receive", p.client_receive);
  v("network", p.network), v("queue", p.queue), v("compute_input", p.compute_input);
  v("compute_infer", p.compute_infer), v("compute_output", p.compute_output);
}
template <class V>
void fields(V& v, Point& p) {
  v("mode", p.mode), v("batch", p.batch), v("concurrency", p.concurrency), v("rate", p.rate);
  v("arrivals", p.arrivals), v("stable", p.stable), v("why_unstable", p.why_unstable);
  v("seconds", p.seconds), v("windows", p.windows), v("requests_per_s", p.requests_per_s);
  v("inferences_per_s", p.inferences_per_s), v("latency_ms", p.latency_ms), v("parts_ms", p.parts_ms);
  v("sent", p.sent), v("answered", p.answered), v("errors", p.errors);
  v("error_examples", p.error_examples), v("errors_in_windows", p.errors_in_windows);
  v("server_requests", p.server_requests), v("server_inferences", p.server_inferences);
  v("server_executions", p.server_executions), v("late_ms_p99", p.late_ms_p99);
  v("gpu_power_w", p.gpu_power_w), v("j_per_1000", p.j_per_1000), v("cpu_j_per_1000", p.cpu_j_per_1000);
  v("peak_vram_bytes", p.peak_vram_bytes), v("client_cpu_s_per_s", p.client_cpu_s_per_s);
  v("price_per_1000", p.price_per_1000);
}
template <class V>
void fields(V& v, Tensor& t) {
  v("name", t.name), v("datatype", t.datatype), v("shape", t.shape);
}
template <class V>
void fields(V& v, BenchResult& r) {
  v("created", r.created), v("isoline_version", r.isoline_version), v("commit", r.commit), v("url", r.url);
  v("protocol", r.protocol), v("tls", r.tls), v("boundary", r.boundary), v("server_name", r.server_name);
  v("server_version", r.server_version), v("model", r.model), v("model_version", r.model_version);
  v("platform", r.platform), v("max_batch", r.max_batch), v("inputs", r.inputs), v("outputs", r.outputs);
  v("payload", r.payload), v("request_bytes", r.request_bytes), v("machine", r.machine);
  v("device", r.device), v("energy_source", r.energy_source), v("round_trip_ms", r.round_trip_ms);
  v("price_per_hour", r.price_per_hour), v("currency", r.currency), v("warmup_s", r.warmup_s);
  v("window_s", r.window_s), v("stability", r.stability), v("seed", r.seed), v("points", r.points);
  v("remarks", r.remarks);
}

const Interval* Latency::quantile(double q) const {
  for (const Quantile& one : quantiles)
    if (std::abs(one.q - q) < 1e-9) return &one.ms;
  return nullptr;
}

std::string to_json_text(const BenchResult& result) {
  lab::JsonWriter writer;
  writer.json["format"] = kBenchFormat;
  BenchResult copy = result;  // one set of fields() serves reading and writing
  fields(writer, copy);
  return writer.json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<BenchResult> parse_bench(const std::string& json_text, const std::string& file) {
  const Json json = lab::parse_json_text(json_text);
  if (json.is_discarded() || !json.is_object() || json.value("format", Json()) != kBenchFormat)
    return Error{ErrorCode::kCorrupt, std::string("this is no bench result (format ") + kBenchFormat + ")",
                 file, "Give a file of 'isoline bench --output'."};
  BenchResult result;
  Status status;
  lab::JsonReader reader{json, "", status};
  fields(reader, result);
  if (!status.ok()) return status.error().in(file);
  return result;
}

Result<BenchResult> read_bench(const std::string& file) {
  ISOLINE_ASSIGN(const Buffer<std::byte> bytes, read_whole_file(file, kMaxBytes));
  return parse_bench(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()), file);
}

bool is_bench_file(const std::string& file) {
  const auto bytes = read_whole_file(file, kMaxBytes);
  if (!bytes.ok()) return false;
  const Json json =
      lab::parse_json_text(std::string_view(reinterpret_cast<const char*>(bytes->data()), bytes->size()));
  return json.is_object() && json.value("format", Json()) == kBenchFormat;
}

std::string load_name(const Point& p) {
  const std::string batch = "batch " + std::to_string(p.batch) + ", ";
  if (p.mode == "closed") return batch + std::to_string(p.concurrency) + " at once";
  return batch + report::significant(p.rate) + "/s " + p.arrivals;
}

}  // namespace isoline::bench
