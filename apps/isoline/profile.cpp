#include "profile.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace isoline::cli {
namespace {

constexpr int kLayerRuns = 5;
constexpr size_t kMarked = 3;

double flops(const LayerTime& l) {
  return 2.0 * double(l.macs);
}
double rate(double amount, double duration_ms) {
  return duration_ms > 0 ? 1e3 * amount / duration_ms : 0;
}

double floor_ms(const LayerTime& l, const DeviceCeilings& c) {
  return 1e3 * std::max(flops(l) / c.flops_per_s, double(l.bytes) / c.bytes_per_s);
}

double lost_ms(const LayerProfile& l) {
  return l.time.duration_ms - l.floor_ms.value_or(0);
}

void mark_worst(std::vector<LayerProfile>& layers) {
  std::vector<size_t> order(layers.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return lost_ms(layers[a]) > lost_ms(layers[b]); });
  for (size_t i = 0; i < std::min(kMarked, order.size()); ++i) layers[order[i]].loses_most = true;
}

// Time of a forward pass in the scans times the batch, median over passes; those whose batch was full where
// batches are timed.
std::optional<double> median_batch_ms(const std::vector<DoneCase>& cases, int batch) {
  std::vector<double> ms;
  for (const auto& [files, r] : cases)
    for (const RunSpan& s : r.segmentation.spans)
      if (s.kind == SpanKind::kForward && (!s.on_device || s.forwards == batch))
        ms.push_back((s.end_ms - s.begin_ms) / s.forwards * batch);
  if (ms.empty()) return std::nullopt;
  std::nth_element(ms.begin(), ms.begin() + int64_t(ms.size() / 2), ms.end());
  return ms[ms.size() / 2];
}

struct Stage {
  const char* name;
  double seconds;
};
std::vector<Stage> stages_of(const StageTimes& t) {
  return {{"read", t.read_s},
          {"preprocess", t.preprocess_s},
          {"network", t.network_s},
          {"export", t.export_s},
          {"write", t.write_s}};
}

double sum_ms(const std::vector<LayerProfile>& layers) {
  double sum = 0;
  for (const LayerProfile& l : layers) sum += l.time.duration_ms;
  return sum;
}

std::string number(double value, int decimals) {
  char text[48];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}

// Steps of nearly no work, all of them launch, are far from a floor of nanoseconds: that number says nothing.
std::string ratio_text(double ms, const std::optional<double>& floor) {
  if (!floor) return "n/a";
  return ms < 1000 * *floor ? number(ms / *floor, 1) : ">1000";
}

void print_row(const std::string& name, double ms, double share, uint64_t macs, uint64_t bytes,
               const std::optional<double>& floor) {
  LayerTime l{"", ms, macs, bytes};
  std::printf("%-58.58s %9.4f %6.1f%% %8s %8s %8s %9s %6s\n", name.c_str(), ms, 100 * share,
              macs ? number(1e-9 * double(macs), 2).c_str() : "-",
              macs ? number(1e-12 * rate(flops(l), ms), 2).c_str() : "-",
              number(1e-9 * rate(double(bytes), ms), 0).c_str(), floor ? number(*floor, 4).c_str() : "n/a",
              ratio_text(ms, floor).c_str());
}

// --- The trace ---

enum Row { kRead = 1, kSegment, kWrite, kDevice, kLayers };

// Microseconds to a thousandth: what is inside something else stays inside.
double us(double ms) {
  return std::round(1e6 * ms) / 1e3;
}

class Trace {
 public:
  Trace() {
    name("process_name", 0, "isoline segment");
    name("thread_name", kRead, "host: read");
    name("thread_name", kSegment, "host: segment");
    name("thread_name", kWrite, "host: write");
    name("thread_name", kDevice, "device");
    name("thread_name", kLayers, "one forward, layer by layer");
    for (int row = kRead; row <= kLayers; ++row)
      events_.push_back({{"ph", "M"},
                         {"name", "thread_sort_index"},
                         {"pid", 1},
                         {"tid", row},
                         {"args", {{"sort_index", row}}}});
  }
  void add(Row row, const std::string& name, const char* category, double begin_ms, double end_ms,
           Json args = Json::object()) {
    const double ts = us(begin_ms), dur = us(std::max(0.0, us(end_ms) - ts) * 1e-3);
    events_.push_back({{"ph", "X"},
                       {"name", name},
                       {"cat", category},
                       {"pid", 1},
                       {"tid", int(row)},
                       {"ts", ts},
                       {"dur", dur},
                       {"args", std::move(args)}});
  }
  Json take() { return std::move(events_); }

 private:
  void name(const char* what, int tid, const char* text) {
    events_.push_back({{"ph", "M"}, {"name", what}, {"pid", 1}, {"tid", tid}, {"args", {{"name", text}}}});
  }
  Json events_ = Json::array();
};

void add_case(Trace& trace, const std::string& id, const CaseResult& r,
              std::chrono::steady_clock::time_point start) {
  const auto ms = [&](std::chrono::steady_clock::time_point t) {
    return std::chrono::duration<double, std::milli>(t - start).count();
  };
  const Json args{{"case", id}};
  trace.add(kRead, "read", "stage", ms(r.read.begin), ms(r.read.end), args);
  trace.add(kSegment, id, "case", ms(r.segment.begin), ms(r.segment.end), args);
  const double begin = ms(r.segment.begin);
  // Outer ones first: viewers nest what begins at the same time in this order.
  std::vector<RunSpan> spans = r.segmentation.spans;
  std::stable_sort(spans.begin(), spans.end(), [](const RunSpan& a, const RunSpan& b) {
    return a.begin_ms != b.begin_ms ? a.begin_ms < b.begin_ms : a.end_ms > b.end_ms;
  });
  for (const RunSpan& s : spans) {
    Json more = args;
    if (s.forwards) more["forwards"] = s.forwards;
    const bool stage = s.kind == SpanKind::kPreprocess || s.kind == SpanKind::kNetwork;
    trace.add(s.on_device ? kDevice : kSegment, to_string(s.kind), stage ? "stage" : "step",
              begin + s.begin_ms, begin + s.end_ms, std::move(more));
  }
  if (r.postprocess)
    trace.add(kWrite, "postprocess", "stage", ms(r.postprocess->begin), ms(r.postprocess->end), args);
  trace.add(kWrite, "write", "stage", ms(r.write.begin), ms(r.write.end), args);
}

Json rates_json(const LayerProfile& l) {
  const LayerTime& t = l.time;
  return {{"macs", t.macs},
          {"bytes", t.bytes},
          {"flops_per_s", rate(flops(t), t.duration_ms)},
          {"bytes_per_s", rate(double(t.bytes), t.duration_ms)},
          {"floor_ms", l.floor_ms ? Json(*l.floor_ms) : Json(nullptr)},
          {"loses_most", l.loses_most}};
}

}  // namespace

Profile measure_profile(OpenedModel& model, Precision precision, const std::vector<DoneCase>& cases) {
  Profile p;
  for (const auto& [files, r] : cases) {
    const StageTimes& t = r.segmentation.times;
    p.stages.read_s += t.read_s;
    p.stages.preprocess_s += t.preprocess_s;
    p.stages.network_s += t.network_s;
    p.stages.export_s += t.export_s;
    p.stages.write_s += t.write_s;
    p.total_s += r.total_s;
    if (r.segmentation.device) p.batch = r.segmentation.device->batch;
  }
  p.batch_ms = median_batch_ms(cases, p.batch);
  auto layers = model.segmenter->layer_times(kLayerRuns);
  if (!layers.ok()) p.no_layers = layers.error().to_string();
  auto ceilings = model.backend->measure_ceilings(precision);
  if (ceilings.ok())
    p.ceilings = std::move(ceilings).value();
  else
    p.no_ceilings = ceilings.error().to_string();
  if (!layers.ok()) return p;
  for (LayerTime& l : *layers) {
    std::optional<double> floor;
    if (p.ceilings) floor = floor_ms(l, *p.ceilings);
    p.layers.push_back({std::move(l), floor, false});
  }
  mark_worst(p.layers);
  return p;
}

void print_profile(const Profile& p) {
  std::printf("\n%-12s %9s %7s\n", "stage", "s", "share");
  const auto share = [](double part, double whole) { return whole > 0 ? part / whole : 0; };
  for (const Stage& s : stages_of(p.stages))
    std::printf("%-12s %9.3f %6.1f%%\n", s.name, s.seconds, 100 * share(s.seconds, p.total_s));
  std::printf("%-12s %9.3f\n\n", "total", p.total_s);
  if (p.ceilings)
    std::printf("ceilings, measured now: %.1f TFLOP/s and %.0f GB/s (%s)\n", 1e-12 * p.ceilings->flops_per_s,
                1e-9 * p.ceilings->bytes_per_s, p.ceilings->how.c_str());
  else
    std::printf("ceilings: not available: %s\n", p.no_ceilings.c_str());
  if (p.layers.empty()) {
    std::printf("layers: not available: %s\n", p.no_layers.c_str());
    return;
  }
  std::printf(
      "one forward pass of batch %d, step by step, median of %d; floor: the larger of the times for its\n"
      "products and for its bytes (inputs, outputs and weights once) at the ceilings; *: %s\n\n",
      p.batch, kLayerRuns, p.ceilings ? "the three that lose most time" : "the three that take most time");
  std::printf("%-58s %9s %7s %8s %8s %8s %9s %6s\n", "layer", "ms", "share", "GMAC", "TFLOP/s", "GB/s",
              "floor ms", "ratio");
  const double sum = sum_ms(p.layers);
  LayerTime all;
  double floor = 0;
  for (const LayerProfile& l : p.layers) {
    print_row((l.loses_most ? "* " : "  ") + l.time.name, l.time.duration_ms, share(l.time.duration_ms, sum),
              l.time.macs, l.time.bytes, l.floor_ms);
    all.macs += l.time.macs;
    all.bytes += l.time.bytes;
    floor += l.floor_ms.value_or(0);
  }
  print_row("  all", sum, 1, all.macs, all.bytes, p.ceilings ? std::optional<double>(floor) : std::nullopt);
  if (p.batch_ms)
    std::printf("in the scans a forward pass of batch %d took %.4f ms (median)\n", p.batch, *p.batch_ms);
}

Json profile_json(const Profile& p, const std::vector<DoneCase>& cases) {
  Json stages = Json::object(), layers = Json::array(), spans = Json::array();
  for (const Stage& s : stages_of(p.stages)) stages[s.name] = s.seconds;
  for (const LayerProfile& l : p.layers) {
    Json row{{"name", l.time.name}, {"duration_ms", l.time.duration_ms}};
    row.update(rates_json(l));
    layers.push_back(std::move(row));
  }
  for (const auto& [files, r] : cases) {
    Json list = Json::array();
    for (const RunSpan& s : r.segmentation.spans)
      list.push_back({{"kind", to_string(s.kind)},
                      {"begin_ms", s.begin_ms},
                      {"end_ms", s.end_ms},
                      {"on_device", s.on_device},
                      {"forwards", s.forwards}});
    spans.push_back({{"id", files.id}, {"spans", std::move(list)}});
  }
  const auto text_or_null = [](const std::string& s) { return s.empty() ? Json(nullptr) : Json(s); };
  return {{"stages_s", std::move(stages)},
          {"total_s", p.total_s},
          {"batch", p.batch},
          {"layer_runs", kLayerRuns},
          {"layers", p.layers.empty() ? Json(nullptr) : std::move(layers)},
          {"layers_not_available", text_or_null(p.no_layers)},
          {"layers_sum_ms", p.layers.empty() ? Json(nullptr) : Json(sum_ms(p.layers))},
          {"batch_in_scans_ms", p.batch_ms ? Json(*p.batch_ms) : Json(nullptr)},
          {"ceilings", p.ceilings ? Json{{"flops_per_s", p.ceilings->flops_per_s},
                                         {"bytes_per_s", p.ceilings->bytes_per_s},
                                         {"how", p.ceilings->how}}
                                  : Json(nullptr)},
          {"ceilings_not_available", text_or_null(p.no_ceilings)},
          {"cases", std::move(spans)}};
}

Json chrome_trace(const Profile& p, const std::vector<DoneCase>& cases, const std::string& ran_on,
                  std::chrono::steady_clock::time_point start) {
  Trace trace;
  double end_ms = 0;
  for (const auto& [files, r] : cases) {
    add_case(trace, files.id, r, start);
    end_ms = std::max(end_ms, std::chrono::duration<double, std::milli>(r.write.end - start).count());
  }
  double at = end_ms;
  if (!p.layers.empty())
    trace.add(kLayers, "forward, batch " + std::to_string(p.batch), "forward", at, at + sum_ms(p.layers));
  for (const LayerProfile& l : p.layers) {
    trace.add(kLayers, l.time.name, "layer", at, at + l.time.duration_ms, rates_json(l));
    at += l.time.duration_ms;
  }
  return {{"traceEvents", trace.take()},
          {"displayTimeUnit", "ms"},
          {"otherData", {{"program", "isoline " ISOLINE_VERSION}, {"ran_on", ran_on}}}};
}

}  // namespace isoline::cli
