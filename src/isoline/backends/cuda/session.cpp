#include "isoline/backends/cuda/session.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "isoline/backends/cuda/conv_naive.h"
#include "isoline/backends/cuda/mirror.h"
#include "isoline/backends/cuda/pack.h"

namespace isoline::cuda {
namespace {

constexpr size_t kAlignment = 256;
constexpr size_t kChunkBytes = size_t{4}
                               << 20;  // of results, copied to the caller while the next one arrives
constexpr int64_t kCopyGrain = int64_t{1} << 20;  // bytes of a thread's share of a host copy
constexpr int kCopyThreads = 8;
constexpr float kLargestHalf = 65504.0f;

// Constants for the device, gathered on the host and sent at once.
class Blob {
 public:
  size_t add(const void* data, size_t bytes) {
    const size_t at = (bytes_.size() + kAlignment - 1) / kAlignment * kAlignment;
    bytes_.resize(at + bytes);
    std::memcpy(bytes_.data() + at, data, bytes);
    return at;
  }
  template <class T>
  size_t add(const std::vector<T>& v) {
    return add(v.data(), v.size() * sizeof(T));
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

// At their places among `channels`, 0 elsewhere.
std::vector<float> placed(const std::vector<float>& v, const std::vector<int>& positions, int channels) {
  std::vector<float> out(size_t(channels), 0.0f);
  for (size_t i = 0; i < v.size(); ++i) out[size_t(positions[i])] = v[i];
  return out;
}
std::vector<float> padded(const std::vector<float>& v) {
  std::vector<float> out = v;
  out.resize(size_t(padded_channels(int(v.size()))), 0.0f);
  return out;
}

Status check_range(const std::vector<float>& weight, Precision precision, const std::string& step) {
  if (precision != Precision::kFloat16) return {};
  for (float w : weight)
    if (std::abs(w) > kLargestHalf)
      return Error{ErrorCode::kUnsupported, "a weight of '" + step + "' exceeds fp16's range", "cuda",
                   "Use --precision bf16 or fp32."};
  return {};
}

float median(std::vector<float> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

}  // namespace

ConvShape conv_shape(const Vec3<int>& kernel, const Vec3<int>& stride) {
  ConvShape s;
  for (int a = 0; a < 3; ++a) s.kernel[a] = kernel[size_t(a)], s.stride[a] = stride[size_t(a)];
  return s;
}
DataType data_type(Precision precision) {
  switch (precision) {
    case Precision::kFloat16:
      return DataType::kFloat16;
    case Precision::kBFloat16:
      return DataType::kBFloat16;
    case Precision::kTensorFloat32:
      return DataType::kTensorFloat32;
    case Precision::kFloat32:
      break;
  }
  return DataType::kFloat32;
}
int element_bytes(Precision precision) {
  return precision == Precision::kFloat32 || precision == Precision::kTensorFloat32 ? 4 : 2;
}
Error fp16_overflow() {
  return {ErrorCode::kUnsupported,
          "fp16 overflow: the network's output is not finite (values beyond 65504, or NaN in the scan)",
          "cuda", "Use --precision bf16 or fp32."};
}

Result<std::unique_ptr<CudaSession>> CudaSession::create(const NetworkGraph& graph,
                                                         const SessionOptions& options,
                                                         const DeviceInfo& device, const CudaTuning& tuning) {
  ISOLINE_CUDA(cudaSetDevice(device.id), "choosing the GPU");
  std::unique_ptr<CudaSession> session(new CudaSession(options, device));
  ISOLINE_RETURN_IF_ERROR(session->prepare(graph, tuning));
  ISOLINE_RETURN_IF_ERROR(session->capture());
  return session;
}

CudaSession::~CudaSession() {
  if (stream_.get()) cudaStreamSynchronize(stream_.get());  // memory goes only when nothing uses it
}

Tensor CudaSession::tensor(const Slice& slice) const {
  const PlanBuffer& b = plan_.buffers[size_t(slice.buffer)];
  Tensor t;
  t.data = arena_.at(size_t(b.offset) + size_t(slice.channel) * size_t(element_bytes(options_.precision)));
  t.type = data_type(options_.precision);
  t.n = options_.batch;
  t.z = int(slice.shape[0]), t.y = int(slice.shape[1]), t.x = int(slice.shape[2]);
  t.c = slice.channels;
  t.pitch = b.pitch;
  return t;
}

LoadTransform CudaSession::load(const Source& source) const {
  if (source.norm < 0) return {};
  return {norms_.at<const float>(norm_offsets_[size_t(source.norm)]), source.slope, source.first};
}

Status CudaSession::prepare(const NetworkGraph& graph, const CudaTuning& tuning) {
  PlanOptions po;
  po.patch = options_.patch;
  po.batch = options_.batch;
  po.element_bytes = element_bytes(options_.precision);
  po.fold_into_convolutions = tuning.fold_into_convolutions;
  ISOLINE_ASSIGN(plan_, make_plan(graph, po));
  in_channels_ = graph.input_channels();
  out_channels_ = graph.output_channels();
  out_voxels_ = 1;
  for (size_t a = 0; a < 3; ++a)
    out_voxels_ *= options_.patch[a] / graph.values[size_t(graph.output)].downscale[a];
  in_bytes_ = size_t(options_.batch) * size_t(in_channels_) * size_t(voxels(options_.patch)) * 4;
  out_bytes_ = size_t(options_.batch) * size_t(out_channels_) * size_t(out_voxels_) * 4;
  const DataType type = data_type(options_.precision);
  const size_t batch = size_t(options_.batch);

  ISOLINE_CUDA(cudaStreamCreateWithFlags(stream_.out(), cudaStreamNonBlocking), "making a stream");
  ISOLINE_ASSIGN(arena_, DeviceMemory::allocate(
                             size_t(plan_.arena_bytes),
                             "taking " + std::to_string(plan_.arena_bytes >> 20) + " MiB for activations"));
  Blob blob;
  size_t norm_bytes = 0, partial_bytes = 0, scratch_bytes = 0;
  for (const PlanNorm& n : plan_.norms) {
    norm_offsets_.push_back(norm_bytes);
    norm_bytes += (batch * size_t(n.channels) * 8 + kAlignment - 1) / kAlignment * kAlignment;
  }
  data_.resize(plan_.steps.size());
  // A convolution that alone reads the input, as it is, may take it as it came.
  size_t first_reader = SIZE_MAX, readers = 0;
  for (size_t i = 1; i < plan_.steps.size(); ++i) {
    const Step& s = plan_.steps[i];
    for (const Source* source : {&s.in, &s.other})
      if (source->slice.buffer == plan_.steps[0].out.buffer &&
          source->slice.channel == plan_.steps[0].out.channel)
        ++readers, first_reader = source->norm < 0 && s.kind == StepKind::kConv ? i : SIZE_MAX;
  }
  const int first_buffer = plan_.steps[0].out.buffer;
  if (readers != 1 || plan_.buffers[size_t(first_buffer)].pitch != plan_.steps[0].out.channels)
    first_reader = SIZE_MAX;
  const std::vector<ConvChoice> choices = choose_kernels(graph, tuning, first_reader);
  // Padded channels and slices are written before they are read; zeros only keep the first run free of
  // chance.
  ISOLINE_CUDA(cudaMemsetAsync(arena_.at(), 0, arena_.bytes(), stream_.get()), "clearing memory");
  int blocks = 0, channels = 0;  // of the statistics gathered last
  int64_t count = 0;
  for (size_t i = 0; i < plan_.steps.size(); ++i) {
    const Step& s = plan_.steps[i];
    StepData& d = data_[i];
    const int* positions = s.in_positions.empty() ? nullptr : s.in_positions.data();
    switch (s.kind) {
      case StepKind::kConv: {
        const auto& op = std::get<ConvOp>(graph.ops[size_t(s.op)]);
        ISOLINE_RETURN_IF_ERROR(check_range(op.weight, options_.precision, s.name));
        const int out_channels = graph.values[size_t(op.out)].channels,
                  in_channels = graph.values[size_t(op.in)].channels;
        d.shape = conv_shape(op.kernel, op.stride);
        d.shape.choice = choices[i];
        d.macs = int64_t(op.weight.size()) * voxels(s.out.shape) * options_.batch;
        const Tensor in = tensor(s.in.slice), out = tensor(s.out);
        ConvNeeds needs;
        const PlanarInput planar{in_device_.at<const float>(), in_channels_};
        if (i == first_reader && !tuning.naive_convolutions &&
            conv_planar_needs(planar, out, d.shape, &needs) == cudaSuccess) {
          d.planar = data_[0].skipped = true;
          d.weights =
              blob.add(pack_planar_conv_weights(type, op.weight.data(), out_channels, in_channels, d.shape));
        } else {
          cudaGetLastError();
          needs = {};
          cudaError_t code =
              tuning.naive_convolutions ? cudaErrorNotSupported : conv_needs(in, out, d.shape, &needs);
          if (code == cudaErrorInvalidValue)
            code = cudaErrorNotSupported;  // a kernel or stride beyond its rules
          d.naive = code == cudaErrorNotSupported;
          if (d.naive) {
            cudaGetLastError();
            needs = {naive_conv_blocks(out), 0};
            d.weights = blob.add(
                pack_naive_weights(op.weight.data(), out_channels, in_channels, d.shape, in.c, positions));
          } else {
            ISOLINE_CUDA(code, "planning '" + s.name + "'");
            d.weights = blob.add(pack_conv_weights(type, op.weight.data(), out_channels, in_channels, d.shape,
                                                   in.c, positions, needs.layout));
          }
        }
        if (s.bias) d.bias = blob.add(padded(op.bias));
        d.blocks = blocks = needs.blocks;
        channels = s.out.channels;
        count = voxels(s.out.shape);
        scratch_bytes = std::max(scratch_bytes, needs.workspace_bytes);
        if (s.statistics)
          partial_bytes = std::max(partial_bytes, batch * size_t(blocks) * size_t(channels) * 8);
        break;
      }
      case StepKind::kStatistics: {
        d.blocks = blocks = statistics_blocks(tensor(s.in.slice));
        channels = s.in.slice.channels;
        count = voxels(s.in.slice.shape);
        partial_bytes = std::max(partial_bytes, batch * size_t(blocks) * size_t(channels) * 8);
        break;
      }
      case StepKind::kFinish: {
        const auto& op = std::get<InstanceNormOp>(graph.ops[size_t(s.op)]);
        const PlanNorm& n = plan_.norms[size_t(s.norm)];
        d.blocks = blocks;
        d.channels = channels;
        d.voxels = count;
        d.eps = op.eps;
        d.weights = blob.add(placed(op.gamma, n.positions, n.channels));
        d.bias = blob.add(placed(op.beta, n.positions, n.channels));
        break;
      }
      case StepKind::kTranspose: {
        const auto& op = std::get<ConvTransposeOp>(graph.ops[size_t(s.op)]);
        ISOLINE_RETURN_IF_ERROR(check_range(op.weight, options_.precision, s.name));
        d.shape = conv_shape(op.stride, op.stride);
        d.macs = int64_t(op.weight.size()) * voxels(s.in.slice.shape) * options_.batch;
        d.transpose =
            tuning.naive_convolutions ? TransposeKernel::kTiles : transpose_rule(type, s.in.slice.channels);
        d.weights = blob.add(pack_transpose_weights(
            type, d.transpose, op.weight.data(), graph.values[size_t(op.in)].channels,
            graph.values[size_t(op.out)].channels, op.stride[0] * op.stride[1] * op.stride[2],
            s.in.slice.channels, positions));
        if (s.bias) d.bias = blob.add(padded(op.bias));
        break;
      }
      case StepKind::kPool:
        d.shape = conv_shape({1, 1, 1}, std::get<AvgPoolOp>(graph.ops[size_t(s.op)]).stride);
        break;
      case StepKind::kHead: {
        const auto& op = std::get<ConvOp>(graph.ops[size_t(s.op)]);
        const size_t inputs = size_t(graph.values[size_t(op.in)].channels),
                     width = size_t(s.in.slice.channels);
        std::vector<float> w(size_t(out_channels_) * width, 0.0f);
        for (size_t o = 0; o < size_t(out_channels_); ++o)
          for (size_t k = 0; k < inputs; ++k) w[o * width + size_t(positions[k])] = op.weight[o * inputs + k];
        d.weights = blob.add(w);
        if (s.bias) d.bias = blob.add(op.bias);
        d.macs = int64_t(op.weight.size()) * voxels(s.in.slice.shape) * options_.batch;
        break;
      }
      case StepKind::kOutput:
        d.positions = blob.add(s.in_positions);
        break;
      case StepKind::kInput:
      case StepKind::kCombine:
        break;
    }
    d.bytes = least_bytes(s, graph, po, d.planar);
  }

  const auto mib = [](size_t bytes) { return std::to_string(bytes >> 20) + " MiB"; };
  ISOLINE_ASSIGN(constants_, DeviceMemory::allocate(blob.bytes().size(),
                                                    "taking " + mib(blob.bytes().size()) + " for weights"));
  ISOLINE_CUDA(cudaMemcpyAsync(constants_.at(), blob.bytes().data(), blob.bytes().size(),
                               cudaMemcpyHostToDevice, stream_.get()),
               "sending the weights");
  ISOLINE_ASSIGN(scratch_, DeviceMemory::allocate(scratch_bytes, "taking scratch memory"));
  ISOLINE_ASSIGN(partial_, DeviceMemory::allocate(partial_bytes, "taking memory for statistics"));
  ISOLINE_ASSIGN(norms_, DeviceMemory::allocate(norm_bytes, "taking memory for statistics"));
  ISOLINE_ASSIGN(in_device_, DeviceMemory::allocate(in_bytes_, "taking memory for the input"));
  ISOLINE_ASSIGN(out_device_, DeviceMemory::allocate(out_bytes_, "taking memory for the output"));
  ISOLINE_ASSIGN(flag_device_, DeviceMemory::allocate(sizeof(int), "taking memory"));

  // Constant norms: scale 1, shift 0. The others are overwritten in every run.
  std::vector<float> ones(norm_bytes / 4, 0.0f);
  for (size_t n = 0; n < plan_.norms.size(); ++n)
    for (size_t c = 0; c < batch * size_t(plan_.norms[n].channels); ++c)
      ones[norm_offsets_[n] / 4 + 2 * c] = 1.0f;
  if (norm_bytes)
    ISOLINE_CUDA(cudaMemcpyAsync(norms_.at(), ones.data(), norm_bytes, cudaMemcpyHostToDevice, stream_.get()),
                 "sending constants");
  ISOLINE_CUDA(cudaStreamSynchronize(stream_.get()), "sending the weights");  // `blob` and `ones` end here

  memory_.activation_bytes = arena_.bytes();
  memory_.weight_bytes = constants_.bytes();
  memory_.scratch_bytes = scratch_.bytes() + partial_.bytes() + norms_.bytes();
  memory_.transfer_bytes = in_device_.bytes() + out_device_.bytes();
  return {};
}

cudaError_t CudaSession::enqueue(size_t i) {
  const Step& s = plan_.steps[i];
  const StepData& d = data_[i];
  cudaStream_t stream = stream_.get();
  float* partial = partial_.at<float>();
  switch (s.kind) {
    case StepKind::kInput:
      if (d.skipped) return cudaSuccess;
      return pack_input(in_device_.at<float>(), in_channels_, tensor(s.out), stream);
    case StepKind::kConv: {
      const ConvWeights w{constant<std::byte>(d.weights), constant<float>(d.bias)};
      const Statistics statistics{s.statistics ? partial : nullptr, d.blocks};
      if (d.planar)
        return conv_planar({in_device_.at<const float>(), in_channels_}, tensor(s.out), d.shape, w,
                           statistics, stream);
      if (d.naive)
        return naive_conv(tensor(s.in.slice), load(s.in), tensor(s.out), d.shape, w, statistics, stream);
      return conv(tensor(s.in.slice), load(s.in), tensor(s.out), d.shape, w, statistics, scratch_.at(),
                  stream);
    }
    case StepKind::kFinish:
      return finish_statistics({partial, d.blocks}, options_.batch, d.channels, d.voxels, d.eps,
                               constant<float>(d.weights), constant<float>(d.bias),
                               norms_.at<float>(norm_offsets_[size_t(s.norm)]), stream);
    case StepKind::kStatistics:
      return gather_statistics(tensor(s.in.slice), {partial, d.blocks}, stream);
    case StepKind::kCombine: {
      if (s.other.slice.buffer < 0)
        return combine(tensor(s.in.slice), load(s.in), nullptr, {}, s.slope, tensor(s.out), stream);
      const Tensor other = tensor(s.other.slice);
      return combine(tensor(s.in.slice), load(s.in), &other, load(s.other), s.slope, tensor(s.out), stream);
    }
    case StepKind::kTranspose:
      return transpose_conv(tensor(s.in.slice), load(s.in), tensor(s.out), d.shape.stride, d.transpose,
                            constant<std::byte>(d.weights), constant<float>(d.bias), stream);
    case StepKind::kPool:
      return average_pool(tensor(s.in.slice), load(s.in), tensor(s.out), d.shape.stride, stream);
    case StepKind::kHead:
      return head(tensor(s.in.slice), load(s.in), constant<float>(d.weights), constant<float>(d.bias),
                  out_channels_, out_device_.at<float>(), flag_device_.at<int>(), stream);
    case StepKind::kOutput:
      return unpack_output(tensor(s.in.slice), load(s.in), constant<int>(d.positions), out_channels_,
                           out_device_.at<float>(), flag_device_.at<int>(), stream);
  }
  return cudaErrorUnknown;
}

cudaError_t CudaSession::enqueue_all() {
  cudaError_t code = cudaSuccess;
  for (size_t i = 0; i < plan_.steps.size() && code == cudaSuccess; ++i) code = enqueue(i);
  return code;
}

Status CudaSession::capture() {
  // Once outside the graph: kernels are loaded and raise their limits, and a launch that cannot work is
  // named.
  for (size_t i = 0; i < plan_.steps.size(); ++i)
    ISOLINE_CUDA(enqueue(i), "starting '" + plan_.steps[i].name + "'");
  ISOLINE_CUDA(cudaStreamSynchronize(stream_.get()), "running the network for the first time");
  ISOLINE_CUDA(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeThreadLocal),
               "recording the network");
  const cudaError_t code = enqueue_all();
  Graph graph;
  const cudaError_t end = cudaStreamEndCapture(stream_.get(), graph.out());
  ISOLINE_CUDA(code, "recording the network");
  ISOLINE_CUDA(end, "recording the network");
  ISOLINE_CUDA(cudaGraphInstantiate(graph_.out(), graph.get(), 0), "preparing the recorded network");
  return {};
}

Status CudaSession::make_staging() {
  if (pool_) return {};
  chunk_done_.clear();
  ISOLINE_ASSIGN(in_host_, PinnedMemory::allocate(in_bytes_, "taking page-locked memory for the input"));
  ISOLINE_ASSIGN(out_host_, PinnedMemory::allocate(out_bytes_, "taking page-locked memory for the output"));
  ISOLINE_ASSIGN(flag_host_, PinnedMemory::allocate(sizeof(int), "taking page-locked memory"));
  std::memset(in_host_.at(), 0, in_bytes_);
  for (size_t i = 0; i < (out_bytes_ + kChunkBytes - 1) / kChunkBytes; ++i) {
    chunk_done_.emplace_back();
    ISOLINE_CUDA(cudaEventCreateWithFlags(chunk_done_.back().out(), cudaEventDisableTiming),
                 "making an event");
  }
  const int threads = options_.threads > 0 ? options_.threads : available_cores();
  pool_ = std::make_unique<ThreadPool>(std::min(threads, kCopyThreads));
  return {};
}

Status CudaSession::send(const float* in, DeviceMemory& to) {
  // The caller's thread may be another one each time.
  ISOLINE_CUDA(cudaSetDevice(device_.id), "choosing the GPU");
  ISOLINE_RETURN_IF_ERROR(make_staging());
  copy_in_parallel(in_host_.at(), reinterpret_cast<const std::byte*>(in), in_bytes_);
  ISOLINE_CUDA(cudaMemsetAsync(flag_device_.at(), 0, sizeof(int), stream_.get()), "starting the network");
  ISOLINE_CUDA(cudaMemcpyAsync(to.at(), in_host_.at(), in_bytes_, cudaMemcpyHostToDevice, stream_.get()),
               "sending the input");
  return {};
}

Status CudaSession::fetch(const DeviceMemory& from, float* out) {
  cudaStream_t stream = stream_.get();
  ISOLINE_CUDA(
      cudaMemcpyAsync(flag_host_.at(), flag_device_.at(), sizeof(int), cudaMemcpyDeviceToHost, stream),
      "fetching the result");
  for (size_t i = 0; i < chunk_done_.size(); ++i) {
    const size_t at = i * kChunkBytes, bytes = std::min(kChunkBytes, out_bytes_ - at);
    ISOLINE_CUDA(cudaMemcpyAsync(out_host_.at(at), from.at(at), bytes, cudaMemcpyDeviceToHost, stream),
                 "fetching the result");
    ISOLINE_CUDA(cudaEventRecord(chunk_done_[i].get(), stream), "fetching the result");
  }
  for (size_t i = 0; i < chunk_done_.size(); ++i) {
    const size_t at = i * kChunkBytes, bytes = std::min(kChunkBytes, out_bytes_ - at);
    ISOLINE_CUDA(cudaEventSynchronize(chunk_done_[i].get()), "running the network");
    copy_in_parallel(reinterpret_cast<std::byte*>(out) + at, out_host_.at(at), bytes);
  }
  if (options_.precision == Precision::kFloat16 && *flag_host_.at<int>()) return fp16_overflow();
  return {};
}

void CudaSession::copy_in_parallel(std::byte* to, const std::byte* from, size_t bytes) {
  pool_->for_each(int64_t(bytes), kCopyGrain, [&](int64_t begin, int64_t end) {
    std::memcpy(to + begin, from + begin, size_t(end - begin));
  });
}

Status CudaSession::run(const float* in, float* out) {
  ISOLINE_RETURN_IF_ERROR(send(in, in_device_));
  ISOLINE_CUDA(cudaGraphLaunch(graph_.get(), stream_.get()), "starting the network");
  return fetch(out_device_, out);
}

Status CudaSession::run_mirrored(const float* in, std::span<const Vec3<bool>> mirrors, float* out) {
  if (!original_.bytes()) {
    ISOLINE_ASSIGN(original_, DeviceMemory::allocate(in_bytes_, "taking memory for mirrored inputs"));
    ISOLINE_ASSIGN(sum_, DeviceMemory::allocate(out_bytes_, "taking memory for mirrored results"));
    memory_.transfer_bytes += in_bytes_ + out_bytes_;
  }
  ISOLINE_RETURN_IF_ERROR(send(in, original_));
  for (size_t k = 0; k < mirrors.size(); ++k) {
    ISOLINE_CUDA(mirror(original_.at<float>(), in_channels_, options_.patch, mirrors[k],
                        in_device_.at<float>(), stream_.get()),
                 "mirroring the input");
    ISOLINE_CUDA(cudaGraphLaunch(graph_.get(), stream_.get()), "starting the network");
    const float divisor = k + 1 == mirrors.size() ? float(mirrors.size()) : 1.0f;
    ISOLINE_CUDA(add_mirrored(out_device_.at<float>(), out_channels_, options_.patch, mirrors[k], k == 0,
                              divisor, sum_.at<float>(), stream_.get()),
                 "adding a mirrored result");
  }
  return fetch(sum_, out);
}

std::string CudaSession::description() const {
  return "cuda " + device_.name + ", " + to_string(options_.precision) + tuning_words(options_);
}

Result<std::vector<CudaStepTime>> CudaSession::step_times(int runs) {
  ISOLINE_CUDA(cudaSetDevice(device_.id), "choosing the GPU");
  std::vector<CudaStepTime> times;
  Event begin, end;
  ISOLINE_CUDA(cudaEventCreate(begin.out()), "making an event");
  ISOLINE_CUDA(cudaEventCreate(end.out()), "making an event");
  std::vector<std::vector<float>> ms(plan_.steps.size());
  for (int r = 0; r <= runs; ++r)
    for (size_t i = 0; i < plan_.steps.size(); ++i) {
      ISOLINE_CUDA(cudaEventRecord(begin.get(), stream_.get()), "timing");
      ISOLINE_CUDA(enqueue(i), "timing '" + plan_.steps[i].name + "'");
      ISOLINE_CUDA(cudaEventRecord(end.get(), stream_.get()), "timing");
      ISOLINE_CUDA(cudaEventSynchronize(end.get()), "timing");
      float t = 0;
      ISOLINE_CUDA(cudaEventElapsedTime(&t, begin.get(), end.get()), "timing");
      if (r || runs == 0) ms[i].push_back(t);
    }
  for (size_t i = 0; i < plan_.steps.size(); ++i) {
    if (data_[i].skipped) continue;
    times.push_back({plan_.steps[i].name + (data_[i].naive ? " (naive)" : ""), median(ms[i]), data_[i].macs,
                     data_[i].bytes});
  }
  return times;
}

Result<std::vector<LayerTime>> CudaSession::layer_times(int runs) {
  ISOLINE_ASSIGN(const std::vector<CudaStepTime> steps, step_times(runs));
  std::vector<LayerTime> times;
  for (const CudaStepTime& s : steps)
    times.push_back({s.name, s.duration_ms, uint64_t(s.macs), uint64_t(s.bytes)});
  return times;
}

Result<double> CudaSession::graph_ms(int runs) {
  Event begin, end;
  ISOLINE_CUDA(cudaEventCreate(begin.out()), "making an event");
  ISOLINE_CUDA(cudaEventCreate(end.out()), "making an event");
  std::vector<float> ms;
  for (int r = 0; r < runs + 1; ++r) {
    ISOLINE_CUDA(cudaEventRecord(begin.get(), stream_.get()), "timing");
    ISOLINE_CUDA(cudaGraphLaunch(graph_.get(), stream_.get()), "timing");
    ISOLINE_CUDA(cudaEventRecord(end.get(), stream_.get()), "timing");
    ISOLINE_CUDA(cudaEventSynchronize(end.get()), "timing");
    float t = 0;
    ISOLINE_CUDA(cudaEventElapsedTime(&t, begin.get(), end.get()), "timing");
    if (r) ms.push_back(t);
  }
  return double(median(ms));
}

}  // namespace isoline::cuda
