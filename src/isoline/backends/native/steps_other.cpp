// Steps that only move or combine values. They are rare (network input and output, residual sums, pooling),
// so they go through float32 and plain loops.
#include <algorithm>
#include <cstring>

#include "isoline/backends/native/steps.h"

namespace isoline::native {
namespace {

constexpr int64_t kChunk = 512;  // voxels handled at a time

void list_buffers(const View& view, std::vector<BufferId>& to) {
  for (const Block& b : view.blocks)
    if (b.buffer >= 0) to.push_back(b.buffer);
}

std::byte* block_data(NativeSession& s, const View& view, size_t block) {
  const Block& b = view.blocks[block];
  return s.data(b.buffer) + b.index * voxels(view.shape) * kLanes * s.kernels().element_bytes;
}

// Block and lane of every channel of a view.
struct Place {
  size_t block;
  int lane;
};
std::vector<Place> places(const View& view) {
  std::vector<Place> p;
  for (size_t b = 0; b < view.blocks.size(); ++b)
    for (int lane = 0; lane < view.blocks[b].channels; ++lane) p.push_back({b, lane});
  return p;
}

class PackInput final : public Step {
 public:
  PackInput(const View& out, int channels, bool narrow) : out_(out), channels_(channels), narrow_(narrow) {
    list_buffers(out, writes);
    name = "pack input";
    task_scratch_bytes = kChunk * kLanes * 4;
  }
  void run(NativeSession& s) override {
    const int64_t n = voxels(out_.shape), chunks = (n + kChunk - 1) / kChunk;
    if (narrow_) {
      float* to = reinterpret_cast<float*>(s.data(out_.blocks[0].buffer));
      s.parallel(chunks, [&](int64_t task, std::byte*) {
        for (int64_t i = task * kChunk; i < std::min(n, (task + 1) * kChunk); ++i)
          for (int c = 0; c < channels_; ++c) to[i * channels_ + c] = s.input()[c * n + i];
      });
      return;
    }
    const int64_t blocks = int64_t(out_.blocks.size());
    s.parallel(chunks * blocks, [&](int64_t task, std::byte* scratch) {
      const int64_t b = task / chunks, first = task % chunks * kChunk, count = std::min(kChunk, n - first);
      float* staged = reinterpret_cast<float*>(scratch);
      for (int64_t i = 0; i < count; ++i)
        for (int64_t lane = 0; lane < kLanes; ++lane)
          staged[i * kLanes + lane] =
              b * kLanes + lane < channels_ ? s.input()[(b * kLanes + lane) * n + first + i] : 0.0f;
      s.kernels().store_voxels(staged, count,
                               block_data(s, out_, size_t(b)) + first * kLanes * s.kernels().element_bytes);
    });
  }

 private:
  View out_;
  int channels_;
  bool narrow_;
};

class UnpackOutput final : public Step {
 public:
  explicit UnpackOutput(const View& in) : in_(in) {
    list_buffers(in, reads);
    name = "unpack output";
    task_scratch_bytes = kChunk * kLanes * 4;
  }
  void run(NativeSession& s) override {
    const int64_t n = voxels(in_.shape), chunks = (n + kChunk - 1) / kChunk;
    std::vector<int64_t> first_channel;
    int64_t channels = 0;
    for (const Block& b : in_.blocks) {
      first_channel.push_back(channels);
      channels += b.channels;
    }
    s.parallel(chunks * int64_t(in_.blocks.size()), [&](int64_t task, std::byte* scratch) {
      const size_t b = size_t(task / chunks);
      const int64_t first = task % chunks * kChunk, count = std::min(kChunk, n - first);
      float* staged = reinterpret_cast<float*>(scratch);
      s.kernels().load_voxels(s.source(in_.blocks[b], in_.shape), first, count, staged);
      for (int lane = 0; lane < in_.blocks[b].channels; ++lane) {
        float* to = s.output() + (first_channel[b] + lane) * n + first;
        for (int64_t i = 0; i < count; ++i) to[i] = staged[i * kLanes + lane];
      }
    });
  }

 private:
  View in_;
};

class Statistics final : public Step {
 public:
  Statistics(const View& in, NormId norm) : in_(in), norm_(norm) {
    list_buffers(in, reads);
    name = "statistics";
    task_scratch_bytes = kChunk * kLanes * 4;
    chunks_ = (voxels(in.shape) + kChunk - 1) / kChunk;
    partial_sums = chunks_ * int64_t(in.blocks.size()) * 2 * kLanes;
  }
  void run(NativeSession& s) override {
    const int64_t n = voxels(in_.shape), blocks = int64_t(in_.blocks.size());
    s.parallel(chunks_ * blocks, [&](int64_t task, std::byte* scratch) {
      const int64_t b = task / chunks_, chunk = task % chunks_;
      const int64_t first = chunk * kChunk, count = std::min(kChunk, n - first);
      float* staged = reinterpret_cast<float*>(scratch);
      s.kernels().load_voxels(s.source(in_.blocks[size_t(b)], in_.shape), first, count, staged);
      double* sums = s.partial_sums() + (chunk * blocks + b) * 2 * kLanes;
      std::fill(sums, sums + 2 * kLanes, 0.0);
      for (int64_t i = 0; i < count; ++i)
        for (int64_t lane = 0; lane < kLanes; ++lane) {
          const double v = double(staged[i * kLanes + lane]);
          sums[lane] += v;
          sums[kLanes + lane] += v * v;
        }
    });
    s.finish_norm(norm_, s.partial_sums(), chunks_, blocks, n);
  }

 private:
  View in_;
  NormId norm_;
  int64_t chunks_ = 0;
};

class Elementwise final : public Step {
 public:
  Elementwise(std::vector<View> in, const View& out, float slope)
      : in_(std::move(in)), out_(out), slope_(slope) {
    for (const View& v : in_) list_buffers(v, reads);
    list_buffers(out, writes);
    name = in_.size() > 1 ? "add" : "copy";
    name += " " + std::to_string(out.channels()) + " @" + to_string(out.shape);
    task_scratch_bytes = 2 * kChunk * kLanes * 4;
    for (const View& v : in_) places_.push_back(places(v));
    for (const View& v : in_) {
      bool same = v.blocks.size() == out.blocks.size();
      for (size_t b = 0; same && b < v.blocks.size(); ++b)
        same = v.blocks[b].channels == out.blocks[b].channels;
      aligned_.push_back(same);
    }
  }
  void run(NativeSession& s) override {
    const int64_t n = voxels(out_.shape), chunks = (n + kChunk - 1) / kChunk;
    s.parallel(chunks * int64_t(out_.blocks.size()), [&](int64_t task, std::byte* scratch) {
      const size_t b = size_t(task / chunks);
      const int64_t first = task % chunks * kChunk, count = std::min(kChunk, n - first);
      float* sum = reinterpret_cast<float*>(scratch);
      float* staged = sum + kChunk * kLanes;
      for (size_t v = 0; v < in_.size(); ++v) {
        float* to = v == 0 ? sum : staged;
        gather(s, v, b, first, count, to, scratch);
        if (v > 0)
          for (int64_t i = 0; i < count * kLanes; ++i) sum[i] += staged[i];
      }
      if (slope_ != 1)
        for (int64_t i = 0; i < count * kLanes; ++i) sum[i] = sum[i] > 0 ? sum[i] : slope_ * sum[i];
      s.kernels().store_voxels(sum, count,
                               block_data(s, out_, b) + first * kLanes * s.kernels().element_bytes);
    });
  }

 private:
  // The channels of output block `b` from input `v`, whatever blocks they lie in there.
  void gather(NativeSession& s, size_t v, size_t b, int64_t first, int64_t count, float* to,
              std::byte*) const {
    const View& in = in_[v];
    if (aligned_[v]) {
      s.kernels().load_voxels(s.source(in.blocks[b], in.shape), first, count, to);
      return;
    }
    std::vector<float> staged(size_t(count * kLanes));
    std::fill(to, to + count * kLanes, 0.0f);
    size_t loaded = SIZE_MAX;
    for (int lane = 0; lane < out_.blocks[b].channels; ++lane) {
      const Place p = places_[v][b * kLanes + size_t(lane)];
      if (p.block != loaded) {
        s.kernels().load_voxels(s.source(in.blocks[p.block], in.shape), first, count, staged.data());
        loaded = p.block;
      }
      for (int64_t i = 0; i < count; ++i) to[i * kLanes + lane] = staged[size_t(i * kLanes + p.lane)];
    }
  }

  std::vector<View> in_;
  View out_;
  float slope_;
  std::vector<std::vector<Place>> places_;
  std::vector<bool> aligned_;
};

class Pool final : public Step {
 public:
  Pool(const View& in, const View& out, Vec3<int> stride) : in_(in), out_(out), stride_(stride) {
    list_buffers(in, reads);
    list_buffers(out, writes);
    name = "average pool @" + to_string(out.shape);
    task_scratch_bytes = (in.shape[2] + out.shape[2]) * kLanes * 4;
  }
  void run(NativeSession& s) override {
    const Shape3 &is = in_.shape, &os = out_.shape;
    const float factor = 1.0f / float(stride_[0] * stride_[1] * stride_[2]);
    s.parallel(int64_t(out_.blocks.size()) * os[0] * os[1], [&](int64_t task, std::byte* scratch) {
      const size_t b = size_t(task / (os[0] * os[1]));
      const int64_t z = task / os[1] % os[0], y = task % os[1];
      float* row = reinterpret_cast<float*>(scratch);
      float* sum = row + is[2] * kLanes;
      std::fill(sum, sum + os[2] * kLanes, 0.0f);
      const Source source = s.source(in_.blocks[b], is);
      for (int kz = 0; kz < stride_[0]; ++kz)
        for (int ky = 0; ky < stride_[1]; ++ky) {
          s.kernels().load_voxels(source, ((z * stride_[0] + kz) * is[1] + y * stride_[1] + ky) * is[2],
                                  is[2], row);
          for (int64_t x = 0; x < os[2]; ++x)
            for (int kx = 0; kx < stride_[2]; ++kx)
              for (int64_t lane = 0; lane < kLanes; ++lane)
                sum[x * kLanes + lane] += row[(x * stride_[2] + kx) * kLanes + lane];
        }
      for (int64_t i = 0; i < os[2] * kLanes; ++i) sum[i] *= factor;
      s.kernels().store_voxels(
          sum, os[2], block_data(s, out_, b) + (z * os[1] + y) * os[2] * kLanes * s.kernels().element_bytes);
    });
  }

 private:
  View in_, out_;
  Vec3<int> stride_;
};

}  // namespace

std::unique_ptr<Step> make_pack_input(NativeSession&, const View& out, int channels, bool narrow) {
  return std::make_unique<PackInput>(out, channels, narrow);
}
std::unique_ptr<Step> make_unpack_output(const View& in) {
  return std::make_unique<UnpackOutput>(in);
}
std::unique_ptr<Step> make_statistics(const View& in, NormId norm) {
  return std::make_unique<Statistics>(in, norm);
}
std::unique_ptr<Step> make_elementwise(std::vector<View> in, const View& out, float slope) {
  return std::make_unique<Elementwise>(std::move(in), out, slope);
}
std::unique_ptr<Step> make_pool(const View& in, const View& out, Vec3<int> stride) {
  return std::make_unique<Pool>(in, out, stride);
}

}  // namespace isoline::native
