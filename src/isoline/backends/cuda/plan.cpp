#include "isoline/backends/cuda/plan.h"

#include <algorithm>
#include <numeric>

#include "isoline/engine/arena.h"

namespace isoline::cuda {
namespace {

constexpr int64_t kAlignment = 256;

struct Home {
  int buffer = -1, channel = 0;
};
// Where a value's channels lie in its slice.
struct Layout {
  int channels = 0;  // padded
  std::vector<int> positions;
};

class Planner {
 public:
  Planner(const NetworkGraph& graph, const PlanOptions& options) : graph_(graph), options_(options) {}

  Result<Plan> plan() {
    const size_t n = graph_.values.size();
    uses_.resize(n);
    layouts_.resize(n);
    homes_.resize(n);
    pinned_.resize(n, false);
    views_.resize(n);
    exclusive_.resize(n, false);
    fused_.resize(n, false);
    norm_ids_.assign(graph_.ops.size(), -1);
    find_uses();
    ISOLINE_RETURN_IF_ERROR(find_layouts());
    find_homes();
    add_input();
    for (size_t i = 0; i < graph_.ops.size(); ++i)
      std::visit([&](const auto& op) { add(int(i), op); }, graph_.ops[i]);
    if (!output_written_) {
      Step s;
      s.kind = StepKind::kOutput;
      s.in = view(graph_.output);
      s.in_positions = layout(graph_.output).positions;
      push(std::move(s), "output");
    }
    place_buffers();
    return std::move(plan_);
  }

 private:
  // ---- what is known before steps are made
  void find_uses() {
    for (size_t i = 0; i < graph_.ops.size(); ++i)
      std::visit(
          [&](const auto& op) {
            if constexpr (requires { op.in; }) {
              uses_[size_t(op.in)].push_back(int(i));
            } else {
              uses_[size_t(op.a)].push_back(int(i));
              uses_[size_t(op.b)].push_back(int(i));
            }
          },
          graph_.ops[i]);
  }
  Layout plain_layout(ValueId v) const {
    Layout l;
    l.channels = padded_channels(graph_.values[size_t(v)].channels);
    l.positions.resize(size_t(graph_.values[size_t(v)].channels));
    std::iota(l.positions.begin(), l.positions.end(), 0);
    return l;
  }
  Status find_layouts() {
    layouts_[0] = plain_layout(0);
    for (const Op& any : graph_.ops) {
      if (const auto* op = std::get_if<ConcatOp>(&any)) {
        Layout l = layout(op->a);
        for (int p : layout(op->b).positions) l.positions.push_back(layout(op->a).channels + p);
        l.channels += layout(op->b).channels;
        layouts_[size_t(op->out)] = std::move(l);
      } else if (const auto* add = std::get_if<AddOp>(&any)) {
        if (layout(add->a).positions != layout(add->b).positions)
          return Error{ErrorCode::kUnsupported,
                       "the cuda backend cannot add two values whose channels were joined differently",
                       "network", "Use --backend native."};
        layouts_[size_t(add->out)] = layout(add->a);
      } else {
        std::visit(
            [&](const auto& op) {
              using T = std::decay_t<decltype(op)>;
              if constexpr (std::is_same_v<T, InstanceNormOp> || std::is_same_v<T, LeakyReluOp> ||
                            std::is_same_v<T, AvgPoolOp>)
                layouts_[size_t(op.out)] = layout(op.in);
              else
                layouts_[size_t(op.out)] = plain_layout(op.out);
            },
            any);
      }
    }
    return {};
  }
  // Backwards: a concatenation gives its operands their slices; what is only normalised and activated on the
  // way there is made in the slice already.
  void find_homes() {
    for (size_t i = graph_.ops.size(); i-- > 0;) {
      const Op& any = graph_.ops[i];
      if (const auto* op = std::get_if<ConcatOp>(&any)) {
        Home& home = homes_[size_t(op->out)];
        if (home.buffer < 0) home = {new_buffer(layout(op->out).channels, shape(op->out)), 0};
        int channel = home.channel;
        for (ValueId v : {op->a, op->b}) {
          if (homes_[size_t(v)].buffer < 0) {
            homes_[size_t(v)] = {home.buffer, channel};
            pinned_[size_t(v)] = true;
          }
          channel += layout(v).channels;
        }
      } else {
        std::visit(
            [&](const auto& op) {
              using T = std::decay_t<decltype(op)>;
              if constexpr (std::is_same_v<T, InstanceNormOp> || std::is_same_v<T, LeakyReluOp>)
                if (homes_[size_t(op.in)].buffer < 0 && only_use(op.in))
                  homes_[size_t(op.in)] = homes_[size_t(op.out)];
            },
            any);
      }
    }
  }

  // ---- small helpers
  const Layout& layout(ValueId v) const { return layouts_[size_t(v)]; }
  Source& view(ValueId v) { return views_[size_t(v)]; }
  bool only_use(ValueId v) const { return uses_[size_t(v)].size() == 1 && v != graph_.output; }
  Shape3 shape(ValueId v) const {
    Shape3 s = options_.patch;
    for (size_t a = 0; a < 3; ++a) s[a] /= graph_.values[size_t(v)].downscale[a];
    return s;
  }
  int new_buffer(int pitch, const Shape3& shape) {
    PlanBuffer b;
    b.pitch = pitch;
    b.shape = shape;
    b.bytes = int64_t(options_.batch) * voxels(shape) * pitch * options_.element_bytes;
    plan_.buffers.push_back(b);
    return int(plan_.buffers.size()) - 1;
  }
  Slice slice_for(ValueId v) {
    Home home = homes_[size_t(v)];
    if (home.buffer < 0) home = {new_buffer(layout(v).channels, shape(v)), 0};
    return {home.buffer, home.channel, layout(v).channels, shape(v)};
  }
  int new_norm(int op, const Layout& l) {
    plan_.norms.push_back({op, l.channels, l.positions});
    return int(plan_.norms.size()) - 1;
  }
  void push(Step step, std::string name) {
    step.name = std::move(name);
    plan_.steps.push_back(std::move(step));
  }
  static std::string text(const Vec3<int>& v) {
    return std::to_string(v[0]) + "x" + std::to_string(v[1]) + "x" + std::to_string(v[2]);
  }
  std::string sizes(ValueId in, ValueId out) const {
    return std::to_string(graph_.values[size_t(in)].channels) + "->" +
           std::to_string(graph_.values[size_t(out)].channels) + " @" + to_string(shape(out));
  }
  void produced(ValueId v, const Slice& slice) {
    view(v) = {slice, -1, 1};
    exclusive_[size_t(v)] = true;
  }
  // Writes a value whose normalisation or activation is still due.
  void write(ValueId v, const Slice& to) {
    Step s;
    s.kind = StepKind::kCombine;
    s.in = view(v);
    s.out = to;
    push(std::move(s), std::string(view(v).slice == to ? "apply in place " : "apply ") +
                           std::to_string(graph_.values[size_t(v)].channels) + " @" + to_string(shape(v)));
    view(v) = {to, -1, 1};
    exclusive_[size_t(v)] = true;
  }
  void write_in_place_if_possible(ValueId v) {
    if (exclusive_[size_t(v)])
      write(v, view(v).slice);
    else
      write(v, {new_buffer(layout(v).channels, shape(v)), 0, layout(v).channels, shape(v)});
  }
  bool read_by_wide_convolution(ValueId v) const {
    return std::any_of(uses_[size_t(v)].begin(), uses_[size_t(v)].end(), [&](int i) {
      const auto* op = std::get_if<ConvOp>(&graph_.ops[size_t(i)]);
      return op && op->kernel[0] * op->kernel[1] * op->kernel[2] > 1;
    });
  }
  static constexpr Vec3<int> kOne{1, 1, 1};
  bool is_head(const ConvOp& op) const {
    return op.out == graph_.output && uses_[size_t(op.out)].empty() && op.kernel == kOne && op.stride == kOne;
  }
  // Whoever reads this concatenation can normalise and activate its second part while reading.
  bool second_part_can_wait(const ConcatOp& op) const {
    return options_.fold_into_convolutions && op.a != op.b && op.out != graph_.output &&
           std::all_of(uses_[size_t(op.out)].begin(), uses_[size_t(op.out)].end(), [&](int i) {
             const auto* reader = std::get_if<ConvOp>(&graph_.ops[size_t(i)]);
             return reader && !is_head(*reader);
           });
  }
  bool waits_for_concatenation(ValueId v, const Slice& home) const {
    return views_[size_t(v)].slice == home &&
           std::any_of(uses_[size_t(v)].begin(), uses_[size_t(v)].end(), [&](int i) {
             const auto* op = std::get_if<ConcatOp>(&graph_.ops[size_t(i)]);
             return op && op->b == v && second_part_can_wait(*op);
           });
  }
  // After a normalisation or activation has been noted on a view: does it have to be carried out now?
  void settle(ValueId v) {
    if (pinned_[size_t(v)]) {
      const Home at = homes_[size_t(v)];
      const Slice home{at.buffer, at.channel, layout(v).channels, shape(v)};
      if (!waits_for_concatenation(v, home)) write(v, home);
    } else if (!options_.fold_into_convolutions && view(v).norm >= 0 && read_by_wide_convolution(v)) {
      write_in_place_if_possible(v);
    }
  }
  // InstanceNorms that read `v` directly.
  std::vector<int> norms_of(ValueId v) const {
    std::vector<int> found;
    for (int i : uses_[size_t(v)])
      if (std::holds_alternative<InstanceNormOp>(graph_.ops[size_t(i)])) found.push_back(i);
    return found;
  }
  void finish_norm(int op, ValueId of) {
    norm_ids_[size_t(op)] = new_norm(op, layout(of));
    Step s;
    s.kind = StepKind::kFinish;
    s.op = op;
    s.norm = norm_ids_[size_t(op)];
    push(std::move(s), "finish statistics " + std::to_string(graph_.values[size_t(of)].channels));
  }

  // ---- operations
  void add_input() {
    Step s;
    s.kind = StepKind::kInput;
    s.out = slice_for(0);
    produced(0, s.out);
    push(std::move(s), "input");
  }
  void add(int i, const ConvOp& op) {
    Step s;
    s.op = i;
    s.in = view(op.in);
    s.in_positions = layout(op.in).positions;
    if (is_head(op)) {
      s.kind = StepKind::kHead;
      s.bias = !op.bias.empty();
      output_written_ = true;
      push(std::move(s), "head " + sizes(op.in, op.out));
      return;
    }
    const std::vector<int> norms = norms_of(op.out);
    s.kind = StepKind::kConv;
    s.out = slice_for(op.out);
    s.statistics = !norms.empty();
    // A constant in front of an instance normalisation cancels; without it the sums are smaller.
    s.bias = !op.bias.empty() && !(norms.size() == uses_[size_t(op.out)].size() && op.out != graph_.output);
    produced(op.out, s.out);
    push(std::move(s), "conv " + text(op.kernel) + (op.stride == kOne ? "" : "/" + text(op.stride)) + " " +
                           sizes(op.in, op.out));
    for (int n : norms) finish_norm(n, op.out);
  }
  void add(int i, const ConvTransposeOp& op) {
    Step s;
    s.kind = StepKind::kTranspose;
    s.op = i;
    s.in = view(op.in);
    s.in_positions = layout(op.in).positions;
    s.out = slice_for(op.out);
    s.bias = !op.bias.empty();
    produced(op.out, s.out);
    push(std::move(s), "transposed conv " + text(op.stride) + " " + sizes(op.in, op.out));
  }
  void add(int i, const InstanceNormOp& op) {
    if (norm_ids_[size_t(i)] < 0) {  // not a convolution's own output
      if (view(op.in).norm >= 0) write_in_place_if_possible(op.in);
      Step s;
      s.kind = StepKind::kStatistics;
      s.in = view(op.in);
      push(std::move(s), "statistics " + sizes(op.in, op.in));
      finish_norm(i, op.in);
    }
    view(op.out) = {view(op.in).slice, norm_ids_[size_t(i)], 1};
    exclusive_[size_t(op.out)] = exclusive_[size_t(op.in)] && only_use(op.in);
    settle(op.out);
  }
  void add(int, const LeakyReluOp& op) {
    if (fused_[size_t(op.out)]) return;
    Source v = view(op.in);
    if (v.norm >= 0 && (v.slope < 0 || op.slope < 0) && v.slope != 1) {  // signs would not compose
      write_in_place_if_possible(op.in);
      v = view(op.in);
    }
    if (v.norm < 0) v.norm = new_norm(-1, layout(op.in));
    v.slope *= op.slope;
    view(op.out) = v;
    exclusive_[size_t(op.out)] = exclusive_[size_t(op.in)] && only_use(op.in);
    settle(op.out);
  }
  void add(int, const AddOp& op) {
    Step s;
    s.kind = StepKind::kCombine;
    s.in = view(op.a);
    s.other = view(op.b);
    ValueId out = op.out;
    if (only_use(op.out))
      if (const auto* relu = std::get_if<LeakyReluOp>(&graph_.ops[size_t(uses_[size_t(op.out)][0])])) {
        s.slope = relu->slope;
        out = relu->out;
        fused_[size_t(out)] = true;
      }
    s.out = slice_for(out);
    produced(out, s.out);
    push(std::move(s), std::string("add ") + sizes(op.a, op.out));
  }
  void add(int, const ConcatOp& op) {
    const Home home = homes_[size_t(op.out)];
    int channel = home.channel;
    Source waiting;
    for (ValueId v : {op.a, op.b}) {
      const Slice want{home.buffer, channel, layout(v).channels, shape(v)};
      if (v == op.b && view(v).norm >= 0 && view(v).slice == want && second_part_can_wait(op)) {
        waiting = view(v);
        exclusive_[size_t(v)] = false;                             // its memory has to stay as it is
      } else if (!(view(v).slice == want) || view(v).norm >= 0) {  // it lives elsewhere: copy
        const Source kept = view(v);
        const bool exclusive = exclusive_[size_t(v)];
        write(v, want);
        view(v) = kept;
        exclusive_[size_t(v)] = exclusive;
      }
      channel += layout(v).channels;
    }
    view(op.out) = {{home.buffer, home.channel, layout(op.out).channels, shape(op.out)}, -1, 1};
    if (waiting.norm >= 0) {
      view(op.out).norm = waiting.norm;
      view(op.out).slope = waiting.slope;
      view(op.out).first = layout(op.a).channels;
    }
    // Its parts may have other readers: changed in place only if they have none.
    exclusive_[size_t(op.out)] = only_use(op.a) && only_use(op.b) && homes_own(op.out);
  }
  // The joint buffer is this value's alone, not part of a wider one that is read as well.
  bool homes_own(ValueId v) const { return !pinned_[size_t(v)]; }
  void add(int i, const AvgPoolOp& op) {
    Step s;
    s.kind = StepKind::kPool;
    s.op = i;
    s.in = view(op.in);
    s.out = slice_for(op.out);
    produced(op.out, s.out);
    push(std::move(s), "average pool " + text(op.stride) + " " + sizes(op.in, op.out));
  }

  // Greedy: larger buffers first, each at the lowest offset free during its life.
  void place_buffers() {
    auto& buffers = plan_.buffers;
    for (int i = 0; i < int(plan_.steps.size()); ++i) {
      const Step& s = plan_.steps[size_t(i)];
      for (int id : {s.in.slice.buffer, s.other.slice.buffer, s.out.buffer}) {
        if (id < 0) continue;
        PlanBuffer& b = buffers[size_t(id)];
        if (b.first_step < 0) b.first_step = i;
        b.last_step = i;
      }
    }
    std::vector<ArenaBlock> blocks;
    for (const PlanBuffer& b : buffers) blocks.push_back({b.bytes, b.first_step, b.last_step});
    plan_.arena_bytes = place_in_arena(blocks, kAlignment);
    for (size_t id = 0; id < buffers.size(); ++id) buffers[id].offset = blocks[id].offset;
  }

  const NetworkGraph& graph_;
  const PlanOptions& options_;
  Plan plan_;
  std::vector<std::vector<int>> uses_;
  std::vector<Layout> layouts_;
  std::vector<Home> homes_;
  std::vector<bool> pinned_;  // an operand of the concatenation its home belongs to
  std::vector<Source> views_;
  std::vector<bool> exclusive_;  // nothing else reads the memory a view lies in
  std::vector<int> norm_ids_;    // of InstanceNormOps whose statistics are at hand
  std::vector<bool> fused_;      // activations that the sum before them has applied
  bool output_written_ = false;
};

}  // namespace

int64_t least_bytes(const Step& step, const NetworkGraph& graph, const PlanOptions& options, bool planar) {
  const auto slice = [&](const Slice& s) {
    return s.buffer < 0 ? 0 : int64_t(options.batch) * voxels(s.shape) * s.channels * options.element_bytes;
  };
  const auto planar_bytes = [&](ValueId v) {
    int64_t n = int64_t(options.batch) * graph.values[size_t(v)].channels * 4;
    for (size_t a = 0; a < 3; ++a) n *= options.patch[a] / graph.values[size_t(v)].downscale[a];
    return n;
  };
  int64_t bytes =
      (planar ? planar_bytes(0) : slice(step.in.slice)) + slice(step.other.slice) + slice(step.out);
  switch (step.kind) {
    case StepKind::kInput:
      return bytes + planar_bytes(0);
    case StepKind::kConv:
      return bytes +
             int64_t(std::get<ConvOp>(graph.ops[size_t(step.op)]).weight.size()) * options.element_bytes;
    case StepKind::kTranspose:
      return bytes + int64_t(std::get<ConvTransposeOp>(graph.ops[size_t(step.op)]).weight.size()) *
                         options.element_bytes;
    case StepKind::kHead:  // weights are float32
      return bytes + int64_t(std::get<ConvOp>(graph.ops[size_t(step.op)]).weight.size()) * 4 +
             planar_bytes(graph.output);
    case StepKind::kOutput:
      return bytes + planar_bytes(graph.output);
    case StepKind::kFinish:  // a sum and a sum of squares, a scale and a shift of each channel
      return int64_t(options.batch) *
             int64_t(std::get<InstanceNormOp>(graph.ops[size_t(step.op)]).gamma.size()) * 16;
    case StepKind::kStatistics:
    case StepKind::kCombine:
    case StepKind::kPool:
      return bytes;
  }
  return bytes;
}

Result<Plan> make_plan(const NetworkGraph& graph, const PlanOptions& options) {
  return Planner(graph, options).plan();
}

}  // namespace isoline::cuda
