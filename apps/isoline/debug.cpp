// Single stages with arrays in and out, for tools/parity and bench. Not meant for users.
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <random>

#include "cli.h"
#include "isoline/base/resources.h"
#include "isoline/io/npy.h"
#include "isoline/pipeline/segment_case.h"
#include "isoline/postprocess/label_exporter.h"
#include "segment_cases.h"

namespace isoline::cli {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct Options {
  RunSettings run;
  Output output;
  std::vector<std::string> images;
  std::string previous_stage, output_path, tiles, logits, probabilities, shape, folds;
  int repeat = 3, windows = 3;
};

Result<Scan> read_scan(const Options& o, Segmenter& segmenter) {
  return read_case(o.images, segmenter.spec().reader, {}, segmenter.pool());
}

// The scan through preprocessing, with the previous stage's labels where given.
Result<Prepared> prepare(const Options& o, Segmenter& segmenter, const Scan& scan) {
  LabelMap previous;
  if (!o.previous_stage.empty()) {
    ISOLINE_ASSIGN(previous, read_labels(o.previous_stage, segmenter.spec().reader, {}, segmenter.pool()));
  }
  return segmenter.preprocess(scan.image, o.previous_stage.empty() ? nullptr : &previous);
}

Status preprocess_stage(const Options& o) {
  ISOLINE_ASSIGN(OpenedModel model, open_model(o.run, o.output));
  ISOLINE_ASSIGN(const Scan scan, read_scan(o, *model.segmenter));
  ISOLINE_ASSIGN(const Prepared p, prepare(o, *model.segmenter, scan));
  return write_npy<float>(o.output_path, p.data.span(), {p.channels, p.shape[0], p.shape[1], p.shape[2]});
}

// Collects slabs into one array [heads, z, y, x].
struct Collector {
  Buffer<half_t> all;
  Shape3 shape{0, 0, 0};
  int64_t heads = 0;
  Status operator()(const LogitSlab& s) {
    if (all.empty()) {
      shape = s.shape;
      heads = s.heads;
      all = Buffer<half_t>(size_t(heads * voxels(shape)));
    }
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t z = s.z_begin; z < s.z_end; ++z)
        for (int64_t y = 0; y < shape[1]; ++y)
          std::memcpy(all.data() + ((h * shape[0] + z) * shape[1] + y) * shape[2],
                      s.data + h * s.head_stride + (z - s.z_begin) * s.plane_stride + y * s.row_stride,
                      size_t(shape[2]) * sizeof(half_t));
    return {};
  }
};

Status accumulate_stage(const Options& o) {
  ISOLINE_ASSIGN(OpenedModel model, open_model(o.run, o.output));
  ISOLINE_ASSIGN(const Shape3 shape, parse_shape(o.shape, "--shape"));
  ISOLINE_ASSIGN(const NpyArray tiles, read_npy(o.tiles));
  const Buffer<float>* values = tiles.as<float>();
  if (!values) return Error{ErrorCode::kInvalidArgument, "tiles must be float32", o.tiles, ""};
  ISOLINE_ASSIGN(const TilePlan plan, plan_tiles(shape, model.segmenter->spec().patch_size, o.run.step));
  const int64_t heads = model.segmenter->spec().labels.heads, one = heads * voxels(plan.patch);
  if (int64_t(values->size()) != plan.tiles() * one)
    return Error{ErrorCode::kInvalidArgument, "expected " + std::to_string(plan.tiles()) + " tiles", o.tiles,
                 ""};
  Accumulator accumulator(plan, heads, model.segmenter->pool());
  Collector collector;
  for (int64_t t = 0; t < plan.tiles(); ++t)
    ISOLINE_RETURN_IF_ERROR(accumulator.add(t, values->data() + t * one, std::ref(collector)));
  return write_npy_half(o.output_path, collector.all.span(), {heads, shape[0], shape[1], shape[2]});
}

Status logits_stage(const Options& o) {
  ISOLINE_ASSIGN(OpenedModel model, open_model(o.run, o.output));
  ISOLINE_ASSIGN(const Scan scan, read_scan(o, *model.segmenter));
  ISOLINE_ASSIGN(const Prepared p, prepare(o, *model.segmenter, scan));
  Collector collector;
  ISOLINE_RETURN_IF_ERROR(model.segmenter->run_network(p, std::ref(collector), {}, &interrupted()));
  return write_npy_half(o.output_path, collector.all.span(),
                        {collector.heads, collector.shape[0], collector.shape[1], collector.shape[2]});
}

// Logits [heads, z, y, x] in binary16, checked against the model and the scan.
Result<Buffer<half_t>> load_logits(const std::string& path, int64_t heads, const Shape3& shape) {
  ISOLINE_ASSIGN(NpyArray array, read_npy(path));
  if (!array.is_half || array.shape != std::vector<int64_t>{heads, shape[0], shape[1], shape[2]})
    return Error{ErrorCode::kInvalidArgument,
                 "logits must be float16 of " + std::to_string(heads) + "x" + to_string(shape), path, ""};
  return std::get<Buffer<half_t>>(std::move(array.data));
}

Result<LabelExporter::Output> export_logits(Segmenter& segmenter, const Prepared& p,
                                            const Buffer<half_t>& logits, bool with_probabilities) {
  ISOLINE_ASSIGN(LabelExporter exporter, LabelExporter::create(segmenter.spec(), p.crop, p.resample,
                                                               segmenter.pool(), with_probabilities));
  const int64_t plane = p.shape[1] * p.shape[2];
  for (int64_t z = 0; z < p.shape[0]; z += 64) {
    const int64_t end = std::min(p.shape[0], z + 64);
    ISOLINE_RETURN_IF_ERROR(exporter.add({z, end, p.shape, segmenter.spec().labels.heads,
                                          logits.data() + z * plane, voxels(p.shape), plane, p.shape[2]}));
  }
  return exporter.finish();
}

Status export_stage(const Options& o) {
  ISOLINE_ASSIGN(OpenedModel model, open_model(o.run, o.output));
  Segmenter& s = *model.segmenter;
  ISOLINE_ASSIGN(const Scan scan, read_scan(o, s));
  ISOLINE_ASSIGN(const Prepared p, prepare(o, s, scan));
  ISOLINE_ASSIGN(const Buffer<half_t> logits, load_logits(o.logits, s.spec().labels.heads, p.shape));
  ISOLINE_ASSIGN(LabelExporter::Output out, export_logits(s, p, logits, !o.probabilities.empty()));
  if (!o.probabilities.empty())
    ISOLINE_RETURN_IF_ERROR(write_npz<float>(
        o.probabilities, "probabilities", out.probabilities.span(),
        {s.spec().labels.heads, out.labels.shape[0], out.labels.shape[1], out.labels.shape[2]}, s.pool()));
  return write_labels(o.output_path, out.labels, scan.source, s.pool());
}

Status bench_stages(const Options& o) {
  ISOLINE_ASSIGN(OpenedModel model, open_model(o.run, o.output));
  Segmenter& s = *model.segmenter;
  Json read = Json::array(), pre = Json::array(), exp = Json::array(), write = Json::array();
  namespace fs = std::filesystem;
  const std::string scratch =
      o.output_path.empty()
          ? (fs::temp_directory_path() / ("isoline_bench_" + std::to_string(::getpid()) + ".nii.gz")).string()
          : o.output_path;
  for (int i = 0; i < o.repeat; ++i) {
    auto start = Clock::now();
    ISOLINE_ASSIGN(Scan scan, read_scan(o, s));
    read.push_back(seconds_since(start));
    start = Clock::now();
    ISOLINE_ASSIGN(Prepared p, s.preprocess(scan.image, nullptr));
    pre.push_back(seconds_since(start));
    scan.image = Image{};
    p.data = Buffer<float>{};
    if (o.logits.empty()) continue;
    ISOLINE_ASSIGN(const Buffer<half_t> logits, load_logits(o.logits, s.spec().labels.heads, p.shape));
    start = Clock::now();
    ISOLINE_ASSIGN(LabelExporter::Output out, export_logits(s, p, logits, false));
    exp.push_back(seconds_since(start));
    start = Clock::now();
    ISOLINE_RETURN_IF_ERROR(write_labels(scratch, out.labels, scan.source, s.pool()));
    write.push_back(seconds_since(start));
    std::error_code ec;
    if (o.output_path.empty()) fs::remove(scratch, ec);
  }
  print({{"read_s", read},
         {"preprocess_s", pre},
         {"export_s", exp},
         {"write_s", write},
         {"peak_rss_bytes", peak_rss_bytes()}});
  return {};
}

Status bench_network(const Options& o) {
  ISOLINE_ASSIGN(OpenedModel model, open_model(o.run, o.output));
  Segmenter& s = *model.segmenter;
  // One row of windows on random intensities: every window takes the same time, so a few stand for all.
  const std::vector<int>& patch = s.spec().patch_size;
  Prepared p;
  p.channels = s.spec().input_channels();
  p.shape = patch.size() == 3 ? Shape3{patch[0], patch[1], patch[2]} : Shape3{1, patch[0], patch[1]};
  p.data = Buffer<float>(size_t(p.channels * voxels(p.shape)));
  std::mt19937 rng(1);
  std::normal_distribution<float> normal;
  for (float& v : p.data) v = normal(rng);
  Json times = Json::array();
  for (int i = 0; i <= o.windows; ++i) {  // the first compiles and warms up
    const auto start = Clock::now();
    ISOLINE_RETURN_IF_ERROR(s.run_network(
        p, [](const LogitSlab&) -> Status { return {}; }, {}, &interrupted()));
    if (i > 0) times.push_back(seconds_since(start) / double(s.mirrors()));
  }
  print({{"window_s", times},
         {"boundary", "one forward with cutting the tile, weighting, adding up and dividing"},
         {"ran_on", s.session_description()},
         {"peak_rss_bytes", peak_rss_bytes()}});
  return {};
}

}  // namespace

Action add_debug(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.require_subcommand(1);
  app.group("");  // not in the overview
  struct Stage {
    const char* name;
    Status (*run)(const Options&);
    bool images;
  };
  static constexpr Stage stages[] = {
      {"preprocess", preprocess_stage, true}, {"accumulate", accumulate_stage, false},
      {"logits", logits_stage, true},         {"export", export_stage, true},
      {"bench-stages", bench_stages, true},   {"bench-network", bench_network, false},
  };
  for (const Stage& stage : stages) {
    CLI::App* sub = app.add_subcommand(stage.name);
    sub->add_option("-m,--model", o->run.model_folder)->required();
    if (stage.images) sub->add_option("-i,--input", o->images)->required();
    sub->add_option("-o,--output", o->output_path);
    sub->add_option("--prev", o->previous_stage);
    sub->add_option("--tiles", o->tiles);
    sub->add_option("--shape", o->shape);
    sub->add_option("--logits", o->logits);
    sub->add_option("--probabilities", o->probabilities);
    sub->add_option("--step", o->run.step);
    sub->add_option("--tta", o->run.tta);
    sub->add_option("--folds", o->folds);
    sub->add_option("--checkpoint", o->run.checkpoint);
    sub->add_option("--backend", o->run.backend);
    sub->add_option("--precision", o->run.precision);
    sub->add_option("--threads", o->run.threads);
    sub->add_option("--repeat", o->repeat);
    sub->add_option("--windows", o->windows);
    add_output_options(*sub, o->output);
  }
  return [o, &app]() -> Status {
    o->run.folds = split_commas(o->folds);
    for (const Stage& stage : stages)
      if (app.get_subcommand(stage.name)->parsed()) return stage.run(*o);
    return {};
  };
}

}  // namespace isoline::cli
