#include <algorithm>
#include <cstring>

#include "isoline/backends/native/steps.h"

namespace isoline::native {
namespace {

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}
int64_t align64(int64_t bytes) {
  return ceil_div(bytes, 64) * 64;
}

std::string kernel_text(const Vec3<int>& k, int in, int out, const Shape3& shape) {
  return std::to_string(k[0]) + "x" + std::to_string(k[1]) + "x" + std::to_string(k[2]) + " " +
         std::to_string(in) + "->" + std::to_string(out) + " @" + to_string(shape);
}

// For every padded input channel of the view: the channel's number, or -1 for padding.
std::vector<int> padded_channels(const View& view) {
  std::vector<int> map;
  int channel = 0;
  for (const Block& b : view.blocks)
    for (int lane = 0; lane < kLanes; ++lane) map.push_back(lane < b.channels ? channel++ : -1);
  return map;
}

Grid grid_of(const Shape3& shape) {
  return {{shape[0], shape[1], shape[2]}, {0, 0, 0}};
}
// A grid in tiles of the output.
Grid grid_of(const Shape3& shape, const Shape3& out, int kind) {
  Grid g = grid_of(shape);
  for (int a = 0; a < 3; ++a) g.tiles[a] = ceil_div(out[size_t(a)], winograd_tile(kWinogradAxis[kind][a]));
  return g;
}

constexpr int64_t kStreamBytes = int64_t{16} << 20;  // outputs larger than this will not be read from a cache

class ConvStep : public Step {
 public:
  ConvStep(const View& in, ConvOutput out) : in_(in), out_(std::move(out)) {
    for (const Block& b : in_.blocks) reads.push_back(b.buffer);
    if (out_.buffer >= 0) writes.push_back(out_.buffer);
  }

 protected:
  std::vector<Source> sources(NativeSession& s) const {
    std::vector<Source> sources;
    for (const Block& b : in_.blocks) sources.push_back(s.source(b, in_.shape));
    return sources;
  }
  std::byte* out_block(NativeSession& s, int64_t block) const {
    return s.data(out_.buffer) + block * voxels(out_.shape) * kLanes * s.kernels().element_bytes;
  }
  bool streams(NativeSession& s) const {
    return voxels(out_.shape) * out_.blocks() * kLanes * s.kernels().element_bytes > kStreamBytes;
  }
  double* partial(NativeSession& s, int64_t part, int64_t block) const {
    return out_.norms.empty() ? nullptr : s.partial_sums() + (part * out_.blocks() + block) * 2 * kLanes;
  }
  void plan_norms(int64_t parts) {
    parts_ = parts;
    if (!out_.norms.empty()) partial_sums = parts * out_.blocks() * 2 * kLanes;
  }
  void begin_norms(NativeSession& s) const {
    if (!out_.norms.empty()) std::memset(s.partial_sums(), 0, size_t(partial_sums) * sizeof(double));
  }
  void finish_norms(NativeSession& s) const {
    for (NormId n : out_.norms) s.finish_norm(n, s.partial_sums(), parts_, out_.blocks(), voxels(out_.shape));
  }

  View in_;
  ConvOutput out_;
  PackedShape packed_;
  Buffer<std::byte> weights_;
  int64_t parts_ = 0;
};

// Winograd convolution: transform tiles of the input, one matrix product per point, transform back. Two ways:
// small weights stay in the cache, so each task does all three phases for a few tiles; large weights are read
// once per round of many tiles, and threads share a round's points.
class WinogradStep final : public ConvStep {
 public:
  WinogradStep(NativeSession& session, int kind, const ConvOp& op, const View& in, ConvOutput out)
      : ConvStep(in, std::move(out)),
        kind_(kind),
        in_grid_(grid_of(in.shape, out_.shape, kind)),
        out_grid_(grid_of(out_.shape, out_.shape, kind)) {
    const std::vector<int> channel_of = padded_channels(in);
    const int in_channels = in.channels();
    const int64_t taps = int64_t(op.kernel[0]) * op.kernel[1] * op.kernel[2];
    packed_ = {int64_t(channel_of.size()), out_.blocks(), session.bf16()};
    weights_ = pack_winograd(
        kind, packed_, out_.channels,
        [&](int64_t o, int64_t i) {
          const int channel = channel_of[size_t(i)];
          return channel < 0 ? nullptr : op.weight.data() + (o * in_channels + channel) * taps;
        },
        session.pool());
    weight_bytes = int64_t(weights_.byte_size());

    points_ = winograd_points(kind);
    tiles_ = in_grid_.tiles[0] * in_grid_.tiles[1] * in_grid_.tiles[2];
    const int64_t element = session.kernels().element_bytes;
    const int64_t in_blocks = int64_t(in.blocks.size());
    const int64_t tile_bytes = points_ * kLanes * (in_blocks * element + out_.blocks() * 4);
    rounds_ = weight_bytes > session.tuning().large_weights_bytes;
    if (rounds_) {
      round_tiles_ = std::clamp<int64_t>(session.tuning().round_bytes / tile_bytes, 28, 224);
      round_tiles_ = ceil_div(tiles_, ceil_div(tiles_, round_tiles_));
    } else {
      round_tiles_ = std::clamp<int64_t>(session.tuning().task_bytes / tile_bytes, 14, 56);
      round_tiles_ = std::min(round_tiles_, std::max<int64_t>(8, ceil_div(tiles_, 16)));
      round_tiles_ = ceil_div(tiles_, ceil_div(tiles_, round_tiles_));
    }
    // Padded so that the points of a tile do not fall into one set of the cache.
    v_point_ = in_blocks * round_tiles_ * kLanes + 64 / element;
    m_point_ = out_.blocks() * round_tiles_ * kLanes + 16;
    v_bytes_ = align64(points_ * v_point_ * element);
    m_bytes_ = align64(points_ * m_point_ * 4);
    (rounds_ ? shared_scratch_bytes : task_scratch_bytes) = v_bytes_ + m_bytes_;
    for (int64_t b = 0; b < in_blocks; ++b) offsets_.push_back(b * round_tiles_ * kLanes);
    chunk_ = rounds_ ? std::min<int64_t>(round_tiles_, 8) : round_tiles_;
    round_count_ = ceil_div(tiles_, round_tiles_);
    chunks_ = rounds_ ? ceil_div(round_tiles_, chunk_) : 1;
    plan_norms(round_count_ * chunks_);

    name = "conv " + kernel_text(op.kernel, in_channels, out_.channels, out_.shape) + " winograd";
    for (int a = 0; a < 3; ++a)
      name += (a ? "x" : " ") + std::to_string(winograd_tile(kWinogradAxis[kind][a]));
    if (kWinogradAxis[kind][2] == -2) name += " stride 2";
    macs = voxels(out_.shape) * taps * in_channels * out_.channels;
  }

  void run(NativeSession& s) override {
    begin_norms(s);
    const std::vector<Source> in = sources(s);
    if (rounds_)
      run_rounds(s, in);
    else
      s.parallel(round_count_, [&](int64_t task, std::byte* scratch) {
        const int64_t t0 = task * round_tiles_, t1 = std::min(tiles_, t0 + round_tiles_);
        std::byte* v = scratch;
        float* m = reinterpret_cast<float*>(scratch + v_bytes_);
        for (size_t b = 0; b < in.size(); ++b) transform_in(s, in[b], int64_t(b), t0, t1, 0, v);
        for (int64_t p = 0; p < points_; ++p)
          for (int64_t g = 0; g < packed_.groups(); ++g) multiply(s, p, g, t1 - t0, v, m);
        for (int64_t b = 0; b < out_.blocks(); ++b) transform_out(s, b, t0, t1, 0, m, task);
      });
    finish_norms(s);
  }

 private:
  void transform_in(NativeSession& s, const Source& in, int64_t block, int64_t t0, int64_t t1, int64_t at,
                    std::byte* v) const {
    s.kernels().winograd_input[kind_](in, in_grid_, t0, t1,
                                      v + (offsets_[size_t(block)] + at * kLanes) * s.kernels().element_bytes,
                                      v_point_);
  }
  void multiply(NativeSession& s, int64_t p, int64_t g, int64_t rows, const std::byte* v, float* m) const {
    s.kernels().multiply(v + p * v_point_ * s.kernels().element_bytes, kLanes, offsets_.data(),
                         int64_t(offsets_.size()), kLanes,
                         weights_.data() + p * packed_.byte_size() + packed_.group_byte_offset(g),
                         m + p * m_point_ + 2 * g * round_tiles_ * kLanes, kLanes, round_tiles_ * kLanes,
                         rows, packed_.group_vecs(g), false);
  }
  void transform_out(NativeSession& s, int64_t block, int64_t t0, int64_t t1, int64_t at, const float* m,
                     int64_t part) const {
    s.kernels().winograd_output[kind_](m + (block * round_tiles_ + at) * kLanes, m_point_, out_grid_, t0, t1,
                                       out_.bias_of(block), out_block(s, block), streams(s),
                                       partial(s, part, block));
  }

  void run_rounds(NativeSession& s, const std::vector<Source>& in) const {
    std::byte* v = s.shared_scratch();
    float* m = reinterpret_cast<float*>(s.shared_scratch() + v_bytes_);
    for (int64_t r = 0; r < round_count_; ++r) {
      const int64_t r0 = r * round_tiles_, r1 = std::min(tiles_, r0 + round_tiles_);
      s.parallel(chunks_ * int64_t(in.size()), [&](int64_t task, std::byte*) {
        const int64_t block = task / chunks_, at = task % chunks_ * chunk_;
        if (r0 + at < r1)
          transform_in(s, in[size_t(block)], block, r0 + at, std::min(r1, r0 + at + chunk_), at, v);
      });
      s.parallel(points_, [&](int64_t p, std::byte*) {
        for (int64_t g = 0; g < packed_.groups(); ++g) multiply(s, p, g, r1 - r0, v, m);
      });
      s.parallel(chunks_ * out_.blocks(), [&](int64_t task, std::byte*) {
        const int64_t block = task / chunks_, chunk = task % chunks_, at = chunk * chunk_;
        if (r0 + at < r1)
          transform_out(s, block, r0 + at, std::min(r1, r0 + at + chunk_), at, m, r * chunks_ + chunk);
      });
    }
  }

  int kind_;
  Grid in_grid_, out_grid_;
  bool rounds_ = false;
  int64_t points_ = 0, tiles_ = 0, round_tiles_ = 0, round_count_ = 0, chunk_ = 0, chunks_ = 0;
  int64_t v_point_ = 0, m_point_ = 0, v_bytes_ = 0, m_bytes_ = 0;
  std::vector<int64_t> offsets_;
};

// Direct convolution of any kernel and stride: a task copies the activated input of a few output rows, zero
// padding included, and multiplies it by the weights, tap after tap.
class DirectStep final : public ConvStep {
 public:
  DirectStep(NativeSession& session, const ConvOp& op, const View& in, int narrow, ConvOutput out)
      : ConvStep(in, std::move(out)), kernel_(op.kernel), stride_(op.stride), narrow_(narrow) {
    const int in_channels = narrow ? narrow : in.channels();
    const int64_t taps = int64_t(op.kernel[0]) * op.kernel[1] * op.kernel[2];
    per_tap_ = narrow ? narrow : kLanes;
    in_blocks_ = narrow ? 1 : int64_t(in.blocks.size());
    std::vector<int> channel_of = narrow ? std::vector<int>() : padded_channels(in);
    for (int i = 0; i < narrow; ++i) channel_of.push_back(i);
    packed_ = {in_blocks_ * taps * per_tap_, out_.blocks(), session.bf16() && !narrow};
    weights_ = zeroed<std::byte>(size_t(packed_.byte_size()));
    weight_bytes = packed_.byte_size();
    session.pool().for_each(out_.channels, 8, [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; ++o)
        for (int64_t b = 0; b < in_blocks_; ++b)
          for (int64_t t = 0; t < taps; ++t)
            for (int64_t i = 0; i < per_tap_; ++i) {
              const int channel = channel_of[size_t(b * per_tap_ + i)];
              if (channel >= 0)
                store_weight(weights_.data(), packed_.bf16, packed_.index((b * taps + t) * per_tap_ + i, o),
                             double(op.weight[size_t((o * in_channels + channel) * taps + t)]));
            }
    });

    element_ = narrow ? 4 : session.kernels().element_bytes;
    const Shape3& shape = out_.shape;
    const int64_t row_bytes = int64_t(kernel_[0]) * stride_[1] * (shape[2] * stride_[2] + kernel_[2]) *
                              in_blocks_ * per_tap_ * element_;
    rows_ = std::clamp<int64_t>(std::min(kPatchBytes / row_bytes, kSumBytes / (shape[2] * 2 * kLanes * 4)), 1,
                                shape[1]);
    patch_ = {{0, 0, 0},
              {kernel_[0], (rows_ - 1) * stride_[1] + kernel_[1], (shape[2] - 1) * stride_[2] + kernel_[2]}};
    block_size_ = patch_.extent[0] * patch_.extent[1] * patch_.extent[2] * per_tap_;
    row_blocks_ = ceil_div(shape[1], rows_);
    // Columns are shared out only where there would be too few tasks; the input is then copied again.
    const int64_t planes = shape[0] * row_blocks_;
    column_parts_ = planes >= 16 ? 1 : std::min(packed_.groups(), ceil_div(16, planes));
    sum_row_ = shape[2] * kLanes;
    patch_bytes_ = align64(in_blocks_ * block_size_ * element_);
    task_scratch_bytes = patch_bytes_ + rows_ * sum_row_ * 2 * 4;
    for (int64_t z = 0; z < kernel_[0]; ++z)
      for (int64_t y = 0; y < kernel_[1]; ++y)
        for (int64_t x = 0; x < kernel_[2]; ++x)
          offsets_.push_back(((z * patch_.extent[1] + y) * patch_.extent[2] + x) * per_tap_);
    plan_norms(planes);
    name = "conv " + kernel_text(op.kernel, in_channels, out_.channels, shape) + " direct";
    macs = voxels(shape) * taps * in_channels * out_.channels;
  }

  void run(NativeSession& s) override {
    begin_norms(s);
    const std::vector<Source> in = narrow_ ? std::vector<Source>() : sources(s);
    const Grid grid = grid_of(in_.shape);
    const auto multiply = narrow_ ? s.kernels().multiply_f32 : s.kernels().multiply;
    const int64_t taps = int64_t(offsets_.size());
    const Shape3& shape = out_.shape;
    s.parallel(shape[0] * row_blocks_ * column_parts_, [&](int64_t task, std::byte* scratch) {
      const int64_t part = task / column_parts_, columns = task % column_parts_;
      const int64_t z = part / row_blocks_, y0 = part % row_blocks_ * rows_,
                    ny = std::min(rows_, shape[1] - y0);
      Patch patch = patch_;
      patch.begin[0] = z * stride_[0] - (kernel_[0] - 1) / 2;
      patch.begin[1] = y0 * stride_[1] - (kernel_[1] - 1) / 2;
      patch.begin[2] = -((kernel_[2] - 1) / 2);
      if (narrow_)
        load_narrow(s, patch, reinterpret_cast<float*>(scratch));
      else
        for (int64_t b = 0; b < in_blocks_; ++b)
          s.kernels().load_patch(in[size_t(b)], grid, patch, scratch + b * block_size_ * element_);
      float* sums = reinterpret_cast<float*>(scratch + patch_bytes_);
      const int64_t row = stride_[1] * patch_.extent[2] * per_tap_, voxel = stride_[2] * per_tap_;
      const bool joined = row == shape[2] * voxel;  // rows follow each other without a gap: one long row
      for (int64_t g = packed_.groups() * columns / column_parts_;
           g < packed_.groups() * (columns + 1) / column_parts_; ++g) {
        const int vecs = packed_.group_vecs(g);
        const int64_t sum_vec = rows_ * sum_row_;
        for (int64_t b = 0; b < in_blocks_; ++b) {
          const std::byte* w = weights_.data() + packed_.group_byte_offset(g) +
                               b * taps * per_tap_ * vecs * kLanes * packed_.element_bytes();
          const std::byte* a = scratch + b * block_size_ * element_;
          for (int64_t y = 0; y < (joined ? 1 : ny); ++y)
            multiply(a + y * row * element_, voxel, offsets_.data(), taps, per_tap_, w, sums + y * sum_row_,
                     kLanes, sum_vec, joined ? ny * shape[2] : shape[2], vecs, b > 0);
        }
        for (int v = 0; v < vecs; ++v)
          store(s, sums + v * sum_vec, 2 * g + v, z, y0, ny, partial(s, part, 2 * g + v));
      }
    });
    finish_norms(s);
  }

 private:
  static constexpr int64_t kPatchBytes = 384 << 10;
  static constexpr int64_t kSumBytes = 64 << 10;

  void load_narrow(NativeSession& s, const Patch& patch, float* to) const {
    const float* from = reinterpret_cast<const float*>(s.data(in_.blocks[0].buffer));
    const Shape3& size = in_.shape;
    const int64_t nx = patch.extent[2], lead = std::min(-patch.begin[2], nx);
    const int64_t inside = std::max<int64_t>(0, std::min(nx - lead, size[2]));
    for (int64_t z = patch.begin[0]; z < patch.begin[0] + patch.extent[0]; ++z)
      for (int64_t y = patch.begin[1]; y < patch.begin[1] + patch.extent[1]; ++y, to += nx * narrow_) {
        if (z < 0 || z >= size[0] || y < 0 || y >= size[1]) {
          std::fill(to, to + nx * narrow_, 0.0f);
          continue;
        }
        std::fill(to, to + lead * narrow_, 0.0f);
        std::memcpy(to + lead * narrow_, from + (z * size[1] + y) * size[2] * narrow_,
                    size_t(inside * narrow_) * sizeof(float));
        std::fill(to + (lead + inside) * narrow_, to + nx * narrow_, 0.0f);
      }
  }
  void store(NativeSession& s, const float* sums, int64_t block, int64_t z, int64_t y0, int64_t ny,
             double* stats) const {
    const Shape3& shape = out_.shape;
    if (out_.buffer >= 0) {
      const int64_t row = shape[2] * kLanes;
      s.kernels().store_plane(sums, sum_row_, ny, shape[2], out_.bias_of(block),
                              out_block(s, block) + (z * shape[1] + y0) * row * s.kernels().element_bytes,
                              row, kLanes, streams(s), stats);
      return;
    }
    const int64_t lanes = std::min<int64_t>(kLanes, out_.channels - block * kLanes);
    for (int64_t c = 0; c < lanes; ++c) {
      const float bias = out_.bias.empty() ? 0.0f : out_.bias[size_t(block * kLanes + c)];
      float* to = s.output() + (block * kLanes + c) * voxels(shape) + (z * shape[1] + y0) * shape[2];
      for (int64_t i = 0; i < ny * shape[2]; ++i) to[i] = sums[i * kLanes + c] + bias;
    }
  }

  Vec3<int> kernel_, stride_;
  int narrow_;
  int64_t per_tap_ = 0, in_blocks_ = 0, element_ = 0, rows_ = 0, row_blocks_ = 0, column_parts_ = 0;
  int64_t block_size_ = 0, sum_row_ = 0, patch_bytes_ = 0;
  Patch patch_{};
  std::vector<int64_t> offsets_;
};

// Transposed convolution without overlap: one product per tap, its result strided over the output.
class TransposeStep final : public ConvStep {
 public:
  TransposeStep(NativeSession& session, const ConvTransposeOp& op, const View& in, ConvOutput out)
      : ConvStep(in, std::move(out)), stride_(op.stride) {
    taps_ = int64_t(op.stride[0]) * op.stride[1] * op.stride[2];
    const std::vector<int> channel_of = padded_channels(in);
    packed_ = {int64_t(channel_of.size()), out_.blocks(), session.bf16()};
    weights_ = zeroed<std::byte>(size_t(taps_ * packed_.byte_size()));
    weight_bytes = int64_t(weights_.byte_size());
    for (int64_t i = 0; i < packed_.k; ++i) {
      if (channel_of[size_t(i)] < 0) continue;
      for (int64_t o = 0; o < out_.channels; ++o)
        for (int64_t t = 0; t < taps_; ++t)
          store_weight(
              weights_.data() + t * packed_.byte_size(), packed_.bf16, packed_.index(i, o),
              double(op.weight[size_t((channel_of[size_t(i)] * int64_t(out_.channels) + o) * taps_ + t)]));
    }
    const Shape3& shape = in_.shape;
    const int64_t element = session.kernels().element_bytes;
    rows_ = std::clamp<int64_t>((64 << 10) / (shape[2] * 2 * kLanes * 4), 1, shape[1]);
    row_blocks_ = ceil_div(shape[1], rows_);
    patch_bytes_ = align64(packed_.k * rows_ * shape[2] * element);
    task_scratch_bytes = patch_bytes_ + rows_ * shape[2] * 2 * kLanes * 4;
    for (size_t b = 0; b < in_.blocks.size(); ++b) offsets_.push_back(int64_t(b) * rows_ * shape[2] * kLanes);
    name = "transposed conv " + kernel_text(op.stride, in.channels(), out_.channels, out_.shape);
    macs = voxels(out_.shape) * in.channels() * out_.channels;
  }

  void run(NativeSession& s) override {
    const std::vector<Source> in = sources(s);
    const Grid grid = grid_of(in_.shape);
    const Shape3 &shape = in_.shape, &out = out_.shape;
    const int64_t element = s.kernels().element_bytes;
    // Few rows (deep stages): one task per tap as well.
    const int64_t planes = shape[0] * row_blocks_, tap_parts = planes >= 16 ? 1 : taps_;
    s.parallel(planes * tap_parts, [&](int64_t task, std::byte* scratch) {
      const int64_t plane = task / tap_parts, part = task % tap_parts;
      const int64_t z = plane / row_blocks_, y0 = plane % row_blocks_ * rows_,
                    ny = std::min(rows_, shape[1] - y0);
      const Patch patch{{z, y0, 0}, {1, ny, shape[2]}};
      for (size_t b = 0; b < in.size(); ++b)
        s.kernels().load_patch(in[b], grid, patch, scratch + offsets_[b] * element);
      float* sums = reinterpret_cast<float*>(scratch + patch_bytes_);
      const int64_t sum_vec = rows_ * shape[2] * kLanes;
      for (int64_t t = taps_ * part / tap_parts; t < taps_ * (part + 1) / tap_parts; ++t) {
        const int64_t kz = t / (stride_[1] * stride_[2]), ky = t / stride_[2] % stride_[1],
                      kx = t % stride_[2];
        const int64_t at = (((z * stride_[0] + kz) * out[1] + y0 * stride_[1] + ky) * out[2] + kx) * kLanes;
        for (int64_t g = 0; g < packed_.groups(); ++g) {
          const int vecs = packed_.group_vecs(g);
          s.kernels().multiply(scratch, kLanes, offsets_.data(), int64_t(offsets_.size()), kLanes,
                               weights_.data() + t * packed_.byte_size() + packed_.group_byte_offset(g), sums,
                               kLanes, sum_vec, ny * shape[2], vecs, false);
          for (int v = 0; v < vecs; ++v)
            s.kernels().store_plane(sums + v * sum_vec, shape[2] * kLanes, ny, shape[2],
                                    out_.bias_of(2 * g + v), out_block(s, 2 * g + v) + at * element,
                                    stride_[1] * out[2] * kLanes, stride_[2] * kLanes, streams(s), nullptr);
        }
      }
    });
  }

 private:
  Vec3<int> stride_;
  int64_t taps_ = 0, rows_ = 0, row_blocks_ = 0, patch_bytes_ = 0;
  std::vector<int64_t> offsets_;
};

}  // namespace

double conv_cost(int kind, const ConvOp& op, const Shape3& out, int64_t in_blocks, int64_t out_blocks,
                 bool bf16) {
  const double speed = bf16 ? 2 : 1, element = bf16 ? 2 : 4;
  const double in = double(in_blocks * kLanes);
  if (kind < 0)
    return 1.1 * double(voxels(out)) * op.kernel[0] * op.kernel[1] * op.kernel[2] * in * double(out_blocks) /
           speed;
  double tiles = 1;
  for (size_t a = 0; a < 3; ++a) tiles *= double(ceil_div(out[a], winograd_tile(kWinogradAxis[kind][a])));
  const double points = winograd_points(kind);
  return tiles * points * in * double(out_blocks) / speed +
         tiles * points * (9.0 * double(in_blocks) + 7.0 * double(out_blocks)) +
         points * in * double(out_blocks) * kLanes * element / 6.0;  // the weights, from memory
}

int choose_algorithm(const ConvOp& op, const Shape3& out, int64_t in_blocks, int64_t out_blocks, bool bf16) {
  int best = -1;
  double best_cost = conv_cost(-1, op, out, in_blocks, out_blocks, bf16);
  for (int kind = 0; kind < kWinogradKinds; ++kind) {
    bool fits = true;
    for (size_t a = 0; a < 3; ++a)
      fits = fits && op.stride[a] == winograd_stride(kWinogradAxis[kind][a]) &&
             op.kernel[a] == (kWinogradAxis[kind][a] == 1 ? 1 : 3);
    if (!fits) continue;
    const double cost = conv_cost(kind, op, out, in_blocks, out_blocks, bf16);
    if (cost < best_cost) {
      best = kind;
      best_cost = cost;
    }
  }
  return best;
}

std::unique_ptr<Step> make_winograd(NativeSession& session, int kind, const ConvOp& op, const View& in,
                                    ConvOutput out) {
  return std::make_unique<WinogradStep>(session, kind, op, in, std::move(out));
}
std::unique_ptr<Step> make_direct(NativeSession& session, const ConvOp& op, const View& in,
                                  int narrow_channels, ConvOutput out) {
  return std::make_unique<DirectStep>(session, op, in, narrow_channels, std::move(out));
}
std::unique_ptr<Step> make_transpose(NativeSession& session, const ConvTransposeOp& op, const View& in,
                                     ConvOutput out) {
  return std::make_unique<TransposeStep>(session, op, in, std::move(out));
}

}  // namespace isoline::native
