#include "isoline/backends/cuda/scan_runner.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <new>

#include "isoline/backends/cuda/scan_kernels.h"
#include "isoline/tile/gaussian.h"

namespace isoline::cuda {
namespace {

constexpr size_t kStagingBytes = size_t{16}
                                 << 20;  // of each of two page-locked buffers that uploads go through
constexpr size_t kResultBytes = size_t{64} << 20;  // page-locked, for labels on their way down
constexpr int64_t kCopyGrain = int64_t{1} << 20;   // bytes of a thread's share of a host copy
constexpr int kCopyThreads = 8;
constexpr int64_t kGroupFloats = int64_t{16} << 20;  // of a group of slices resampled together
constexpr int kBatchesAhead = 3;                     // enqueued before the host waits for the first of them
constexpr uint64_t kReserveBytes = uint64_t{256} << 20;  // left free for the driver and for others
constexpr uint64_t kScratchBytes = uint64_t{24} << 20;   // of a session, beside what its plan says

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}
constexpr size_t aligned(size_t bytes) {
  return (bytes + 255) / 256 * 256;
}
std::string mib(uint64_t bytes) {
  return std::to_string(bytes >> 20) + " MiB";
}

// Arrays for the device, gathered on the host. Addresses are known before they are sent, given where they
// will lie.
class TableBuilder {
 public:
  explicit TableBuilder(std::byte* base) : base_(base) {}
  template <class T>
  const T* keep(const std::vector<T>& v) {
    return keep(v.data(), v.size());
  }
  template <class T>
  const T* keep(const T* data, size_t n) {
    const size_t at = aligned(bytes_.size());
    bytes_.resize(at + n * sizeof(T));
    std::memcpy(bytes_.data() + at, data, n * sizeof(T));
    return reinterpret_cast<const T*>(base_ + at);
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  std::byte* base_;
  std::vector<std::byte> bytes_;
};

// Cuts one allocation into aligned pieces.
class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}
  template <class T>
  T* take(int64_t n) {
    T* const at = reinterpret_cast<T*>(base_ + used_);
    used_ += aligned(size_t(n) * sizeof(T));
    return at;
  }
  size_t used() const { return used_; }

 private:
  std::byte* base_;
  size_t used_ = 0;
};

Result<Event> make_event(bool timing) {
  Event e;
  ISOLINE_CUDA(cudaEventCreateWithFlags(e.out(), timing ? cudaEventDefault : cudaEventDisableTiming),
               "making an event");
  return e;
}

Result<float> ms_between(const Event& from, const Event& to) {
  float t = 0;
  ISOLINE_CUDA(cudaEventElapsedTime(&t, from.get(), to.get()), "timing");
  return t;
}

// Two events around something on the stream.
struct Span {
  Event begin, end;
  static Result<Span> make() {
    Span s;
    ISOLINE_ASSIGN(s.begin, make_event(true));
    ISOLINE_ASSIGN(s.end, make_event(true));
    return s;
  }
  Result<float> ms() const { return ms_between(begin, end); }
};

// An event and the host's time when it happened.
struct Origin {
  Event event;
  double host_ms = 0;
  // Waits for the stream.
  static Result<Origin> mark(cudaStream_t stream, Clock::time_point start) {
    Origin o;
    ISOLINE_ASSIGN(o.event, make_event(true));
    ISOLINE_CUDA(cudaEventRecord(o.event.get(), stream), "timing");
    ISOLINE_CUDA(cudaEventSynchronize(o.event.get()), "timing");
    o.host_ms = 1e3 * seconds_since(start);
    return o;
  }
  Result<RunSpan> span(SpanKind kind, const Span& s, int forwards) const {
    ISOLINE_ASSIGN(const float begin, ms_between(event, s.begin));
    ISOLINE_ASSIGN(const float end, ms_between(event, s.end));
    return RunSpan{kind, host_ms + double(begin), host_ms + double(end), true, forwards};
  }
};

// Executor of the scan passes on a stream. The first error is kept, later calls do nothing.
class DeviceExecutor {
 public:
  explicit DeviceExecutor(cudaStream_t stream) : stream_(stream) {}
  template <class Functor>
  void each(const Functor& f, int64_t planes, int64_t rows, int64_t columns) {
    if (error_ == cudaSuccess) error_ = for_each_element(f, planes, rows, columns, stream_);
  }
  void copy(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height) {
    if (error_ == cudaSuccess)
      error_ =
          cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, width, height, cudaMemcpyDeviceToDevice, stream_);
  }
  void zero(void* to, size_t pitch, size_t width, size_t height) {
    if (error_ != cudaSuccess) return;
    error_ = height == 1 ? cudaMemsetAsync(to, 0, width, stream_)  // no limit on the width
                         : cudaMemset2DAsync(to, pitch, 0, width, height, stream_);
  }
  cudaError_t error() const { return error_; }

 private:
  cudaStream_t stream_;
  cudaError_t error_ = cudaSuccess;
};

}  // namespace

// --- One run ---

// Sizes and places, decided before anything is taken.
struct CudaScanRunner::Scan {
  const TilePlan* tiles = nullptr;
  int heads = 0, channels = 0, mirrors = 0, folds = 1;
  int64_t units = 0;       // forwards of one fold
  bool on_device = false;  // preprocessing
  bool streamed = false;
  const Prepared* prepared = nullptr;

  // Preprocessing.
  ResamplePasses passes;
  int64_t group = 1;       // slices at a time
  int64_t raw_values = 0;  // voxels on the device at a time
  bool whole_channel = false;
  size_t voxel_bytes = 2;

  // Labels. Planes of the file that become known together lie together where the transposed z is the file's.
  const LabelRule* rule = nullptr;
  bool planes_contiguous = false;
  size_t label_bytes = 1;
  int64_t label_planes = 0;  // of the label buffer on the device

  int64_t ring_planes() const { return streamed ? tiles->patch[0] : tiles->shape[0]; }
  int64_t prepared_values() const { return channels * ring_planes() * tiles->shape[1] * tiles->shape[2]; }
  int64_t finished_values() const {
    return int64_t(heads) * (kFinishedPlanes + 1) * tiles->shape[1] * tiles->shape[2];
  }
  int64_t label_plane() const { return rule ? rule->file_shape[1] * rule->file_shape[2] : 0; }
  int64_t fold_values() const { return folds > 1 ? heads * voxels(tiles->shape) : 0; }

  struct PreprocessPlaces {
    std::byte* raw;
    float *x_lines, *y_lines, *between;
    uint32_t *low, *high;
  };
  PreprocessPlaces preprocess_places(Carver& c) const {
    return {c.take<std::byte>(raw_values * int64_t(voxel_bytes)),
            c.take<float>(passes.x_floats(group)),
            c.take<float>(passes.y_floats(group)),
            c.take<float>(passes.between_floats()),
            c.take<uint32_t>(passes.in.z),
            c.take<uint32_t>(passes.in.z)};
  }
  struct FlowPlaces {
    uint16_t *sums, *finished;
    float* tile;
    std::byte* labels;
  };
  FlowPlaces flow_places(Carver& c) const {
    return {c.take<uint16_t>(heads * tiles->patch[0] * tiles->padded[1] * tiles->padded[2]),
            c.take<uint16_t>(finished_values()), c.take<float>(heads * voxels(tiles->patch)),
            c.take<std::byte>(label_planes * label_plane() * int64_t(label_bytes))};
  }
  size_t work_bytes() const {
    Carver flow(nullptr), prep(nullptr);
    flow_places(flow);
    if (on_device) preprocess_places(prep);
    return std::max(flow.used(), prep.used());
  }
  // On the device, without a volume of folds (which may lie on the host).
  uint64_t bytes() const { return uint64_t(prepared_values()) * 4 + work_bytes() + (uint64_t{16} << 20); }

  Status plan(const ScanRequest& request, int fold_count);
};

Status CudaScanRunner::Scan::plan(const ScanRequest& request, int fold_count) {
  tiles = request.tiles;
  mirrors = int(request.mirrors.size());
  folds = fold_count;
  units = tiles->tiles() * mirrors;
  prepared = request.prepared;
  constexpr int64_t kMostValues = int64_t{1} << 30;
  if (voxels(tiles->padded) / tiles->padded[0] > kMostValues || tiles->padded[0] > kMostValues)
    return Error{ErrorCode::kUnsupported, "a scan of " + to_string(tiles->shape) + " is too large", "cuda",
                 "Use --backend native."};
  on_device = request.image && can_resample(*request.plan) && voxels(request.image->shape) <= kMostValues;
  if (on_device) {
    // Sizes only: preprocess() keeps the tables on the device.
    passes = resample_passes(request.plan->request, [](const auto& v) { return decltype(v.data()){}; });
    voxel_bytes = std::holds_alternative<Buffer<int16_t>>(request.image->data) ? 2 : 4;
    whole_channel = request.plan->crop.transpose_forward[0] != 0;
    const int64_t slice =
        std::max<int64_t>({1, passes.x_floats(1) + passes.y_floats(1), int64_t(passes.in.y) * passes.in.x});
    group = std::clamp<int64_t>(kGroupFloats / slice, 1, passes.in.z);
    const Shape3& file = request.image->shape;
    raw_values = whole_channel ? voxels(file) : group * file[1] * file[2];
  }
  if (!request.labels) return {};
  rule = request.rule;
  label_bytes = rule->top_label > 255 ? 2 : 1;
  planes_contiguous = request.plan ? request.plan->crop.transpose_forward[0] == 0
                                   : rule->file_stride[0] == rule->file_shape[1] * rule->file_shape[2];
  label_planes = rule->file_shape[0];
  if (planes_contiguous) {  // the most crop planes that kFinishedPlanes network planes decide
    const auto& high = rule->taps[0].hi;
    label_planes = 1;
    int next = 0;
    for (int z = 0; z < int(rule->network_shape[0]); z += kFinishedPlanes) {
      const int end = decidable_until(high, next, z + kFinishedPlanes);
      label_planes = std::max<int64_t>(label_planes, end - next);
      next = end;
    }
    // Slabs need not begin at multiples of kFinishedPlanes.
    label_planes += label_planes / kFinishedPlanes + 2;
  }
  return {};
}

// --- The runner ---

CudaScanRunner::CudaScanRunner(std::vector<NetworkGraph> folds, const ScanRunnerOptions& options,
                               const DeviceInfo& device)
    : graphs_(std::move(folds)),
      options_(options),
      device_(device),
      heads_(graphs_[0].output_channels()),
      channels_(graphs_[0].input_channels()),
      chooser_(options.session.batch),
      pool_(std::min(options.session.threads > 0 ? options.session.threads : available_cores(),
                     kCopyThreads)) {}

CudaScanRunner::~CudaScanRunner() {
  if (stream_.get()) cudaStreamSynchronize(stream_.get());  // memory goes only when nothing uses it
}

Result<std::unique_ptr<CudaScanRunner>> CudaScanRunner::create(std::vector<NetworkGraph> folds,
                                                               const ScanRunnerOptions& options,
                                                               const DeviceInfo& device) {
  std::unique_ptr<CudaScanRunner> runner(new CudaScanRunner(std::move(folds), options, device));
  ISOLINE_RETURN_IF_ERROR(runner->prepare());
  return runner;
}

Status CudaScanRunner::prepare() {
  ISOLINE_CUDA(cudaSetDevice(device_.id), "choosing the GPU");
  ISOLINE_CUDA(cudaStreamCreateWithFlags(stream_.out(), cudaStreamNonBlocking), "making a stream");
  for (Event& e : sent_) {
    ISOLINE_ASSIGN(e, make_event(false));
  }
  for (PinnedMemory& m : staging_)
    ISOLINE_RETURN_IF_ERROR(m.grow(kStagingBytes, "taking page-locked memory"));
  ISOLINE_RETURN_IF_ERROR(flags_.grow(sizeof(int), "taking memory"));
  ISOLINE_RETURN_IF_ERROR(flags_host_.grow(2 * sizeof(int), "taking page-locked memory"));
  return {};
}

std::string CudaScanRunner::description() const {
  return "cuda " + device_.name + ", " + to_string(options_.session.precision) +
         (batch_ ? ", batch " + std::to_string(batch_) : "") + tuning_words(options_.session);
}

Result<uint64_t> CudaScanRunner::session_bytes(int batch) const {
  const SessionOptions& so = options_.session;
  PlanOptions po;
  po.patch = so.patch;
  po.batch = batch;
  po.element_bytes = element_bytes(so.precision);
  ISOLINE_ASSIGN(const Plan plan, make_plan(graphs_[0], po));
  const uint64_t each = uint64_t(plan.arena_bytes) + uint64_t(graphs_[0].parameters() * po.element_bytes) +
                        uint64_t(batch) * uint64_t(voxels(so.patch)) * 4 * uint64_t(channels_ + heads_);
  return (each + kScratchBytes) * graphs_.size();
}

Result<uint64_t> CudaScanRunner::free_for_scans() const {
  size_t free = 0, total = 0;
  ISOLINE_CUDA(cudaMemGetInfo(&free, &total), "asking for free memory");
  const uint64_t held = prepared_.bytes() + work_.bytes() + tables_.bytes() + folds_.bytes();
  uint64_t budget = free + held;
  budget -= std::min(budget, kReserveBytes);
  if (options_.max_device_bytes) {
    const uint64_t others = device_use.bytes - held;
    budget = std::min(budget, options_.max_device_bytes - std::min(options_.max_device_bytes, others));
  }
  return budget;
}

// The largest batch that leaves room for this scan; decided with the first scan, and again where that one was
// too small for the batches of later ones.
Status CudaScanRunner::choose_batch(const Scan& scan, ScanReport* report) {
  if (!chooser_.due(scan.units)) return {};
  sessions_.clear();  // of a smaller batch, or of a start that failed
  batch_ = 0;
  chooser_.forget();
  ISOLINE_ASSIGN(const uint64_t budget, free_for_scans());
  const int preferred = chooser_.wanted(scan.units);
  int chosen = 0;
  uint64_t needed = 0;
  Scan streamed = scan;
  streamed.streamed = true, streamed.on_device = false;
  for (const Scan* s : {&scan, static_cast<const Scan*>(&streamed)})
    for (int b = preferred; b >= 1 && !chosen; b = b > 1 ? b / 2 : 0) {
      ISOLINE_ASSIGN(const uint64_t sessions, session_bytes(b));
      needed = sessions + s->bytes();
      if (needed <= budget) chosen = b;
    }
  if (!chosen)
    return Error{ErrorCode::kResourceExhausted,
                 "this model and scan need about " + mib(needed) + " of GPU memory even in slabs; " +
                     mib(budget) + " may be used",
                 "cuda",
                 options_.max_device_bytes ? "Raise --max-vram, use --precision fp16, or --backend native."
                                           : "Close other programs on the GPU, use --precision fp16, or "
                                             "--backend native."};
  SessionOptions so = options_.session;
  so.batch = chosen;
  for (const NetworkGraph& graph : graphs_) {
    ISOLINE_ASSIGN(std::unique_ptr<CudaSession> session, CudaSession::create(graph, so, device_));
    // A batch that is not full runs on what its last windows were; the first must not be chance.
    const size_t bytes = size_t(chosen) * size_t(channels_) * size_t(voxels(so.patch)) * 4;
    ISOLINE_CUDA(cudaMemsetAsync(session->input(), 0, bytes, stream_.get()), "clearing memory");
    report->tuning_s += session->tuning().duration_s;
    if (report->tuning.empty()) report->tuning = session->tuning().text();
    sessions_.push_back(std::move(session));
  }
  batch_ = chosen;
  chooser_.chosen(preferred);
  if (chooser_.settled()) graphs_.clear();
  return {};
}

// Pageable memory to the device, through two page-locked buffers in turn.
Status CudaScanRunner::send(const std::byte* from, size_t bytes, std::byte* to) {
  for (size_t at = 0; at < bytes; at += kStagingBytes) {
    const size_t part = std::min(kStagingBytes, bytes - at);
    const int i = next_staging_;
    next_staging_ ^= 1;
    ISOLINE_CUDA(cudaEventSynchronize(sent_[i].get()), "sending the scan");
    pool_.for_each(int64_t(part), kCopyGrain, [&](int64_t begin, int64_t end) {
      std::memcpy(staging_[i].at(size_t(begin)), from + at + begin, size_t(end - begin));
    });
    ISOLINE_CUDA(cudaMemcpyAsync(to + at, staging_[i].at(), part, cudaMemcpyHostToDevice, stream_.get()),
                 "sending the scan");
    ISOLINE_CUDA(cudaEventRecord(sent_[i].get(), stream_.get()), "sending the scan");
  }
  return {};
}

Status CudaScanRunner::preprocess(const ScanRequest& request, Scan& scan) {
  cudaStream_t stream = stream_.get();
  const Image& image = *request.image;
  const PreprocessPlan& plan = *request.plan;
  TableBuilder tables(tables_.at());
  scan.passes = resample_passes(plan.request, [&](const auto& v) { return tables.keep(v); });
  if (tables.bytes().size() > tables_.bytes())
    return Error{ErrorCode::kInternal, "the tables of a resampling do not fit", "cuda",
                 "Please report this."};
  ISOLINE_RETURN_IF_ERROR(send(tables.bytes().data(), tables.bytes().size(), tables_.at()));
  Carver carver(work_.at());
  const Scan::PreprocessPlaces places = scan.preprocess_places(carver);
  const ResampleScratch scratch{places.x_lines, places.y_lines, places.between, places.low, places.high};
  DeviceExecutor e(stream);
  const SourceStrides strides = source_strides(plan, image.shape);
  const Shape3 file = image.shape;
  const int64_t file_plane = file[1] * file[2];
  const size_t range_bytes = size_t(scan.passes.in.z) * sizeof(uint32_t);
  for (int64_t c = 0; c < image.channels; ++c) {
    ISOLINE_CUDA(cudaMemsetAsync(places.low, 0xff, range_bytes, stream), "preprocessing");
    ISOLINE_CUDA(cudaMemsetAsync(places.high, 0, range_bytes, stream), "preprocessing");
    float* const result = prepared_.at<float>() + c * voxels(scan.tiles->shape);
    const auto* const host =
        std::visit([](const auto& b) { return reinterpret_cast<const std::byte*>(b.data()); }, image.data) +
        size_t(c * voxels(file)) * scan.voxel_bytes;
    if (scan.whole_channel)
      ISOLINE_RETURN_IF_ERROR(send(host, size_t(voxels(file)) * scan.voxel_bytes, places.raw));
    for (int z0 = 0; z0 < scan.passes.in.z; z0 += int(scan.group)) {
      const int count = int(std::min<int64_t>(scan.group, scan.passes.in.z - z0));
      const int64_t first_plane = plan.crop.box.lo[0] + z0;  // in the file, unless the whole channel is there
      if (!scan.whole_channel)
        ISOLINE_RETURN_IF_ERROR(send(host + size_t(first_plane * file_plane) * scan.voxel_bytes,
                                     size_t(count * file_plane) * scan.voxel_bytes, places.raw));
      const auto load = [&](int z, int n, const Place& place, uint32_t* low, uint32_t* high) {
        const int64_t at =
            strides.offset + z * strides.z - (scan.whole_channel ? 0 : first_plane * file_plane);
        const auto enqueue = [&](auto f, const auto* raw) {
          f.raw = raw + at;
          f.z_step = strides.z, f.y_step = strides.y, f.x_step = strides.x;
          f.normalize = voxel_scale(plan.normalizers[size_t(c)]);
          f.out = place;
          f.low = low, f.high = high;
          e.each(f, n, scan.passes.in.y, scan.passes.in.x);
        };
        if (scan.voxel_bytes == 2)
          enqueue(NormalizeSlices<int16_t>{}, reinterpret_cast<const int16_t*>(places.raw));
        else
          enqueue(NormalizeSlices<float>{}, reinterpret_cast<const float*>(places.raw));
      };
      resample_slices(e, scan.passes, scratch, load, z0, count, result);
    }
    resample_along_z(e, scan.passes, scratch, result);
  }
  ISOLINE_CUDA(e.error(), "preprocessing");
  ISOLINE_CUDA(cudaStreamSynchronize(stream), "preprocessing");
  return {};
}

Status CudaScanRunner::run(const ScanRequest& request, ScanReport* report) {
  ISOLINE_CUDA(cudaSetDevice(device_.id), "choosing the GPU");
  const auto start = Clock::now();
  *report = {};
  Scan scan;
  scan.heads = heads_, scan.channels = channels_;
  ISOLINE_RETURN_IF_ERROR(scan.plan(request, int(std::max(graphs_.size(), sessions_.size()))));
  ISOLINE_RETURN_IF_ERROR(choose_batch(scan, report));
  ISOLINE_ASSIGN(const uint64_t budget, free_for_scans());
  if (scan.bytes() > budget) {
    scan.streamed = true, scan.on_device = false;
    if (scan.bytes() > budget)
      return Error{ErrorCode::kResourceExhausted,
                   "this scan needs about " + mib(scan.bytes()) + " of GPU memory even in slabs; " +
                       mib(budget) + " are left beside the network",
                   "cuda", "Run it by itself, raise --max-vram, or use --backend native."};
  }
  const auto drop = [](DeviceMemory& m) { m = DeviceMemory(); };
  // A buffer that must grow may need what another still holds.
  const size_t prepared_bytes = size_t(scan.prepared_values()) * 4, work_bytes = scan.work_bytes();
  if (prepared_bytes > prepared_.bytes() || work_bytes > work_.bytes())
    drop(prepared_), drop(work_), drop(folds_);
  ISOLINE_RETURN_IF_ERROR(prepared_.grow(prepared_bytes, "taking " + mib(prepared_bytes) + " for the scan"));
  ISOLINE_RETURN_IF_ERROR(work_.grow(work_bytes, "taking " + mib(work_bytes) + " for the scan"));
  ISOLINE_RETURN_IF_ERROR(tables_.grow(size_t{8} << 20, "taking memory for tables"));

  Prepared from_host;
  if (scan.on_device) {
    ISOLINE_RETURN_IF_ERROR(preprocess(request, scan));
  } else {
    if (!scan.prepared) {
      ISOLINE_ASSIGN(from_host, request.preprocess());
      scan.prepared = &from_host;
    }
    if (!scan.streamed) {
      const Buffer<float>& data = scan.prepared->data;
      ISOLINE_RETURN_IF_ERROR(
          send(reinterpret_cast<const std::byte*>(data.data()), data.byte_size(), prepared_.at()));
      ISOLINE_CUDA(cudaStreamSynchronize(stream_.get()), "sending the scan");
    }
  }
  report->preprocess_s = seconds_since(start);
  report->spans.push_back({SpanKind::kPreprocess, 0, 1e3 * report->preprocess_s, false, 0});
  report->preprocessed_on_device = scan.on_device;
  report->streamed = scan.streamed;
  report->batch = batch_;
  const auto network_start = Clock::now();
  Status status = run_folds(request, scan, start, report);
  if (!status.ok()) cudaStreamSynchronize(stream_.get());  // nothing is left running on the caller's memory
  report->network_s = seconds_since(network_start) - report->export_s;
  report->spans.push_back(
      {SpanKind::kNetwork, 1e3 * report->preprocess_s, 1e3 * seconds_since(start), false, 0});
  report->peak_device_bytes = device_use.peak_bytes;
  return status;
}

namespace {

// Labels (or logits) on their way to the host: pieces of a page-locked buffer, each copied out once its event
// is over.
class Results {
 public:
  struct Piece {
    size_t offset, bytes;
    Event ready;
    std::function<Status(const std::byte*)> take;
  };
  Results(PinnedMemory& memory, cudaStream_t stream) : memory_(memory), stream_(stream) {}

  // Enqueues a copy of [height][width] bytes, packed on the host, for take() to have later.
  Status fetch(const void* from, size_t pitch, size_t width, size_t height,
               std::function<Status(const std::byte*)> take) {
    const size_t bytes = width * height;
    if (bytes > memory_.bytes()) {
      ISOLINE_RETURN_IF_ERROR(drain(true));
      ISOLINE_RETURN_IF_ERROR(memory_.grow(bytes, "taking page-locked memory for results"));
      used_ = 0;
    }
    if (used_ + bytes > memory_.bytes()) {
      ISOLINE_RETURN_IF_ERROR(drain(true));
      used_ = 0;
    }
    ISOLINE_ASSIGN(Event ready, make_event(false));
    ISOLINE_CUDA(height == 1
                     ? cudaMemcpyAsync(memory_.at(used_), from, width, cudaMemcpyDeviceToHost, stream_)
                     : cudaMemcpy2DAsync(memory_.at(used_), width, from, pitch, width, height,
                                         cudaMemcpyDeviceToHost, stream_),
                 "fetching results");
    ISOLINE_CUDA(cudaEventRecord(ready.get(), stream_), "fetching results");
    pieces_.push_back({used_, bytes, std::move(ready), std::move(take)});
    used_ += aligned(bytes);
    return {};
  }
  // Hands over what has arrived; all of it, if `wait`.
  Status drain(bool wait) {
    while (!pieces_.empty()) {
      Piece& p = pieces_.front();
      if (!wait) {
        const cudaError_t code = cudaEventQuery(p.ready.get());
        if (code == cudaErrorNotReady) return {};
        ISOLINE_CUDA(code, "running the network");
      } else {
        ISOLINE_CUDA(cudaEventSynchronize(p.ready.get()), "running the network");
      }
      ISOLINE_RETURN_IF_ERROR(p.take(memory_.at(p.offset)));
      pieces_.pop_front();
    }
    return {};
  }

 private:
  PinnedMemory& memory_;
  cudaStream_t stream_;
  std::deque<Piece> pieces_;
  size_t used_ = 0;
};

}  // namespace

Result<std::vector<LayerTime>> CudaScanRunner::layer_times(int runs) {
  if (sessions_.empty())
    return Error{ErrorCode::kInvalidArgument, "no scan has run yet", "--profile", "Segment one before."};
  return sessions_[0]->layer_times(runs);
}

Status CudaScanRunner::run_folds(const ScanRequest& request, Scan& scan, Clock::time_point start,
                                 ScanReport* report) {
  cudaStream_t stream = stream_.get();
  const TilePlan& tiles = *scan.tiles;
  ISOLINE_RETURN_IF_ERROR(results_.grow(kResultBytes, "taking page-locked memory for results"));
  Results results(results_, stream);
  int* const flag = flags_.at<int>();  // infinite logits
  ISOLINE_CUDA(cudaMemsetAsync(flag, 0, sizeof(int), stream), "starting the network");

  // Tables and places.
  TableBuilder tables(tables_.at());
  if (gaussian_.empty()) gaussian_ = gaussian_weights(tiles.patch, tiles.spatial_dims);
  const auto steps = [&](size_t a) {
    return tables.keep(std::vector<int>(tiles.steps[a].begin(), tiles.steps[a].end()));
  };
  Carver carver(work_.at());
  const Scan::FlowPlaces places = scan.flow_places(carver);
  SumBuffers buffers;
  buffers.gaussian = tables.keep(gaussian_.data(), gaussian_.size());
  buffers.sums = places.sums, buffers.finished = places.finished, buffers.tile = places.tile;
  buffers.z_steps = steps(0), buffers.y_steps = steps(1), buffers.x_steps = steps(2);
  buffers.not_finite = flag;
  ExportLabels<uint8_t> narrow;
  ExportLabels<uint16_t> wide;
  if (scan.rule) {
    const auto keep = [&](const auto& v) { return tables.keep(v); };
    if (scan.label_bytes == 1)
      narrow = export_labels<uint8_t>(*scan.rule, keep);
    else
      wide = export_labels<uint16_t>(*scan.rule, keep);
  }
  if (tables.bytes().size() > tables_.bytes()) {  // addresses move with the memory
    const size_t bytes = tables.bytes().size();
    ISOLINE_RETURN_IF_ERROR(tables_.grow(bytes + bytes / 4, "taking memory for tables"));
    return run_folds(request, scan, start, report);
  }
  ISOLINE_RETURN_IF_ERROR(send(tables.bytes().data(), tables.bytes().size(), tables_.at()));

  uint16_t* fold_volume = nullptr;
  if (const size_t bytes = size_t(scan.fold_values()) * 2; bytes) {
    ISOLINE_ASSIGN(const uint64_t budget, free_for_scans());
    if (folds_.bytes() >= bytes || prepared_.bytes() + work_.bytes() + tables_.bytes() + bytes <= budget) {
      ISOLINE_RETURN_IF_ERROR(folds_.grow(bytes, "taking " + mib(bytes) + " for the mean over folds"));
      fold_volume = folds_.at<uint16_t>();
    } else {  // kernels reach page-locked memory across the bus
      ISOLINE_RETURN_IF_ERROR(
          folds_host_.grow(bytes, "taking " + mib(bytes) + " of page-locked memory for the mean over folds"));
      fold_volume = folds_host_.at<uint16_t>();
    }
  }

  DeviceExecutor e(stream);
  const int64_t network_plane = tiles.shape[1] * tiles.shape[2];
  const size_t finished_pitch = size_t(network_plane) * (kFinishedPlanes + 1) * 2;

  // Labels of decided planes to the host, widened on the way.
  const auto widen = [&](const std::byte* from, int64_t voxel, int64_t count) {
    uint16_t* const to = request.labels->data.data() + voxel;
    pool_.for_each(count, kCopyGrain, [&](int64_t begin, int64_t end) {
      if (scan.label_bytes == 2) {
        std::memcpy(to + begin, from + begin * 2, size_t(end - begin) * 2);
      } else {
        const auto* const narrow_labels = reinterpret_cast<const uint8_t*>(from);
        for (int64_t i = begin; i < end; ++i) to[i] = narrow_labels[i];
      }
    });
  };
  int next_plane = 0;  // of the crop, not decided yet
  const auto decide = [&](auto rule, int z0, int z1, int slot) -> Status {
    const LabelRule& r = *scan.rule;
    using Label = std::remove_pointer_t<decltype(rule.labels)>;
    const int end = decidable_until(r.taps[0].hi, next_plane, z1);
    if (end == next_plane) return {};
    const int64_t plane = scan.label_plane(), first = r.box.lo[0] + next_plane, count = end - next_plane;
    auto* const labels = reinterpret_cast<Label*>(places.labels);
    if (scan.planes_contiguous)
      ISOLINE_CUDA(cudaMemsetAsync(labels, 0, size_t(count * plane) * sizeof(Label), stream),
                   "exporting labels");
    rule.logits = places.finished;
    rule.planes = kFinishedPlanes + 1;
    rule.base = z0 - slot;
    rule.z0 = next_plane;
    rule.labels = labels + (scan.planes_contiguous ? 0 : first * r.file_stride[0]) +
                  r.box.lo[1] * r.file_stride[1] + r.box.lo[2] * r.file_stride[2];
    e.each(rule, count, r.crop_shape[1], r.crop_shape[2]);
    next_plane = end;
    if (!scan.planes_contiguous) return {};
    return results.fetch(labels, 0, size_t(count * plane) * sizeof(Label), 1,
                         [&widen, first, plane, count](const std::byte* from) -> Status {
                           widen(from, first * plane, count * plane);
                           return {};
                         });
  };
  const auto give_logits = [&](int z0, int z1, int slot) -> Status {
    const int64_t planes = z1 - z0;
    return results.fetch(
        places.finished + slot * network_plane, finished_pitch, size_t(planes * network_plane) * 2,
        size_t(scan.heads), [&, z0, z1, planes](const std::byte* from) {
          return request.logits({z0, z1, tiles.shape, scan.heads, reinterpret_cast<const half_t*>(from),
                                 planes * network_plane, network_plane, tiles.shape[2]});
        });
  };

  struct InFlight {
    Span span;
    int count = 0;
  };
  std::deque<InFlight> flight;
  std::vector<Span> exports;
  ISOLINE_ASSIGN(const Origin origin, Origin::mark(stream, start));
  const int64_t total = scan.units * scan.folds;
  int64_t done = 0;
  report->forward_ms.reserve(size_t(total));
  const auto land = [&]() -> Status {  // waits for the oldest batch
    InFlight& f = flight.front();
    ISOLINE_CUDA(cudaEventSynchronize(f.span.end.get()), "running the network");
    ISOLINE_ASSIGN(const float ms, f.span.ms());
    ISOLINE_ASSIGN(const RunSpan span, origin.span(SpanKind::kForward, f.span, f.count));
    report->spans.push_back(span);
    report->forward_ms.insert(report->forward_ms.end(), size_t(f.count), ms / float(f.count));
    done += f.count;
    flight.pop_front();
    ISOLINE_RETURN_IF_ERROR(results.drain(false));
    if (request.progress) request.progress(done, total);
    if (request.cancel && *request.cancel) return Error{ErrorCode::kCancelled, "interrupted", "", ""};
    return {};
  };

  if (scan.rule && !scan.planes_contiguous)
    ISOLINE_CUDA(cudaMemsetAsync(places.labels, 0,
                                 size_t(scan.label_planes * scan.label_plane()) * scan.label_bytes, stream),
                 "exporting labels");
  const std::vector<BatchPlan> batches = plan_batches(tiles, request.mirrors, batch_, scan.streamed);
  for (int fold = 0; fold < scan.folds; ++fold) {
    CudaSession& session = *sessions_[size_t(fold)];
    const bool last_fold = fold + 1 == scan.folds;
    ISOLINE_CUDA(cudaMemsetAsync(session.not_finite(), 0, sizeof(int), stream), "starting the network");
    e.zero(buffers.sums, 0, size_t(scan.heads * tiles.patch[0] * tiles.padded[1] * tiles.padded[2]) * 2, 1);
    VolumeSums volume(e, tiles, scan.heads, scan.mirrors, buffers);
    int64_t planes_sent = 0;
    const auto sink = [&](int z0, int z1, int slot) -> Status {
      if (fold_volume) {
        AddFold f;
        f.planes_of_fold = places.finished;
        f.volume = fold_volume;
        f.shape = size3(tiles.shape);
        f.planes = z1 - z0, f.fold_planes = kFinishedPlanes + 1, f.fold_slot = slot, f.z0 = z0;
        f.fold = fold, f.folds = scan.folds;
        e.each(f, int64_t(scan.heads) * (z1 - z0), tiles.shape[1], tiles.shape[2]);
        if (!last_fold) return {};
      }
      if (!scan.rule) return give_logits(z0, z1, slot);
      return scan.label_bytes == 1 ? decide(narrow, z0, z1, slot) : decide(wide, z0, z1, slot);
    };
    for (const BatchPlan& batch : batches) {
      if (flight.size() >= kBatchesAhead) ISOLINE_RETURN_IF_ERROR(land());
      if (scan.streamed) {  // planes that this row of tiles needs and the ring does not have yet
        const int64_t until =
            std::min(tiles.shape[0], batch.windows.at[0].z - tiles.pad_below[0] + tiles.patch[0]);
        for (int64_t c = 0; c < scan.channels; ++c)
          for (int64_t z = planes_sent; z < until; ++z)
            ISOLINE_RETURN_IF_ERROR(send(
                reinterpret_cast<const std::byte*>(scan.prepared->data.data() +
                                                   (c * tiles.shape[0] + z) * network_plane),
                size_t(network_plane) * 4,
                prepared_.at(size_t((c * scan.ring_planes() + z % scan.ring_planes()) * network_plane) * 4)));
        planes_sent = std::max(planes_sent, until);
      }
      InFlight now;
      now.count = batch.count;
      ISOLINE_ASSIGN(now.span, Span::make());
      ISOLINE_CUDA(cudaEventRecord(now.span.begin.get(), stream), "starting the network");
      CutTiles cut;
      cut.volume = prepared_.at<float>();
      cut.shape = size3(tiles.shape), cut.patch = size3(tiles.patch);
      cut.pad_below = {int(tiles.pad_below[0]), int(tiles.pad_below[1]), int(tiles.pad_below[2])};
      cut.channels = scan.channels, cut.ring = int(scan.ring_planes());
      cut.windows = batch.windows;
      cut.out = session.input();
      e.each(cut, int64_t(batch.count) * scan.channels * tiles.patch[0], tiles.patch[1], tiles.patch[2]);
      ISOLINE_CUDA(session.enqueue_forward(stream), "starting the network");
      ISOLINE_CUDA(cudaEventRecord(now.span.end.get(), stream), "starting the network");
      flight.push_back(std::move(now));
      for (const BatchPart& part : batch.parts) {
        volume.add(session.output() + int64_t(part.offset) * scan.heads * voxels(tiles.patch), part.windows,
                   part.count, part.first, part.last);
        if (!part.last || (part.tile + 1) % tiles.tiles_per_row() != 0) continue;
        ISOLINE_ASSIGN(Span span, Span::make());
        ISOLINE_CUDA(cudaEventRecord(span.begin.get(), stream), "exporting labels");
        ISOLINE_RETURN_IF_ERROR(volume.finish_after(part.tile, sink));
        ISOLINE_CUDA(cudaEventRecord(span.end.get(), stream), "exporting labels");
        exports.push_back(std::move(span));
      }
      ISOLINE_CUDA(e.error(), "running the network");
    }
    ISOLINE_CUDA(cudaMemcpyAsync(flags_host_.at<int>() + 1, session.not_finite(), sizeof(int),
                                 cudaMemcpyDeviceToHost, stream),
                 "fetching results");
    ISOLINE_CUDA(cudaMemcpyAsync(flags_host_.at<int>(), flag, sizeof(int), cudaMemcpyDeviceToHost, stream),
                 "fetching results");
    while (!flight.empty()) ISOLINE_RETURN_IF_ERROR(land());
    const auto tail = Clock::now();
    ISOLINE_CUDA(cudaStreamSynchronize(stream), "running the network");
    if (options_.session.precision == Precision::kFloat16 && flags_host_.at<int>()[1]) return fp16_overflow();
    if (flags_host_.at<int>()[0])
      return Error{ErrorCode::kCorrupt, "the network's output is infinite or NaN in binary16", "logits",
                   "Check the model's weights and the scan's intensities; with bf16 or fp16, try --precision "
                   "fp32."};
    ISOLINE_RETURN_IF_ERROR(results.drain(true));
    if (last_fold && scan.rule && !scan.planes_contiguous) {
      const int64_t plane = scan.label_plane(),
                    at_once = std::max<int64_t>(1, int64_t(kResultBytes) / (plane * 2));
      for (int64_t z = 0; z < scan.label_planes; z += at_once) {
        const int64_t count = std::min(at_once, scan.label_planes - z);
        ISOLINE_RETURN_IF_ERROR(results.fetch(places.labels + size_t(z * plane) * scan.label_bytes, 0,
                                              size_t(count * plane) * scan.label_bytes, 1,
                                              [&widen, z, plane, count](const std::byte* from) -> Status {
                                                widen(from, z * plane, count * plane);
                                                return {};
                                              }));
      }
      ISOLINE_RETURN_IF_ERROR(results.drain(true));
    }
    report->export_s += seconds_since(tail);
  }
  for (const Span& span : exports) {
    ISOLINE_ASSIGN(const float ms, span.ms());
    report->export_s += 1e-3 * double(ms);
    ISOLINE_ASSIGN(const RunSpan period, origin.span(SpanKind::kExport, span, 0));
    report->spans.push_back(period);
  }
  return {};
}

}  // namespace isoline::cuda
