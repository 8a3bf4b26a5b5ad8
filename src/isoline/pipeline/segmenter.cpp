#include "isoline/pipeline/segmenter.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <new>

#include "isoline/network/build_network.h"
#include "isoline/postprocess/label_exporter.h"
#include "isoline/tile/tile_plan.h"

namespace isoline {
namespace {

// Bytes a session may keep per parameter: Winograd-transformed float32 weights are up to eight times the
// originals.
constexpr double kWeightBytes = 24;

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void shift(std::vector<RunSpan>& spans, double ms) {
  for (RunSpan& s : spans) s.begin_ms += ms, s.end_ms += ms;
}

// Values alive at once, at their peak, over one forward pass.
int64_t peak_activation_values(const NetworkGraph& graph, const Shape3& patch) {
  std::vector<int64_t> size(graph.values.size());
  std::vector<size_t> last(graph.values.size(), 0);
  for (size_t v = 0; v < size.size(); ++v) {
    size[v] = graph.values[v].channels;
    for (size_t a = 0; a < 3; ++a) size[v] *= patch[a] / graph.values[v].downscale[a];
  }
  std::vector<ValueId> outs;
  for (size_t i = 0; i < graph.ops.size(); ++i)
    std::visit(
        [&](const auto& op) {
          if constexpr (requires { op.in; })
            last[size_t(op.in)] = i;
          else
            last[size_t(op.a)] = last[size_t(op.b)] = i;
          outs.push_back(op.out);
        },
        graph.ops[i]);
  int64_t alive = size[0], peak = alive;
  for (size_t i = 0; i < outs.size(); ++i) {
    alive += size[size_t(outs[i])];
    peak = std::max(peak, alive);
    for (size_t v = 0; v < size.size(); ++v)
      if (last[v] == i && ValueId(v) != graph.output) alive -= size[v];
  }
  return peak;
}

// Frees what a session has copied; sizes and structure stay.
void drop_weights(NetworkGraph& graph) {
  for (Op& op : graph.ops)
    std::visit(
        [](auto& o) {
          if constexpr (requires { o.weight; }) std::vector<float>().swap(o.weight);
          if constexpr (requires { o.gamma; }) {
            std::vector<float>().swap(o.gamma);
            std::vector<float>().swap(o.beta);
          }
        },
        op);
}

// sum += flip(part) over [heads, patch], along the flagged axes.
void add_mirrored(const float* part, int64_t heads, const Shape3& p, const Vec3<bool>& mirror, float* sum,
                  ThreadPool& pool) {
  pool.for_each(heads * p[0], 4, [&](int64_t begin, int64_t end) {
    for (int64_t hz = begin; hz < end; ++hz)
      for (int64_t y = 0; y < p[1]; ++y) {
        const int64_t z = hz % p[0];
        const int64_t fz = hz - z + (mirror[0] ? p[0] - 1 - z : z), fy = mirror[1] ? p[1] - 1 - y : y;
        const float* from = part + (fz * p[1] + fy) * p[2];
        float* to = sum + (hz * p[1] + y) * p[2];
        if (mirror[2])
          for (int64_t x = 0; x < p[2]; ++x) to[x] += from[p[2] - 1 - x];
        else
          for (int64_t x = 0; x < p[2]; ++x) to[x] += from[x];
      }
  });
}

}  // namespace

struct Segmenter::Impl {
  Impl(LoadedModel m, const Backend& b, SegmenterOptions o)
      : model(std::move(m)), backend(b), options(std::move(o)), pool(options.threads) {}

  LoadedModel model;
  const Backend& backend;
  SegmenterOptions options;
  ThreadPool pool;
  std::vector<NetworkGraph> graphs;                // one per fold; without weights once its session exists
  int64_t parameters = 0, peak_activations = 0;    // of one fold
  std::vector<std::unique_ptr<Session>> sessions;  // one per fold, created at first use
  std::unique_ptr<ScanRunner> runner;              // takes their place where the backend has one
  std::vector<Vec3<bool>> mirrors;
  std::string description;
  std::vector<float> forward_ms;            // of the last run_network()
  std::vector<RunSpan> spans;               // and its forward passes, since `origin`
  Clock::time_point origin = Clock::now();  // when segment() began
  ScanReport report;                        // and what the device did then

  int64_t heads() const { return model.spec.labels.heads; }
  size_t folds() const { return model.spec.architecture ? graphs.size() : 1; }
  bool on_device() const { return options.scan_on_device && backend.has_scan_runner() && !graphs.empty(); }
  SessionOptions session_options(const Shape3& patch) const {
    return {patch, 1, options.precision, options.threads, options.autotune};
  }

  Result<ScanRunner*> scan_runner(const Shape3& patch) {
    if (!runner) {
      ScanRunnerOptions ro;
      ro.session = session_options(patch);
      ro.session.batch = options.batch;
      ro.max_device_bytes = options.max_device_bytes;
      std::vector<NetworkGraph> moved = std::move(graphs);
      graphs.assign(moved.size(), {});  // their number stays
      ISOLINE_ASSIGN(runner, backend.create_scan_runner(std::move(moved), ro));
    }
    return runner.get();
  }

  Result<Session*> session(size_t fold, const Shape3& patch) {
    if (sessions.size() <= fold) sessions.resize(fold + 1);
    if (!sessions[fold]) {
      const SessionOptions so = session_options(patch);
      if (model.spec.architecture) {
        ISOLINE_ASSIGN(sessions[fold], backend.create(graphs[fold], so));
        drop_weights(graphs[fold]);  // the session has its own
      } else {
        ISOLINE_ASSIGN(sessions[fold], backend.create_from_onnx(
                                           model.spec.onnx_file, model.spec.input_channels(),
                                           model.spec.labels.heads, int(model.spec.patch_size.size()), so));
      }
      description = sessions[fold]->description();
    }
    return sessions[fold].get();
  }
};

Segmenter::Segmenter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Segmenter::Segmenter(Segmenter&&) noexcept = default;
Segmenter& Segmenter::operator=(Segmenter&&) noexcept = default;
Segmenter::~Segmenter() = default;

const ModelSpec& Segmenter::spec() const {
  return impl_->model.spec;
}
ThreadPool& Segmenter::pool() {
  return impl_->pool;
}
std::string Segmenter::session_description() const {
  return impl_->description;
}
int64_t Segmenter::mirrors() const {
  return int64_t(impl_->mirrors.size());
}

Result<Segmenter> Segmenter::create(LoadedModel model, const Backend& backend,
                                    const SegmenterOptions& options) {
  auto impl = std::make_unique<Impl>(std::move(model), backend, options);
  const ModelSpec& spec = impl->model.spec;
  const int dims = int(spec.patch_size.size());
  std::vector<int> axes =
      options.mirror_axes ? *options.mirror_axes : spec.mirror_axes.value_or(std::vector<int>{});
  for (size_t i = 0; i < axes.size(); ++i)
    if (axes[i] < 0 || axes[i] >= dims || std::count(axes.begin(), axes.end(), axes[i]) > 1)
      return Error{ErrorCode::kInvalidArgument, "mirror axis " + std::to_string(axes[i]) + " is not possible",
                   "--tta", "Axes count from 0 to " + std::to_string(dims - 1) + ", each once."};
  impl->mirrors = mirror_sets(axes, dims);
  // Validates step and patch before anything is read.
  ISOLINE_ASSIGN(const TilePlan plan_check, plan_tiles({1, 1, 1}, spec.patch_size, options.step));
  if (spec.architecture) {
    for (const Weights& w : impl->model.folds) {
      ISOLINE_ASSIGN(NetworkGraph graph,
                     build_network(*spec.architecture, spec.input_channels(), spec.labels.heads, w));
      ISOLINE_RETURN_IF_ERROR(backend.supports(graph, impl->session_options(plan_check.patch)));
      impl->parameters = graph.parameters();
      impl->peak_activations = peak_activation_values(graph, plan_check.patch);
      impl->graphs.push_back(std::move(graph));
    }
    impl->model.folds.clear();  // the graphs hold float32 copies
  } else {
    ISOLINE_RETURN_IF_ERROR(backend.supports_onnx(impl->session_options(plan_check.patch)));
  }
  return Segmenter(std::move(impl));
}

Result<std::vector<LayerTime>> Segmenter::layer_times(int runs) {
  if (impl_->runner) return impl_->runner->layer_times(runs);
  if (impl_->sessions.empty() || !impl_->sessions[0])
    return Error{ErrorCode::kInvalidArgument, "no scan has run yet", "--profile", "Segment one before."};
  return impl_->sessions[0]->layer_times(runs);
}

Result<Prepared> Segmenter::preprocess(const Image& image, const LabelMap* previous_stage) {
  return isoline::preprocess(image, previous_stage, impl_->model.spec, impl_->pool);
}

Status Segmenter::run_network(const Prepared& prepared, const LogitSink& sink,
                              const ProgressFunction& progress, const std::atomic<bool>* cancel) {
  Impl& m = *impl_;
  ISOLINE_ASSIGN(const TilePlan plan, plan_tiles(prepared.shape, m.model.spec.patch_size, m.options.step));
  if (m.on_device()) {
    ISOLINE_ASSIGN(ScanRunner * runner, m.scan_runner(plan.patch));
    ScanRequest request;
    request.prepared = &prepared;
    request.tiles = &plan;
    request.mirrors = m.mirrors;
    request.logits = sink;
    request.progress = progress;
    request.cancel = cancel;
    const double begin_ms = 1e3 * seconds_since(m.origin);
    ISOLINE_RETURN_IF_ERROR(runner->run(request, &m.report));
    m.description = runner->description();
    m.forward_ms = m.report.forward_ms;
    m.spans = std::move(m.report.spans);
    std::erase_if(m.spans, [](const RunSpan& s) { return !s.on_device; });
    shift(m.spans, begin_ms);
    return {};
  }
  const int64_t heads = m.heads(), tile_values = heads * voxels(plan.patch);
  Buffer<float> tile(size_t(prepared.channels * voxels(plan.patch)));
  Buffer<float> sum(static_cast<size_t>(tile_values));
  Buffer<float> part(m.mirrors.size() > 1 ? size_t(tile_values) : 0);
  const int64_t total = plan.tiles() * mirrors() * int64_t(m.folds());
  int64_t done = 0;
  m.forward_ms.clear();
  m.forward_ms.reserve(size_t(total));
  m.spans.clear();
  m.spans.reserve(size_t(total));
  const auto ran_since = [&](double begin_ms, int64_t forwards) {
    const double end_ms = 1e3 * seconds_since(m.origin);
    m.spans.push_back({SpanKind::kForward, begin_ms, end_ms, false, int(forwards)});
    m.forward_ms.insert(m.forward_ms.end(), size_t(forwards), float((end_ms - begin_ms) / double(forwards)));
  };

  // With several folds the reference adds whole binary16 volumes in fold order and divides; so does this.
  const int64_t n = voxels(prepared.shape);
  Buffer<half_t> all_folds(m.folds() > 1 ? size_t(heads * n) : 0);
  const int64_t plane = prepared.shape[1] * prepared.shape[2];
  for (size_t fold = 0; fold < m.folds(); ++fold) {
    ISOLINE_ASSIGN(Session * session, m.session(fold, plan.patch));
    const bool last_fold = fold + 1 == m.folds();
    LogitSink fold_sink = sink;
    if (m.folds() > 1)
      fold_sink = [&](const LogitSlab& slab) -> Status {
        m.pool.for_each(heads * (slab.z_end - slab.z_begin), 1, [&](int64_t begin, int64_t end) {
          for (int64_t hz = begin; hz < end; ++hz) {
            const int64_t h = hz / (slab.z_end - slab.z_begin), z = hz % (slab.z_end - slab.z_begin);
            for (int64_t y = 0; y < slab.shape[1]; ++y) {
              const half_t* from =
                  slab.data + h * slab.head_stride + z * slab.plane_stride + y * slab.row_stride;
              half_t* to = all_folds.data() + h * n + (slab.z_begin + z) * plane + y * slab.shape[2];
              for (int64_t x = 0; x < slab.shape[2]; ++x) {
                half_t v = from[x];
                if (fold > 0) v = float_to_half(half_to_float(to[x]) + half_to_float(v));
                if (last_fold) v = float_to_half(half_to_float(v) / float(m.folds()));
                to[x] = v;
              }
            }
          }
        });
        if (!last_fold) return {};
        return sink({slab.z_begin, slab.z_end, slab.shape, heads, all_folds.data() + slab.z_begin * plane, n,
                     plane, slab.shape[2]});
      };
    Accumulator accumulator(plan, heads, m.pool);
    for (int64_t t = 0; t < plan.tiles(); ++t) {
      if (session->has_run_mirrored()) {
        extract_tile(plan, prepared.data.data(), prepared.channels, plan.origin(t), {false, false, false},
                     tile.data());
        const double begin_ms = 1e3 * seconds_since(m.origin);
        ISOLINE_RETURN_IF_ERROR(session->run_mirrored(tile.data(), m.mirrors, sum.data()));
        ran_since(begin_ms, mirrors());
        if (progress) progress(done += mirrors(), total);
        if (cancel && *cancel) return Error{ErrorCode::kCancelled, "interrupted", "", ""};
        ISOLINE_RETURN_IF_ERROR(accumulator.add(t, sum.data(), fold_sink));
        continue;
      }
      for (size_t k = 0; k < m.mirrors.size(); ++k) {
        extract_tile(plan, prepared.data.data(), prepared.channels, plan.origin(t), m.mirrors[k],
                     tile.data());
        const double begin_ms = 1e3 * seconds_since(m.origin);
        ISOLINE_RETURN_IF_ERROR(session->run(tile.data(), k == 0 ? sum.data() : part.data()));
        ran_since(begin_ms, 1);
        if (k > 0) add_mirrored(part.data(), heads, plan.patch, m.mirrors[k], sum.data(), m.pool);
        if (progress) progress(++done, total);
        if (cancel && *cancel) return Error{ErrorCode::kCancelled, "interrupted", "", ""};
      }
      if (m.mirrors.size() > 1) {
        const float count = float(m.mirrors.size());
        m.pool.for_each(tile_values, 1 << 16, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) sum[size_t(i)] /= count;
        });
      }
      ISOLINE_RETURN_IF_ERROR(accumulator.add(t, sum.data(), fold_sink));
    }
  }
  return {};
}

uint64_t Segmenter::estimate_bytes(const Image& image) const {
  const Impl& m = *impl_;
  const ModelSpec& spec = m.model.spec;
  Shape3 turned{};
  Vec3<double> spacing{};
  for (size_t a = 0; a < 3; ++a) {
    turned[a] = image.shape[size_t(spec.transpose_forward[a])];
    spacing[a] = image.geometry.spacing_mm[size_t(spec.transpose_forward[a])];
  }
  const Shape3 grid = resampled_shape(turned, spacing, spec);
  const auto plan = plan_tiles(grid, spec.patch_size, m.options.step);
  if (!plan.ok()) return 0;
  const double scan = double(voxels(image.shape)), net = double(voxels(grid)), heads = double(m.heads());
  const double scan_bytes = std::visit([](const auto& b) { return double(b.byte_size()); }, image.data);
  const double prepared = net * 4 * spec.input_channels();
  if (m.on_device() && !m.options.with_probabilities)  // labels; a scan that comes in slabs is prepared here
    return uint64_t(scan_bytes + scan * 2 + prepared);
  const double between =
      double(turned[0]) * double(grid[1]) * double(grid[2]) * 4;  // after the in-plane passes
  double running = prepared + scan * 2;                           // and the labels
  running += heads * double(plan->patch[0] * plan->padded[1] * plan->padded[2]) * 2;
  if (m.folds() > 1) running += net * heads * 2;
  if (m.options.with_probabilities) running += scan * heads * 4;
  running += double(voxels(plan->patch)) * 4 * (spec.input_channels() + 2 * heads);
  if (!m.graphs.empty())
    running += double(m.folds()) * (4.0 * double(m.peak_activations) + kWeightBytes * double(m.parameters));
  return uint64_t(std::max(running, scan_bytes + between + prepared));
}

Result<Segmentation> Segmenter::segment(Image image, const LabelMap* previous_stage,
                                        const ProgressFunction& progress, const std::atomic<bool>* cancel) {
  Impl& m = *impl_;
  try {
    if (const uint64_t need = estimate_bytes(image);
        m.options.max_ram_bytes && need > m.options.max_ram_bytes)
      return Error{ErrorCode::kResourceExhausted,
                   "this scan needs about " + std::to_string(need >> 20) + " MiB, the limit is " +
                       std::to_string(m.options.max_ram_bytes >> 20) + " MiB",
                   "--max-ram", "Raise the limit or use a model with larger spacing."};
    Segmentation out;
    const auto start = m.origin = Clock::now();
    const Geometry geometry = image.geometry;
    ISOLINE_ASSIGN(PreprocessPlan prepare,
                   plan_preprocess(image, previous_stage != nullptr, m.model.spec, m.pool));
    out.crop = prepare.crop;
    out.network_shape = prepare.resample.shape_after;
    ISOLINE_ASSIGN(const TilePlan plan,
                   plan_tiles(out.network_shape, m.model.spec.patch_size, m.options.step));
    out.windows = plan.tiles();
    out.forwards = plan.tiles() * mirrors() * int64_t(m.folds());

    if (m.on_device() && !m.options.with_probabilities) {
      ISOLINE_ASSIGN(ScanRunner * runner, m.scan_runner(plan.patch));
      ISOLINE_ASSIGN(const LabelRule rule, make_label_rule(m.model.spec, prepare.crop, prepare.resample));
      out.labels.shape = rule.file_shape;
      out.labels.data = zeroed<uint16_t>(size_t(voxels(rule.file_shape)));
      ScanRequest request;
      request.image = &image;
      request.plan = &prepare;
      request.preprocess = [&] {
        return isoline::preprocess(image, previous_stage, m.model.spec, prepare, m.pool);
      };
      request.tiles = &plan;
      request.mirrors = m.mirrors;
      request.rule = &rule;
      request.labels = &out.labels;
      request.progress = progress;
      request.cancel = cancel;
      const double planned_s = seconds_since(start);
      ISOLINE_RETURN_IF_ERROR(runner->run(request, &m.report));
      m.description = runner->description();
      out.times.preprocess_s = planned_s + m.report.preprocess_s;
      out.times.network_s = m.report.network_s;
      out.times.export_s = m.report.export_s;
      out.labels.geometry = geometry;
      out.forward_ms = std::move(m.report.forward_ms);
      out.spans = std::move(m.report.spans);
      shift(out.spans, 1e3 * planned_s);
      for (RunSpan& s : out.spans)
        if (s.kind == SpanKind::kPreprocess) s.begin_ms = 0;  // with the planning
      out.device = std::move(m.report);
      return out;
    }

    ISOLINE_ASSIGN(Prepared prepared,
                   isoline::preprocess(image, previous_stage, m.model.spec, std::move(prepare), m.pool));
    image = Image{};
    out.times.preprocess_s = seconds_since(start);
    const double prepared_ms = 1e3 * out.times.preprocess_s;
    out.spans.push_back({SpanKind::kPreprocess, 0, prepared_ms, false, 0});

    const auto network_start = Clock::now();
    ISOLINE_ASSIGN(LabelExporter exporter,
                   LabelExporter::create(m.model.spec, prepared.crop, prepared.resample, m.pool,
                                         m.options.with_probabilities));
    double export_s = 0;
    const auto exported_since = [&](double begin_ms) {
      const double end_ms = 1e3 * seconds_since(start);
      export_s += 1e-3 * (end_ms - begin_ms);
      out.spans.push_back({SpanKind::kExport, begin_ms, end_ms, false, 0});
    };
    const LogitSink sink = [&](const LogitSlab& slab) {
      const double begin_ms = 1e3 * seconds_since(start);
      Status s = exporter.add(slab);
      exported_since(begin_ms);
      return s;
    };
    ISOLINE_RETURN_IF_ERROR(run_network(prepared, sink, progress, cancel));
    auto exported = exporter.finish();
    out.times.network_s = seconds_since(network_start) - export_s;
    out.times.export_s = export_s;
    out.spans.push_back({SpanKind::kNetwork, prepared_ms, 1e3 * seconds_since(start), false, 0});
    out.spans.insert(out.spans.end(), m.spans.begin(), m.spans.end());
    out.labels = std::move(exported.labels);
    out.labels.geometry = geometry;
    out.probabilities = std::move(exported.probabilities);
    out.evaluated_voxels = exported.evaluated_voxels;
    out.forward_ms = std::move(m.forward_ms);
    if (m.runner) out.device = std::move(m.report);
    return out;
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::kResourceExhausted, "memory ran out", "",
                 "Free memory, or use fewer folds or threads."};
  }
}

}  // namespace isoline
