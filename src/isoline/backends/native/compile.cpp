// From a NetworkGraph to steps: what can wait until a value is read waits (normalisation, activation,
// concatenation), everything else becomes a step; then buffers get their places in the arena.
#include <algorithm>
#include <new>

#include "isoline/backends/native/steps.h"
#include "isoline/base/resources.h"
#include "isoline/engine/arena.h"

namespace isoline::native {

class Compiler {
 public:
  Compiler(NativeSession& session, const NetworkGraph& graph) : s_(session), graph_(graph) {}

  void compile() {
    views_.resize(graph_.values.size());
    add_input();
    for (size_t i = 0; i < graph_.ops.size(); ++i)
      std::visit([&](const auto& op) { add(op); }, graph_.ops[i]);
    if (!output_written_)
      push(make_unpack_output(views_[size_t(graph_.output)]),
           bytes_of(views_[size_t(graph_.output)]) + planar_bytes(graph_.output));
    plan_memory();
  }

 private:
  Shape3 shape_of(ValueId v) const {
    Shape3 shape = s_.options_.patch;
    for (size_t a = 0; a < 3; ++a) shape[a] /= graph_.values[size_t(v)].downscale[a];
    return shape;
  }
  template <class F>
  void for_each_use(ValueId v, F&& use) const {
    for (const Op& any : graph_.ops)
      std::visit(
          [&](const auto& op) {
            if constexpr (requires { op.in; }) {
              if (op.in == v) use(any);
            } else {
              if (op.a == v || op.b == v) use(any);
            }
          },
          any);
  }
  template <class OpT>
  bool only_used_by(ValueId v) const {
    bool only = v != graph_.output;
    for_each_use(v, [&](const Op& op) { only = only && std::holds_alternative<OpT>(op); });
    return only;
  }
  BufferId new_buffer(int64_t bytes) {
    s_.buffers_.push_back({});
    s_.buffers_.back().bytes = bytes;
    return BufferId(s_.buffers_.size()) - 1;
  }
  // A buffer of its own for a value, in full blocks.
  View new_view(ValueId v) {
    View view;
    view.shape = shape_of(v);
    const int channels = graph_.values[size_t(v)].channels, blocks = (channels + kLanes - 1) / kLanes;
    const BufferId buffer =
        new_buffer(int64_t(blocks) * voxels(view.shape) * kLanes * s_.kernels_.element_bytes);
    for (int b = 0; b < blocks; ++b) {
      Block block;
      block.buffer = buffer;
      block.index = b;
      block.channels = std::min(kLanes, channels - b * kLanes);
      view.blocks.push_back(block);
    }
    return view;
  }
  // `bytes`: of everything the step reads and writes, each once.
  void push(std::unique_ptr<Step> step, int64_t bytes) {
    step->bytes = bytes;
    s_.steps_.push_back(std::move(step));
  }
  int64_t bytes_of(const View& view) const {
    return view.channels() * voxels(view.shape) * s_.kernels_.element_bytes;
  }
  // As float32, one channel after the other.
  int64_t planar_bytes(ValueId v) const {
    return graph_.values[size_t(v)].channels * voxels(shape_of(v)) * 4;
  }
  int64_t weight_bytes(const std::vector<float>& weight) const {
    return int64_t(weight.size()) * s_.kernels_.element_bytes;
  }

  void add_input() {
    const int channels = graph_.input_channels();
    narrow_ = channels <= 8 && only_used_by<ConvOp>(0);
    if (!narrow_) {
      views_[0] = new_view(0);
      push(make_pack_input(s_, views_[0], channels, false), planar_bytes(0) + bytes_of(views_[0]));
      return;
    }
    View view;
    view.shape = shape_of(0);
    Block block;
    block.buffer = new_buffer(channels == 1 ? 0 : channels * voxels(view.shape) * 4);
    block.channels = channels;
    view.blocks = {block};
    s_.buffers_[size_t(block.buffer)].external_input = channels == 1;
    views_[0] = view;
    if (channels > 1) push(make_pack_input(s_, view, channels, true), 2 * planar_bytes(0));
  }

  static std::vector<float> padded(const std::vector<float>& v) {
    std::vector<float> p = v;
    p.resize((v.size() + kLanes - 1) / kLanes * kLanes, 0.0f);
    return p;
  }
  ConvOutput conv_output(ValueId out, const std::vector<float>& bias, bool gather) {
    ConvOutput o;
    o.shape = shape_of(out);
    o.channels = graph_.values[size_t(out)].channels;
    if (gather)
      for_each_use(out, [&](const Op& op) {
        if (const auto* n = std::get_if<InstanceNormOp>(&op)) o.norms.push_back(norm_of(*n));
      });
    // A constant in front of an instance normalisation cancels; without it the sums are smaller.
    if (!bias.empty() && !only_used_by<InstanceNormOp>(out)) o.bias = padded(bias);
    return o;
  }
  NormId norm_of(const InstanceNormOp& op) {
    NativeSession::Norm norm;
    norm.eps = op.eps;
    norm.gamma = padded(op.gamma);
    norm.beta = padded(op.beta);
    norm.channels = int(op.gamma.size());
    norm.scale.assign(norm.gamma.size(), 0.0f);
    norm.shift.assign(norm.gamma.size(), 0.0f);
    s_.norms_.push_back(std::move(norm));
    const NormId id = NormId(s_.norms_.size()) - 1;
    norm_ids_.push_back({&op, id});
    return id;
  }

  void add(const ConvOp& op) {
    const View& in = views_[size_t(op.in)];
    ConvOutput out = conv_output(op.out, op.bias, true);
    const bool narrow = op.in == 0 && narrow_;
    const int64_t in_blocks = int64_t(in.blocks.size());
    const int kind = narrow ? -1 : choose_algorithm(op, out.shape, in_blocks, out.blocks(), s_.bf16());
    bool used = false;
    for_each_use(op.out, [&](const Op&) { used = true; });
    if (op.out == graph_.output && !used && kind < 0) {
      output_written_ = true;
    } else {
      views_[size_t(op.out)] = new_view(op.out);
      out.buffer = views_[size_t(op.out)].blocks[0].buffer;
    }
    const int64_t bytes = (narrow ? planar_bytes(0) : bytes_of(in)) + weight_bytes(op.weight) +
                          (output_written_ ? planar_bytes(op.out) : bytes_of(views_[size_t(op.out)]));
    push(kind < 0 ? make_direct(s_, op, in, narrow ? graph_.input_channels() : 0, std::move(out))
                  : make_winograd(s_, kind, op, in, std::move(out)),
         bytes);
  }
  void add(const ConvTransposeOp& op) {
    ConvOutput out = conv_output(op.out, op.bias, false);
    views_[size_t(op.out)] = new_view(op.out);
    out.buffer = views_[size_t(op.out)].blocks[0].buffer;
    push(make_transpose(s_, op, views_[size_t(op.in)], std::move(out)),
         bytes_of(views_[size_t(op.in)]) + weight_bytes(op.weight) + bytes_of(views_[size_t(op.out)]));
  }
  void add(const InstanceNormOp& op) {
    View view = views_[size_t(op.in)];
    NormId norm = -1;
    for (const auto& [known, id] : norm_ids_)
      if (known == &op) norm = id;
    if (norm < 0) {  // not a convolution's own output
      norm = norm_of(op);
      if (!standard(view)) {
        const View copy = new_view(op.out);
        push(make_elementwise({view}, copy, 1), bytes_of(view) + bytes_of(copy));
        view = copy;
      }
      push(make_statistics(view, norm), bytes_of(view));
    }
    for (size_t b = 0; b < view.blocks.size(); ++b) {
      view.blocks[b].norm = norm;
      view.blocks[b].norm_offset = int64_t(b) * kLanes;
    }
    views_[size_t(op.out)] = view;
  }
  void add(const LeakyReluOp& op) {
    View view = views_[size_t(op.in)];
    if (op.slope >= 0 && op.slope <= 1) {
      for (Block& b : view.blocks) b.slope *= op.slope;
      views_[size_t(op.out)] = view;
      return;
    }
    views_[size_t(op.out)] = new_view(op.out);
    push(make_elementwise({view}, views_[size_t(op.out)], op.slope),
         bytes_of(view) + bytes_of(views_[size_t(op.out)]));
  }
  void add(const AddOp& op) {
    views_[size_t(op.out)] = new_view(op.out);
    push(make_elementwise({views_[size_t(op.a)], views_[size_t(op.b)]}, views_[size_t(op.out)], 1),
         bytes_of(views_[size_t(op.a)]) + bytes_of(views_[size_t(op.b)]) + bytes_of(views_[size_t(op.out)]));
  }
  void add(const ConcatOp& op) {
    View view = views_[size_t(op.a)];
    const View& b = views_[size_t(op.b)];
    view.blocks.insert(view.blocks.end(), b.blocks.begin(), b.blocks.end());
    views_[size_t(op.out)] = view;
  }
  void add(const AvgPoolOp& op) {
    View in = views_[size_t(op.in)];
    if (!packed(in)) {
      const View copy = new_view(op.in);
      push(make_elementwise({in}, copy, 1), bytes_of(in) + bytes_of(copy));
      in = copy;
    }
    views_[size_t(op.out)] = new_view(op.out);
    push(make_pool(in, views_[size_t(op.out)], op.stride), bytes_of(in) + bytes_of(views_[size_t(op.out)]));
  }
  // Every block but the last is full.
  static bool packed(const View& view) {
    for (size_t b = 0; b + 1 < view.blocks.size(); ++b)
      if (view.blocks[b].channels != kLanes) return false;
    return true;
  }
  static bool standard(const View& view) {
    return packed(view) &&
           std::all_of(view.blocks.begin(), view.blocks.end(), [](const Block& b) { return b.raw(); });
  }

  void plan_memory() {
    auto& buffers = s_.buffers_;
    for (int i = 0; i < int(s_.steps_.size()); ++i) {
      const Step& step = *s_.steps_[size_t(i)];
      for (const auto* list : {&step.reads, &step.writes})
        for (BufferId id : *list) {
          auto& b = buffers[size_t(id)];
          if (b.first_step < 0) b.first_step = i;
          b.last_step = i;
        }
      s_.task_scratch_bytes_ = std::max(s_.task_scratch_bytes_, (step.task_scratch_bytes + 63) / 64 * 64);
    }
    std::vector<ArenaBlock> blocks;
    for (const auto& b : buffers)
      blocks.push_back({b.bytes, b.external_input ? -1 : b.first_step, b.last_step});
    const int64_t arena = place_in_arena(blocks, 64);
    for (size_t id = 0; id < blocks.size(); ++id)
      if (blocks[id].first_step >= 0) buffers[id].offset = blocks[id].offset;
    int64_t shared = 0, sums = 0;
    for (const auto& step : s_.steps_) {
      shared = std::max(shared, step->shared_scratch_bytes);
      sums = std::max(sums, step->partial_sums);
    }
    // The system grants more than it has: ask before the first run is killed for it.
    const int64_t needed = arena + shared + sums * 8 + s_.task_scratch_bytes_ * s_.pool_.threads();
    if (uint64_t(needed) > available_memory_bytes()) throw std::bad_alloc();
    s_.arena_ = Buffer<std::byte>(size_t(arena));
    s_.shared_scratch_ = Buffer<std::byte>(size_t(shared));
    s_.partial_sums_ = Buffer<double>(size_t(sums));
    s_.task_scratch_ = Buffer<std::byte>(size_t(s_.task_scratch_bytes_ * s_.pool_.threads()));
  }

  NativeSession& s_;
  const NetworkGraph& graph_;
  std::vector<View> views_;
  std::vector<std::pair<const InstanceNormOp*, NormId>> norm_ids_;
  bool narrow_ = false, output_written_ = false;
};

NativeSession::NativeSession(const NetworkGraph& graph, const SessionOptions& options,
                             const KernelTable& kernels, const Tuning& tuning)
    : kernels_(kernels), options_(options), tuning_(tuning), pool_(options.threads) {
  in_size_ = graph.input_channels() * voxels(options.patch);
  const ValueDesc& out = graph.values[size_t(graph.output)];
  out_size_ = out.channels;
  for (size_t a = 0; a < 3; ++a) out_size_ *= options.patch[a] / out.downscale[a];
  scratch_taken_ = std::make_unique<std::atomic<bool>[]>(size_t(pool_.threads()));
  Compiler(*this, graph).compile();
}

}  // namespace isoline::native
